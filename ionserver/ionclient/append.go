package ionclient

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// Append writes p at the end of the file, wherever that is when it is carried
// out, and returns where that was; flags are as for Write. p is not touched
// after the return. At most rpc.MaxData bytes are appended in one piece: of
// more, n bytes are, and the caller goes on.
func (c *Client) Append(ctx context.Context, h uint64, p []byte, flags uint32) (off int64, n int, err error) {
	if len(p) == 0 {
		return 0, 0, nil
	}
	p = p[:min(len(p), rpc.MaxData)]
	a := &appending{handle: h, p: p, flags: flags, caller: ctx, off: -1}
	c.appends.add(a)
	defer c.appends.remove(a)
	done := c.writing(h)
	reply, err := c.do(ctx, request{
		to: home(h), frame: rpc.Frame{Op: ionpb.Op_APPEND, Handle: h, Flags: flags}, pieces: [][]byte{p}, ticket: &a.ticket,
	})
	done(0, 0, err != nil && ctx.Err() != nil)
	if err != nil {
		return 0, 0, err
	}
	return reply.Off, int(min(max(reply.Len, 0), int64(len(p)))), nil
}

// appends is the APPENDs of this mount that are not answered yet. A home tells
// where one goes before it writes it. If it dies before it has answered, it may have
// written it or not: so it is written there by a Reclaim, when nobody can have
// appended anything since. The zero value is ready.
type appends struct {
	mu  sync.Mutex
	all map[*appending]struct{} // guarded by mu
}

// appending is one of them. Its ticket gets the answer of the Reclaim, if there was
// one, in the place of that to the request.
type appending struct {
	ticket
	handle uint64
	p      []byte
	flags  uint32
	caller context.Context // it reads p no more when that ends

	use  sync.Mutex // held by who reads p
	over bool       // guarded by use; p is not to be read any more

	off     int64  // guarded by ticket.mu; where it goes; -1: not known
	session uint64 // guarded by ticket.mu; that was told so
}

func (as *appends) add(a *appending) {
	as.mu.Lock()
	defer as.mu.Unlock()
	if as.all == nil {
		as.all = make(map[*appending]struct{})
	}
	as.all[a] = struct{}{}
}

// remove returns when nobody reads the bytes of a any more.
func (as *appends) remove(a *appending) {
	as.mu.Lock()
	delete(as.all, a)
	as.mu.Unlock()
	a.use.Lock()
	defer a.use.Unlock()
	a.over = true
}

func (as *appends) list() []*appending {
	as.mu.Lock()
	defer as.mu.Unlock()
	return slices.Collect(maps.Keys(as.all))
}

// place takes note of where the request of s with this id goes.
func (as *appends) place(s *session, id uint64, off int64) {
	session := s.lastID()
	for _, a := range as.list() {
		a.mu.Lock()
		if a.s == s && a.id == id {
			a.off, a.session = off, session
		}
		a.mu.Unlock()
	}
}

// placed reports whether one has a place that was told in a session.
func (as *appends) placed(session uint64) bool {
	return slices.ContainsFunc(as.list(), func(a *appending) bool {
		off, s := a.place()
		return off >= 0 && s == session
	})
}

// place is where a goes, and the session that was told so; off is -1 if that is not
// known, or it is answered.
func (a *appending) place() (off int64, session uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.answer != nil {
		return -1, 0
	}
	return a.off, a.session
}

// reclaim has the I/O node write what was placed in sessions that it awaits.
func (as *appends) reclaim(ctx context.Context, r *Reclaim) error {
	for _, a := range as.list() {
		off, session := a.place()
		if off < 0 || !r.isHome(a.handle) || !r.Awaits(session) {
			continue
		}
		if err := a.again(ctx, r, off); err != nil {
			return err
		}
	}
	return nil
}

// again has a written at off. If that is refused a is sent again as if it had no
// place.
func (a *appending) again(ctx context.Context, r *Reclaim, off int64) error {
	a.use.Lock()
	defer a.use.Unlock()
	if a.over {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.caller, cancel)()
	f := rpc.Frame{Op: ionpb.Op_APPEND, Handle: a.handle, Off: off, Flags: a.flags | uint32(ionpb.Flag_PLACED)}
	reply, err := r.call(ctx, f, nil, [][]byte{a.p})
	switch {
	case err == nil:
		a.mu.Lock()
		a.answer = reply
		a.mu.Unlock()
	case IsRefusal(err):
		r.c().log.Warn("an append may be there twice", "handle", a.handle, "errno", errno.Of(err), "err", err)
	case a.caller.Err() != nil:
	default:
		return err
	}
	return nil
}
