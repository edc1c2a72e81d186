package pvfsd

import (
	"context"
	"errors"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/striping"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// create makes a metafile with its datafiles: with stuffing, one on this
// server for now; else all of them at once.
func (s *Server) create(ctx context.Context, hdr *wire.RequestHeader, req *wire.CreateReq) (*wire.CreateResp, error) {
	if err := errors.Join(s.checkFSID(req.FSID), s.checkCred(&req.Cred)); err != nil {
		return nil, err
	}
	if err := s.checkRights(hdr, wire.MayCreate); err != nil {
		return nil, err
	}
	o, err := s.newMetafile(req)
	if err != nil {
		return nil, err
	}
	aliases := []string{s.opt.Alias}
	if !o.stuffed {
		if aliases, err = s.place(&o.layout, int(o.want)); err != nil {
			return nil, err
		}
		o.want = uint32(len(aliases))
	}
	resp := &wire.CreateResp{}
	err = s.withPools(ctx, func(t *txn) (err error) {
		if o.dfiles, err = s.datafiles(t, aliases); err != nil {
			return err
		}
		if resp.Handle, err = s.store.ids.take(t, wire.TypeMetafile, nil); err != nil {
			return err
		}
		return t.putObject(resp.Handle, o)
	})
	if err != nil {
		return nil, err
	}
	if o.stuffed {
		resp.Stuffed = 1
	}
	resp.Attr = wire.Attr{
		UID: o.uid, GID: o.gid, Perms: o.perms, Atime: o.atime, Mtime: o.mtime, Ctime: o.ctime,
		Mask: wire.AttrCommon | wire.AttrDFiles, Type: wire.TypeMetafile, DFiles: o.dfiles, Flags: o.flags,
	}
	if !o.stuffed {
		resp.Attr.Mask |= wire.AttrUnstuffed
	}
	return resp, nil
}

// newMetafile is the object that a CREATE asks for, without datafiles.
func (s *Server) newMetafile(req *wire.CreateReq) (*object, error) {
	a := &req.Attr
	if a.Type != wire.TypeMetafile || a.Mask&wire.AttrDist == 0 {
		return nil, errno.New("pvfsd.create", syscall.EINVAL)
	}
	o := s.newObject(wire.TypeMetafile, a)
	o.dist, o.flags, o.layout = a.Dist, a.Flags, req.Layout
	n := int(req.NumDFiles)
	if n <= 0 {
		n = s.fs.DefaultNumDFiles
	}
	if n <= 0 || n > len(s.dataAliases) {
		n = len(s.dataAliases)
	}
	if o.layout.Type == wire.LayoutList {
		n = min(max(int(req.NumDFiles), 1), max(len(o.layout.Servers), 1))
	}
	if o.dist.Name == wire.BasicDist {
		n = 1
	}
	o.want = uint32(n)
	d, err := striping.New(&o.dist, n)
	if err != nil {
		return nil, errno.Wrap("pvfsd.create", syscall.EINVAL, err)
	}
	// A stuffed file must be readable with the size of one datafile in 31 bits.
	o.stuffed = s.fs.FileStuffing && n > 1 && d.Strip() < 1<<31 && s.fs.IsData(s.opt.Alias) &&
		o.layout.Type != wire.LayoutList && o.layout.Type != wire.LayoutNone
	return o, nil
}

// newObject is an object with the owner and mode of a, and times of now unless
// a sets them.
func (s *Server) newObject(typ wire.ObjType, a *wire.Attr) *object {
	now := s.now()
	o := &object{typ: typ, uid: a.UID, gid: a.GID, perms: a.Perms & permMask, atime: now, mtime: now, ctime: now}
	if a.Mask&wire.AttrAtimeSet != 0 {
		o.atime = a.Atime
	}
	if a.Mask&wire.AttrMtimeSet != 0 {
		o.mtime = a.Mtime
	}
	return o
}

// unstuff gives a stuffed file all its datafiles; its first one stays.
func (s *Server) unstuff(ctx context.Context, hdr *wire.RequestHeader, req *wire.UnstuffReq) (*wire.UnstuffResp, error) {
	if err := errors.Join(s.checkFSID(req.FSID), s.checkCred(&req.Cred)); err != nil {
		return nil, err
	}
	if err := s.checkCap(hdr, wire.MayWrite, req.Handle); err != nil {
		return nil, err
	}
	resp := &wire.UnstuffResp{}
	err := s.withPools(ctx, func(t *txn) error {
		o, err := t.typed(req.Handle, wire.TypeMetafile)
		if err != nil {
			return err
		}
		if o.stuffed {
			aliases, err := s.placeRest(&o.layout, int(o.want)-1)
			if err != nil {
				return err
			}
			rest, err := s.datafiles(t, aliases)
			if err != nil {
				return err
			}
			o.dfiles = append(o.dfiles, rest...)
			o.stuffed = false
			if err := t.putObject(req.Handle, o); err != nil {
				return err
			}
		}
		resp.Attr, err = s.attributesOf(t, req.Handle, o, req.Mask, &req.Cred)
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// mkdir makes a directory with a dirdata object beside it, and others on other
// servers if directories are to be spread. It does without those when one of
// the servers cannot be reached.
func (s *Server) mkdir(ctx context.Context, hdr *wire.RequestHeader, req *wire.MkdirReq) (*wire.MkdirResp, error) {
	if err := errors.Join(s.checkFSID(req.FSID), s.checkCred(&req.Cred)); err != nil {
		return nil, err
	}
	if err := s.checkRights(hdr, wire.MayCreate); err != nil {
		return nil, err
	}
	if req.Attr.Type != wire.TypeDirectory {
		return nil, errno.New("pvfsd.mkdir", syscall.EINVAL)
	}
	o := s.newObject(wire.TypeDirectory, &req.Attr)
	resp := &wire.MkdirResp{}
	if sp := s.spreadOf(req); sp.servers > 1 {
		h, err := s.makeSpread(ctx, o, sp, req)
		if err == nil {
			resp.Handle = h
			return resp, nil
		}
		if ctx.Err() != nil || errors.Is(err, syscall.ENOSPC) {
			return nil, err
		}
		s.log.Warn("directory not spread", "err", err)
		o.buckets = nil
	}
	err := s.store.commit(ctx, func(t *txn) (err error) {
		if resp.Handle, err = s.store.ids.take(t, wire.TypeDirectory, req.Ranges); err != nil {
			return err
		}
		if err := s.store.ids.putDirectory(t, resp.Handle, o); err != nil {
			return err
		}
		if req.Attr.Mask&wire.AttrDirHint != 0 {
			return t.setDirHint(resp.Handle, &req.Attr.DirHint)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// putDirectory stores the directory h with a new dirdata object.
func (a *allocator) putDirectory(t *txn, h wire.Handle, o *object) error {
	dirdata, err := a.take(t, wire.TypeDirdata, nil)
	if err != nil {
		return err
	}
	o.other = dirdata
	d := &object{typ: wire.TypeDirdata, mtime: o.mtime, ctime: o.ctime, other: h}
	if err := t.putObject(dirdata, d); err != nil {
		return err
	}
	return t.putObject(h, o)
}

// batchCreate makes objects of one type: datafiles for the pools of other
// servers, and the symlinks of clients.
func (s *Server) batchCreate(ctx context.Context, hdr *wire.RequestHeader, req *wire.BatchCreateReq) (*wire.BatchCreateResp, error) {
	if err := s.checkFSID(req.FSID); err != nil {
		return nil, err
	}
	if hdr.Cap.Ops&wire.MayBatchCreate == 0 && (req.Count != 1 || hdr.Cap.Ops&wire.MayCreate == 0) {
		return nil, errno.New("pvfsd.batch_create", syscall.EACCES)
	}
	if err := s.checkExpiry(hdr); err != nil {
		return nil, err
	}
	switch req.Type {
	case wire.TypeDatafile, wire.TypeSymlink, wire.TypeMetafile, wire.TypeDirectory, wire.TypeDirdata:
	default:
		return nil, errno.New("pvfsd.batch_create", syscall.EINVAL)
	}
	resp := &wire.BatchCreateResp{}
	b := batchOf(hdr, req.Type)
	err := s.store.commit(ctx, func(t *txn) error {
		if resp.Handles = t.made(b); resp.Handles != nil {
			return nil
		}
		resp.Handles = make([]wire.Handle, 0, req.Count)
		for range req.Count {
			h, err := s.store.ids.take(t, req.Type, req.Ranges)
			if err != nil {
				return err
			}
			o := s.newObject(req.Type, &wire.Attr{})
			if req.Type == wire.TypeDirectory {
				err = s.store.ids.putDirectory(t, h, o)
			} else {
				err = t.putObject(h, o)
			}
			if err != nil {
				return err
			}
			resp.Handles = append(resp.Handles, h)
		}
		return t.remember(b, resp.Handles)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}
