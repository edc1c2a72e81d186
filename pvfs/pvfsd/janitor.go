package pvfsd

import (
	"context"
	"time"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const (
	trashBatch = 256             // bytestreams unlinked between two commits
	trashRetry = 5 * time.Second // after one could not be unlinked
)

// wakeJanitor tells cleanUp that there is trash.
func (s *Server) wakeJanitor() {
	select {
	case s.trash <- struct{}{}:
	default:
	}
}

// cleanUp unlinks the bytestreams of removed datafiles until ctx is done. They
// are in the store since the transaction that removed the datafile, so a crash
// leaves none behind.
func (s *Server) cleanUp(ctx context.Context) error {
	for {
		select {
		case <-s.trash:
		case <-ctx.Done():
			return nil
		}
		for {
			n, err := s.emptyTrash(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				s.log.Error("bytestreams not removed", "err", err)
				if !sleep(ctx, trashRetry) {
					return nil
				}
				continue
			}
			if n == 0 {
				break
			}
		}
	}
}

// emptyTrash unlinks some bytestreams and returns how many.
func (s *Server) emptyTrash(ctx context.Context) (int, error) {
	var hs []wire.Handle
	err := s.store.view(func(t *txn) error {
		c := t.cursor(bucketTrash)
		for k, _ := c.First(); k != nil && len(hs) < trashBatch; k, _ = c.Next() {
			if h, ok := handleOf(k); ok {
				hs = append(hs, h)
			}
		}
		return nil
	})
	if err != nil || len(hs) == 0 {
		return 0, err
	}
	for _, h := range hs {
		if err := s.streams.remove(h); err != nil {
			return 0, err
		}
	}
	return len(hs), s.store.commitFreeing(ctx, func(t *txn) error {
		for _, h := range hs {
			if err := t.del(bucketTrash, handleKey(h)); err != nil {
				return err
			}
		}
		return nil
	})
}
