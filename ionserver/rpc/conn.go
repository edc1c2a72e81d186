package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/zoidfs/zoidfs/internal/buf"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/shared"
)

// ErrBroken tells that the connection ended before the reply came. Whether
// the request was carried out is unknown. The errno is ECONNRESET.
var ErrBroken = errors.New("connection broken")

// stallTime is how long a cancelled caller waits for a transport that is
// stuck with the caller's memory, and hears nothing from the peer either,
// before it breaks the connection.
const stallTime = 5 * time.Second

// Options adjusts a connection; the zero value is right for production.
type Options struct {
	Dialer    func(ctx context.Context, addr string) (net.Conn, error) // nil: TCP, or a Unix socket to a peer on the same machine
	Pool      *buf.Pool                                                // nil: one of its own
	Logger    *slog.Logger                                             // nil: discard
	Counters  *Counters                                                // nil: nothing is counted
	Keepalive time.Duration                                            // of silence until the peer is probed; 0 and less than 10 s: 10 s
	// Shared is memory that peers on this machine may be shown: payloads that lie
	// in it are lent to them. nil: there is none. It is for the Dialer that is nil.
	Shared *shared.Region

	// Callback answers a request of the I/O node, see Peer.Call. Each runs in a
	// goroutine of its own, in any order; ctx ends with the connection, and
	// Close waits for those at work. nil: they are refused with EOPNOTSUPP.
	Callback func(ctx context.Context, f *Frame) *Frame
}

func (o Options) withDefaults() Options {
	if o.Dialer == nil {
		own := o.Shared
		o.Dialer = func(ctx context.Context, addr string) (net.Conn, error) { return dialPeer(ctx, addr, own) }
	}
	if o.Pool == nil {
		o.Pool = new(buf.Pool)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Counters == nil {
		o.Counters = new(Counters)
	}
	o.Keepalive = max(o.Keepalive, keepaliveTime)
	return o
}

// Conn is the requesting side of one stream. Its goroutines end with Close.
type Conn struct {
	opt    Options
	link   *link
	cc     *grpc.ClientConn
	stream grpc.ClientStream
	ctx    context.Context    // ends with the stream
	cancel context.CancelFunc // of the stream
	group  errgroup.Group
	out    *sender
	broken chan struct{}
	calls  sync.Pool // of *call
	stall  time.Duration
	heard  atomic.Uint64 // replies so far

	mu      sync.Mutex
	next    uint64           // guarded by mu; the last id given
	pending map[uint64]*call // guarded by mu; nil once broken
	cause   error            // guarded by mu; why the stream ended
}

// call is one request that waits for its reply.
type call struct {
	item
	reply chan *Frame // capacity 1; nil is sent when the stream broke
}

// start sets the goroutines of an established stream to work.
func (c *Conn) start() {
	c.group.Go(func() error {
		c.fail(c.receive())
		return nil
	})
	c.group.Go(func() error {
		if err := c.out.run(); err != nil {
			c.cancel() // receive learns the cause, if there is a better one
		}
		return nil
	})
}

// receive hands replies to their callers until the stream ends.
func (c *Conn) receive() error {
	in := inPacket{near: c.link.near, newFrame: func() *Frame { return new(Frame) }}
	var waiting []*call // of in.frames
	for {
		in.frames = in.frames[:0]
		if err := c.stream.RecvMsg(&in); err != nil {
			return err
		}
		c.heard.Add(1)
		waiting = waiting[:0]
		c.mu.Lock()
		for _, f := range in.frames {
			if isCallback(f) {
				waiting = append(waiting, nil)
				continue
			}
			waiting = append(waiting, c.pending[f.ID])
			delete(c.pending, f.ID)
		}
		c.mu.Unlock()
		for i, f := range in.frames {
			c.opt.Counters.receive(f)
			if isCallback(f) {
				c.opt.Counters.request(f.Op)
				c.group.Go(func() error { c.callback(f); return nil })
			} else if w := waiting[i]; w != nil {
				w.reply <- f
			} else { // the caller has gone
				f.Data.Release()
			}
			in.frames[i], waiting[i] = nil, nil
		}
	}
}

// fail ends the connection for cause and tells all callers. The first cause
// counts.
func (c *Conn) fail(cause error) {
	c.mu.Lock()
	pending := c.pending
	c.pending = nil
	first := c.cause == nil
	if first {
		c.cause = cause
	}
	c.mu.Unlock()
	if !first {
		return
	}
	c.cancel()
	c.link.abort() // now, not when gRPC has said goodbye to a peer that may be dead
	close(c.broken)
	for _, w := range pending {
		w.reply <- nil
	}
	c.out.close()
}

// Broken is closed when the stream has ended.
func (c *Conn) Broken() <-chan struct{} { return c.broken }

// Close ends the connection. Calls under way get ErrBroken.
func (c *Conn) Close() error {
	c.fail(net.ErrClosed)
	c.cc.Close() // fails only if closed already
	return c.group.Wait()
}

// Err is the ErrBroken with its cause once Broken is closed, nil before.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil {
		return nil
	}
	return errno.Wrap("rpc", syscall.ECONNRESET, fmt.Errorf("%w: %w", ErrBroken, c.cause))
}

// Call sends f and waits for the reply, whose Data the caller releases. It
// takes f.Data over in any case and does not change f. With f.ID 0 the Conn
// numbers the request; a caller that numbers one must number them all, and
// none twice at once. A reply, even one that tells of a failure, is no error;
// errors are ErrBroken and, when ctx ended first, one that wraps its cause.
func (c *Conn) Call(ctx context.Context, f *Frame) (*Frame, error) {
	w, err := c.send(f, f.Data)
	if err != nil {
		return nil, err
	}
	return c.wait(ctx, w)
}

// CallBytes is Call with payload p in place of f.Data, sent without a copy if
// it is long. It returns only when nothing can read p on its way out any more,
// be it answered, cancelled or broken.
func (c *Conn) CallBytes(ctx context.Context, f *Frame, p []byte) (*Frame, error) {
	return c.CallPieces(ctx, f, [][]byte{p})
}

// CallPieces is CallBytes with a payload that lies in several places.
func (c *Conn) CallPieces(ctx context.Context, f *Frame, pieces [][]byte) (*Frame, error) {
	n := 0
	for _, p := range pieces {
		n += len(p)
	}
	if n < minLent {
		b := c.opt.Pool.New(n)
		at := b.Bytes()
		for _, p := range pieces {
			at = at[copy(at, p):]
		}
		w, err := c.send(f, Pooled(b))
		if err != nil {
			return nil, err
		}
		return c.wait(ctx, w)
	}
	back := make(chan struct{})
	d := lent(pieces, c.link, func() { close(back) })
	w, err := c.send(f, d)
	if err != nil {
		return nil, err
	}
	reply, err := c.wait(ctx, w)
	c.await(back)
	return reply, err
}

// await waits for back and breaks a connection on which nothing moves.
func (c *Conn) await(back <-chan struct{}) {
	select {
	case <-back:
		return
	default:
	}
	stall := time.NewTicker(c.stall)
	defer stall.Stop()
	for heard := c.heard.Load(); ; heard = c.heard.Load() {
		select {
		case <-back:
			return
		case <-stall.C:
			if c.heard.Load() == heard {
				c.fail(fmt.Errorf("rpc: the peer has taken nothing for %v", c.stall))
				<-back
				return
			}
		}
	}
}

// send queues f with payload d.
func (c *Conn) send(f *Frame, d Data) (*call, error) {
	if err := (&Frame{Body: f.Body, Data: d}).checkLimits(); err != nil {
		d.Release()
		return nil, errno.Wrap("rpc.Call", syscall.EMSGSIZE, err)
	}
	w, ok := c.calls.Get().(*call)
	if !ok {
		w = &call{reply: make(chan *Frame, 1)}
	}
	w.frame = *f
	w.state.Store(itemQueued)
	c.mu.Lock()
	if c.pending == nil {
		c.mu.Unlock()
		d.Release()
		return nil, c.Err()
	}
	if w.frame.ID == 0 {
		c.next++
		w.frame.ID = c.next
	}
	c.pending[w.frame.ID] = w
	alone := len(c.pending) == 1
	c.mu.Unlock()
	c.out.load(&w.item, d)
	c.opt.Counters.request(w.frame.Op)
	c.opt.Counters.send(&w.frame)
	if !c.out.push(&w.item, alone) { // broken just now: fail tells w
		w.drop()
	}
	return w, nil
}

// wait returns the reply to w, which then is free for another call.
func (c *Conn) wait(ctx context.Context, w *call) (*Frame, error) {
	id := w.frame.ID
	select {
	case f := <-w.reply:
		if f == nil {
			return nil, c.Err()
		}
		c.calls.Put(w)
		return f, nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	_, waiting := c.pending[id]
	delete(c.pending, id)
	c.mu.Unlock()
	if !waiting { // the reply, or the end, has won
		f := <-w.reply
		if f == nil {
			return nil, c.Err()
		}
		return f, nil
	}
	w.drop() // if it was not sent yet; w itself stays in the queue
	return nil, errno.Wrap("rpc.Call", errno.Of(context.Cause(ctx)), context.Cause(ctx))
}
