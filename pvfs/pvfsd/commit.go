package pvfsd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/errno"
)

const (
	maxCommitBatch = 512             // changes in one transaction
	maxYields      = 2               // to others before a batch is taken for complete
	syncInterval   = 3 * time.Second // of commits that were not synced
	reserveSize    = 1 << 20         // bytes kept free in the database file for removals
)

// change is one request's share of a transaction. apply may run several times,
// each time on a fresh transaction, and must set its results anew.
type change struct {
	apply func(*txn) error // nil: only wait until everything before is on disk
	sync  bool             // answer once it is on disk, whatever the policy
	frees bool             // gives space back: goes on when the disk is full
	done  chan error       // capacity 1

	failed error // what apply said on top of changes not yet committed; of run
}

// commitQueue gathers the changes of many requests. Its run is the only
// goroutine that writes to the database.
type commitQueue struct {
	db       *bolt.DB
	file     *os.File // the database file again, to reserve space in it
	ch       chan *change
	syncMeta atomic.Bool // commit durably; changed by MGMT_SETPARAM
	unsynced atomic.Bool // there are commits since the last sync; set by run alone
	closed   chan struct{}

	// Owned by run.
	reserved int64 // bytes of the file that have disk space for certain
	failed   error // a commit left the database in doubt: refuse all changes
}

func newCommitQueue(db *bolt.DB, path string) (*commitQueue, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	q := &commitQueue{db: db, file: f, ch: make(chan *change, maxCommitBatch), closed: make(chan struct{})}
	q.unsynced.Store(true) // what a previous process left
	return q, nil
}

func (q *commitQueue) close() error { return q.file.Close() }

// commit runs fn in a write transaction together with those of others and
// returns once it is committed, durably if the policy says so. If fn fails,
// nothing of it happens. The change may still be made after ctx is done.
func (s *store) commit(ctx context.Context, fn func(*txn) error) error {
	return s.q.submit(ctx, &change{apply: fn, done: make(chan error, 1)})
}

// commitFreeing is commit for changes that make room; they go on when the disk is full.
func (s *store) commitFreeing(ctx context.Context, fn func(*txn) error) error {
	return s.q.submit(ctx, &change{apply: fn, frees: true, done: make(chan error, 1)})
}

// syncAll returns once every change answered before is on disk.
func (s *store) syncAll(ctx context.Context) error {
	if !s.q.unsynced.Load() {
		return nil // commits are marked before they are answered
	}
	return s.q.submit(ctx, &change{sync: true, done: make(chan error, 1)})
}

func (q *commitQueue) submit(ctx context.Context, c *change) error {
	select {
	case q.ch <- c:
	case <-ctx.Done():
		return ctx.Err()
	case <-q.closed:
		return errShutdown
	}
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-q.closed:
		select {
		case err := <-c.done:
			return err
		default:
			return errShutdown
		}
	}
}

var errShutdown = errno.Wrap("pvfsd", syscall.ECONNRESET, errors.New("the server is stopping"))

// run commits until ctx is done, then makes everything durable.
func (q *commitQueue) run(ctx context.Context) error {
	defer close(q.closed)
	tick := time.NewTicker(syncInterval)
	defer tick.Stop()
	batch := make([]*change, 0, maxCommitBatch)
	for {
		select {
		case <-ctx.Done():
			return q.sync()
		case <-tick.C:
			if err := q.sync(); err != nil {
				q.failed = err
			}
			continue
		case c := <-q.ch:
			batch = append(batch[:0], c)
		}
	more:
		for empty := 0; len(batch) < cap(batch); {
			select {
			case c := <-q.ch:
				batch = append(batch, c)
			default:
				// Those who are about to come cost less together: a
				// transaction is expensive, whatever is in it.
				if empty++; empty > maxYields {
					break more
				}
				runtime.Gosched()
			}
		}
		q.commitBatch(batch)
	}
}

// commitBatch answers every change of batch, which it clears.
func (q *commitQueue) commitBatch(batch []*change) {
	durable := q.syncMeta.Load()
	retry, err := true, error(nil)
	for retry {
		retry, err = q.tryBatch(batch, durable)
	}
	for _, c := range batch {
		if c != nil && c.sync && err == nil {
			err = q.sync()
		}
	}
	for _, c := range batch {
		switch {
		case c == nil:
		case err != nil:
			c.done <- err // also if apply failed: on what never happened
		default:
			c.done <- c.failed
		}
	}
}

// tryBatch runs the changes of batch in one transaction and commits it. A
// change that fails is answered and its place in batch set to nil, or answered
// after the commit if what it saw is not yet committed: who hears that a name is
// taken must find it. If it had written something by then the transaction is
// spoiled, and retry asks for another try without it.
func (q *commitQueue) tryBatch(batch []*change, durable bool) (retry bool, err error) {
	if q.failed != nil {
		return false, q.failed
	}
	q.db.NoSync = !durable
	tx, err := q.db.Begin(true)
	if err != nil {
		return false, fmt.Errorf("begin: %w", err)
	}
	t := &txn{tx: tx}
	if spoiled := q.apply(t, batch, !q.reserve(tx)); spoiled || !t.dirty {
		return spoiled, tx.Rollback()
	}
	if !durable {
		q.unsynced.Store(true)
	}
	if err := tx.Commit(); err != nil {
		if errno.Of(err) == syscall.ENOSPC {
			return false, fmt.Errorf("commit: %w", err)
		}
		q.failed = errno.Wrap("pvfsd.commit", syscall.EIO, err)
		return false, q.failed
	}
	for _, fn := range t.after {
		fn()
	}
	return false, nil
}

// apply runs the changes of batch on t; full lets only those go on that free space.
func (q *commitQueue) apply(t *txn, batch []*change, full bool) (spoiled bool) {
	for i, c := range batch {
		if c == nil || c.apply == nil || c.failed != nil {
			continue
		}
		before, afters := t.dirty, len(t.after)
		t.dirty = false
		err := errFull
		if !full || c.frees {
			err = c.apply(t)
		}
		if err != nil {
			if before {
				c.failed = err
			} else {
				c.done <- err
				batch[i] = nil
			}
			if t.dirty {
				return true
			}
			t.after = t.after[:afters]
		}
		t.dirty = t.dirty || before
	}
	return false
}

var errFull error = errno.Wrap("pvfsd.commit", syscall.ENOSPC, errors.New("no room for metadata"))

// reserve keeps disk space allocated ahead of what the database uses, so that
// removals succeed on a full disk. It reports whether there is room for more.
func (q *commitQueue) reserve(tx *bolt.Tx) bool {
	used := tx.Size()
	if used+2*reserveSize <= q.reserved {
		return true
	}
	want := used + 2*reserveSize + allocSize
	err := unix.Fallocate(int(q.file.Fd()), 0, 0, want)
	if errors.Is(err, unix.ENOSPC) {
		want = used + 2*reserveSize
		err = unix.Fallocate(int(q.file.Fd()), 0, 0, want)
	}
	switch {
	case errors.Is(err, unix.ENOSPC):
		return used+reserveSize <= q.reserved
	case err != nil: // not supported here: the database grows by itself
		return true
	}
	// The new size of the file must be on disk before a commit relies on it.
	if err := q.file.Sync(); err != nil {
		return true
	}
	q.reserved = want
	return true
}

// sync makes the commits so far durable.
func (q *commitQueue) sync() error {
	if !q.unsynced.Load() {
		return nil
	}
	if err := q.db.Sync(); err != nil {
		return errno.Wrap("pvfsd.sync", syscall.EIO, err)
	}
	q.unsynced.Store(false)
	return nil
}
