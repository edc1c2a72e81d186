package cache

import (
	"context"
	"slices"
	"sync"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// RangeLock orders accesses to the bytes of one file: shared holders may
// overlap each other, an exclusive holder overlaps nobody. Waiters are served
// first come, first served, except that an access passes those it does not
// overlap, so neither readers nor writers starve. The zero value is ready.
type RangeLock struct {
	mu    sync.Mutex
	queue []access // guarded by mu; held and waiting, in order of arrival
	last  uint64   // guarded by mu; number of the last to arrive
}

// access is one holder of a RangeLock, or somebody who waits to become one.
type access struct {
	number    uint64
	ext       extent.Extent
	exclusive bool
	held      bool
	granted   chan struct{} // closed when a waiter becomes a holder
}

// Hold is what a holder of a RangeLock releases.
type Hold struct {
	lock   *RangeLock
	number uint64
}

// conflicts reports whether a and b may not hold at the same time.
func (a *access) conflicts(b *access) bool {
	return (a.exclusive || b.exclusive) && a.ext.Overlaps(b.ext)
}

// Lock waits until ext can be held and returns the hold, to be released. An
// empty extent conflicts with nothing. If ctx ends first, nothing is held and
// the error is ctx's.
func (l *RangeLock) Lock(ctx context.Context, ext extent.Extent, exclusive bool) (Hold, error) {
	l.mu.Lock()
	l.last++
	a := access{number: l.last, ext: ext, exclusive: exclusive}
	a.held = l.freeLocked(&a, len(l.queue))
	if !a.held {
		a.granted = make(chan struct{})
	}
	l.queue = append(l.queue, a)
	l.mu.Unlock()
	hold := Hold{l, a.number}
	if a.granted != nil {
		select {
		case <-a.granted:
		case <-ctx.Done():
			hold.Release()
			return Hold{}, ctx.Err()
		}
	}
	return hold, nil
}

// Idle reports whether nobody holds or waits.
func (l *RangeLock) Idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue) == 0
}

// freeLocked reports whether a conflicts with none of the first n accesses.
func (l *RangeLock) freeLocked(a *access, n int) bool {
	for i := range l.queue[:n] {
		if a.conflicts(&l.queue[i]) {
			return false
		}
	}
	return true
}

// Release ends the hold, and grants those that waited only for it. It is called
// exactly once.
func (h Hold) Release() {
	l := h.lock
	l.mu.Lock()
	defer l.mu.Unlock()
	at := 0
	for l.queue[at].number != h.number {
		at++
	}
	l.queue = slices.Delete(l.queue, at, at+1)
	for i := at; i < len(l.queue); i++ {
		if b := &l.queue[i]; !b.held && l.freeLocked(b, i) {
			b.held = true
			close(b.granted)
		}
	}
}
