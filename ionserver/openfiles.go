package ionserver

import (
	"context"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

// maxOpens bounds how often one session has one inode open.
const maxOpens = 1 << 24

// open answers OPEN: counts one more open, and truncates if asked to.
func (c *call) open() (*rpc.Frame, error) {
	var m ionpb.OpenReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	if err := c.checkHome(); err != nil {
		return nil, err
	}
	h := c.srv.home
	if m.Flags&syscall.O_TRUNC != 0 {
		if err := c.recallFrom(extent.ToEnd(0)); err != nil {
			return nil, err
		}
	}
	modes, err := h.addOpens(c.sess, c.Handle, 1, m.Reclaim)
	if err != nil {
		return nil, err
	}
	c.srv.opened.add(c.Handle, time.Now())
	a, err := c.opened(&m)
	if err != nil {
		n := uint32(1)
		if m.Reclaim > 0 {
			n = m.Reclaim
		}
		if last := h.dropOpens(c.sess, c.Handle, n, false); last {
			h.lastClose(c.ctx, c, c.Handle)
		}
		return nil, err
	}
	h.learnModes(c.Handle, modes, a.Mode)
	if m.UnderLease && a.Leased && h.dropOpens(c.sess, c.Handle, 1, false) && h.orphaned(c.Handle) {
		h.lastClose(c.ctx, c, c.Handle) // it lost its name before the lease could be revoked
	}
	if m.Reclaim > 0 && m.Hold {
		if err := h.addHold(c.ctx, c.sess, c.Handle); err != nil {
			return nil, err
		}
	}
	return okay(a)
}

// opened is the part of OPEN that comes after the count, so that the object
// cannot go away under it.
func (c *call) opened(m *ionpb.OpenReq) (*ionpb.Attr, error) {
	h := c.srv.home
	trunc := m.Flags&syscall.O_TRUNC != 0
	if trunc {
		end, err := c.alter(c.Handle, c.mount(), attrLease)
		if err != nil {
			return nil, err
		}
		defer end()
	}
	l := c.look(c.Handle, attrLease)
	defer l.done()
	release, err := lockKey(c, c.ctx, &h.ops, c.Handle, trunc)
	if err != nil {
		return nil, err
	}
	defer release()
	if trunc {
		if err := c.truncate(0); err != nil {
			return nil, err
		}
	}
	a, chosen, err := c.attrAndChoice()
	if err == nil && trunc && m.KillSuid && withoutPriv(a.Mode) != a.Mode {
		if err := c.change(&ionpb.SetAttrReq{KillSuid: true}); err != nil {
			return nil, err
		}
		a, err = h.attr(c, c.Handle)
	}
	if err != nil {
		return nil, err
	}
	if objType(a.Type) == ionpb.ObjType_NONE {
		return nil, errno.New("ionserver.open", syscall.ESTALE)
	}
	out, err := c.sight(a)
	if err != nil {
		return nil, err
	}
	out.Consistency, out.CbBufferSize, out.ModeKnown = chosen.mode, chosen.buffer, true
	if out.Sealed && m.Flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return nil, errSealed
	}
	return out, c.grantAttr(l, out)
}

// addOpens counts n more opens of the inode by the session, or exactly
// reclaim if that is not 0. It fails once the inode is being destroyed.
func (h *home) addOpens(sess *session, handle uint64, n, reclaim uint32) (modes uint64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if sess.isDead() {
		return 0, errStaleSession
	}
	i := h.inodeLocked(handle)
	switch {
	case i.gone:
		return 0, errno.New("ionserver.open: removed", syscall.ESTALE)
	case reclaim > maxOpens || i.opens[sess.id].n+n > maxOpens:
		return 0, errno.New("ionserver.open", syscall.EMFILE)
	case reclaim > 0:
		i.opens[sess.id] = openOf{n: reclaim}
	default:
		o := i.opens[sess.id]
		o.n += n
		i.opens[sess.id] = o
	}
	return i.modes, nil
}

// learnModes remembers that there is nothing for a write to clear, unless the
// permission bits have changed since.
func (h *home) learnModes(handle, modes uint64, mode uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.inodes[handle]
	if i == nil || i.modes != modes {
		return
	}
	if withoutPriv(mode) == mode {
		i.noPriv = true
	}
	if mode&anyWrite != 0 {
		i.seal = unsealed
	}
}

// dropOpens counts n opens less, and with told what toldOpen has counted or is
// about to, and reports whether that was the last one of all sessions. More than
// there are end all.
func (h *home) dropOpens(sess *session, handle uint64, n uint32, told bool) (last bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if told {
		h.grants.closed(handle, sess)
	}
	i := h.inodes[handle]
	if i == nil || i.opens[sess.id] == (openOf{}) {
		return false
	}
	o := i.opens[sess.id]
	o.n -= min(n, o.n)
	o.told = o.told && !told
	if i.opens[sess.id] = o; o == (openOf{}) {
		delete(i.opens, sess.id)
	}
	last = len(i.opens) == 0
	h.dropLocked(handle, i)
	return last
}

// toldOpen counts what an answer to the REVOKE of l told: the session has the
// inode open. It may have told before, in an answer that was lost, and may have
// closed it since.
func (h *home) toldOpen(l *holder) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.sess.isDead() || h.grants.isClosed(l) {
		return
	}
	i := h.inodeLocked(l.inode.handle)
	o := i.opens[l.sess.id]
	o.told = true
	i.opens[l.sess.id] = o
}

// close answers CLOSE.
func (c *call) close() (*rpc.Frame, error) {
	var m ionpb.CloseReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	if err := c.checkHome(); err != nil {
		return nil, err
	}
	if m.Clean {
		c.srv.home.clean(c.sess, c.Handle, 0)
	}
	if c.srv.home.dropOpens(c.sess, c.Handle, m.Count, m.Told) {
		c.srv.home.lastClose(c.ctx, c, c.Handle)
	}
	return okay(nil)
}

// lastClose destroys an orphan. If that fails it is tried again by and by; nobody
// waits for the result. Modification times are saved by persistAll.
func (h *home) lastClose(ctx context.Context, w waiter, handle uint64) {
	if !h.orphaned(handle) {
		return
	}
	if err := h.destroyOrphan(ctx, w, handle); err != nil && errno.Of(err) != syscall.ESTALE {
		h.srv.log.Warn("last close", "handle", handle, "err", err)
	}
}

// dropSession ends a session's opens.
func (h *home) dropSession(ctx context.Context, sess *session) {
	h.mu.Lock()
	var last []uint64
	for _, handle := range slices.Sorted(maps.Keys(h.inodes)) {
		i := h.inodes[handle]
		delete(i.holds, sess)
		if i.opens[sess.id] == (openOf{}) {
			h.dropLocked(handle, i)
			continue
		}
		delete(i.opens, sess.id)
		if len(i.opens) == 0 {
			last = append(last, handle)
		}
		h.dropLocked(handle, i)
	}
	h.mu.Unlock()
	for _, handle := range last {
		h.lastClose(ctx, background{}, handle)
	}
}

func (s *session) isDead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}

// dirty reports whether a modification time may be unsaved.
func (h *home) dirty(handle uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.inodes[handle]
	return i != nil && (i.mtime != 0 || len(i.writers) > 0)
}

// lingerTime is how long an inode that lost its name lives on for those who
// have looked it up and will open it next. open(2) is two requests, and who
// finds the inode gone at the second starts again, but only once.
const lingerTime = 2 * time.Second

// orphan decides about an inode that has just lost its name: destroyed if
// nobody has it open, else kept until the last close; with linger in any case
// kept for a moment. It may be asked twice.
// The name is gone in any case, so a failure of PVFS2 is no failure of the
// caller: what could not be destroyed is tried again by and by.
func (h *home) orphan(ctx context.Context, w waiter, handle uint64, linger bool) (open bool) {
	h.mu.Lock()
	i := h.inodeLocked(handle)
	i.orphan = true
	if linger {
		i.linger = time.Now().Add(lingerTime)
	}
	open = len(i.opens) > 0
	i.gone = !open && !linger
	h.mu.Unlock()
	if open || linger {
		if err := h.link(ctx, w, handle); err != nil {
			h.srv.log.Warn("orphan would be lost in a crash", "handle", handle, "err", err)
		}
		h.mu.Lock()
		open = len(i.opens) > 0 // not closed while it was linked
		h.mu.Unlock()
	}
	if !open {
		if err := h.destroyOrphan(ctx, w, handle); err != nil {
			h.srv.log.Warn("orphan not destroyed yet", "handle", handle, "err", err)
		}
	}
	return open
}

// link gives an orphan its entry in the directory of orphans, where it is
// found after a crash, unless its last close was faster and has destroyed it.
func (h *home) link(ctx context.Context, w waiter, handle uint64) error {
	release, err := lockKey(w, ctx, &h.destroying, handle, true)
	if err != nil {
		return err
	}
	defer release()
	h.mu.Lock()
	destroyed := h.inodes[handle] == nil
	h.mu.Unlock()
	if destroyed {
		return nil
	}
	err = h.srv.pvfs.Link(ctx, pvfs.Handle(h.srv.orphanDir), orphanName(handle), pvfs.Handle(handle))
	if err != nil && errno.Of(err) != syscall.EEXIST {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := h.inodes[handle]; i != nil {
		i.linked = true
	}
	return nil
}

// destroyOrphan destroys an orphan that nobody has open and that does not
// linger, and forgets it. If PVFS2 fails, or mounts may still reclaim it, it is
// tried again later.
func (h *home) destroyOrphan(ctx context.Context, w waiter, handle uint64) error {
	release, err := lockKey(w, ctx, &h.destroying, handle, true)
	if err != nil {
		return err
	}
	defer release()
	h.mu.Lock()
	i := h.inodes[handle]
	if now := time.Now(); i == nil || !i.orphan || len(i.opens) > 0 || now.Before(i.linger) || h.srv.inGrace(now) {
		h.mu.Unlock()
		return nil
	}
	i.gone = true
	linked := i.linked
	h.mu.Unlock()
	if err := h.destroy(ctx, w, handle); err != nil {
		return err
	}
	h.dirs.change(handle, true)()
	h.srv.destroyed(handle)
	h.versions.changed(handle) // what gets this handle next is something else
	h.chosen.changed(handle, nil, time.Now())
	if linked {
		if _, err := h.srv.pvfs.Unlink(ctx, pvfs.Handle(h.srv.orphanDir), orphanName(handle)); err != nil && errno.Of(err) != syscall.ENOENT {
			return err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.inodes, handle)
	return nil
}

// destroy destroys an inode that is gone, with all datafiles that it has or may be
// given meanwhile. Nobody here is at work on it then, and no other owner begins to
// write; one that has announced before may be at work, and is not waited for, since
// it may be away.
func (h *home) destroy(ctx context.Context, w waiter, handle uint64) error {
	release, err := lockKey(w, ctx, &h.ops, handle, true)
	if err != nil {
		return err
	}
	defer release()
	resume, err := h.srv.owner.abandon(w, ctx, handle)
	if err != nil {
		return err
	}
	defer resume()
	f := h.laidOut(handle)
	switch {
	case h.elsewhere(handle) && (f == nil || f.Layout().Stuffed):
		err = h.srv.pvfs.DestroyGrowing(ctx, pvfs.Handle(handle))
	case f != nil:
		err = f.Destroy(ctx)
	default:
		err = h.srv.pvfs.Destroy(ctx, pvfs.Handle(handle))
	}
	if errno.Of(err) == syscall.ENOENT {
		return nil
	}
	return err
}

// retryOrphans destroys orphans that have lingered, and those whose last close
// could not.
func (h *home) retryOrphans(ctx context.Context) {
	h.mu.Lock()
	var todo []uint64
	for handle, i := range h.inodes {
		if i.orphan && len(i.opens) == 0 {
			todo = append(todo, handle)
		}
	}
	h.mu.Unlock()
	eachHandle(todo, func(handle uint64) {
		if err := h.destroyOrphan(ctx, background{}, handle); err != nil {
			h.srv.log.Warn("orphan not destroyed", "handle", handle, "err", err)
		}
	})
}
