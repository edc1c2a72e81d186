package rpc

import (
	"cmp"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/buf"
)

const (
	maxAtOnce  = 16 << 10 // bytes that are sent by Write itself
	maxUnsent  = 2 << 20  // bytes that the socket has not taken at which gRPC's writer has to wait
	smallSize  = 32 << 10 // bytes of memory for copies
	minLent    = 8 << 10  // bytes; anything shorter is copied
	closeGrace = time.Second
)

// link is the connection below gRPC. Over a plain one gRPC copies every
// payload twice: into a large buffer, to have few system calls for its frames
// of 16 KiB, and out of such a buffer. A link is to gRPC a connection that
// needs no such buffers, and the pool of those that frames are received into.
//
// What is written is queued and sent, by a goroutine of its own if it is much,
// with as few system calls as the socket allows: memory that was lent to the
// transport from where it is, everything else from a copy, because gRPC uses
// it again after Write. Lent memory goes back when it has been sent, or will
// never be.
//
// For what is received, see inbound.
type link struct {
	net.Conn
	inbound
	group sync.WaitGroup        // of the sending goroutine
	try   func(fd uintptr) bool // trySend, as a value
	near  *nearConn             // what Conn is, or nil

	mu      sync.Mutex
	work    sync.Cond // next is not empty, or closing
	room    sync.Cond // next has become empty, or err is set
	content int       // guarded by mu; bytes of the DATA frame being written that are to come
	next    *batch    // guarded by mu; what Write adds to
	busy    *batch    // guarded by mu; what is being sent, if not empty
	lent    holds     // guarded by mu
	closing bool      // guarded by mu
	err     error     // guarded by mu; why nothing is sent any more
}

// batch is what goes out with one call.
type batch struct {
	vec    [][]byte
	bytes  int
	copies []*[]byte // memory that vec refers to and that is ours
	ended  []*hold   // that gRPC has let go of, and vec may refer to
}

// newLink takes conn over. Close or abort must be called.
func newLink(conn net.Conn, pool *buf.Pool) *link {
	l := &link{Conn: conn, next: new(batch), busy: new(batch)}
	l.near, _ = conn.(*nearConn)
	l.inbound.init(conn, pool)
	l.try = l.trySend
	l.work.L, l.room.L = &l.mu, &l.mu
	l.group.Go(l.send)
	return l
}

// Read receives; see inbound.
func (l *link) Read(p []byte) (int, error) { return l.inbound.Read(p) }

// Write queues p, or sends it at once if it ends a short frame that nothing
// waits in front of.
func (l *link) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.err == nil && l.next.bytes >= maxUnsent {
		l.room.Wait()
	}
	if l.err != nil {
		return 0, l.err
	}
	if len(p) >= minLent && l.lent.has(p) {
		l.next.vec = append(l.next.vec, p)
	} else {
		l.next.copy(p, l.pool)
	}
	l.next.bytes += len(p)
	if l.content == 0 {
		l.content = contentLength(p)
	} else if l.content -= len(p); l.content == 0 {
		l.trySendLocked()
	}
	if l.content == 0 && l.next.bytes > 0 {
		l.work.Signal()
	}
	return len(p), nil
}

// contentLength is what follows p if p is the header of a DATA frame (RFC
// 9113, section 4.1): gRPC writes that by itself, and other frames whole.
func contentLength(p []byte) int {
	if len(p) == 9 && p[3] == 0 {
		return int(p[0])<<16 | int(p[1])<<8 | int(p[2])
	}
	return 0
}

// trySendLocked sends what is queued if that is little, without waiting and
// without waking anybody up. What it cannot send stays in the queue.
func (l *link) trySendLocked() {
	if l.busy.bytes > 0 || l.raw == nil || len(l.next.vec) != 1 || l.next.bytes > maxAtOnce {
		return
	}
	if err := l.raw.Write(l.try); err == nil && l.next.bytes == 0 {
		l.next.reset(l.pool)
	}
}

// trySend is one attempt to send the first piece of the queue.
func (l *link) trySend(fd uintptr) bool {
	n, err := syscall.Write(int(fd), l.next.vec[0])
	if err == nil {
		l.next.vec[0] = l.next.vec[0][n:]
		l.next.bytes -= n
	}
	return true
}

// copy adds p by value.
func (b *batch) copy(p []byte, pool *buf.Pool) {
	for len(p) > 0 {
		if n := len(b.copies); n == 0 || len(*b.copies[n-1]) == smallSize {
			m := pool.Get(smallSize)
			*m = (*m)[:0]
			b.copies = append(b.copies, m)
		}
		m := b.copies[len(b.copies)-1]
		at := len(*m)
		*m = append(*m, p[:min(len(p), smallSize-at)]...)
		added := (*m)[at:]
		p = p[len(added):]
		if n := len(b.vec); n > 0 && at > 0 {
			if last := b.vec[n-1]; &last[len(last)-1] == &(*m)[at-1] {
				b.vec[n-1] = (*m)[at-len(last):]
				continue
			}
		}
		b.vec = append(b.vec, added)
	}
}

// reset empties b.
func (b *batch) reset(pool *buf.Pool) {
	for _, m := range b.copies {
		pool.Put(m)
	}
	clear(b.vec)
	clear(b.copies)
	clear(b.ended)
	b.vec, b.copies, b.ended, b.bytes = b.vec[:0], b.copies[:0], b.ended[:0], 0
}

// send sends what is queued until that fails or Close is called.
func (l *link) send() {
	var bufs net.Buffers
	var ended []*hold
	l.mu.Lock()
	for {
		for l.next.bytes == 0 && !l.closing {
			l.work.Wait()
		}
		if l.next.bytes == 0 {
			break
		}
		l.next, l.busy = l.busy, l.next
		l.room.Broadcast()
		l.mu.Unlock()
		bufs = l.busy.vec
		_, err := bufs.WriteTo(l.Conn)
		l.mu.Lock()
		ended = append(ended, l.busy.ended...)
		l.busy.reset(l.pool)
		if l.err = err; err != nil {
			break
		}
		if len(ended) > 0 {
			l.mu.Unlock()
			for _, h := range ended {
				h.end()
			}
			clear(ended)
			ended = ended[:0]
			l.mu.Lock()
		}
	}
	l.err = cmp.Or(l.err, net.ErrClosed)
	l.next.reset(l.pool)
	ended = l.lent.appendTo(ended)
	l.room.Broadcast()
	l.mu.Unlock()
	_ = l.Conn.Close() // so that the reader ends, too
	for _, h := range ended {
		h.end()
	}
}

// Close sends what is queued, if the peer takes it within closeGrace, and ends
// the connection. All that was lent is free then.
func (l *link) Close() error {
	t := time.AfterFunc(closeGrace, func() { _ = l.Conn.Close() })
	defer t.Stop()
	l.stop()
	return nil
}

// abort ends the connection now.
func (l *link) abort() {
	_ = l.Conn.Close()
	l.stop()
}

func (l *link) stop() {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	l.work.Signal()
	l.group.Wait()
}

// lend makes h known: what Write gets of its memory need not be copied until
// the transport lets go of h.
func (l *link) lend(h *hold) {
	l.mu.Lock()
	dead := l.err != nil
	if !dead {
		l.lent.add(h)
	}
	l.mu.Unlock()
	if dead {
		h.end()
	}
}

// letGo is called when the transport will write nothing more of h.
func (l *link) letGo(h *hold) {
	l.mu.Lock()
	switch {
	case l.next.bytes > 0:
		l.next.ended = append(l.next.ended, h)
	case l.busy.bytes > 0:
		l.busy.ended = append(l.busy.ended, h)
	default:
		l.mu.Unlock()
		h.end()
		return
	}
	l.mu.Unlock()
}

// forget takes h, which has ended, off the list.
func (l *link) forget(h *hold) {
	l.mu.Lock()
	l.lent.remove(h)
	l.mu.Unlock()
}

// owes tells whether memory is lent, apart from the one piece of d.
func (l *link) owes(d Data) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.lent.first
	return first != nil && (first.next != nil || d.Len() == 0 || !first.contains(d.bufs[0].ReadOnlyData()))
}

// holds is a list in the order of lending, which is nearly that of writing.
type holds struct{ first, last, found *hold }

func (s *holds) add(h *hold) {
	h.listed, h.prev = true, s.last
	if s.last == nil {
		s.first = h
	} else {
		s.last.next = h
	}
	s.last = h
}

func (s *holds) remove(h *hold) {
	if !h.listed {
		return
	}
	if h.prev == nil {
		s.first = h.next
	} else {
		h.prev.next = h.next
	}
	if h.next == nil {
		s.last = h.prev
	} else {
		h.next.prev = h.prev
	}
	if s.found == h {
		s.found = nil
	}
	h.listed, h.prev, h.next = false, nil, nil
}

// has tells whether p lies in the memory of one of s.
func (s *holds) has(p []byte) bool {
	if s.found != nil && s.found.contains(p) {
		return true
	}
	for h := s.first; h != nil; h = h.next {
		if h.contains(p) {
			s.found = h
			return true
		}
	}
	return false
}

func (s *holds) appendTo(list []*hold) []*hold {
	for h := s.first; h != nil; h = h.next {
		list = append(list, h)
	}
	return list
}
