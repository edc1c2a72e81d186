package pvfsd

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// wakeSettler tells settle that there is something to do.
func (s *Server) wakeSettler() {
	select {
	case s.unsettled <- struct{}{}:
	default:
	}
}

// settle finishes what could not be finished at once, until ctx is done: splits
// that are decided, dirdata objects of other servers that are to be removed, and
// the buckets of a new root.
func (s *Server) settle(ctx context.Context) error {
	for {
		if err := s.settleOnce(ctx); err != nil && ctx.Err() == nil {
			s.log.Debug("not settled yet", "err", err)
			if sleep(ctx, poolRetry) {
				continue
			}
		}
		select {
		case <-s.unsettled:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Server) settleOnce(ctx context.Context) error {
	errs := []error{s.spreadRoot(ctx)}
	var splits, doomed []wire.Handle
	err := s.store.view(func(t *txn) error {
		splits, doomed = t.unsettled()
		return nil
	})
	if err != nil {
		return err
	}
	for _, h := range splits {
		errs = append(errs, s.settleSplit(ctx, h))
	}
	for _, h := range doomed {
		req := &wire.RemoveObjectReq{Handle: h, FSID: wire.FSID(s.fs.ID)}
		err := s.tellOwner(ctx, h, 0, req, func(*wire.RequestHeader) error { return s.removeObject(ctx, req) })
		if err == nil || errors.Is(err, syscall.ENOENT) {
			err = s.store.commitFreeing(ctx, func(t *txn) error { return t.delDoom(h) })
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("dirdata %d: %w", h, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Server) settleSplit(ctx context.Context, h wire.Handle) error {
	if err := s.turns.take(ctx, h); err != nil {
		return err
	}
	defer s.turns.leave(h)
	return s.finishSplit(ctx, h)
}
