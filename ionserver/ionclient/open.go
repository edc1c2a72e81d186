package ionclient

import (
	"cmp"
	"context"
	"syscall"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// outlive runs f, which must know its end, to that end, whatever becomes of
// ctx. If ctx ends first, orphaned gets the result of f.
func outlive[T any](ctx context.Context, c *Client, f func(context.Context) (T, error), orphaned func(context.Context, T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	var none T
	out := make(chan result)
	abandoned := make(chan struct{})
	caller := collective.CallerOf(ctx)
	if !c.spawn(func(life context.Context) {
		v, err := f(collective.WithCaller(life, caller))
		select {
		case out <- result{v, err}:
		case <-abandoned:
			orphaned(life, v, err)
		}
	}) {
		return none, errClosed
	}
	select {
	case r := <-out:
		return r.v, r.err
	case <-ctx.Done():
		close(abandoned)
		return none, errno.Wrap("ionclient", errno.Of(context.Cause(ctx)), context.Cause(ctx))
	}
}

// Open counts one more open of h at its home, for which CloseFile must be
// called once; flags are those of open(2), of which O_TRUNC is carried out,
// with killPriv clearing setuid and setgid. If ctx ends first, the file is not
// open.
func (c *Client) Open(ctx context.Context, h uint64, flags uint32, killPriv bool) (Attr, error) {
	return outlive(ctx, c, func(ctx context.Context) (Attr, error) {
		return c.open(ctx, h, &ionpb.OpenReq{Flags: flags, KillSuid: killPriv})
	}, c.closeUnwanted)
}

func (c *Client) open(ctx context.Context, h uint64, req *ionpb.OpenReq) (Attr, error) {
	var t Tenure
	var a ionpb.Attr
	var bad error // of what came back
	_, err := c.do(ctx, request{
		to: home(h), frame: rpc.Frame{Op: ionpb.Op_OPEN, Handle: h, Flags: c.wants()}, body: req, tenure: &t,
		granted: func(reply *rpc.Frame) uint64 {
			if bad = reply.Decode(&a); bad == nil && !(req.UnderLease && a.Leased) {
				c.openedLocked(h)
			}
			return h
		},
	})
	if err = cmp.Or(err, bad); err != nil {
		return Attr{}, err
	}
	return leasedAttr(&a, t), nil
}

// OpenLeased is Open for reading, unless the home gives LeaseAttr: then it counts
// nothing, and the file may be open here until that is revoked.
func (c *Client) OpenLeased(ctx context.Context, h uint64, flags uint32) (Attr, error) {
	return outlive(ctx, c, func(ctx context.Context) (Attr, error) {
		return c.open(ctx, h, &ionpb.OpenReq{Flags: flags, UnderLease: true})
	}, func(life context.Context, a Attr, err error) {
		if !a.Leased {
			c.closeUnwanted(life, a, err)
		}
	})
}

// openedLocked notes one more open. c.mu is held.
func (c *Client) openedLocked(h uint64) uint64 {
	c.heldLocked(h).opens++
	return h
}

// closeUnwanted is for outlive: nobody will close what was opened.
func (c *Client) closeUnwanted(life context.Context, a Attr, err error) {
	if err == nil {
		c.logOrphan("close", a.Handle, c.closeFile(life, a.Handle, Closing{Count: 1}))
	}
}

// CreateOpen makes a file, EEXIST if the name is taken, and opens it as Open
// does.
func (c *Client) CreateOpen(ctx context.Context, dir uint64, name string, mode, uid, gid uint32) (Changed, error) {
	return outlive(ctx, c, func(ctx context.Context) (Changed, error) {
		var e ionpb.EntryResp
		var bad error // of what came back
		var t Tenure
		_, err := c.do(ctx, request{
			to: home(dir), frame: rpc.Frame{Op: ionpb.Op_CREATE, Handle: dir, Flags: c.wants()}, tenure: &t,
			body: &ionpb.CreateReq{Name: []byte(name), Mode: mode, Uid: uid, Gid: gid, Excl: true, Open: true},
			granted: func(reply *rpc.Frame) uint64 {
				if bad = reply.Decode(&e); bad == nil && e.Opened {
					c.openedLocked(e.Handle)
				}
				return e.Handle
			},
		})
		if err = cmp.Or(err, bad); err != nil {
			return Changed{}, err
		}
		dir := changedDir(e.Dir, t)
		if !e.Opened {
			a, err := c.open(ctx, e.Handle, new(ionpb.OpenReq))
			return Changed{a, dir}, err
		}
		if e.Session != 0 {
			t = c.adopted(e.Handle, e.Session)
		}
		return Changed{leasedAttr(e.Attr, t), dir}, nil
	}, func(life context.Context, made Changed, err error) { c.closeUnwanted(life, made.Attr, err) })
}

// adopted is the tenure of what the home of h has said to another I/O node about
// this mount's session there. If that has ended, the home is told that h is open: it
// may have been told all but this.
func (c *Client) adopted(h, session uint64) Tenure {
	p := c.current.Load()
	s := home(h).session(p)
	if s.lastID() == session {
		return Tenure{s, session, p.view.Epoch}
	}
	c.spawn(func(ctx context.Context) {
		c.reassert(ctx, func(held uint64) bool { return held == h })
	})
	return Tenure{}
}

// Closing says what ends with a close.
type Closing struct {
	Count uint32 // opens that the home has counted
	Told  bool   // and the one that a Watcher has told of
	Clean bool   // this mount holds nothing unpublished of the file any more
}

// CloseFile ends opens of h. It is carried out even if ctx ends first.
func (c *Client) CloseFile(ctx context.Context, h uint64, what Closing) error {
	_, err := outlive(ctx, c, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, c.closeFile(ctx, h, what)
	}, func(_ context.Context, _ struct{}, err error) { c.logOrphan("close", h, err) })
	return err
}

func (c *Client) closeFile(ctx context.Context, h uint64, what Closing) error {
	_, err := c.do(ctx, request{
		to: home(h), frame: rpc.Frame{Op: ionpb.Op_CLOSE, Handle: h},
		body: &ionpb.CloseReq{Count: what.Count, Told: what.Told, Clean: what.Clean},
		granted: func(*rpc.Frame) uint64 {
			f := c.heldLocked(h)
			f.opens -= min(f.opens, what.Count)
			c.tidyLocked(h)
			return h
		},
	})
	return err
}

func (c *Client) logOrphan(what string, h uint64, err error) {
	if err != nil && errno.Of(err) != syscall.ESHUTDOWN {
		c.log.Warn("a call that nobody waits for went wrong", "op", what, "handle", h, "errno", errno.Of(err), "err", err)
	}
}

// Fsync returns when everything written to h is durable; with dataOnly,
// attributes that reading does not need may not be. clean is as for CloseFile.
func (c *Client) Fsync(ctx context.Context, h uint64, dataOnly, clean bool) error {
	return c.ask(ctx, ionpb.Op_FSYNC, h, &ionpb.FsyncReq{DataOnly: dataOnly, Clean: clean}, nil)
}
