package ionclient

import (
	"context"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// cancelRetry is how long a cancelled lock request may take to be answered
// before the cancellation, which may have overtaken it, is sent again.
const cancelRetry = 20 * time.Millisecond

// SetLock takes a lock or, with Type UNLOCK, drops what its owner has in the
// range; if that is nothing, no I/O node is asked. If another stands in
// the way it waits with wait, else fails with EAGAIN. When ctx ends, the wait
// is cancelled at the I/O node: then the error is EINTR and nothing has
// changed, unless the lock was granted just before, which is no error.
func (c *Client) SetLock(ctx context.Context, h uint64, l Lock, wait bool) error {
	w := &lockWait{c: c, h: h, l: l, wait: wait, answer: make(chan error), abandoned: make(chan struct{}), settled: make(chan struct{})}
	if err := c.settle(ctx, w.key()); err != nil {
		return err
	}
	if l.Type == ionpb.LockType_UNLOCK && !c.holds(h, l) {
		return nil
	}
	if !c.spawn(w.run) {
		return errClosed
	}
	select {
	case err := <-w.answer:
		return err
	case <-ctx.Done():
	}
	for wait && w.cancel(c.ctx) { // as long as the I/O node can be asked
		t := time.NewTimer(cancelRetry)
		select {
		case err := <-w.answer:
			t.Stop()
			return err
		case <-t.C:
		}
	}
	w.ticket.giveUp()
	c.mu.Lock()
	c.settling[w.key()] = w.settled
	c.mu.Unlock()
	close(w.abandoned)
	return errno.Wrap("ionclient.SetLock", errno.Of(context.Cause(ctx)), context.Cause(ctx))
}

// holds reports whether l's owner has a lock in l's range.
func (c *Client) holds(h uint64, l Lock) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.files[h]
	return f != nil && len(f.locks.within(l)) > 0
}

// lockWait is one lock request. It lives until it is answered, which may be
// after its caller has given up: then what was granted is given back.
type lockWait struct {
	c         *Client
	h         uint64
	l         Lock
	wait      bool
	ticket    ticket
	answer    chan error
	abandoned chan struct{} // closed by the caller
	settled   chan struct{} // closed when nothing more will come of it
	before    []Lock        // what was held in the range; set when granted
}

// lockKey is whose locks cannot be changed while a request is being undone.
type lockKey struct {
	handle, owner uint64
	flock         bool
}

func (w *lockWait) key() lockKey { return lockKey{w.h, w.l.Owner, w.l.Flock} }

// settle waits until what an owner has abandoned is over, so that undoing it
// does not undo what the owner does next.
func (c *Client) settle(ctx context.Context, k lockKey) error {
	for {
		c.mu.Lock()
		settled := c.settling[k]
		c.mu.Unlock()
		if settled == nil {
			return nil
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return errno.Wrap("ionclient.SetLock", errno.Of(context.Cause(ctx)), context.Cause(ctx))
		}
	}
}

func (w *lockWait) run(ctx context.Context) {
	defer w.end()
	answered := make(chan struct{})
	if w.wait {
		w.c.spawn(func(ctx context.Context) { w.chase(ctx, answered) })
	}
	err := w.c.setLock(ctx, w.h, w.l, w.wait, &w.ticket, &w.before)
	close(answered)
	select {
	case w.answer <- err:
		return
	case <-w.abandoned:
	}
	if err == nil && w.l.Type != ionpb.LockType_UNLOCK {
		w.c.logOrphan("unlock", w.h, w.restore(ctx))
	}
}

func (w *lockWait) end() {
	w.c.mu.Lock()
	if w.c.settling[w.key()] == w.settled {
		delete(w.c.settling, w.key())
	}
	w.c.mu.Unlock()
	close(w.settled)
}

// chase cancels a request that its caller has abandoned until it is answered.
func (w *lockWait) chase(ctx context.Context, answered <-chan struct{}) {
	select {
	case <-answered:
		return
	case <-w.abandoned:
	}
	tick := time.NewTicker(5 * cancelRetry)
	defer tick.Stop()
	for {
		w.cancel(ctx)
		select {
		case <-answered:
			return
		case <-tick.C:
		}
	}
}

// cancel asks the I/O node to end the wait. It reports false if that cannot be
// asked for now; the answer to the lock request tells the outcome.
func (w *lockWait) cancel(ctx context.Context) bool {
	s, id := w.ticket.get()
	if s == nil { // about to be sent
		return true
	}
	s.mu.Lock()
	l := s.link
	own := s.ids.next(false)
	s.mu.Unlock()
	if l == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	f := &rpc.Frame{Op: ionpb.Op_CANCEL}
	f.Encode(&ionpb.CancelReq{Id: id})
	reply, err := s.send(ctx, l, own, w.c.View().Epoch, f, payload{})
	return err == nil && reply.Errno == 0
}

// restore gives back a lock that nobody waits for and takes again what it had
// replaced.
func (w *lockWait) restore(ctx context.Context) error {
	none := w.l
	none.Type = ionpb.LockType_UNLOCK
	for _, l := range append([]Lock{none}, w.before...) {
		if err := w.c.setLock(ctx, w.h, l, false, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// setLock has l carried out and notes it; before, if not nil, gets what this
// owner held in l's range.
func (c *Client) setLock(ctx context.Context, h uint64, l Lock, wait bool, t *ticket, before *[]Lock) error {
	m := l.message()
	m.Wait = wait
	_, err := c.do(ctx, request{
		to: home(h), frame: rpc.Frame{Op: ionpb.Op_LOCK, Handle: h}, body: m, ticket: t,
		granted: func(*rpc.Frame) uint64 {
			f := c.heldLocked(h)
			if before != nil {
				*before = f.locks.within(l)
			}
			f.locks.apply(l)
			c.tidyLocked(h)
			return h
		},
	})
	return err
}

// GetLock returns a lock that stands in the way of l, or one of Type UNLOCK.
func (c *Client) GetLock(ctx context.Context, h uint64, l Lock) (Lock, error) {
	var r ionpb.GetLockResp
	if err := c.ask(ctx, ionpb.Op_GETLOCK, h, l.message(), &r); err != nil {
		return Lock{}, err
	}
	return Lock{Start: r.Start, End: r.End, Type: r.Type, Flock: l.Flock, PID: r.Pid}, nil
}
