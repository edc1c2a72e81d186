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
	queue []*Hold // guarded by mu; held and waiting, in order of arrival
}

// Hold is one holder of a RangeLock, or somebody who waits to become one.
type Hold struct {
	lock      *RangeLock
	ext       extent.Extent
	exclusive bool
	held      bool          // guarded by RangeLock.mu
	granted   chan struct{} // closed when a waiter becomes a holder
}

// conflicts reports whether a and b may not hold at the same time.
func (a *Hold) conflicts(b *Hold) bool {
	return (a.exclusive || b.exclusive) && a.ext.Overlaps(b.ext)
}

// Lock waits until ext can be held and returns the hold, to be released. An
// empty extent conflicts with nothing. If ctx ends first, nothing is held and
// the error is ctx's.
func (l *RangeLock) Lock(ctx context.Context, ext extent.Extent, exclusive bool) (*Hold, error) {
	a := &Hold{lock: l, ext: ext, exclusive: exclusive}
	l.mu.Lock()
	a.held = l.freeLocked(a, len(l.queue))
	if !a.held {
		a.granted = make(chan struct{})
	}
	l.queue = append(l.queue, a)
	l.mu.Unlock()
	if a.granted != nil {
		select {
		case <-a.granted:
		case <-ctx.Done():
			l.remove(a)
			return nil, ctx.Err()
		}
	}
	return a, nil
}

// Release ends the hold. It is called exactly once.
func (a *Hold) Release() { a.lock.remove(a) }

// Idle reports whether nobody holds or waits.
func (l *RangeLock) Idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue) == 0
}

// freeLocked reports whether a conflicts with none of the first n accesses.
func (l *RangeLock) freeLocked(a *Hold, n int) bool {
	for _, b := range l.queue[:n] {
		if a.conflicts(b) {
			return false
		}
	}
	return true
}

// remove takes a out of the queue and grants those that waited only for it.
func (l *RangeLock) remove(a *Hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := 0
	for l.queue[at] != a {
		at++
	}
	l.queue = slices.Delete(l.queue, at, at+1)
	for i := at; i < len(l.queue); i++ {
		if b := l.queue[i]; !b.held && l.freeLocked(b, i) {
			b.held = true
			close(b.granted)
		}
	}
}
