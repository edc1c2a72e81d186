package ionserver

import (
	"context"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// look begins a look at an inode of this home on behalf of a mount, if it asks
// for leases of kinds. done must follow.
func (c *call) look(handle uint64, kinds uint32) *look {
	if c.sess == nil || c.Flags&kinds == 0 {
		return nil
	}
	return c.srv.home.grants.look(handle, c.sess)
}

// grant gives the call's mount the leases of kinds that it asked for, on what l
// has read.
func (c *call) grant(l *look, kinds uint32) (given uint32, err error) {
	given, evict := l.grant(c.Flags & kinds)
	if len(evict) == 0 {
		return given, nil
	}
	return given, c.wait(func() error { return c.srv.home.grants.revoke(c.ctx, evict, homeLeases) })
}

// grantAttr gives the lease on attributes that l has read and that a shows,
// unless others may be writing to the file, or it has no name: the last close of
// any mount ends it, so each open is to be counted.
func (c *call) grantAttr(l *look, a *ionpb.Attr) error {
	if l == nil || a.Nlink == 0 || !c.srv.home.writtenBy(a.Handle, c.sess.mount) {
		return nil
	}
	given, err := c.grant(l, attrLease)
	a.Leased = given != 0
	return err
}

// mount is who asks, as I/O nodes tell each other; 0 for a peer on nobody's
// behalf.
func (c *call) mount() uint64 {
	if c.sess == nil {
		return 0
	}
	return c.sess.mount
}

// alter begins a change of an inode of this home by a mount: when it returns,
// no other mount has leases of kinds on it, nor is given one until end.
func (c *call) alter(handle, by uint64, kinds uint32) (end func(), err error) {
	return c.srv.home.alter(c.ctx, c, handle, by, kinds)
}

func (h *home) alter(ctx context.Context, w waiter, handle, by uint64, kinds uint32) (end func(), err error) {
	endLeases, err := h.alterLeased(ctx, w, handle, by, kinds)
	if err != nil {
		return nil, err
	}
	endDir := h.dirs.change(handle, kinds&entriesLease != 0)
	return func() { endDir(); endLeases() }, nil
}

// alterLeased is the part of alter that leases need.
func (h *home) alterLeased(ctx context.Context, w waiter, handle, by uint64, kinds uint32) (end func(), err error) {
	ch, revoke := h.grants.change(handle, by, kinds)
	if len(revoke) > 0 {
		if err := w.wait(func() error { return h.grants.revoke(ctx, revoke, kinds) }); err != nil {
			ch.end()
			return nil, err
		}
	}
	return ch.end, nil
}

// disturb ends the leases of other mounts on an inode that was moved, perhaps under
// another home.
func (c *call) disturb(handle uint64) error {
	at := c.srv.placement.Home(handle)
	if at != c.srv.self {
		return c.wait(func() error {
			return c.srv.peers[at].call(c.ctx, rpc.Frame{Op: ionpb.Op_DISTURB, Handle: handle}, &ionpb.SessionReq{Session: c.mount()}, nil)
		})
	}
	end, err := c.alter(handle, c.mount(), homeLeases)
	if err == nil {
		end()
	}
	return err
}

func (c *call) peerDisturb() (*rpc.Frame, error) {
	var m ionpb.SessionReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	if err := c.checkHome(); err != nil {
		return nil, err
	}
	end, err := c.alter(c.Handle, m.Session, homeLeases)
	if err != nil {
		return nil, err
	}
	end()
	return okay(nil)
}
