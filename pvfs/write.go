package pvfs

import (
	"errors"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// maxIov is how many pieces of memory the kernel takes in one writev.
const maxIov = 1024

// writer is the sending half of a connection. It belongs to whoever set
// conn.sending, until wrote.
type writer struct {
	batch   []*call // whose memory is in vec
	vec     [][]byte
	bufs    net.Buffers // what is left of vec
	headers [maxMessages * wire.HeaderSize]byte

	n    int // outcome of the writev in progress
	err  error
	call func(fd uintptr) bool // runs the writev
}

func (w *writer) init() {
	w.call = func(fd uintptr) bool {
		for {
			w.n, w.err = writev(fd, w.bufs[:min(len(w.bufs), maxIov)])
			if w.err != unix.EINTR {
				return true // also if the socket is full
			}
		}
	}
}

// writeLoop sends what is queued, as much as possible with one system call.
func (c *conn) writeLoop() error {
	for {
		if !c.takeOut(true) {
			select {
			case <-c.wake:
				continue
			case <-c.dead:
				if c.takeOut(true) { // sendNow left it
					_, _ = c.wrote(net.ErrClosed)
				}
				return net.ErrClosed
			}
		}
		for again := true; again; {
			_, err := c.out.bufs.WriteTo(c.nc)
			if again, err = c.wrote(err); err != nil {
				return err
			}
		}
	}
}

// takeOut makes the writer's half the caller's, with a batch to be sent; false
// if somebody else is sending or there is nothing to send. The loop also takes
// what sendNow left.
func (c *conn) takeOut(loop bool) bool {
	now := c.srv.client.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if loop && c.left {
		c.left = false
		return true
	}
	if c.sending || c.err != nil {
		return false
	}
	c.sending = c.fillLocked(now) > 0
	c.out.bufs = c.out.vec
	return c.sending
}

// sendNow sends for the goroutine that posted a request when nothing else was
// being sent, which saves the way through another goroutine. It does not wait
// for the socket: what that does not take at once is left to the loop.
func (c *conn) sendNow() {
	if !c.takeOut(false) {
		return
	}
	w := &c.out
	w.n, w.err = 0, nil
	err := c.raw.Write(w.call)
	if err == nil && w.err != unix.EAGAIN {
		err = w.err
	}
	again := false
	if err == nil {
		consume(&w.bufs, max(w.n, 0))
		again = c.leave()
	}
	if !again {
		if again, err = c.wrote(err); err != nil {
			c.kill(err)
			return
		}
		again = again && c.leave()
	}
	if again || c.hasMore() {
		nudge(c.wake)
	}
}

// leave gives what is left of the batch to the loop; false if there is nothing.
func (c *conn) leave() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = len(c.out.bufs) > 0 && c.err == nil
	return c.left
}

func (c *conn) hasMore() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.reqs)+len(c.data) > 0
}

// consume takes n bytes off the front of v.
func consume(v *net.Buffers, n int) {
	for len(*v) > 0 && n >= len((*v)[0]) {
		n -= len((*v)[0])
		*v = (*v)[1:]
	}
	if n > 0 {
		(*v)[0] = (*v)[0][n:]
	}
}

// fillLocked takes requests, then flow messages, and returns how many bytes.
func (c *conn) fillLocked(now int64) int {
	w := &c.out
	clear(w.vec)
	w.batch, w.vec = w.batch[:0], w.vec[:0]
	total, taken := 0, 0
	for _, k := range c.reqs {
		if total >= maxBatch || len(w.vec) >= maxSlices {
			break
		}
		taken++
		w.vec = append(w.vec, k.frame)
		total += len(k.frame)
		if k.kind == kindSmallWrite {
			total += int(k.st.left)
			w.vec = k.gather(w.vec, int(k.st.left))
		}
		k.st.started = true
		c.takeLocked(k, now)
	}
	c.reqs = slices.Delete(c.reqs, 0, taken)
	messages := 0
	for len(c.data) > 0 && messages < maxMessages {
		if messages > 0 && (total >= maxBatch || len(w.vec) >= maxSlices) {
			break // one message goes out with any number of requests
		}
		k := c.data[0]
		if !k.st.started {
			break // its request is still queued
		}
		n := int(min(k.st.left, int64(c.flowBuf)))
		h := w.headers[messages*wire.HeaderSize:]
		w.vec = append(w.vec, wire.Header{Mode: wire.ModeFor(n), Tag: k.st.tag, Size: int64(n)}.Append(h[:0]))
		w.vec = k.gather(w.vec, n)
		messages++
		total += n + wire.HeaderSize
		c.takeLocked(k, now)
		if k.st.left == 0 {
			c.data = slices.Delete(c.data, 0, 1)
		}
	}
	return total
}

func (c *conn) takeLocked(k *call, now int64) {
	k.progress.Store(now)
	if !k.st.busy {
		k.st.busy = true
		c.out.batch = append(c.out.batch, k)
	}
}

// wrote ends a write with outcome err. again means that there is more of the
// batch to be written: an owner went away, and the rest was copied so that its
// memory is free.
func (c *conn) wrote(err error) (again bool, _ error) {
	w := &c.out
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writeKick {
		c.writeKick = false
		_ = c.nc.SetWriteDeadline(time.Time{})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			var rest []byte
			for _, b := range w.bufs {
				rest = append(rest, b...)
			}
			w.bufs, again, err = net.Buffers{rest}, len(rest) > 0, nil
		}
	}
	for _, k := range w.batch {
		k.st.busy = false
		if k.st.ready {
			c.tellLocked(k)
		}
	}
	w.batch = w.batch[:0]
	c.sending = again
	c.batches++
	c.idle.Broadcast()
	return again, err
}
