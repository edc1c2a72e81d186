package pvfsd

import (
	"context"
	"errors"
	"strings"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// lookupPath resolves as many leading segments as this server can: it stops
// behind an object of another server and behind one that is no directory.
func (s *Server) lookupPath(hdr *wire.RequestHeader, req *wire.LookupPathReq) (*wire.LookupPathResp, error) {
	if err := errors.Join(s.checkFSID(req.FSID), s.checkCred(&req.Cred)); err != nil {
		return nil, err
	}
	if err := s.checkCap(hdr, wire.MayExec, req.Start); err != nil {
		return nil, err
	}
	names := strings.FieldsFunc(req.Path, func(r rune) bool { return r == '/' })
	if len(names) == 0 {
		return nil, errno.New("pvfsd.lookup_path", syscall.EINVAL)
	}
	names = names[:min(len(names), wire.MaxSegments)] // the client goes on from there
	resp := &wire.LookupPathResp{}
	err := s.store.view(func(t *txn) error {
		w := walk{s: s, t: t, req: req, resp: resp}
		dir := req.Start
		for i, name := range names {
			if len(name) > wire.MaxName {
				return errno.New("pvfsd.lookup_path", syscall.ENAMETOOLONG)
			}
			h, more, err := w.step(dir, name, i > 0)
			if err != nil || !more {
				return err
			}
			dir = h
		}
		return nil
	})
	return resp, err
}

// walk is a path being resolved.
type walk struct {
	s    *Server
	t    *txn
	req  *wire.LookupPathReq
	resp *wire.LookupPathResp
}

// step resolves one name in the directory dir. more says that the object found
// is a directory of this server.
func (w *walk) step(dir wire.Handle, name string, checkMode bool) (h wire.Handle, more bool, err error) {
	d, err := w.t.object(dir)
	if err != nil {
		return 0, false, err
	}
	if d.typ != wire.TypeDirectory {
		return 0, false, errno.New("pvfsd.lookup_path", syscall.ENOENT) // as OrangeFS has it, not ENOTDIR
	}
	if checkMode && rights(d, &w.req.Cred)&wire.MayExec == 0 {
		return 0, false, errno.New("pvfsd.lookup_path", syscall.EACCES)
	}
	if h, _, err = w.t.lookup(d.other, name); err != nil {
		return 0, false, err
	}
	w.resp.Handles = append(w.resp.Handles, h)
	if alias, ok := w.s.fs.Owner(uint64(h)); !ok || alias != w.s.opt.Alias {
		return h, false, nil
	}
	a, err := w.s.attributes(w.t, h, w.req.Mask, &w.req.Cred)
	if err != nil {
		// The entry is there, the object is not: the client finds out itself.
		return h, false, nil
	}
	w.resp.Attrs = append(w.resp.Attrs, a)
	return h, a.Type == wire.TypeDirectory, nil
}

func (s *Server) readDir(hdr *wire.RequestHeader, req *wire.ReadDirReq) (*wire.ReadDirResp, error) {
	if err := s.checkFSID(req.FSID); err != nil {
		return nil, err
	}
	if err := s.checkCap(hdr, wire.MayRead, req.Dirdata); err != nil {
		return nil, err
	}
	if req.Count > wire.MaxDirents {
		return nil, errno.New("pvfsd.readdir", syscall.EINVAL)
	}
	resp := &wire.ReadDirResp{}
	err := s.store.view(func(t *txn) error {
		d, err := t.dirdata(req.Dirdata)
		if err != nil {
			return err
		}
		resp.Version = uint64(d.mtime)<<20 | d.lastSeq&(1<<20-1)
		resp.Dirents, resp.Token, err = t.list(req.Dirdata, req.Token, int(req.Count))
		return err
	})
	return resp, err
}

// crDirent adds an entry and, as real servers do, marks the change in the
// ctime of the object it names, wherever that is.
func (s *Server) crDirent(ctx context.Context, hdr *wire.RequestHeader, req *wire.CrDirentReq) error {
	if err := errors.Join(s.checkFSID(req.FSID), s.checkCred(&req.Cred), checkName(req.Name)); err != nil {
		return err
	}
	if err := s.checkCap(hdr, wire.MayWrite|wire.MayExec, req.Dirdata); err != nil {
		return err
	}
	p, err := s.peerOf(req.Handle)
	if err != nil {
		return err
	}
	now := s.now()
	err = s.store.commit(ctx, func(t *txn) error {
		if err := t.link(req.Dirdata, req.Name, req.Handle, now); err != nil || p != nil {
			return err
		}
		o, err := t.object(req.Handle)
		if err != nil || o.ctime == now || o.typ == wire.TypeDatafile {
			return nil // an entry may name what is not there
		}
		o.ctime = now
		return t.putObject(req.Handle, o)
	})
	if err != nil || p == nil {
		return err
	}
	s.touch(ctx, p, req)
	return nil
}

// touch sets the ctime of an object on another server. The entry is made by
// now: if the server does not answer, its clients see an old ctime, no more.
func (s *Server) touch(ctx context.Context, p *peer, req *wire.CrDirentReq) {
	hdr := wire.RequestHeader{
		Cap:   s.peerCap(wire.MayAll, req.Handle),
		Hints: []wire.Hint{wire.ObjectHint(req.Parent)},
	}
	ctx, cancel := context.WithTimeout(ctx, touchTimeout)
	defer cancel()
	set := &wire.SetAttrReq{Handle: req.Handle, FSID: req.FSID, Attr: wire.Attr{Mask: wire.AttrCtime | wire.AttrType}, Cred: req.Cred}
	if err := p.call(ctx, &hdr, set, nil); err != nil {
		s.log.Debug("ctime not set", "handle", uint64(req.Handle), "server", p.alias, "err", err)
	}
}

func (s *Server) rmDirent(ctx context.Context, hdr *wire.RequestHeader, req *wire.RmDirentReq) (*wire.RmDirentResp, error) {
	if err := s.checkFSID(req.FSID); err != nil {
		return nil, err
	}
	if err := s.checkCap(hdr, wire.MayWrite|wire.MayExec, req.Dirdata); err != nil {
		return nil, err
	}
	var old wire.Handle
	err := s.store.commitFreeing(ctx, func(t *txn) (err error) {
		old, err = t.unlink(req.Dirdata, req.Name, s.now())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &wire.RmDirentResp{Handle: old}, nil
}

func (s *Server) chDirent(ctx context.Context, hdr *wire.RequestHeader, req *wire.ChDirentReq) (*wire.ChDirentResp, error) {
	if err := s.checkFSID(req.FSID); err != nil {
		return nil, err
	}
	if err := s.checkCap(hdr, wire.MayWrite|wire.MayExec, req.Dirdata); err != nil {
		return nil, err
	}
	var old wire.Handle
	err := s.store.commit(ctx, func(t *txn) (err error) {
		old, err = t.relink(req.Dirdata, req.Name, req.Handle, s.now())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &wire.ChDirentResp{Handle: old}, nil
}

// remove deletes an object. A file's datafiles are the client's to remove,
// with TREE_REMOVE.
func (s *Server) remove(ctx context.Context, hdr *wire.RequestHeader, req *wire.RemoveReq) error {
	if err := errors.Join(s.checkFSID(req.FSID), s.checkCred(&req.Cred)); err != nil {
		return err
	}
	if err := s.checkHinted(hdr, wire.MayRemove); err != nil {
		return err
	}
	return s.removeHandles(ctx, req.Handle)
}

// removeHandles deletes objects of this server in one transaction.
func (s *Server) removeHandles(ctx context.Context, hs ...wire.Handle) error {
	trash := false
	err := s.store.commitFreeing(ctx, func(t *txn) error {
		for _, h := range hs {
			if t.isDatafile(h) == nil {
				trash = true
			}
			if err := t.remove(h); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && trash {
		s.wakeJanitor()
	}
	return err
}

func (s *Server) batchRemove(ctx context.Context, hdr *wire.RequestHeader, req *wire.BatchRemoveReq) error {
	if err := s.checkFSID(req.FSID); err != nil {
		return err
	}
	if hdr.Cap.Ops&wire.MayBatchRemove == 0 && (len(req.Handles) != 1 || hdr.Cap.Ops&wire.MayRemove == 0) {
		return errno.New("pvfsd.batch_remove", syscall.EACCES)
	}
	if err := s.checkExpiry(hdr); err != nil {
		return err
	}
	return s.removeHandles(ctx, req.Handles...)
}
