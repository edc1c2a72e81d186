package pvfsd

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// A full bucket gives entries to its child in these steps, each of which is
// done before the next begins:
//
//	the bucket   keeps changes off the entries that move (splitCopying)
//	the child    forgets what an earlier attempt left, then takes copies
//	the bucket   resolves to go on, on disk (splitDeciding)
//	the child    is active, on disk with its entries
//	the directory learns of the child, on disk: clients ask the child from here
//	the bucket   deletes the entries, and allows changes again
//
// Until the directory learns of it, nobody but the bucket knows the child, so a
// failure or a crash before splitDeciding leaves everything as it was. After
// that the steps are repeated until they succeed. Changes that come to the
// bucket meanwhile wait, those that come later are sent on to the child or, for
// new entries, back to the client with EAGAIN.
const (
	splitWorkers = 4                            // buckets that split at a time
	splitQueue   = 256                          // full buckets that wait; further ones split at a later change
	splitWait    = 5 * time.Second              // for the end of a split until EAGAIN
	splitPoll    = 20 * time.Millisecond        // between looks at a split that nobody works on
	splitBytes   = 12000                        // of entries in one request
	splitNames   = 1000                         // entries in one request
	direntSize   = 8 + 4 + 8                    // bytes of an entry in a request, besides its name
	removeTime   = closedLife * time.Second / 3 // for a directory to be removed in
)

// splitJob is a bucket that looked full.
type splitJob struct {
	dirdata wire.Handle
	done    chan struct{} // closed once it is seen to
}

// splitNow has a full bucket split and waits for it. What goes wrong is the
// split's matter, not the caller's.
func (s *Server) splitNow(ctx context.Context, dirdata wire.Handle) {
	job := splitJob{dirdata, make(chan struct{})}
	select {
	case s.splits <- job:
	default:
		return
	}
	select {
	case <-job.done:
	case <-ctx.Done():
	}
}

// keepSplit carries out splits until ctx is done.
func (s *Server) keepSplit(ctx context.Context) error {
	for {
		select {
		case job := <-s.splits:
			if err := s.splitBucket(ctx, job.dirdata); err != nil && ctx.Err() == nil {
				s.log.Warn("bucket does not split", "handle", uint64(job.dirdata), "err", err)
			}
			close(job.done)
		case <-ctx.Done():
			return nil
		}
	}
}

// splitBucket splits a bucket if it is full.
func (s *Server) splitBucket(ctx context.Context, dirdata wire.Handle) error {
	if err := s.turns.take(ctx, dirdata); err != nil {
		return err
	}
	defer s.turns.leave(dirdata)
	var o *object
	var sp *split
	err := s.store.commit(ctx, func(t *txn) (err error) {
		sp = nil
		if o, err = t.dirdata(dirdata); err != nil || !o.full() || t.splitOf(dirdata) != nil {
			return err
		}
		child, _ := o.buckets.child()
		sp = &split{splitCopying, child}
		return t.putSplit(dirdata, sp)
	})
	if err != nil || sp == nil {
		return err
	}
	err = s.copyEntries(ctx, dirdata, o.buckets, sp)
	if err == nil {
		err = s.store.commit(ctx, func(t *txn) error {
			return t.putSplit(dirdata, &split{splitDeciding, sp.child})
		})
	}
	if err != nil {
		return errors.Join(err, s.store.commitFreeing(ctx, func(t *txn) error { return t.delSplit(dirdata) }))
	}
	if err := s.finishSplit(ctx, dirdata); err != nil {
		s.wakeSettler()
		return err
	}
	return nil
}

// copyEntries gives the child copies of the entries that move.
func (s *Server) copyEntries(ctx context.Context, dirdata wire.Handle, b *buckets, sp *split) error {
	var ents []wire.Dirent
	err := s.store.view(func(t *txn) (err error) {
		ents, err = t.entriesOf(dirdata, func(name string) bool { return sp.moves(b, name) })
		return err
	})
	if err != nil {
		return err
	}
	child := b.handles[sp.child]
	for reset := true; reset || len(ents) > 0; reset = false {
		req := &wire.SplitDirentReq{FSID: wire.FSID(s.fs.ID), Dirdata: child, Dist: wire.Dist{Name: wire.BasicDist}}
		if reset {
			req.Undo = 1
		}
		size := 0
		for !reset && len(ents) > 0 && len(req.Names) < splitNames && size < splitBytes {
			req.Names, req.Handles = append(req.Names, ents[0].Name), append(req.Handles, ents[0].Handle)
			size += direntSize + len(ents[0].Name)
			ents = ents[1:]
		}
		if err := s.tellOwner(ctx, child, 0, req, func(hdr *wire.RequestHeader) error { return s.splitDirent(ctx, hdr, req) }); err != nil {
			return err
		}
	}
	return nil
}

// finishSplit carries a split out that is decided. The caller has the turn.
func (s *Server) finishSplit(ctx context.Context, dirdata wire.Handle) error {
	var o *object
	var sp *split
	err := s.store.view(func(t *txn) (err error) {
		sp = t.splitOf(dirdata)
		o, err = t.dirdata(dirdata)
		return err
	})
	if err != nil || sp == nil || sp.state != splitDeciding {
		return err
	}
	if err := s.store.syncAll(ctx); err != nil {
		return err
	}
	after := o.buckets.clone()
	after.activate(sp.child)
	for _, h := range []wire.Handle{after.handles[sp.child], o.other} {
		if err := s.tellBuckets(ctx, h, o.other, after); err != nil {
			return err
		}
	}
	return s.store.commitFreeing(ctx, func(t *txn) error {
		o, err := t.dirdata(dirdata)
		if err != nil {
			return err
		}
		moved, err := t.entriesOf(dirdata, func(name string) bool { return sp.moves(o.buckets, name) })
		if err != nil {
			return err
		}
		if err := t.delEntries(dirdata, o, moved); err != nil {
			return err
		}
		o.buckets.activate(sp.child)
		return errors.Join(t.putObject(dirdata, o), t.delSplit(dirdata))
	})
}

// tellBuckets tells the owner of h, which is directory dir or one of its
// dirdata objects, which buckets there are.
func (s *Server) tellBuckets(ctx context.Context, h, dir wire.Handle, b *buckets) error {
	req := &wire.SetAttrReq{
		Handle: h, FSID: wire.FSID(s.fs.ID), Cred: s.ownCred(),
		Attr: wire.Attr{Mask: wire.AttrDistDir | wire.AttrType, Type: wire.TypeDirdata, DistDir: b.wire()},
	}
	return s.tellOwner(ctx, h, dir, req, func(hdr *wire.RequestHeader) error { return s.setBuckets(ctx, hdr, req) })
}

// tellOwner sends a request about h, with dir as its hint, to the server that
// owns h, or calls local if that is this one.
func (s *Server) tellOwner(ctx context.Context, h, dir wire.Handle, req wire.Request, local func(*wire.RequestHeader) error) error {
	p, err := s.peerOf(h)
	if err != nil {
		return err
	}
	hdr := s.ownHeader(h)
	hdr.Hints = []wire.Hint{wire.ObjectHint(dir)}
	if p == nil {
		return local(hdr)
	}
	return p.call(ctx, hdr, req, nil)
}

// ownHeader is that of a request of this server about h.
func (s *Server) ownHeader(h wire.Handle) *wire.RequestHeader {
	return &wire.RequestHeader{Cap: s.peerCap(wire.MayAll, h)}
}

// ownCred is this server's credential towards the others.
func (s *Server) ownCred() wire.Credential {
	return wire.Credential{Groups: []uint32{0}, Issuer: "S:" + s.opt.Alias, Timeout: s.now() + capLifetime}
}

// splitDirent takes copies of entries from a bucket that splits, or with Undo
// forgets those it has. EBUSY if the bucket is active already.
func (s *Server) splitDirent(ctx context.Context, hdr *wire.RequestHeader, req *wire.SplitDirentReq) error {
	if err := s.checkFSID(req.FSID); err != nil {
		return err
	}
	if err := s.checkCap(hdr, wire.MayAdmin, req.Dirdata); err != nil {
		return err
	}
	return s.store.commit(ctx, func(t *txn) error {
		o, err := t.dirdata(req.Dirdata)
		if err != nil {
			return err
		}
		if o.buckets == nil || o.buckets.isActive(o.buckets.index) {
			return errno.Wrap("pvfsd.split", syscall.EBUSY, errors.New("the bucket is in use"))
		}
		if req.Undo != 0 {
			if err := t.clearEntries(req.Dirdata, o); err != nil {
				return err
			}
		}
		for i, name := range req.Names {
			if err := checkName(name); err != nil {
				return err
			}
			if _, _, err := t.lookup(req.Dirdata, name); err == nil {
				continue // sent again
			}
			if err := t.appendEntry(req.Dirdata, o, name, req.Handles[i]); err != nil {
				return err
			}
		}
		o.mtime, o.ctime = s.now(), s.now()
		return t.putObject(req.Dirdata, o)
	})
}

// inBucket calls local with the dirdata object that holds an entry, beginning
// with where the client thinks it is, or remote if another server has it. It
// goes down the tree of buckets only, so it ends.
func (s *Server) inBucket(ctx context.Context, dirdata wire.Handle, local func(wire.Handle) error, remote func(*peer, wire.Handle) error) error {
	for {
		err := s.settled(ctx, dirdata, func() error { return local(dirdata) })
		var moved errMoved
		if !errors.As(err, &moved) {
			return err
		}
		p, err := s.peerOf(moved.to)
		if err != nil {
			return err
		}
		if p != nil {
			return remote(p, moved.to)
		}
		dirdata = moved.to
	}
}

// settled calls fn again while it fails with errMoving, once the split of the
// bucket is over.
func (s *Server) settled(ctx context.Context, dirdata wire.Handle, fn func() error) error {
	err := fn()
	if !errors.Is(err, errMoving) {
		return err
	}
	wctx, cancel := context.WithTimeout(ctx, splitWait)
	defer cancel()
	for errors.Is(err, errMoving) {
		over := s.turns.over(dirdata)
		if over == nil {
			if !sleep(wctx, splitPoll) {
				return fmt.Errorf("%w: %w", err, context.Cause(wctx))
			}
		} else {
			select {
			case <-over:
			case <-wctx.Done():
				return fmt.Errorf("%w: %w", err, context.Cause(wctx))
			}
		}
		err = fn()
	}
	return err
}
