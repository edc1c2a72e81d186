package rpc

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// Peer is the requesting end of one stream, as the server sees it.
type Peer struct {
	opt    ServerOptions
	svc    Service
	stream grpc.ServerStream
	ctx    context.Context
	cancel context.CancelCauseFunc
	out    *sender
	bytes  *semaphore.Weighted // of MaxBytes

	pending atomic.Int64 // unanswered requests
	calls   callbacks

	handler Handler
	group   sync.WaitGroup // of workers
	fresh   []*Request     // that the message being decoded brought; the reader's
	in      inPacket       // the reader's

	mu      sync.Mutex
	work    sync.Cond
	queue   []*Request // guarded by mu; received
	next    int        // guarded by mu; the first in queue that no worker has
	reading bool       // guarded by mu; a worker is the reader
	over    bool       // guarded by mu; the stream has ended
	workers int        // guarded by mu; alive
	idle    int        // guarded by mu; of these, how many wait for work

	handling int // guarded by mu; how many are in Handle
}

func newPeer(s *served, stream grpc.ServerStream) *Peer {
	p := &Peer{
		opt:    s.opt,
		svc:    s.svc,
		stream: stream,
		out:    newSender(s.link, stream.SendMsg),
		bytes:  semaphore.NewWeighted(s.opt.MaxBytes),
	}
	p.work.L = &p.mu
	p.in.near = s.link.near
	p.in.newFrame = func() *Frame {
		r := &Request{peer: p}
		r.Frame = &r.frame
		p.fresh = append(p.fresh, r)
		return r.Frame
	}
	p.ctx, p.cancel = context.WithCancelCause(stream.Context())
	return p
}

// Addr is the peer's network address.
func (p *Peer) Addr() string {
	if info, ok := peer.FromContext(p.stream.Context()); ok {
		return info.Addr.String()
	}
	return ""
}

// Context ends with the stream.
func (p *Peer) Context() context.Context { return p.ctx }

// run serves the stream until it ends. A peer that closes its side has said
// goodbye: what it was not answered yet it does not want to know.
func (p *Peer) run() error {
	p.handler = p.svc.Connect(p)
	var group errgroup.Group
	group.Go(func() error {
		err := p.out.run()
		p.cancel(err) // a stream that cannot be written to is over
		return nil
	})
	p.mu.Lock()
	p.employLocked()
	p.mu.Unlock()
	<-p.ctx.Done()
	p.mu.Lock()
	p.over = true
	p.work.Broadcast()
	p.mu.Unlock()
	p.calls.end()
	p.group.Wait()
	p.handler.Close()
	for _, r := range p.queue[p.next:] {
		r.Data.Release()
	}
	p.out.close()
	_ = group.Wait() // SendMsg does not outlive the stream's context
	return context.Cause(p.ctx)
}

// worker handles requests. A worker that finds none reads the stream, unless
// another one does: so the goroutine that receives a request handles it, and
// the next reader wakes up in the meantime.
func (p *Peer) worker() {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() { p.workers-- }()
	for !p.over {
		queued := p.next < len(p.queue)
		switch {
		case queued && p.handling < p.opt.Workers:
			r := p.queue[p.next]
			p.queue[p.next] = nil
			p.next++
			p.handling++
			p.employLocked()
			p.mu.Unlock()
			p.handler.Handle(r)
			p.mu.Lock()
			p.handling--
		case !queued && !p.reading:
			p.reading = true
			p.mu.Unlock()
			err := p.receive()
			p.mu.Lock()
			p.reading = false
			if err != nil {
				p.over = true // nobody reads any more
				p.cancel(err)
				return
			}
		case p.idle == maxIdle:
			return
		default:
			p.idle++
			p.work.Wait()
		}
	}
}

// maxIdle is how many workers of a stream wait for requests; others end.
const maxIdle = 4

// employLocked sees to it that what is left to do, which is to read the stream
// at least, does not wait for a worker that handles a request. One worker more
// than may handle requests can always read.
func (p *Peer) employLocked() {
	switch {
	case p.reading && p.next == len(p.queue):
	case p.idle > 0:
		p.idle--
		p.work.Signal()
	case p.workers <= p.opt.Workers:
		p.workers++
		p.group.Go(p.worker)
	}
}

// receive queues the requests of the next message as soon as the bounds allow.
func (p *Peer) receive() error {
	p.in.frames, p.fresh = p.in.frames[:0], p.fresh[:0]
	if err := p.stream.RecvMsg(&p.in); err != nil {
		return err
	}
	clear(p.in.frames)
	left := p.fresh[:0] // what Try has left, not queued yet
	for i, r := range p.fresh {
		if isCallback(r.Frame) {
			p.opt.Counters.receive(r.Frame)
			p.calls.deliver(r.Frame)
			continue
		}
		ready, err := p.admit(r)
		if !ready && err == nil {
			p.enqueue(left, 0) // their ends are what r waits for
			left = left[:0]
			err = p.bytes.Acquire(p.ctx, r.cost)
		}
		if err != nil {
			for _, r := range append(left, p.fresh[i:]...) {
				r.Data.Release()
			}
			return err
		}
		if !p.handler.Try(r) {
			left = append(left, r)
		}
	}
	p.enqueue(left, 1) // of which the reader handles one
	clear(p.fresh)
	return nil
}

// enqueue adds reqs to the queue and gets them handled, if they are more than
// the caller takes upon itself.
func (p *Peer) enqueue(reqs []*Request, taken int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next == len(p.queue) {
		p.queue, p.next = p.queue[:0], 0
	}
	p.queue = append(p.queue, reqs...)
	if len(reqs) > taken {
		p.employLocked()
	}
}

// admit counts r and tells whether there is room for its payload.
func (p *Peer) admit(r *Request) (ready bool, err error) {
	p.opt.Counters.receive(r.Frame)
	p.opt.Counters.request(r.Op)
	if n := p.pending.Add(1); n > int64(p.opt.MaxPending) {
		return false, fmt.Errorf("rpc: more than %d unanswered requests", p.opt.MaxPending)
	}
	r.cost = cost(r.Frame)
	return r.cost == 0 || p.bytes.TryAcquire(r.cost), nil
}

// cost is the payload that f brings or asks for, in bytes.
func cost(f *Frame) int64 {
	n := int64(f.Data.Len())
	if f.Op == ionpb.Op_READ {
		n = max(n, f.Len)
	}
	return min(n, MaxData)
}

// Request is a frame that is to be answered exactly once, by one of Reply,
// ReplyMsg and Fail, from any goroutine and at any time. The answer ends the
// request: the hold on its Data is released and the Request must not be used
// any more. Later answers are ignored.
type Request struct {
	*Frame
	frame    Frame
	reply    item
	peer     *Peer
	cost     int64 // of peer.bytes
	answered atomic.Bool
}

// Peer is where the request came from.
func (r *Request) Peer() *Peer { return r.peer }

// Reply answers with f, whose ID and Op are set here and whose Data goes with
// it. It never blocks. If the stream has ended, f is dropped.
func (r *Request) Reply(f *Frame) {
	if r.answered.Swap(true) {
		f.Data.Release()
		return
	}
	if err := f.checkLimits(); err != nil {
		f.Data.Release()
		f = new(Frame)
		f.Failure(errno.Wrap("rpc.Reply", syscall.EMSGSIZE, err))
	}
	p, it := r.peer, &r.reply
	it.frame, it.answers = *f, r
	it.frame.ID, it.frame.Op = r.ID, r.Op
	p.out.load(it, f.Data)
	r.Data.Release()
	p.opt.Counters.send(&it.frame)
	if !p.out.push(it, p.pending.Load() == 1) {
		it.drop()
	}
}

// end gives back what the request counted for.
func (r *Request) end() {
	if r.cost > 0 {
		r.peer.bytes.Release(r.cost)
	}
	r.peer.pending.Add(-1)
}

// ReplyMsg answers success with m as the body, which may be nil.
func (r *Request) ReplyMsg(m proto.Message) {
	var f Frame
	if m != nil {
		f.Encode(m)
	}
	r.Reply(&f)
}

// Fail answers with err; nil stands for a bug of the caller and gives EIO.
func (r *Request) Fail(err error) {
	if err == nil {
		err = errno.New("rpc.Fail", syscall.EIO)
	}
	var f Frame
	f.Failure(err)
	r.Reply(&f)
}
