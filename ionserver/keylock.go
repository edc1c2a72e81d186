package ionserver

import (
	"context"
	"sync"
)

// keyLock is a table of shared and exclusive locks by key, first come, first
// served for each key. The zero value is ready.
type keyLock[K comparable] struct {
	mu     sync.Mutex
	queues map[K][]*keyHold // guarded by mu; held ones first, then waiting ones
}

type keyHold struct {
	exclusive bool
	held      bool // guarded by keyLock.mu
	granted   chan struct{}
}

// TryLock takes the lock of key if nobody has to be waited for. release is
// called exactly once.
func (l *keyLock[K]) TryLock(key K, exclusive bool) (release func(), ok bool) {
	h := l.enter(key, exclusive, false)
	if h == nil {
		return nil, false
	}
	return func() { l.leave(key, h) }, true
}

// Lock waits for the lock of key. If ctx ends first nothing is held and the
// error is ctx's.
func (l *keyLock[K]) Lock(ctx context.Context, key K, exclusive bool) (release func(), err error) {
	h := l.enter(key, exclusive, true)
	if h.granted != nil {
		select {
		case <-h.granted:
		case <-ctx.Done():
			l.leave(key, h)
			return nil, ctx.Err()
		}
	}
	return func() { l.leave(key, h) }, nil
}

func (l *keyLock[K]) enter(key K, exclusive, wait bool) *keyHold {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.queues[key]
	free := len(q) == 0 || !exclusive && !q[len(q)-1].exclusive && q[len(q)-1].held
	if !free && !wait {
		return nil
	}
	h := &keyHold{exclusive: exclusive, held: free}
	if !free {
		h.granted = make(chan struct{})
	}
	if l.queues == nil {
		l.queues = make(map[K][]*keyHold)
	}
	l.queues[key] = append(q, h)
	return h
}

func (l *keyLock[K]) leave(key K, h *keyHold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.queues[key]
	at := 0
	for q[at] != h {
		at++
	}
	q = append(q[:at:at], q[at+1:]...)
	if len(q) == 0 {
		delete(l.queues, key)
		return
	}
	l.queues[key] = q
	for i, w := range q {
		if i > 0 && (w.exclusive || q[0].exclusive) {
			break
		}
		if !w.held {
			w.held = true
			close(w.granted)
		}
	}
}
