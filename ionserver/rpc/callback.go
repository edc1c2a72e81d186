package rpc

import (
	"context"
	"sync"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// Callbacks are requests the other way: from the answering side of a stream to
// the requesting one. They carry ionpb.Flag_CALLBACK, both ways, and ids of
// their own.

func isCallback(f *Frame) bool { return f.Flags&uint32(ionpb.Flag_CALLBACK) != 0 }

// callback has a request of the peer answered. The answer is dropped if the
// stream has ended.
func (c *Conn) callback(f *Frame) {
	answer := new(Frame)
	if c.opt.Callback == nil {
		answer.Failure(errno.New("rpc.callback", syscall.EOPNOTSUPP))
	} else {
		answer = c.opt.Callback(c.ctx, f)
	}
	f.Data.Release()
	it := &item{frame: *answer}
	it.frame.ID, it.frame.Op, it.frame.Flags = f.ID, f.Op, answer.Flags|uint32(ionpb.Flag_CALLBACK)
	c.out.load(it, answer.Data)
	c.opt.Counters.send(&it.frame)
	if !c.out.push(it, false) {
		it.drop()
	}
}

// callbacks are the requests of a Peer that wait for their answers.
type callbacks struct {
	mu      sync.Mutex
	next    uint64                 // guarded by mu; the last id given
	pending map[uint64]chan *Frame // guarded by mu; capacity 1 each; nil once over
	over    bool                   // guarded by mu
}

// begin registers a callback; ok is false when the stream has ended.
func (b *callbacks) begin() (id uint64, answer chan *Frame, ok bool) {
	answer = make(chan *Frame, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return 0, nil, false
	}
	if b.pending == nil {
		b.pending = make(map[uint64]chan *Frame)
	}
	b.next++
	b.pending[b.next] = answer
	return b.next, answer, true
}

func (b *callbacks) forget(id uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.pending, id)
}

// deliver hands an answer to who waits for it; one that nobody waits for is
// dropped.
func (b *callbacks) deliver(f *Frame) {
	f.Data.Release()
	f.Data = Data{}
	b.mu.Lock()
	defer b.mu.Unlock()
	if w := b.pending[f.ID]; w != nil {
		w <- f
		delete(b.pending, f.ID)
	}
}

// end fails everything that waits, now and to come.
func (b *callbacks) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	for _, w := range b.pending {
		close(w)
	}
	b.pending = nil
}

// Call sends f, a request of this side, and waits for the answer, which has no
// data and whose Errno the caller looks at. Only ID and the flag of callbacks
// are set here. The error is ErrBroken if the stream ended first, and wraps
// ctx's cause if that did; the other side may have carried f out then.
//
// Answers come on the stream, which is not read while ServerOptions.Workers
// requests of it are in Handle and one more waits: as many must not wait for
// callbacks on their own stream.
func (p *Peer) Call(ctx context.Context, f *Frame) (*Frame, error) {
	if err := f.checkLimits(); err != nil {
		f.Data.Release()
		return nil, errno.Wrap("rpc.Call", syscall.EMSGSIZE, err)
	}
	broken := errno.Wrap("rpc", syscall.ECONNRESET, ErrBroken)
	id, answer, ok := p.calls.begin()
	if !ok {
		f.Data.Release()
		return nil, broken
	}
	defer p.calls.forget(id)
	it := &item{frame: *f}
	it.frame.ID, it.frame.Flags = id, f.Flags|uint32(ionpb.Flag_CALLBACK)
	p.out.load(it, f.Data)
	p.opt.Counters.request(f.Op)
	p.opt.Counters.send(&it.frame)
	if !p.out.push(it, false) {
		it.drop()
		return nil, broken
	}
	select {
	case r := <-answer:
		if r == nil {
			return nil, broken
		}
		return r, nil
	case <-ctx.Done():
		it.drop() // if it was not sent yet
		return nil, errno.Wrap("rpc.Call", errno.Of(context.Cause(ctx)), context.Cause(ctx))
	}
}
