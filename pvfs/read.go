package pvfs

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// maxVec is how many pieces of memory one readv fills; x/sys/unix needs no
// allocation for up to 8.
const maxVec = 7

// reader is the receiving half of a connection: a small buffer for headers and
// responses. Flow data never pass through it: while a read is under way no more
// is taken from the socket than is known to be a header or a response.
type reader struct {
	buf  []byte
	r, w int // buf[r:w] was received and not used

	vec  [][]byte // of the readv in progress
	n    int      // its outcome
	err  error
	call func(fd uintptr) bool // runs the readv
}

func (in *reader) init(c *conn) {
	in.buf = make([]byte, readAhead+answerSize)
	in.call = func(fd uintptr) bool {
		for {
			in.n, in.err = readv(fd, in.vec)
			if in.err != unix.EINTR {
				return in.err != unix.EAGAIN
			}
		}
	}
}

// readLoop receives whenever calls are pending and no caller does it for
// itself, and now and then to see whether the connection is still there.
func (c *conn) readLoop() error {
	watch := time.NewTicker(watchEvery)
	defer watch.Stop()
	for {
		select {
		case <-c.needed:
		case <-watch.C:
		case <-c.dead:
			return net.ErrClosed
		}
		if c.takeIn(nil) {
			if err := c.receive(nil, time.Time{}); err != nil {
				return err
			}
		}
	}
}

// errLeave ends a caller's reading in favour of the loop's.
var errLeave = errors.New("not for a caller to wait for")

// lead receives for the owner of k, if that is all there is to do, until k has
// finished, leadTime is over, or something comes that takes long to receive.
func (c *conn) lead(k *call) {
	if k.flows() || !c.takeIn(k) {
		return
	}
	err := c.receive(k, time.Now().Add(leadTime))
	if err != nil && err != errLeave && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.kill(err)
	}
}

// takeIn makes the reader's half the caller's, until receive; false if somebody
// else has it. A caller that waits for k gets it only if no other call is
// pending.
func (c *conn) takeIn(k *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.receiving || c.err != nil || k != nil && (len(c.pending) != 1 || c.pending[k.st.tag] != k) {
		return false
	}
	c.receiving = true
	return true
}

// receive hands messages to their calls until k has finished, or all if k is
// nil. No message is waited for beyond until, if that is set.
func (c *conn) receive(k *call, until time.Time) error {
	for {
		err := c.next(until)
		c.mu.Lock()
		c.receiving = err == nil && len(c.pending) > 0 && (k == nil || c.pending[k.st.tag] == k)
		if c.receiving {
			c.mu.Unlock()
			continue
		}
		if len(c.pending) > 0 {
			nudge(c.needed)
		}
		c.idle.Broadcast()
		c.mu.Unlock()
		return err
	}
}

// next receives one message. A caller, which sets until, waits for no longer and
// for nothing but a short response; the next reader starts with what has come.
func (c *conn) next(until time.Time) error {
	caller := !until.IsZero()
	if caller {
		_ = c.nc.SetReadDeadline(until)
		defer c.nc.SetReadDeadline(time.Time{})
	}
	b, err := c.fill(wire.HeaderSize)
	if err != nil {
		return err
	}
	h, err := wire.DecodeHeader(b)
	if err != nil {
		return err
	}
	c.srv.spoke.Store(true)
	now := c.srv.client.now()
	c.lastRecv.Store(now)
	c.mu.Lock()
	k := c.pending[h.Tag]
	c.mu.Unlock()
	if k == nil || h.Mode == wire.Unexpected {
		return protocolError("message with tag %d of no call", h.Tag)
	}
	k.progress.Store(now)
	flow := k.kind == kindRead && k.st.answered
	if caller && (flow || h.Size > readAhead) {
		return errLeave
	}
	if flow {
		c.in.r += wire.HeaderSize
		return c.flowMessage(k, int(h.Size))
	}
	return c.response(k, int(h.Size))
}

// response receives one for k, with n bytes behind the header.
func (c *conn) response(k *call, n int) error {
	b, err := c.payload(n)
	if err != nil {
		return err
	}
	switch k.kind {
	case kindRead:
		return c.readResponse(k, b)
	case kindWrite:
		return c.writeResponse(k, b)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.st.abandoned { // and k.resp is its owner's
		c.finishLocked(k, nil)
		return nil
	}
	k.status, err = wire.DecodeResponseInto(b, k.op, k.resp)
	if err == nil && k.status == 0 {
		err = c.smallLocked(k)
	}
	c.finishLocked(k, err)
	return nil
}

// smallLocked takes the outcome of a SMALL_IO.
func (c *conn) smallLocked(k *call) error {
	r := &k.scratch.smResp
	switch k.kind {
	case kindSmallRead:
		data := r.Data
		r.Data = nil
		if int64(len(data)) > k.total {
			return protocolError("%d bytes for a read of %d", len(data), k.total)
		}
		if want := k.existing(r.BstreamSize); int64(len(data)) != want {
			return protocolError("%d bytes of %d read", len(data), want)
		}
		k.bstream, k.moved = r.BstreamSize, int64(len(data))
		k.scatter(data)
	case kindSmallWrite:
		if r.Result != k.total {
			return protocolError("%d bytes of %d written", r.Result, k.total)
		}
		k.bstream, k.moved = r.BstreamSize, r.Result
	}
	return nil
}

// readResponse takes the answer to a read, behind which the data follow.
func (c *conn) readResponse(k *call, b []byte) error {
	var err error
	k.status, err = wire.DecodeResponseInto(b, wire.OpIO, &k.scratch.ioResp)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || k.status != 0 {
		c.finishLocked(k, err)
		return nil
	}
	k.bstream = k.scratch.ioResp.BstreamSize
	k.st.left = k.existing(k.bstream)
	k.st.answered = true
	k.moved = k.st.left
	if k.st.left == 0 {
		c.finishLocked(k, nil)
	}
	return nil
}

// writeResponse takes one of the two answers to a write.
func (c *conn) writeResponse(k *call, b []byte) error {
	var err error
	c.mu.Lock()
	defer c.mu.Unlock()
	if !k.st.answered {
		k.status, err = wire.DecodeResponseInto(b, wire.OpIO, &k.scratch.ioResp)
		if err == nil && k.status == 0 {
			k.st.answered = true
			k.bstream = k.scratch.ioResp.BstreamSize
			return nil
		}
	} else {
		var done wire.WriteCompletionResp
		k.status, err = wire.DecodeResponseInto(b, wire.OpWriteCompletion, &done)
		if err == nil && k.status == 0 && (k.st.left > 0 || done.Total != k.total) {
			err = protocolError("%d bytes of %d written", done.Total, k.total)
		}
		k.moved = done.Total
	}
	refused := k.st.left < k.total && (err != nil || k.status != 0)
	c.finishLocked(k, err) // k is no longer ours
	if refused {
		c.retireLocked(errors.New("server refused a write"))
	}
	return nil
}

// flowMessage receives n bytes of data for a read.
func (c *conn) flowMessage(k *call, n int) error {
	if int64(n) > k.st.left || n == 0 {
		return protocolError("%d bytes of data where %d are left", n, k.st.left)
	}
	for n > 0 {
		m, err := c.readInto(k, n)
		if err != nil {
			return err
		}
		n -= m
	}
	if k.st.left == 0 {
		c.mu.Lock()
		c.finishLocked(k, nil)
		c.mu.Unlock()
	}
	return nil
}

// readInto receives up to n bytes of k's data, into its memory or nowhere if
// its owner is gone. Only the reader moves a read's cursor.
func (c *conn) readInto(k *call, n int) (int, error) {
	in := &c.in
	c.mu.Lock()
	gone := k.st.abandoned
	if !gone {
		c.reading = k
	}
	c.mu.Unlock()
	if gone {
		m, err := c.discard(n)
		k.st.left -= int64(m)
		return m, err
	}
	var m int
	var err error
	if in.w > in.r { // arrived together with the response, before we knew
		p := k.pieces[k.st.piece].mem[k.st.off:]
		m = copy(p[:min(len(p), n)], in.buf[in.r:in.w])
		in.r += m
	} else {
		m, err = c.readPieces(k, n)
	}
	c.mu.Lock()
	c.reading = nil
	if c.readKick {
		c.readKick = false
		_ = c.nc.SetReadDeadline(time.Time{})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil
		}
	}
	c.idle.Broadcast()
	c.mu.Unlock()
	k.advance(m)
	return m, err
}

// readPieces receives up to n bytes into the next pieces of k, and behind them
// the next header if the bytes come with it.
func (c *conn) readPieces(k *call, n int) (int, error) {
	in := &c.in
	if c.raw == nil {
		p := k.pieces[k.st.piece].mem[k.st.off:]
		return c.nc.Read(p[:min(len(p), n)])
	}
	in.vec = in.vec[:0]
	want := 0
	for i, off := k.st.piece, k.st.off; want < n && len(in.vec) < maxVec; i, off = i+1, 0 {
		p := k.pieces[i].mem[off:]
		p = p[:min(len(p), n-want)]
		in.vec = append(in.vec, p)
		want += len(p)
	}
	if want == n {
		in.vec = append(in.vec, in.buf[:wire.HeaderSize])
	}
	m, err := c.readVec()
	if m > want {
		in.r, in.w = 0, m-want
		m = want
	}
	return m, err
}

// readVec receives into in.vec.
func (c *conn) readVec() (int, error) {
	in := &c.in
	in.n, in.err = 0, nil // the deadline may be over before anything is tried
	err := c.raw.Read(in.call)
	clear(in.vec)
	if err == nil {
		err = in.err
	}
	if err == nil && in.n == 0 {
		err = io.EOF
	}
	return max(in.n, 0), err
}

// receiveInto receives into p.
func (c *conn) receiveInto(p []byte) (int, error) {
	if c.raw == nil {
		return c.nc.Read(p)
	}
	c.in.vec = append(c.in.vec[:0], p)
	return c.readVec()
}

// discard receives up to n bytes and forgets them.
func (c *conn) discard(n int) (int, error) {
	in := &c.in
	if in.w == in.r {
		in.r, in.w = 0, 0
		return c.receiveInto(in.buf[:min(n, len(in.buf))])
	}
	m := min(n, in.w-in.r)
	in.r += m
	return m, nil
}

// answerSize is header and payload of the response to an IO request, behind
// which flow data may come.
const answerSize = wire.HeaderSize + 24

// fill receives until n bytes are buffered and returns them; n is at most
// wire.HeaderSize + readAhead. What has come before an error stays. It takes no
// more from the socket than cannot be flow data.
func (c *conn) fill(n int) ([]byte, error) {
	in := &c.in
	if in.r == in.w {
		in.r, in.w = 0, 0
	}
	if len(in.buf)-in.r < n+answerSize {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	for in.w-in.r < n {
		limit := len(in.buf)
		c.mu.Lock()
		if c.readFlows > 0 {
			limit = in.r + n
		} else if len(c.pending) == 0 {
			limit = in.r + answerSize // a read may be posted while we wait
		}
		c.mu.Unlock()
		m, err := c.receiveInto(in.buf[in.w:limit])
		if m == 0 && err != nil {
			return nil, err
		}
		in.w += m
	}
	return in.buf[in.r : in.r+n], nil
}

// payload receives the n bytes behind a response's header, which is in the
// buffer. They are good until the next read.
func (c *conn) payload(n int) ([]byte, error) {
	in := &c.in
	if n > maxResponse {
		return nil, protocolError("response of %d bytes", n)
	}
	if n <= readAhead {
		b, err := c.fill(wire.HeaderSize + n)
		if err != nil {
			return nil, err
		}
		in.r += len(b)
		return b[wire.HeaderSize:], nil
	}
	in.r += wire.HeaderSize
	b := make([]byte, n)
	m := copy(b, in.buf[in.r:in.w])
	in.r += m
	_, err := io.ReadFull(c.nc, b[m:])
	return b, err
}
