package ionclient

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
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

// Reclaim is a conversation with an I/O node that has forgotten this mount,
// over a link that nothing else uses yet.
type Reclaim struct {
	s     *session
	l     *link
	p     *placed
	waits []uint64 // the sessions of this mount of which it waits for what there is to say
}

// reclaim tells an I/O node everything that this mount holds of its inodes and
// file domains.
func (c *Client) reclaim(ctx context.Context, r *Reclaim) error {
	brief, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c.countOpens(r.isHome)
	for _, k := range c.claims(r.isHome) {
		if err := k.tell(c, func(op ionpb.Op, body proto.Message) error {
			_, err := r.call(brief, rpc.Frame{Op: op, Handle: k.handle}, body, nil)
			return err
		}); err != nil {
			return err
		}
	}
	if err := c.keeps().Reclaim(ctx, r); err != nil {
		return err
	}
	if err := c.appends.reclaim(ctx, r); err != nil {
		return err
	}
	if len(r.waits) == 0 {
		return nil
	}
	_, err := r.call(ctx, rpc.Frame{Op: ionpb.Op_RECLAIMED}, nil, nil)
	return err
}

func (r *Reclaim) isHome(h uint64) bool { return r.p.sessions[r.p.place.Home(h)] == r.s }

// Owns reports whether the I/O node owns the domain of off.
func (r *Reclaim) Owns(h uint64, off int64) bool { return owner(h, off).session(r.p) == r.s }

// Session is the id of the session that begins.
func (r *Reclaim) Session() uint64 { return r.l.id }

// Awaits reports whether the I/O node takes what this mount was given, or has
// written, in a session with it or with another.
func (r *Reclaim) Awaits(session uint64) bool { return slices.Contains(r.waits, session) }

// Replay sends bytes that were written but not stable, with the stamp that they
// had; prepared as Stable told. taken is false if the I/O node refuses them; err
// is that of the connection, or of a view that is over.
func (r *Reclaim) Replay(ctx context.Context, h uint64, exts []extent.Extent, pieces [][]byte, stamp int64, prepared bool) (taken bool, err error) {
	hull, err := hullOf("Replay", exts)
	if err != nil {
		return false, err
	}
	m := &ionpb.ReplayReq{Stamp: stamp, Prepared: prepared, Pieces: ionpb.PiecesOf(exts)}
	_, err = r.call(ctx, r.c().dataFrame(ionpb.Op_REPLAY, h, exts, hull, 0), m, pieces)
	return err == nil, r.c().refused("replay", h, err)
}

// Write is Client.Write, once.
func (r *Reclaim) Write(ctx context.Context, h uint64, exts []extent.Extent, pieces [][]byte, flags uint32) (int64, Grant, error) {
	hull, err := hullOf("Write", exts)
	if err != nil {
		return 0, Grant{}, err
	}
	done := r.c().writing(h)
	reply, err := r.call(ctx, r.c().dataFrame(ionpb.Op_WRITE, h, exts, hull, flags), nil, pieces)
	if err != nil {
		done(0, 0, false)
		return 0, Grant{}, err
	}
	n, err := wrote(reply, exts, done)
	return n, grantOf(reply, Tenure{r.s, r.l.id, r.p.view.Epoch}), err
}

func (r *Reclaim) c() *Client { return r.s.c }

// call sends one request, once; the error of a refusal is a replyError.
func (r *Reclaim) call(ctx context.Context, f rpc.Frame, body proto.Message, pieces [][]byte) (*rpc.Frame, error) {
	if body != nil {
		f.Encode(body)
	}
	s := r.s
	s.mu.Lock()
	id := s.ids.next(f.Op.Recorded())
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.ids.answer(id)
		s.mu.Unlock()
	}()
	reply, err := s.send(ctx, r.l, id, r.p.view.Epoch, &f, payload{pieces: pieces})
	if err != nil {
		return nil, err
	}
	if err := reply.Err(); err != nil && reply.Flags&uint32(ionpb.Flag_STALE_VIEW) != 0 {
		return nil, err
	}
	return reply, replyError{reply.Err()}.orNil()
}

// reassert tells the homes of those inodes that want picks what this mount
// holds of them.
func (c *Client) reassert(ctx context.Context, want func(h uint64) bool) {
	c.countOpens(want)
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

// IsRefusal reports whether an error of a Reclaim is the answer of its I/O node, in
// contrast to one of the connection, or of a view that is over.
func IsRefusal(err error) bool {
	var e replyError
	return errors.As(err, &e)
}

// Unwrap gives errno.Of the errno of the refusal.
func (e replyError) Unwrap() error { return e.error }

func (e replyError) orNil() error {
	if e.error == nil {
		return nil
	}
	return e
}

// refused logs the refusal of what this mount held of h: it is lost, and what
// depends on it will get errors of its own. Other errors it returns.
func (c *Client) refused(what string, h uint64, err error) error {
	if e, ok := err.(replyError); ok {
		c.log.Warn("an I/O node refuses what this mount held", "handle", h, "what", what, "errno", errno.Of(e), "err", e.error)
		return nil
	}
	return err
}

// tell says with say what k holds.
func (k claim) tell(c *Client, say func(ionpb.Op, proto.Message) error) error {
	if k.opens > 0 {
		open := &ionpb.OpenReq{Reclaim: k.opens, Hold: c.keeps().Holds(k.handle)}
		if err := c.refused("open", k.handle, say(ionpb.Op_OPEN, open)); err != nil {
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
		if err := c.refused("lock", k.handle, err); err != nil {
			return err
		}
	}
	return nil
}

func (l Lock) message() *ionpb.LockReq {
	return &ionpb.LockReq{Owner: l.Owner, Start: l.Start, End: l.End, Type: l.Type, Flock: l.Flock, Pid: l.PID}
}
