package ionserver

import (
	"context"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// hold answers HOLD: this mount begins to hold unpublished bytes. When it is
// answered, no other mount has a lease by which nobody does.
func (c *call) hold() (*rpc.Frame, error) {
	if err := c.checkHome(); err != nil {
		return nil, err
	}
	if err := c.srv.home.addHold(c.ctx, c.sess, c.Handle); err != nil {
		return nil, err
	}
	end, err := c.alter(c.Handle, c.mount(), attrLease)
	if err != nil {
		return nil, err
	}
	end()
	return okay(nil)
}

func (h *home) addHold(ctx context.Context, sess *session, handle uint64) error {
	var dead bool
	err := h.ifUnsealed(ctx, handle, func(i *inode) {
		if dead = sess.isDead(); !dead {
			h.holds++
			i.holds[sess] = h.holds
		}
	})
	if dead {
		return errStaleSession
	}
	return err
}

// clean takes note that a session holds no unpublished bytes of an inode any
// more; if it said HOLD after n, that is not so. 0 is for a mount that knows.
func (h *home) clean(sess *session, handle, n uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.inodes[handle]
	if i == nil || n != 0 && i.holds[sess] != n {
		return
	}
	delete(i.holds, sess)
	h.dropLocked(handle, i)
}

// quiet reports whether no other session than sess, which may be nil, holds
// unpublished bytes.
func (h *home) quiet(handle uint64, sess *session) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.inodes[handle]
	if i == nil {
		return true
	}
	n := len(i.holds)
	if _, own := i.holds[sess]; own {
		n--
	}
	return n == 0
}

// recall answers RECALL.
func (c *call) recall() (*rpc.Frame, error) {
	if err := c.checkHome(); err != nil {
		return nil, err
	}
	ext, err := c.dataExtent(c.Len)
	if err != nil {
		return nil, err
	}
	if err := c.recallFrom(ext); err != nil {
		return nil, err
	}
	return okay(&ionpb.RecallResp{Quiet: c.srv.home.quiet(c.Handle, c.sess)})
}

// recallFrom has other mounts publish what they hold unpublished of ext. To
// publish, a mount writes to owners, who may announce to this home and wait for
// mounts to answer REVOKE: so the caller holds nothing that those wait for.
func (c *call) recallFrom(ext extent.Extent) error {
	h := c.srv.home
	h.mu.Lock()
	var held map[*session]uint64
	if i := h.inodes[c.Handle]; i != nil {
		held = maps.Clone(i.holds)
	}
	h.mu.Unlock()
	delete(held, c.sess)
	if len(held) == 0 {
		return nil
	}
	return c.wait(func() error {
		g, ctx := errgroup.WithContext(c.ctx)
		for _, sess := range slices.Collect(maps.Keys(held)) {
			g.Go(func() error { return h.publish(ctx, sess, c.Handle, ext, held[sess]) })
		}
		return g.Wait()
	})
}

// publish has one mount publish. If its session ends, what it held is gone.
func (h *home) publish(ctx context.Context, sess *session, handle uint64, ext extent.Extent, n uint64) error {
	r, err := sess.push(ctx, &rpc.Frame{Op: ionpb.Op_PUBLISH, Handle: handle, Off: ext.Off, Len: ext.Len})
	switch {
	case err != nil:
		return err
	case r == nil:
		h.clean(sess, handle, 0)
		return nil
	}
	var m ionpb.PublishResp
	if err = r.Err(); err == nil {
		err = r.Decode(&m)
	}
	if err != nil { // it tells who wrote, at fsync or close; nobody else failed
		h.srv.log.Warn("a mount could not publish", "session", sess.id, "handle", handle, "err", err)
		return nil
	}
	if m.Clean {
		h.clean(sess, handle, n)
	}
	return nil
}
