package pvfs

import (
	"errors"
	"net"
	"os"
	"slices"
	"time"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// writer is what writeLoop needs.
type writer struct {
	batch   []*call // whose memory is in vec
	vec     [][]byte
	bufs    net.Buffers // what is left of vec
	headers [maxMessages * wire.HeaderSize]byte
}

// writeLoop sends what is queued, as much as possible with one system call.
func (c *conn) writeLoop() error {
	for {
		n := c.fillBatch()
		if n == 0 {
			select {
			case <-c.wake:
				continue
			case <-c.dead:
				return net.ErrClosed
			}
		}
		c.out.bufs = c.out.vec
		for {
			_, err := c.out.bufs.WriteTo(c.nc)
			again, err := c.wrote(err)
			if err != nil {
				return err
			}
			if !again {
				break
			}
		}
	}
}

// fillBatch takes requests, then flow messages, and returns how many bytes.
func (c *conn) fillBatch() int {
	w := &c.out
	clear(w.vec)
	w.batch, w.vec = w.batch[:0], w.vec[:0]
	now := c.srv.client.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0
	}
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
	c.batches++
	c.idle.Broadcast()
	return again, err
}
