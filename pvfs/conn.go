package pvfs

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const (
	readAhead   = 32 << 10 // bytes of a connection's buffer for headers and responses
	maxResponse = 8 << 20  // bytes of the longest response that is accepted
	maxBatch    = 1 << 20  // bytes at which the writer stops adding to a batch
	maxSlices   = 512      // pieces of memory at which it stops
	maxMessages = 32       // flow messages in a batch
	retireGrace = 2 * time.Second
	leadTime    = 5 * time.Millisecond  // for which a caller receives for itself
	watchEvery  = 50 * time.Millisecond // how soon somebody receives on a connection that nobody has use for
)

// errClosed ends the connections of a closed client.
var errClosed = errors.New("client closed")

// lostError is an attempt that ended without an answer.
type lostError struct {
	sent bool // the server may have seen the request
	err  error
}

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// conn is one TCP connection. Requests go out in the order in which they were
// posted, and the flow messages of writes in the order of their requests: that
// keeps a server, which reads a connection in order and runs requests of one
// object in order, from waiting for itself. The writer sends waiting requests
// before more flow data.
//
// One goroutine at a time receives. A caller whose call is all that a
// connection has to do does so itself, so that its answer wakes nobody else;
// otherwise the reader's loop does, for all.
type conn struct {
	nc      net.Conn
	raw     syscall.RawConn // nil if nc is no socket
	srv     *server
	flowBuf int           // bytes of a flow message
	wake    chan struct{} // tells the writer that there is something to send
	needed  chan struct{} // tells the reader that there is something to receive
	dead    chan struct{} // closed when the connection is no longer used

	lastRecv atomic.Int64 // see Client.now

	mu        sync.Mutex
	idle      sync.Cond       // told when reading or receiving becomes unset, and with every batch
	pending   map[int64]*call // guarded by mu
	lastTag   int64           // guarded by mu
	reqs      []*call         // guarded by mu; posted, not sent
	data      []*call         // guarded by mu; writes with flow messages to send
	readFlows int             // guarded by mu; reads among pending
	reading   *call           // guarded by mu; whose memory the reader is filling
	receiving bool            // guarded by mu; somebody has in
	readKick  bool            // guarded by mu; the reader's deadline was set to interrupt it
	writeKick bool            // guarded by mu; so was the writer's
	sending   bool            // guarded by mu; somebody has out
	left      bool            // guarded by mu; out has what is left for the loop
	batches   uint64          // guarded by mu; that the writer has let go of
	retired   *time.Timer     // guarded by mu; no new calls, ends the connection
	err       error           // guarded by mu; why it is dead

	in  reader
	out writer
}

func newConn(s *server, nc net.Conn) *conn {
	c := &conn{
		nc: nc, srv: s, flowBuf: s.client.fs.FlowBufferSize,
		wake: make(chan struct{}, 1), needed: make(chan struct{}, 1), dead: make(chan struct{}),
		pending: map[int64]*call{},
	}
	if t, ok := nc.(*net.TCPConn); ok {
		if raw, err := t.SyscallConn(); err == nil {
			c.raw = raw
		}
	}
	c.idle.L = &c.mu
	c.lastRecv.Store(s.client.now())
	c.in.init(c)
	c.out.init()
	return c
}

// run serves the connection until it fails or kill is called. Calls that are
// pending then fail with a lostError.
func (c *conn) run() error {
	var g errgroup.Group
	g.Go(func() error {
		c.kill(c.readLoop())
		return nil
	})
	c.kill(c.writeLoop())
	_ = g.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.receiving { // a caller
		c.idle.Wait()
	}
	if c.retired != nil {
		c.retired.Stop()
	}
	for _, k := range c.pending {
		c.finishLocked(k, &lostError{k.st.started, c.err})
	}
	c.reqs, c.data = nil, nil
	return nil
}

// kill ends the connection because of err; only the first one counts.
func (c *conn) kill(err error) {
	c.srv.client.lostConn() // before anybody opens another connection
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err = err
		close(c.dead)
	}
	c.mu.Unlock()
	if !first {
		return
	}
	if t, ok := c.nc.(*net.TCPConn); ok && !errors.Is(err, errClosed) {
		_ = t.SetLinger(0) // what was not delivered yet must not be
	}
	_ = c.nc.Close()
}

// usable reports whether new calls may be posted.
func (c *conn) usable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil && c.retired == nil
}

// post queues k. The outcome comes through k.done unless post itself fails,
// with a lostError.
func (c *conn) post(k *call) error {
	now := c.srv.client.now()
	c.mu.Lock()
	if c.err != nil || c.retired != nil {
		err := c.err
		if err == nil {
			err = errors.New("connection retired")
		}
		c.mu.Unlock()
		return &lostError{false, err}
	}
	slot := k.st.slot
	k.st = attempt{slot: slot, tag: c.tagLocked(), left: k.total}
	k.conn = c
	if !k.silent {
		k.progress.Store(now)
	}
	wire.Header{Mode: wire.Unexpected, Tag: k.st.tag, Size: int64(len(k.frame)) - wire.HeaderSize + k.inline()}.Append(k.frame[:0])
	c.pending[k.st.tag] = k
	c.reqs = append(c.reqs, k)
	switch k.kind {
	case kindWrite:
		c.data = append(c.data, k)
	case kindRead:
		c.readFlows++
	}
	if !c.receiving && (len(c.pending) > 1 || k.flows()) {
		nudge(c.needed)
	}
	op, account := k.op, k.account // from here on it may be answered
	alone := len(c.reqs) == 1 && len(c.data) == 0 && !c.sending
	c.mu.Unlock()
	c.srv.client.stats.sent(op)
	account.sent(op)
	if alone && c.raw != nil {
		c.sendNow()
	} else {
		nudge(c.wake)
	}
	return nil
}

// inline is the number of bytes that follow the frame in the same message.
func (k *call) inline() int64 {
	if k.kind == kindSmallWrite {
		return k.total
	}
	return 0
}

// tagLocked returns a tag that no pending call has.
func (c *conn) tagLocked() int64 {
	for {
		c.lastTag++
		if c.lastTag > 1<<31-1 {
			c.lastTag = 1
		}
		if _, used := c.pending[c.lastTag]; !used {
			return c.lastTag
		}
	}
}

// nudge makes the loop that waits for what look.
func nudge(what chan<- struct{}) {
	select {
	case what <- struct{}{}:
	default:
	}
}

// finishLocked ends k's attempt; its owner learns of it once the writer has let
// go of its memory.
func (c *conn) finishLocked(k *call, err error) {
	if k.st.finished || k.st.ready {
		return
	}
	delete(c.pending, k.st.tag)
	switch k.kind {
	case kindRead:
		c.readFlows--
	case kindWrite:
		if i := slices.Index(c.data, k); i >= 0 {
			c.data = slices.Delete(c.data, i, i+1)
		}
	}
	if !k.st.started {
		if i := slices.Index(c.reqs, k); i >= 0 {
			c.reqs = slices.Delete(c.reqs, i, i+1)
		}
	}
	k.st.err, k.st.ready = err, true
	if !k.st.busy {
		c.tellLocked(k)
	}
}

// tellLocked tells the owner of a finished call.
func (c *conn) tellLocked(k *call) {
	k.st.finished = true
	c.srv.release(k)
	if !k.st.abandoned {
		k.done <- k.st.err
	}
	if c.retired != nil && len(c.pending) == 0 {
		c.retired.Reset(0)
	}
}

// retireLocked takes the connection out of service: a server that refused a
// write may never read what was sent behind it. Calls that were not sent fail
// at once, the others have a moment to be answered.
func (c *conn) retireLocked(why error) {
	if c.retired != nil || c.err != nil {
		return
	}
	c.retired = time.AfterFunc(retireGrace, func() { c.kill(why) })
	for _, k := range slices.Clone(c.reqs) {
		c.finishLocked(k, &lostError{false, why})
	}
	if len(c.pending) == 0 {
		c.retired.Reset(0)
	}
}

// abandon takes k back from the connection because its owner goes away. If it
// returns true, k has finished and done holds the outcome; else the owner must
// forget k. Afterwards none of the owner's memory is used. The rest of a write
// that is under way is copied and still sent, a read is drained.
func (c *conn) abandon(k *call) (finished bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.st.finished {
		return true
	}
	k.st.abandoned = true
	if !k.st.started {
		c.finishLocked(k, errClosed)
		return false
	}
	if k.kind == kindWrite && k.st.left > 0 && !k.st.ready {
		k.takeOver()
	}
	past := time.Unix(1, 0)
	if c.reading == k {
		c.readKick = true
		_ = c.nc.SetReadDeadline(past)
	}
	if k.st.busy {
		c.writeKick = true
		_ = c.nc.SetWriteDeadline(past)
	}
	// Only the batch that is being written can hold the owner's memory. A later
	// one may make k busy again, with what takeOver copied.
	for batch := c.batches; c.reading == k || k.st.busy && c.batches == batch; {
		c.idle.Wait()
	}
	return false
}

// protocolError is something that a peer must not send.
func protocolError(format string, args ...any) error {
	return errno.Wrap("pvfs", syscall.EPROTO, fmt.Errorf(format, args...))
}
