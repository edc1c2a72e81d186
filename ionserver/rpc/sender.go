package rpc

import (
	"runtime"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/mem"
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
	short int // bytes of its data, if they are less than minLent
	state atomic.Int32
	// On a server, the request whose end is the end of this item.
	answers *Request
}

// sender sends the frames of many goroutines over one stream, in the order of
// push. A stream allows one SendMsg at a time, and one that waits for flow
// control must not make others wait. Hence a goroutine of its own sends,
// except when SendMsg cannot wait because the transport has written all that
// it got before: then push sends, which saves the change of goroutine. What
// gathers while a packet is being sent goes into the next.
type sender struct {
	link   *link
	unsent atomic.Int64  // packets that the transport has not written
	heads  sync.Pool     // of *head
	wake   chan struct{} // capacity 1: there is something for run to do
	done   []*Request    // scratch of write
	packet outPacket     // scratch of write

	send func(any) error // SendMsg of the stream; called with busy set

	mu     sync.Mutex
	queue  []*item // guarded by mu; bounded by the users' own limits
	busy   bool    // guarded by mu; somebody is sending
	closed bool    // guarded by mu; nothing is accepted any more
	err    error   // guarded by mu; of the write that closed it
}

func newSender(l *link, send func(any) error) *sender {
	s := &sender{link: l, send: send, wake: make(chan struct{}, 1)}
	s.packet.link = l
	if l.borrows() {
		l.near.borrower.onReturn(s.signal)
	}
	return s
}

// carry makes d one that is sent from where it is, and that comes back even
// from a transport that forgets it; d's hold goes with it.
func (l *link) carry(d Data) Data {
	if !d.lend || d.Len() < minLent {
		return d
	}
	if len(d.bufs) == 1 {
		h := &hold{mem: d.bufs[0].ReadOnlyData(), letGo: d.Release, link: l}
		return Data{bufs: mem.BufferSlice{h.buffer()}}
	}
	return lent(d.Append(nil), l, d.Release)
}

// load makes d the payload of it. What is most likely lent to the peer is
// prepared for the transport only if that turns out to be impossible.
func (s *sender) load(it *item, d Data) {
	it.frame.Data, it.short = d, d.Len()
	if it.short < minLent {
		return
	}
	it.short = 0
	if !s.link.lends(d) {
		it.frame.Data = s.link.carry(d) // which ends the hold at once if the link is cut
	}
}

// push sends it or queues it, and reports whether it will be handled; if not,
// the caller keeps it. It never blocks. What is not alone, because others are
// under way on the stream, is always queued: with luck it goes out with them.
func (s *sender) push(it *item, alone bool) bool {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false
	}
	if !alone || s.busy || len(s.queue) > 0 || s.unsent.Load() > 0 || s.link.owes(it.frame.Data) {
		s.queue = append(s.queue, it)
		first := len(s.queue) == 1 && !s.busy
		s.mu.Unlock()
		if first {
			s.signal()
		}
		return true
	}
	s.busy = true
	s.mu.Unlock()
	it.state.Store(itemTaken)
	s.packet.items = append(s.packet.items, it)
	s.finish(s.write())
	return true
}

// finish ends a turn of sending.
func (s *sender) finish(err error) {
	s.mu.Lock()
	s.busy = false
	if err != nil && !s.closed {
		s.closed, s.err = true, err
	}
	more := s.closed || len(s.queue) > 0
	s.mu.Unlock()
	if more {
		s.signal()
	}
}

func (s *sender) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run sends until that fails or close is called, then drops the rest.
func (s *sender) run() error {
	var batch []*item
	for range s.wake {
		runtime.Gosched() // lets those who are about to push do so
		s.mu.Lock()
		if s.busy { // finish will signal
			s.mu.Unlock()
			continue
		}
		if s.closed {
			queue, err := s.queue, s.err
			s.queue = nil
			s.mu.Unlock()
			drop(queue)
			return err
		}
		if len(s.queue) == 0 && !s.link.owesLoans() {
			s.mu.Unlock()
			continue
		}
		s.busy = true
		batch, s.queue = s.queue, batch[:0]
		s.mu.Unlock()
		var err error
		for rest, again := batch, true; again && err == nil; again = len(rest) > 0 {
			s.packet.items, rest = fill(s.packet.items, rest)
			if err = s.write(); err != nil {
				drop(rest)
			}
		}
		clear(batch)
		s.finish(err)
	}
	return nil
}

// fill moves items that were not withdrawn from queue to packet: up to and
// with one that has long data, and as many as one packet may have.
func fill(packet, queue []*item) (full, rest []*item) {
	size := 0
	for len(queue) > 0 && len(packet) < maxFrames {
		it := queue[0]
		size += maxHeader + len(it.frame.Body) + it.short
		if size > maxBatch && len(packet) > 0 {
			break
		}
		queue = queue[1:]
		if !it.state.CompareAndSwap(itemQueued, itemTaken) {
			continue
		}
		packet = append(packet, it)
		if it.frame.Data.Len() >= minLent {
			break
		}
	}
	return packet, queue
}

// write sends the packet, and what loans are to be returned. Once that is done,
// items of a client may already be in use for other calls, so they are not touched
// any more.
func (s *sender) write() error {
	p := &s.packet
	if len(p.items) == 0 && !s.link.owesLoans() {
		return nil
	}
	for _, it := range p.items {
		if it.answers != nil {
			s.done = append(s.done, it.answers)
		}
	}
	h, ok := s.heads.Get().(*head)
	if !ok {
		h = newHead(s.written)
	}
	p.head = h
	s.unsent.Add(1)
	err := s.send(p)
	for _, r := range s.done {
		r.end()
	}
	clear(p.items)
	clear(s.done)
	p.items, s.done = p.items[:0], s.done[:0]
	return err
}

// written is called when the transport has no more use for h.
func (s *sender) written(h *head) {
	s.unsent.Add(-1)
	if cap(h.mem) <= maxBatch {
		s.heads.Put(h)
	}
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

func drop(items []*item) {
	for _, it := range items {
		it.drop()
	}
}

// close makes run return, after the frame that it is sending.
func (s *sender) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
}
