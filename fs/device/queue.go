package device

import (
	"maps"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// pullWait bounds the waiting for what the answer to a pull has brought.
const pullWait = time.Second

// queue is where requests come from, with the loops that take them: the device, or
// one processor's queue in the kernel.
type queue struct {
	d      *Device
	ring   *ring // nil: of the device
	active int   // loops that are to take requests, or to carry out a small one without waiting

	mu      sync.Mutex
	loops   map[*loop]struct{} // guarded by mu; those that run
	waiting int                // guarded by mu; of their requests, how many wait or move much data
	idle    []*loop            // guarded by mu; those that have ended, and may be started again
	gone    bool               // guarded by mu; the kernel has let go of the mount
}

func (d *Device) newQueue(r *ring, active int) *queue {
	return &queue{d: d, ring: r, active: active, loops: make(map[*loop]struct{})}
}

// start starts the first loops.
func (q *queue) start() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for range q.active {
		q.startLocked()
	}
}

// startLocked starts one more loop.
func (q *queue) startLocked() {
	if n := len(q.idle); n > 0 {
		l := q.idle[n-1]
		q.idle = q.idle[:n-1]
		q.loops[l] = struct{}{}
		l.over = false
		l.again <- true
		return
	}
	l := q.newLoop()
	q.loops[l] = struct{}{}
	q.d.ended.Go(l.run)
}

// waits notes that a request waits, of those of the queue: the READ or WRITE which
// cancel interrupts, if direct, and else every one that go-fuse has, as one of those
// it is. It reports whether it has found one.
func (q *queue) waits(cancel <-chan struct{}, direct bool) (found bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for l := range q.loops {
		if l.unique != 0 && l.direct == direct && (!direct || l.cancel == cancel) {
			q.waitsLocked(l)
			found = true
		}
	}
	return found
}

// waitsLocked has another loop take the place of l, whose request waits. mu is held.
func (q *queue) waitsLocked(l *loop) {
	if l.waits {
		return
	}
	l.waits = true
	q.waiting++
	if len(q.loops)-q.waiting < q.active && (q.ring != nil || q.d.big.Load() < maxLarge) && !q.gone {
		q.startLocked()
	}
}

// begin notes which request l carries out now: direct if by this package, long if it
// moves much data, which is as good as waiting.
func (q *queue) begin(l *loop, unique uint64, direct, long bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l.unique, l.direct = unique, direct
	if long {
		q.waitsLocked(l)
	}
}

// end ends begin.
func (q *queue) end(l *loop) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l.unique = 0
	if l.closed {
		l.cancel, l.closed = make(chan struct{}), false
	}
	if l.waits {
		l.waits = false
		q.waiting--
	}
}

// more reports whether l is to take another request; else it ends.
func (q *queue) more(l *loop) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.gone && len(q.loops)-q.waiting <= q.active {
		return true
	}
	delete(q.loops, l)
	l.over = true
	if q.gone {
		close(l.again)
	} else {
		q.idle = append(q.idle, l)
	}
	return false
}

// stop has no more requests taken, and returns the loops that are left.
func (q *queue) stop() map[*loop]struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.gone = true
	for _, l := range q.idle {
		close(l.again)
	}
	q.idle = nil
	return maps.Clone(q.loops)
}

// settle prepares l, which starts on a thread of its own, to take requests from the
// ring.
func (q *queue) settle() {
	q.mu.Lock()
	defer q.mu.Unlock()
	behind, err := q.ring.makeRoom(len(q.loops))
	if err != nil {
		q.d.log.Error("make room for requests", "err", err)
	}
	if behind && !q.gone {
		q.d.ended.Go(q.pull)
	}
}

// interrupted passes an interrupt of the request unique on if that is a READ or a
// WRITE in progress, and reports whether it is.
func (q *queue) interrupted(unique uint64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for l := range q.loops {
		if l.direct && l.unique == unique {
			l.interruptLocked()
			return true
		}
	}
	return false
}

// pull has the kernel pass on what is behind on the ring: it does so when it gets a
// reply, and all that are in progress may wait for one that is behind. So this asks
// something itself, on the ring's processor.
func (q *queue) pull() {
	runtime.LockOSThread() // for good: the thread ends with this
	if runOn(int(q.ring.qid)) != nil {
		return // it has gone offline
	}
	brought := make(chan bool, 1)
	q.d.pullers.Store(unix.Gettid(), brought)
	defer q.d.pullers.Delete(unix.Gettid())
	for more := true; more; {
		var st unix.Statfs_t
		if unix.Statfs(q.d.point, &st) != nil {
			return
		}
		select {
		case more = <-brought:
		case <-time.After(pullWait): // it went elsewhere
			return
		}
	}
}

// pulled answers the request in e if it is a pull's, and reports whether it is.
func (q *queue) pulled(e *entry, head *fuse.InHeader) bool {
	if head.Opcode != opStatfs {
		return false
	}
	v, ok := q.d.pullers.Load(int(head.Pid))
	if !ok {
		return false
	}
	before := q.ring.passed()
	e.answer(fuse.OutHeader{Unique: head.Unique}, make([]byte, unsafe.Sizeof(fuse.StatfsOut{})))
	q.ring.tell()
	v.(chan bool) <- q.ring.passed() != before
	return true
}
