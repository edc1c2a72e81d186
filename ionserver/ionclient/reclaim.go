package ionclient

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// heldLocked returns the entry of h, making it if need be. c.mu is held.
func (c *Client) heldLocked(h uint64) *file {
	f := c.files[h]
	if f == nil {
		f = new(file)
		c.files[h] = f
	}
	return f
}

// tidyLocked forgets h if nothing of it is held. c.mu is held.
func (c *Client) tidyLocked(h uint64) {
	if f := c.files[h]; f != nil && f.opens == 0 && len(f.locks) == 0 {
		delete(c.files, h)
	}
}

// claim is what one inode's home has to be told.
type claim struct {
	handle uint64
	opens  uint32
	locks  lockTable
}

// claims lists what this mount holds of the inodes that want tells.
func (c *Client) claims(want func(h uint64) bool) []claim {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []claim
	for h, f := range c.files {
		if want(h) {
			out = append(out, claim{h, f.opens, append(lockTable(nil), f.locks...)})
		}
	}
	return out
}

// reclaim tells s, over l, which is not in use yet, everything that this mount
// holds of its inodes.
func (c *Client) reclaim(ctx context.Context, s *session, l *link) error {
	p := c.current.Load()
	for _, k := range c.claims(func(h uint64) bool { return p.sessions[p.place.Home(h)] == s }) {
		if err := c.claimOver(ctx, s, l, p.view.Epoch, k); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) claimOver(ctx context.Context, s *session, l *link, epoch uint64, k claim) error {
	return k.tell(c, func(op ionpb.Op, body proto.Message) error {
		f := &rpc.Frame{Op: op, Handle: k.handle}
		f.Encode(body)
		s.mu.Lock()
		id := s.ids.next(op.Recorded())
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			s.ids.answer(id)
			s.mu.Unlock()
		}()
		reply, err := s.send(ctx, l, id, epoch, f, nil)
		if err != nil {
			return err
		}
		return replyError{reply.Err()}.orNil()
	})
}

// reassert tells the homes of those inodes that want picks what this mount
// holds of them.
func (c *Client) reassert(ctx context.Context, want func(h uint64) bool) {
	for _, k := range c.claims(want) {
		err := k.tell(c, func(op ionpb.Op, body proto.Message) error {
			_, err := c.do(ctx, request{to: home(k.handle), frame: rpc.Frame{Op: op, Handle: k.handle}, body: body})
			return replyError{err}.orNil()
		})
		if err != nil || ctx.Err() != nil {
			return
		}
	}
}

// replyError is a refusal, in contrast to a connection that broke.
type replyError struct{ error }

// Unwrap gives errno.Of the errno of the refusal.
func (e replyError) Unwrap() error { return e.error }

func (e replyError) orNil() error {
	if e.error == nil {
		return nil
	}
	return e
}

// tell says with say what k holds. A refusal is logged: then it is lost, and
// what depends on it will get errors of its own.
func (k claim) tell(c *Client, say func(ionpb.Op, proto.Message) error) error {
	check := func(what string, err error) error {
		if e, ok := err.(replyError); ok {
			c.log.Warn("an I/O node refuses what this mount held", "handle", k.handle, "what", what, "errno", errno.Of(e), "err", e.error)
			return nil
		}
		return err
	}
	if k.opens > 0 {
		if err := check("open", say(ionpb.Op_OPEN, &ionpb.OpenReq{Reclaim: k.opens})); err != nil {
			return err
		}
	}
	for _, lock := range k.locks {
		m := lock.message()
		m.Reclaim = true
		err := say(ionpb.Op_LOCK, m)
		if _, ok := err.(replyError); ok {
			gone := lock
			gone.Type = ionpb.LockType_UNLOCK
			c.mu.Lock()
			if f := c.files[k.handle]; f != nil {
				f.locks.apply(gone)
				c.tidyLocked(k.handle)
			}
			c.mu.Unlock()
		}
		if err := check("lock", err); err != nil {
			return err
		}
	}
	return nil
}

func (l Lock) message() *ionpb.LockReq {
	return &ionpb.LockReq{Owner: l.Owner, Start: l.Start, End: l.End, Type: l.Type, Flock: l.Flock, Pid: l.PID}
}
