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
func (s *Server) lookupPath(ctx context.Context, hdr *wire.RequestHeader, req *wire.LookupPathReq) (*wire.LookupPathResp, error) {
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
	dir := req.Start
	for i, name := range names {
		if len(name) > wire.MaxName {
			return resp, errno.New("pvfsd.lookup_path", syscall.ENAMETOOLONG)
		}
		w := walk{s: s, req: req, resp: resp}
		err := s.store.view(func(t *txn) error { return w.step(t, dir, name, i > 0) })
		if err == nil && w.bucket != 0 { // not while the store is being read
			var h wire.Handle
			if h, err = s.findEntry(ctx, w.bucket, name); err == nil {
				err = s.store.view(func(t *txn) error { return w.found(t, h) })
			}
		}
		if err != nil || w.next == 0 {
			return resp, err
		}
		dir = w.next
	}
	return resp, nil
}

// walk is one step of a path being resolved.
type walk struct {
	s    *Server
	req  *wire.LookupPathReq
	resp *wire.LookupPathResp

	next   wire.Handle // what was found, if it is a directory of this server
	bucket wire.Handle // where the entry is, if that is to be asked
}

// step resolves one name in the directory dir.
func (w *walk) step(t *txn, dir wire.Handle, name string, checkMode bool) error {
	d, err := t.object(dir)
	if err != nil {
		return err
	}
	if d.typ != wire.TypeDirectory {
		return errno.New("pvfsd.lookup_path", syscall.ENOENT) // as OrangeFS has it, not ENOTDIR
	}
	if checkMode && rights(d, &w.req.Cred)&wire.MayExec == 0 {
		return errno.New("pvfsd.lookup_path", syscall.EACCES)
	}
	bucket := d.other
	if d.buckets != nil {
		bucket = d.buckets.handles[d.buckets.find(name)]
	}
	if alias, _ := w.s.fs.Owner(uint64(bucket)); alias != w.s.opt.Alias {
		w.bucket = bucket
		return nil
	}
	h, err := t.lookupIn(bucket, name)
	var moved errMoved
	switch {
	case errors.As(err, &moved), errors.Is(err, errMoving):
		w.bucket = bucket
		return nil
	case err != nil:
		return err
	}
	return w.found(t, h)
}

// found takes h for what the entry names.
func (w *walk) found(t *txn, h wire.Handle) error {
	w.resp.Handles = append(w.resp.Handles, h)
	if alias, ok := w.s.fs.Owner(uint64(h)); !ok || alias != w.s.opt.Alias {
		return nil
	}
	a, err := w.s.attributes(t, h, w.req.Mask, &w.req.Cred)
	if err != nil {
		// The entry is there, the object is not: the client finds out itself.
		return nil
	}
	w.resp.Attrs = append(w.resp.Attrs, a)
	if a.Type == wire.TypeDirectory {
		w.next = h
	}
	return nil
}

func (s *Server) readDir(ctx context.Context, hdr *wire.RequestHeader, req *wire.ReadDirReq) (*wire.ReadDirResp, error) {
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
	// Entries that the directory says are in the child are not listed here.
	list := func(t *txn) error {
		d, err := t.dirdata(req.Dirdata)
		if err != nil {
			return err
		}
		if sp := t.splitOf(req.Dirdata); sp != nil && sp.state == splitDeciding {
			return errMoving
		}
		resp.Version = uint64(d.mtime)<<20 | d.lastSeq&(1<<20-1)
		resp.Dirents, resp.Token, err = t.list(req.Dirdata, req.Token, int(req.Count))
		return err
	}
	err := s.settled(ctx, req.Dirdata, func() error { return s.store.view(list) })
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
	full := false
	link := func(t *txn) (err error) {
		if full, err = t.link(req.Dirdata, req.Name, req.Handle, now); err != nil || p != nil {
			return err
		}
		o, err := t.object(req.Handle)
		if err != nil || o.ctime == now || o.typ == wire.TypeDatafile {
			return nil // an entry may name what is not there
		}
		o.ctime = now
		return t.putObject(req.Handle, o)
	}
	err = s.settled(ctx, req.Dirdata, func() error { return s.store.commit(ctx, link) })
	if err != nil {
		return err
	}
	if p != nil {
		s.touch(ctx, p, req)
	}
	if full {
		s.splitNow(ctx, req.Dirdata)
	}
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
	resp := &wire.RmDirentResp{}
	err := s.inBucket(ctx, req.Dirdata, func(dirdata wire.Handle) error {
		return s.store.commitFreeing(ctx, func(t *txn) (err error) {
			resp.Handle, err = t.unlink(dirdata, req.Name, s.now())
			return err
		})
	}, func(p *peer, dirdata wire.Handle) error {
		return p.call(ctx, s.ownHeader(dirdata), &wire.RmDirentReq{Name: req.Name, Dirdata: dirdata, FSID: req.FSID}, resp)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

func (s *Server) chDirent(ctx context.Context, hdr *wire.RequestHeader, req *wire.ChDirentReq) (*wire.ChDirentResp, error) {
	if err := s.checkFSID(req.FSID); err != nil {
		return nil, err
	}
	if err := s.checkCap(hdr, wire.MayWrite|wire.MayExec, req.Dirdata); err != nil {
		return nil, err
	}
	resp := &wire.ChDirentResp{}
	err := s.inBucket(ctx, req.Dirdata, func(dirdata wire.Handle) error {
		return s.store.commit(ctx, func(t *txn) (err error) {
			resp.Handle, err = t.relink(dirdata, req.Name, req.Handle, s.now())
			return err
		})
	}, func(p *peer, dirdata wire.Handle) error {
		return p.call(ctx, s.ownHeader(dirdata), &wire.ChDirentReq{Name: req.Name, Handle: req.Handle, Dirdata: dirdata, FSID: req.FSID}, resp)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
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

// removeHandles deletes objects of this server in one transaction, but
// directories with buckets, which take others.
func (s *Server) removeHandles(ctx context.Context, hs ...wire.Handle) error {
	err := s.removeSimple(ctx, hs...)
	if !errors.Is(err, errSpread) {
		return err
	}
	if len(hs) == 1 {
		return s.removeSpread(ctx, hs[0])
	}
	for _, h := range hs {
		if err := s.removeHandles(ctx, h); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) removeSimple(ctx context.Context, hs ...wire.Handle) error {
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
