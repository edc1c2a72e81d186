package pvfs

import (
	"context"
	"sync"
)

// turns lets one goroutine at a time work on each object. The zero value is
// ready for use.
type turns struct {
	mu   sync.Mutex
	busy map[Handle]chan struct{} // guarded by mu; closed at the end of the turn
}

// take waits until nobody works on h.
func (t *turns) take(ctx context.Context, h Handle) error {
	for {
		t.mu.Lock()
		over, busy := t.busy[h]
		if !busy {
			if t.busy == nil {
				t.busy = map[Handle]chan struct{}{}
			}
			t.busy[h] = make(chan struct{})
			t.mu.Unlock()
			return nil
		}
		t.mu.Unlock()
		select {
		case <-over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leave ends the turn.
func (t *turns) leave(h Handle) {
	t.mu.Lock()
	over := t.busy[h]
	delete(t.busy, h)
	t.mu.Unlock()
	close(over)
}
