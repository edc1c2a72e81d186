package pvfsd

import (
	"context"
	"errors"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// removeSpread removes an empty directory with its buckets. It closes all of
// them, so that none can be given an entry, and opens them again if one has any.
// Should this server die in between, they open by themselves.
func (s *Server) removeSpread(ctx context.Context, dir wire.Handle) error {
	if err := s.turns.take(ctx, dir); err != nil {
		return err
	}
	defer s.turns.leave(dir)
	var b *buckets
	err := s.store.view(func(t *txn) error {
		o, err := t.typed(dir, wire.TypeDirectory)
		if err == nil {
			b = o.buckets
		}
		return err
	})
	if err != nil {
		return err
	}
	begin := time.Now()
	if err = s.closeAll(ctx, dir, b); err == nil {
		err = s.store.commitFreeing(ctx, func(t *txn) error {
			if time.Since(begin) > removeTime {
				return errno.New("pvfsd.remove", syscall.ETIMEDOUT)
			}
			return t.removeSpread(s, dir)
		})
	}
	if err != nil {
		s.openAll(ctx, dir, b)
		return err
	}
	s.wakeSettler()
	return nil
}

// removeSpread removes directory dir with what is this server's of it, and
// dooms the rest.
func (t *txn) removeSpread(s *Server, dir wire.Handle) error {
	o, err := t.typed(dir, wire.TypeDirectory)
	if err != nil {
		return err
	}
	for _, h := range o.buckets.handles {
		p, err := s.peerOf(h)
		switch {
		case err != nil:
			return err
		case p != nil:
			err = t.putDoom(doomSure, h)
		default:
			if err = t.remove(h); errors.Is(err, syscall.ENOENT) {
				err = nil
			}
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(t.delObject(dir), t.removeEattrs(dir))
}

// closeAll closes the buckets of dir. A bucket that is gone is as good.
func (s *Server) closeAll(ctx context.Context, dir wire.Handle, b *buckets) error {
	ctx, cancel := context.WithTimeout(ctx, removeTime)
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	for _, h := range b.handles {
		req := &wire.SetEattrReq{Handle: h, FSID: wire.FSID(s.fs.ID), Keys: [][]byte{append([]byte(keyClosed), 0)}, Values: [][]byte{{}}}
		g.Go(func() error {
			err := s.tellOwner(gctx, h, dir, req, func(*wire.RequestHeader) error { return s.closeBucket(gctx, h) })
			if errors.Is(err, syscall.ENOENT) {
				return nil
			}
			return err
		})
	}
	return g.Wait()
}

// openAll takes closeAll back where it can.
func (s *Server) openAll(ctx context.Context, dir wire.Handle, b *buckets) {
	var g errgroup.Group
	for _, h := range b.handles {
		req := &wire.DelEattrReq{Handle: h, FSID: wire.FSID(s.fs.ID), Key: append([]byte(keyClosed), 0)}
		g.Go(func() error {
			err := s.tellOwner(ctx, h, dir, req, func(*wire.RequestHeader) error { return s.openBucket(ctx, h) })
			if err != nil && !errors.Is(err, syscall.ENOENT) {
				s.log.Debug("bucket stays closed for now", "handle", uint64(h), "err", err)
			}
			return nil
		})
	}
	g.Wait()
}

func (s *Server) closeBucket(ctx context.Context, h wire.Handle) error {
	return s.settled(ctx, h, func() error {
		return s.store.commit(ctx, func(t *txn) error { return t.closeBucket(h, s.now()) })
	})
}

func (s *Server) openBucket(ctx context.Context, h wire.Handle) error {
	return s.store.commitFreeing(ctx, func(t *txn) error { return t.openBucket(h) })
}
