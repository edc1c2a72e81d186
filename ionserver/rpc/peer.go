package rpc

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

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
	cancel context.CancelFunc
	out    *sender
	bytes  *semaphore.Weighted // of MaxBytes

	pending atomic.Int64 // unanswered requests
	work    chan *Request
	workers sync.WaitGroup
	busy    atomic.Int64 // workers alive
}

func newPeer(s *server, stream grpc.ServerStream) *Peer {
	p := &Peer{
		opt:    s.opt,
		svc:    s.svc,
		stream: stream,
		out:    newSender(),
		bytes:  semaphore.NewWeighted(s.opt.MaxBytes),
		work:   make(chan *Request),
	}
	p.ctx, p.cancel = context.WithCancel(stream.Context())
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
	h := p.svc.Connect(p)
	var group errgroup.Group
	group.Go(func() error {
		defer p.cancel() // a stream that cannot be written to is over
		return p.out.run(p.stream.SendMsg)
	})
	err := p.receive(h)
	p.cancel()
	close(p.work)
	p.workers.Wait()
	h.Close()
	p.out.close()
	group.Wait() // SendMsg does not outlive the stream's context
	p.out.settle(settleTime)
	return err
}

// receive starts requests until the stream ends. Only this goroutine reads
// the stream, and no handler runs in it.
func (p *Peer) receive(h Handler) error {
	for {
		f := new(Frame)
		if err := p.stream.RecvMsg(f); err != nil {
			return err
		}
		p.opt.Counters.receive(f)
		p.opt.Counters.request(f.Op)
		req := &Request{Frame: f, peer: p, cost: cost(f)}
		if n := p.pending.Add(1); n > int64(p.opt.MaxPending) {
			f.Data.Release()
			return fmt.Errorf("rpc: more than %d unanswered requests", p.opt.MaxPending)
		}
		if err := p.bytes.Acquire(p.ctx, req.cost); err != nil {
			f.Data.Release()
			return p.ctx.Err()
		}
		if err := p.dispatch(h, req); err != nil {
			f.Data.Release()
			return err
		}
	}
}

// cost is the payload that f brings or asks for, in bytes.
func cost(f *Frame) int64 {
	n := int64(f.Data.Len())
	if f.Op == ionpb.Op_READ {
		n = max(n, f.Len)
	}
	return min(n, MaxData)
}

// dispatch gives req to a worker that is free, or to a new one, or waits.
func (p *Peer) dispatch(h Handler, req *Request) error {
	select {
	case p.work <- req:
		return nil
	default:
	}
	if p.busy.Load() < int64(p.opt.Workers) {
		p.busy.Add(1)
		p.workers.Go(func() { p.worker(h, req) })
		return nil
	}
	select {
	case p.work <- req:
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

// idleTime is how long a worker waits for the next request before it ends.
const idleTime = 5 * time.Second

func (p *Peer) worker(h Handler, req *Request) {
	defer p.busy.Add(-1)
	h.Handle(req)
	idle := time.NewTimer(idleTime)
	defer idle.Stop()
	for {
		select {
		case req, ok := <-p.work:
			if !ok {
				return
			}
			h.Handle(req)
			idle.Reset(idleTime)
		case <-idle.C:
			return
		}
	}
}

// Request is a frame that is to be answered exactly once, by one of Reply,
// ReplyMsg and Fail, from any goroutine and at any time. The answer ends the
// request: the hold on its Data is released and the Request must not be used
// any more. Later answers are ignored.
type Request struct {
	*Frame
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
	if len(f.Body) > MaxBody || f.Data.Len() > MaxData {
		f.Data.Release()
		f = new(Frame)
		f.Failure(errno.New("rpc.Reply", syscall.EMSGSIZE))
	}
	p := r.peer
	it := &item{frame: *f, sent: r.end}
	it.frame.ID, it.frame.Op = r.ID, r.Op
	it.frame.Data = p.out.lend(it.frame.Data)
	r.Data.Release()
	p.opt.Counters.send(&it.frame)
	if !p.out.push(it) {
		it.drop()
	}
}

// end gives back what the request counted for.
func (r *Request) end() {
	r.peer.bytes.Release(r.cost)
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
