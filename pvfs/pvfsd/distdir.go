package pvfsd

import (
	"context"
	"errors"
	"slices"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// spreading is how a new directory is spread: over how many servers, of which how
// many buckets are active at first, and when they split.
type spreading struct {
	servers, initial int
	split            int32
}

// spreadOf is what the configuration says, or req if it wishes something else.
func (s *Server) spreadOf(req *wire.MkdirReq) spreading {
	sp := spreading{s.fs.DistrDirServersMax, s.fs.DistrDirServersInitial, int32(s.fs.DistrDirSplitSize)}
	if req != nil {
		if req.ServersMax > 0 {
			sp.servers = int(req.ServersMax)
		}
		if req.ServersInitial > 0 {
			sp.initial = int(req.ServersInitial)
		}
		if req.SplitSize > 0 {
			sp.split = req.SplitSize
		}
	}
	sp.servers = min(sp.servers, len(s.fs.Meta), wire.MaxDirdata)
	sp.initial = max(1, min(sp.initial, sp.servers))
	sp.split = max(sp.split, 1)
	return sp
}

// bucketServers names the n metadata servers for the buckets of a directory of
// this server, which comes first.
func (s *Server) bucketServers(n int) []string {
	at := 0
	for i, r := range s.fs.Meta {
		if r.Alias == s.opt.Alias {
			at = i
		}
	}
	out := make([]string, n)
	for i := range out {
		out[i] = s.fs.Meta[(at+i)%len(s.fs.Meta)].Alias
	}
	return out
}

// reserveBuckets takes dirdata objects of other servers for directory dir, whose
// first one is given, and prepares them. They are doomed until the transaction
// that puts the directory.
func (s *Server) reserveBuckets(ctx context.Context, dir, first wire.Handle, sp spreading) (*buckets, error) {
	var rest []wire.Handle
	err := s.withPools(ctx, func(t *txn) (err error) {
		if rest, err = t.takePools(s.dirPools, s.bucketServers(sp.servers)[1:]); err != nil {
			return err
		}
		return t.putDoom(doomMaybe, rest...)
	})
	if err != nil {
		return nil, err
	}
	b := newBuckets(append([]wire.Handle{first}, rest...), sp.initial, sp.split)
	g, gctx := errgroup.WithContext(ctx)
	for _, d := range rest {
		g.Go(func() error { return s.tellBuckets(gctx, d, dir, b) })
	}
	if err := g.Wait(); err != nil {
		return nil, errors.Join(err, s.giveUpBuckets(ctx, b))
	}
	return b, nil
}

// giveUpBuckets has the dirdata objects of other servers removed.
func (s *Server) giveUpBuckets(ctx context.Context, b *buckets) error {
	defer s.wakeSettler()
	return s.store.commitFreeing(ctx, func(t *txn) error { return t.putDoom(doomSure, b.handles[1:]...) })
}

// makeSpread makes a directory with buckets on several servers.
func (s *Server) makeSpread(ctx context.Context, o *object, sp spreading, req *wire.MkdirReq) (wire.Handle, error) {
	var h, first wire.Handle
	err := s.store.commit(ctx, func(t *txn) (err error) {
		if h, err = s.store.ids.take(t, wire.TypeDirectory, req.Ranges); err != nil {
			return err
		}
		first, err = s.store.ids.take(t, wire.TypeDirdata, nil)
		return err
	})
	if err != nil {
		return 0, err
	}
	b, err := s.reserveBuckets(ctx, h, first, sp)
	if err != nil {
		return 0, err
	}
	err = s.store.commit(ctx, func(t *txn) error {
		if err := t.putSpread(h, o, b); err != nil {
			return err
		}
		if req.Attr.Mask&wire.AttrDirHint != 0 {
			return t.setDirHint(h, &req.Attr.DirHint)
		}
		return nil
	})
	if err != nil {
		return 0, errors.Join(err, s.giveUpBuckets(ctx, b))
	}
	return h, nil
}

// putSpread stores the directory h with a new first bucket.
func (t *txn) putSpread(h wire.Handle, o *object, b *buckets) error {
	o.other, o.buckets = b.handles[0], b
	d := &object{typ: wire.TypeDirdata, mtime: o.mtime, ctime: o.ctime, other: h, buckets: b.at(0)}
	return errors.Join(t.putObject(o.other, d), t.putObject(h, o), t.delDoom(b.handles[1:]...))
}

// spreadRoot gives the root and lost+found, which are made before there are
// other servers, their buckets. What is in them stays in the first one until
// that splits.
func (s *Server) spreadRoot(ctx context.Context) error {
	root := wire.Handle(s.fs.RootHandle)
	if alias, _ := s.fs.Owner(uint64(root)); alias != s.opt.Alias {
		return nil
	}
	dirs := []wire.Handle{root}
	if found, err := s.lookupPath(ctx, s.ownHeader(root), &wire.LookupPathReq{Path: lostAndFound, FSID: wire.FSID(s.fs.ID), Start: root, Cred: s.ownCred()}); err == nil {
		dirs = append(dirs, found.Handles...)
	}
	for _, h := range dirs {
		if err := s.spreadOld(ctx, h); err != nil {
			return err
		}
	}
	return nil
}

// spreadOld gives the directory h its buckets if it has none and is this
// server's.
func (s *Server) spreadOld(ctx context.Context, h wire.Handle) error {
	sp := s.spreadOf(nil)
	p, err := s.peerOf(h)
	if err != nil || p != nil || sp.servers == 1 {
		return err
	}
	sp.initial = 1
	var old *object
	err = s.store.view(func(t *txn) (err error) {
		old, err = t.object(h)
		return err
	})
	if err != nil || old.typ != wire.TypeDirectory || old.buckets != nil {
		return err
	}
	b, err := s.reserveBuckets(ctx, h, old.other, sp)
	if err != nil {
		return err
	}
	return s.store.commit(ctx, func(t *txn) error {
		o, err := t.typed(h, wire.TypeDirectory)
		if err != nil {
			return err
		}
		d, err := t.dirdata(o.other)
		if err != nil {
			return err
		}
		o.buckets, d.buckets = b, b.at(0)
		return errors.Join(t.putObject(h, o), t.putObject(o.other, d), t.delDoom(b.handles[1:]...))
	})
}

// setBuckets tells a directory or a dirdata object which buckets are active, on
// disk once it returns: a bucket that splits deletes entries then. A dirdata
// object that is of no directory yet, or of one that was never made, becomes one
// of the directory that the hint names.
func (s *Server) setBuckets(ctx context.Context, hdr *wire.RequestHeader, req *wire.SetAttrReq) error {
	if err := errors.Join(s.checkFSID(req.FSID), s.checkCap(hdr, wire.MayAdmin, req.Handle)); err != nil {
		return err
	}
	dir, _ := hdr.Object()
	told := &req.Attr.DistDir
	var isNew bool
	err := s.store.commitFreeing(ctx, func(t *txn) error {
		isNew = false
		o, err := t.object(req.Handle)
		if err != nil {
			return err
		}
		switch {
		case o.buckets != nil && slices.Equal(o.buckets.handles, told.Dirdata):
			if !o.buckets.merge(told.Bitmap) {
				return nil
			}
		case o.typ == wire.TypeDirdata && o.entries == 0 && dir != 0:
			b := newBuckets(told.Dirdata, 1, told.SplitSize)
			b.merge(told.Bitmap)
			isNew = true
			if b.index = slices.Index(told.Dirdata, req.Handle); b.index < 0 {
				return errno.New("pvfsd.buckets", syscall.EINVAL)
			}
			o.other, o.buckets = dir, b
			o.atime, o.mtime, o.ctime = 0, s.now(), s.now()
		default:
			return errno.Wrap("pvfsd.buckets", syscall.EINVAL, errors.New("no such bucket"))
		}
		return t.putObject(req.Handle, o)
	})
	if err != nil || isNew {
		return err
	}
	return s.store.syncAll(ctx)
}

// setBucketTimes gives a new mtime to the buckets that dir, if it is a directory,
// has on other servers, as clients show the latest of all.
func (s *Server) setBucketTimes(ctx context.Context, dir wire.Handle, mtime int64) error {
	var b *buckets
	err := s.store.view(func(t *txn) error {
		o, err := t.object(dir)
		if err == nil && o.typ == wire.TypeDirectory {
			b = o.buckets
		}
		return err
	})
	if err != nil || b == nil {
		return err
	}
	var g errgroup.Group
	for i, h := range b.handles {
		p, err := s.peerOf(h)
		if err != nil || p == nil || !b.isActive(i) {
			continue
		}
		req := &wire.SetAttrReq{Handle: h, FSID: wire.FSID(s.fs.ID), Cred: s.ownCred(),
			Attr: wire.Attr{Mask: wire.AttrMtime | wire.AttrMtimeSet | wire.AttrType, Type: wire.TypeDirdata, Mtime: mtime}}
		g.Go(func() error { return s.tellOwner(ctx, h, dir, req, nil) })
	}
	return g.Wait()
}
