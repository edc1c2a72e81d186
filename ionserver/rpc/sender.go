package rpc

import (
	"sync"
	"sync/atomic"
	"time"
)

// States of an item in a sender's queue.
const (
	itemQueued  = iota // may still be withdrawn
	itemTaken          // being sent, or sent: the transport owns the data
	itemDropped        // withdrawn; who did that has released the data
)

// item is a frame on its way out.
type item struct {
	frame Frame
	state atomic.Int32
	sent  func() // called once, after the frame was sent or dropped; may be nil
}

// sender sends the frames of many goroutines over one stream, in the order of
// push, from a single goroutine: a stream allows one SendMsg at a time, and
// one that waits for flow control must not make others wait with a lock held.
//
// It also knows which memory is lent to the transport, because a transport
// that dies forgets to give it back.
type sender struct {
	wake chan struct{} // capacity 1: the queue is not empty, or closed

	mu     sync.Mutex
	queue  []*item            // guarded by mu; bounded by the users' own limits
	closed bool               // guarded by mu; nothing is accepted any more
	lent   map[*hold]struct{} // guarded by mu
	idle   chan struct{}      // guarded by mu; non-nil: closed when lent gets empty
}

func newSender() *sender {
	return &sender{wake: make(chan struct{}, 1), lent: make(map[*hold]struct{})}
}

// lend makes d one that the sender can take back when the transport forgets
// it; d's hold goes with it.
func (s *sender) lend(d Data) Data {
	if !d.lent {
		return d
	}
	return lend(d.bufs[0].ReadOnlyData(), d.Release, s)
}

// remember puts h on the list of what is lent to the transport.
func (s *sender) remember(h *hold) {
	s.mu.Lock()
	s.lent[h] = struct{}{}
	s.mu.Unlock()
}

// push queues it and reports whether it will be handled; if not, the caller
// keeps it. It never blocks.
func (s *sender) push(it *item) bool {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false
	}
	s.queue = append(s.queue, it)
	first := len(s.queue) == 1
	s.mu.Unlock()
	if first {
		s.signal()
	}
	return true
}

func (s *sender) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run sends with send until it fails or close is called, then drops the rest.
func (s *sender) run(send func(any) error) error {
	var batch []*item
	for range s.wake {
		s.mu.Lock()
		batch, s.queue = s.queue, batch[:0]
		closed := s.closed
		s.mu.Unlock()
		for i, it := range batch {
			batch[i] = nil
			if closed {
				it.drop()
				continue
			}
			if !it.state.CompareAndSwap(itemQueued, itemTaken) {
				continue
			}
			// Once sent, a client's item may be in use for another call.
			sent := it.sent
			err := send(&it.frame)
			if sent != nil {
				sent()
			}
			if err != nil {
				s.drop(batch[i+1:])
				return err
			}
		}
		if closed {
			return nil
		}
	}
	return nil
}

// drop withdraws it unless it is being sent already.
func (it *item) drop() {
	if !it.state.CompareAndSwap(itemQueued, itemDropped) {
		return
	}
	it.frame.Data.Release()
	if it.sent != nil {
		it.sent()
	}
}

// drop closes the sender and releases what is in rest and in the queue.
func (s *sender) drop(rest []*item) {
	s.mu.Lock()
	s.closed = true
	queue := s.queue
	s.queue = nil
	s.mu.Unlock()
	for _, it := range append(rest, queue...) {
		it.drop()
	}
}

// close makes run return after the frame it is sending.
func (s *sender) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
}

// forget takes h, which the transport has let go of, off the list.
func (s *sender) forget(h *hold) {
	s.mu.Lock()
	delete(s.lent, h)
	if len(s.lent) == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
	s.mu.Unlock()
}

// settle waits at most grace for the transport to give back what it was lent,
// then takes the rest back. The connection must be closed: what the transport
// still reads goes nowhere.
func (s *sender) settle(grace time.Duration) {
	s.mu.Lock()
	var idle chan struct{}
	if len(s.lent) > 0 {
		if s.idle == nil {
			s.idle = make(chan struct{})
		}
		idle = s.idle
	}
	s.mu.Unlock()
	if idle != nil {
		t := time.NewTimer(grace)
		select {
		case <-idle:
		case <-t.C:
		}
		t.Stop()
	}
	s.mu.Lock()
	rest := make([]*hold, 0, len(s.lent))
	for h := range s.lent {
		rest = append(rest, h)
	}
	s.mu.Unlock()
	for _, h := range rest {
		h.end()
	}
}
