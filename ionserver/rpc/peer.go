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
	cancel context.CancelFunc
	out    *sender
	bytes  *semaphore.Weighted // of MaxBytes

	pending atomic.Int64 // unanswered requests
	work    chan *Request
	group   sync.WaitGroup // of workers
	workers atomic.Int64   // alive
	idle    atomic.Int64   // workers that wait
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
	p.group.Wait()
	h.Close()
	p.out.close()
	group.Wait() // SendMsg does not outlive the stream's context
	p.out.settle(settleTime)
	return err
}

// receive starts requests until the stream ends. Only this goroutine reads
// the stream, and no handler runs in it.
func (p *Peer) receive(h Handler) error {
	var reqs []*Request // of in.frames
	in := inPacket{newFrame: func() *Frame {
		r := &Request{peer: p}
		r.Frame = &r.frame
		reqs = append(reqs, r)
		return r.Frame
	}}
	for {
		in.frames, reqs = in.frames[:0], reqs[:0]
		if err := p.stream.RecvMsg(&in); err != nil {
			return err
		}
		for i, req := range reqs {
			if err := p.start(h, req); err != nil {
				in.frames = in.frames[i:]
				in.release()
				return err
			}
		}
		clear(in.frames)
		clear(reqs)
	}
}

// start has req handled as soon as the bounds allow.
func (p *Peer) start(h Handler, req *Request) error {
	p.opt.Counters.receive(req.Frame)
	p.opt.Counters.request(req.Op)
	if n := p.pending.Add(1); n > int64(p.opt.MaxPending) {
		return fmt.Errorf("rpc: more than %d unanswered requests", p.opt.MaxPending)
	}
	if req.cost = cost(req.Frame); req.cost > 0 {
		if err := p.bytes.Acquire(p.ctx, req.cost); err != nil {
			return err
		}
	}
	return p.dispatch(h, req)
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
	if p.workers.Load() < int64(p.opt.Workers) {
		p.workers.Add(1)
		p.group.Go(func() { p.worker(h, req) })
		return nil
	}
	select {
	case p.work <- req:
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

// maxIdle is how many workers of a stream wait for requests; others end.
const maxIdle = 4

func (p *Peer) worker(h Handler, req *Request) {
	defer p.workers.Add(-1)
	for ok := true; ok; {
		h.Handle(req)
		if p.idle.Add(1) > maxIdle {
			p.idle.Add(-1)
			return
		}
		req, ok = <-p.work
		p.idle.Add(-1)
	}
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
	it.frame.Data = p.out.lend(it.frame.Data)
	r.Data.Release()
	p.opt.Counters.send(&it.frame)
	if !p.out.push(it) {
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
