package pvfsd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// Limits of one connection.
const (
	maxRunning  = 128 // requests being worked on; more wait in the socket
	maxReplies  = 512 // requests accepted whose response is not yet written
	maxFlows    = 512 // writes waiting for data; more are refused with ENOBUFS
	readBuffer  = 16 << 10
	writeGather = 64 // messages written with one system call

	frameTimeout = 10 * time.Second // without a byte in the middle of a header or request
)

// conn serves one connection. Its reader accepts requests and hands each to a
// goroutine of ops; its writer sends what they answer. A request holds a slot
// of replies until its response is written, so a client that does not read is
// not read from either.
//
// A write does not occupy a goroutine while it waits for data: the reader
// passes each data message to its flow, which is worked off by ops. So any
// number of writes up to maxFlows can be open, in any order of their data.
type conn struct {
	s       *Server
	nc      net.Conn
	br      *bufio.Reader
	src     *frameSource
	ops     *workers
	replies chan struct{} // capacity maxReplies, a token a response not yet written
	in, out *quota        // flow buffers for data received and to be sent
	flows   flowTable
	access  access // what the peer may do
	queue   outQueue
}

func newConn(s *Server, nc net.Conn) *conn {
	src := &frameSource{nc: nc}
	c := &conn{
		s: s, nc: nc, src: src, access: s.exports.accessOf(nc.RemoteAddr()),
		br:      bufio.NewReaderSize(src, readBuffer),
		ops:     newWorkers(maxRunning),
		replies: make(chan struct{}, maxReplies),
		in:      newQuota(s.budget),
		out:     newQuota(s.budget),
		queue:   outQueue{wake: make(chan struct{}, 1)},
	}
	c.flows.byTag = make(map[int64]*writeFlow)
	return c
}

// run serves until the peer goes away, breaks the framing or ctx is done.
func (c *conn) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.read(ctx) })
	g.Go(func() error { return c.queue.write(ctx, c.nc, c.s.flowTimeout) })
	g.Go(func() error {
		<-ctx.Done()
		return c.nc.Close()
	})
	err := g.Wait()
	c.ops.wait()
	c.flows.drop()
	c.queue.drop()
	return err
}

// frameSource reads from the connection. In the middle of a frame the peer has
// limit to send the next byte; between frames it may take as long as it likes.
type frameSource struct {
	nc    net.Conn
	limit time.Duration // 0 between frames
}

func (f *frameSource) Read(p []byte) (int, error) {
	var deadline time.Time
	if f.limit > 0 {
		deadline = time.Now().Add(f.limit)
	}
	if err := f.nc.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	return f.nc.Read(p)
}

// read reads frames until the connection ends.
func (c *conn) read(ctx context.Context) error {
	var hdr [wire.HeaderSize]byte
	for {
		c.src.limit = 0
		if _, err := c.br.Peek(1); err != nil {
			return err
		}
		c.src.limit = c.s.frameTimeout
		if _, err := io.ReadFull(c.br, hdr[:]); err != nil {
			return fmt.Errorf("read header: %w", err)
		}
		h, err := wire.DecodeHeader(hdr[:])
		if err != nil {
			return err
		}
		if h.Mode == wire.Unexpected {
			err = c.readRequest(ctx, h)
		} else {
			err = c.readData(ctx, h)
		}
		if err != nil {
			return err
		}
	}
}

// readRequest reads one request and starts it.
func (c *conn) readRequest(ctx context.Context, h wire.Header) error {
	payload := c.s.bufs.Get(int(h.Size))
	if _, err := io.ReadFull(c.br, *payload); err != nil {
		c.s.bufs.Put(payload)
		return fmt.Errorf("read request: %w", err)
	}
	select {
	case c.replies <- struct{}{}:
	case <-ctx.Done():
		c.s.bufs.Put(payload)
		return ctx.Err()
	}
	hdr, body, err := wire.DecodeRequest(*payload)
	if err != nil {
		c.s.bufs.Put(payload)
		c.s.stats.protoErrors.Add(1)
		c.s.log.Debug("request refused", "peer", c.nc.RemoteAddr(), "op", hdr.Op, "err", err)
		c.respond(h.Tag, wire.OpProtoError, nil, err)
		return nil
	}
	c.s.stats.count(hdr.Op)
	if cred, _ := credentialOf(body); cred != nil {
		c.s.users.saw(cred.UID, c.s.clock())
	}
	if err := c.access.apply(body); err != nil {
		c.s.bufs.Put(payload)
		c.respond(h.Tag, hdr.Op, nil, err)
		return nil
	}
	if req, ok := body.(*wire.IOReq); ok {
		c.s.bufs.Put(payload) // nothing in it is referred to
		end, err := c.s.mode.begin(hdr.Op, body)
		if err != nil {
			c.respond(h.Tag, hdr.Op, nil, err)
			return nil
		}
		defer end() // its data are not waited for
		return c.startIO(ctx, h.Tag, hdr, req)
	}
	c.ops.do(func() {
		defer c.s.bufs.Put(payload)
		c.answer(ctx, h.Tag, hdr, body)
	})
	return nil
}

// answer carries out one request that is not IO and responds.
func (c *conn) answer(ctx context.Context, tag int64, hdr wire.RequestHeader, body wire.Request) {
	end, err := c.s.mode.begin(hdr.Op, body)
	if err != nil {
		c.respond(tag, hdr.Op, nil, err)
		return
	}
	defer end()
	if req, ok := body.(*wire.SmallIOReq); ok {
		c.smallIO(tag, hdr, req)
		return
	}
	resp, err := c.s.serve(ctx, &hdr, body)
	if err != nil && ctx.Err() != nil {
		<-c.replies // the connection ends: it may be just that, and nobody is to take it for an answer
		return
	}
	c.respond(tag, hdr.Op, resp, err)
}

// respond queues the response to the request with this tag.
func (c *conn) respond(tag int64, op wire.Op, resp wire.Response, err error) {
	if e := errno.Of(err); e == syscall.EIO || e == syscall.EUCLEAN {
		c.s.log.Warn("request failed", "op", op, "err", err)
	}
	frame := wire.AppendResponseFrame(make([]byte, 0, 512), tag, op, statusFor(err), resp)
	if len(frame)-wire.HeaderSize > wire.MaxMessage { // thousands of attributes
		frame = wire.AppendResponseFrame(nil, tag, op, wire.StatusOf(syscall.EMSGSIZE), nil)
	}
	c.queue.add(message{head: frame, reply: c.replies})
}

// statusFor is the status for err; an errno that the protocol has no number
// for becomes EIO there.
func statusFor(err error) wire.Status {
	if err == nil {
		return 0
	}
	var st statusError
	if errors.As(err, &st) {
		return wire.Status(st)
	}
	return wire.StatusFor(err)
}

// statusError is the status of another server, passed on unchanged.
type statusError wire.Status

func (e statusError) Error() string { return wire.Status(e).String() }

func (e statusError) Unwrap() error { return wire.Status(e).Errno() }

// readData reads one message of flow data and passes it to its flow. Data
// without a flow belongs to a write that was refused: it is read and dropped,
// which keeps the connection in step for a client that sent it ahead.
func (c *conn) readData(ctx context.Context, h wire.Header) error {
	c.src.limit = c.s.flowTimeout
	f := c.flows.get(h.Tag)
	if f == nil {
		_, err := io.CopyN(io.Discard, c.br, h.Size)
		return err
	}
	if h.Size > int64(c.s.flowBuffer) {
		return errno.Wrap("pvfsd.read", syscall.EPROTO, fmt.Errorf("flow message of %d bytes, the buffer has %d", h.Size, c.s.flowBuffer))
	}
	if err := c.in.acquire(ctx); err != nil {
		return err
	}
	b := c.s.bufs.Get(int(h.Size))
	if _, err := io.ReadFull(c.br, *b); err != nil {
		c.s.bufs.Put(b)
		c.in.release()
		return fmt.Errorf("read flow data: %w", err)
	}
	if f.push(b) {
		c.ops.do(f.work)
	}
	return nil
}
