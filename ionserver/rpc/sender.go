package rpc

import (
	"runtime"
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
	// On a server, the request whose end is the end of this item.
	answers *Request
}

// sender sends the frames of many goroutines over one stream, in the order of
// push, from a single goroutine: a stream allows one SendMsg at a time, and
// one that waits for flow control must not make others wait with a lock held.
//
// It also knows which memory is lent to the transport, because a transport
// that dies forgets to give it back.
type sender struct {
	wake chan struct{} // capacity 1: the queue is not empty, or closed
	done []*Request    // scratch of run

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
// What has gathered while a packet was being sent goes into the next.
func (s *sender) run(send func(any) error) error {
	var batch []*item
	var packet outPacket
	for range s.wake {
		runtime.Gosched() // lets those who are about to push do so
		s.mu.Lock()
		batch, s.queue = s.queue, batch[:0]
		closed := s.closed
		s.mu.Unlock()
		rest := batch
		for len(rest) > 0 && !closed {
			packet.items, rest = fill(packet.items[:0], rest)
			if err := s.send(send, &packet); err != nil {
				s.drop(rest)
				return err
			}
		}
		if closed {
			s.drop(rest)
			return nil
		}
		clear(batch)
	}
	return nil
}

// fill moves items that were not withdrawn from queue to packet: up to and
// with one that has data, and as many as one packet may have.
func fill(packet, queue []*item) (full, rest []*item) {
	size := 0
	for len(queue) > 0 && len(packet) < maxFrames {
		it := queue[0]
		if size += maxHeader + len(it.frame.Body); size > maxBatch && len(packet) > 0 {
			break
		}
		queue = queue[1:]
		if !it.state.CompareAndSwap(itemQueued, itemTaken) {
			continue
		}
		packet = append(packet, it)
		if it.frame.Data.Len() > 0 {
			break
		}
	}
	return packet, queue
}

// send sends one packet. Once that is done, items of a client may already be
// in use for other calls, so they are not touched any more.
func (s *sender) send(send func(any) error, p *outPacket) error {
	if len(p.items) == 0 {
		return nil
	}
	s.done = s.done[:0]
	for _, it := range p.items {
		if it.answers != nil {
			s.done = append(s.done, it.answers)
		}
	}
	err := send(p)
	for _, r := range s.done {
		r.end()
	}
	clear(p.items)
	clear(s.done)
	return err
}

// drop withdraws it unless it is being sent already.
func (it *item) drop() {
	if !it.state.CompareAndSwap(itemQueued, itemDropped) {
		return
	}
	it.frame.Data.Release()
	if it.answers != nil {
		it.answers.end()
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
