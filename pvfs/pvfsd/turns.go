package pvfsd

import (
	"context"
	"sync"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// turns lets one goroutine at a time work on each object. The zero value is
// ready for use.
type turns struct {
	mu   sync.Mutex
	busy map[wire.Handle]chan struct{} // guarded by mu; closed at the end of the turn
}

// take waits until nobody works on h, then does.
func (t *turns) take(ctx context.Context, h wire.Handle) error {
	for {
		t.mu.Lock()
		over, busy := t.busy[h]
		if !busy {
			if t.busy == nil {
				t.busy = make(map[wire.Handle]chan struct{})
			}
			t.busy[h] = make(chan struct{})
		}
		t.mu.Unlock()
		if !busy {
			return nil
		}
		select {
		case <-over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leave ends the turn that take began.
func (t *turns) leave(h wire.Handle) {
	t.mu.Lock()
	over := t.busy[h]
	delete(t.busy, h)
	t.mu.Unlock()
	close(over)
}

// over is closed once nobody works on h; nil if nobody does.
func (t *turns) over(h wire.Handle) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.busy[h]
}
