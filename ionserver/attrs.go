package ionserver

import (
	"errors"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const (
	permMask     = 0o7777
	defaultBlock = 4096
	maxTarget    = 4095
)

// sight is what the call's mount is shown of an inode with attributes a.
func (c *call) sight(a pvfs.Attr) (*ionpb.Attr, error) {
	h := c.srv.home
	m := h.attrMsg(a)
	if m.Type != ionpb.ObjType_FILE {
		return m, nil
	}
	s, err := h.sealOf(c.ctx, &a)
	if err != nil {
		return nil, err
	}
	m.Sealed, m.Version, m.Quiet = s == sealed, h.versions.version(m.Handle), h.quiet(m.Handle, c.sess)
	return m, nil
}

// attrMsg is a as mounts see it, apart from what only files have.
func (h *home) attrMsg(a pvfs.Attr) *ionpb.Attr {
	m := &ionpb.Attr{
		Handle: uint64(a.Handle), Type: objType(a.Type), Mode: a.Mode & permMask, Uid: a.UID, Gid: a.GID, Nlink: 1,
		Size: a.Size, Blocks: (a.Size + 511) / 512, Blksize: max(h.srv.pvfs.StripeWidth(&a), defaultBlock),
		Atime: a.Atime, Mtime: a.Mtime, Ctime: a.Ctime,
	}
	chosen, known, _ := h.chosen.get(m.Handle, time.Now())
	m.Consistency, m.CbBufferSize, m.ModeKnown = chosen.mode, chosen.buffer, known
	switch {
	case a.Type == wire.TypeDirectory:
		// One link, that is: subdirectories are not counted.
		m.Size, m.Blocks, m.Blksize = defaultBlock, defaultBlock/512, defaultBlock
	case h.orphaned(m.Handle):
		m.Nlink = 0
	}
	return m
}

func objType(t wire.ObjType) ionpb.ObjType {
	switch t {
	case wire.TypeMetafile:
		return ionpb.ObjType_FILE
	case wire.TypeDirectory:
		return ionpb.ObjType_DIR
	case wire.TypeSymlink:
		return ionpb.ObjType_LINK
	}
	return ionpb.ObjType_NONE
}

// lookAt returns the attributes of an inode of this home. Objects that are no
// inodes, such as datafiles, are ESTALE.
func (c *call) lookAt(handle uint64) (*ionpb.Attr, error) {
	h := c.srv.home
	l := c.look(handle, attrLease)
	defer l.done()
	release, err := lockKey(c, c.ctx, &h.ops, handle, false)
	if err != nil {
		return nil, err
	}
	defer release()
	a, err := h.attr(c, handle)
	if err != nil {
		return nil, err
	}
	if objType(a.Type) == ionpb.ObjType_NONE {
		return nil, errno.New("ionserver: not an inode", syscall.ESTALE)
	}
	m, err := c.sight(a)
	if err != nil || a.Spreads(a.Size) { // st_blksize is about to change
		return m, err
	}
	return m, c.grantAttr(l, m)
}

func (c *call) getAttr() (*rpc.Frame, error) {
	if err := c.checkHome(); err != nil {
		return nil, err
	}
	m, err := c.lookAt(c.Handle)
	if err != nil {
		return nil, err
	}
	return okay(m)
}

func (c *call) setAttr() (*rpc.Frame, error) {
	var m ionpb.SetAttrReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	if err := c.checkHome(); err != nil {
		return nil, err
	}
	if m.Size != nil && *m.Size < 0 || m.Mode != nil && *m.Mode&^uint32(permMask) != 0 {
		return nil, errno.New("ionserver: attributes", syscall.EINVAL)
	}
	h := c.srv.home
	closes, err := c.prepare(&m)
	if err != nil {
		return nil, err
	}
	end, err := c.alter(c.Handle, c.mount(), attrLease)
	if err != nil {
		return nil, err
	}
	defer end()
	l := c.look(c.Handle, attrLease)
	defer l.done()
	release, err := lockKey(c, c.ctx, &h.ops, c.Handle, true)
	if err != nil {
		return nil, err
	}
	defer release()
	if closes {
		reopen, err := c.shut()
		if err != nil {
			return nil, err
		}
		defer reopen()
	}
	if m.Size != nil {
		if err := c.truncate(*m.Size); err != nil {
			return nil, err
		}
	}
	if err := c.change(&m); err != nil {
		return nil, err
	}
	a, err := h.attr(c, c.Handle)
	if err != nil {
		return nil, err
	}
	out, err := c.sight(a)
	if err != nil {
		return nil, err
	}
	if err := c.grantAttr(l, out); err != nil {
		return nil, err
	}
	return okay(out)
}

// prepare does what comes before a SETATTR and must not wait for it: other
// mounts publish what they hold of a file that is cut or sealed.
func (c *call) prepare(m *ionpb.SetAttrReq) (closes bool, err error) {
	if m.Mode != nil && *m.Mode&anyWrite == 0 {
		mode, err := c.srv.home.consistency(c.ctx, c.Handle)
		if err != nil {
			return false, err
		}
		closes = seals(*m.Mode, mode)
	}
	if closes || m.Size != nil {
		return closes, c.recallFrom(extent.ToEnd(0))
	}
	return false, nil
}

// change carries out a SETATTR apart from the size. The caller holds the
// inode's place in ops, exclusively.
func (c *call) change(m *ionpb.SetAttrReq) error {
	h := c.srv.home
	now := time.Now().Unix()
	set := pvfs.SetAttr{Mode: m.Mode, UID: m.Uid, GID: m.Gid, Atime: m.Atime, Mtime: m.Mtime, CtimeNow: true}
	if m.AtimeNow && set.Atime == nil {
		set.Atime = &now
	}
	if m.MtimeNow && set.Mtime == nil {
		set.Mtime = &now
	}
	if set.Mode == nil && !m.KillSuid && set.UID == nil && set.GID == nil && set.Atime == nil && set.Mtime == nil {
		return nil
	}
	// What was written before this call must not show a later time
	// afterwards; and whoever writes from now on asks again whether there is
	// something to clear.
	if err := h.collectTimes(c.ctx, c, c.Handle, question{timed: set.Mtime != nil}); err != nil {
		return err
	}
	if m.Mode != nil || m.KillSuid {
		release, err := lockKey(c, c.ctx, &h.modes, c.Handle, true)
		if err != nil {
			return err
		}
		defer release()
	}
	if m.KillSuid {
		a, err := c.srv.pvfs.GetAttr(c.ctx, pvfs.Handle(c.Handle))
		if err != nil {
			return stale(err)
		}
		mode := a.Mode
		if m.Mode != nil {
			mode = *m.Mode
		}
		if mode = withoutPriv(mode); a.Type == wire.TypeMetafile && mode != a.Mode {
			set.Mode = &mode
		}
	}
	if err := c.srv.pvfs.SetAttr(c.ctx, pvfs.Handle(c.Handle), set); err != nil {
		return stale(err)
	}
	h.changed(c.Handle, set.Mode != nil, set.Mtime != nil)
	return nil
}

// changed takes note of new permission bits and an explicit modification time.
func (h *home) changed(handle uint64, mode, mtime bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.inodes[handle]
	if i == nil {
		return
	}
	if mode {
		i.modes++
		i.noPriv, i.seal = false, sealUnknown
	}
	if mtime {
		i.mtime, i.saved, i.again = 0, 0, false
		h.dropLocked(handle, i)
	}
}

// touched takes note that this home itself changed the file's data.
func (h *home) touched(handle uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.inodeLocked(handle)
	i.mtime, i.saved = max(i.mtime, time.Now().Unix()), 0
	h.versions.changed(handle)
}

// truncate sets the size, and has nobody keep anything of what was cut off, in
// any mode. The caller holds the inode's place in ops, exclusively.
func (c *call) truncate(size int64) error {
	if err := c.setSize(size); err != nil {
		return err
	}
	var g errgroup.Group
	for _, sess := range c.srv.home.openBy(c.Handle, c.sess) {
		g.Go(func() error {
			e := extent.ToEnd(size)
			_, err := sess.push(c.ctx, &rpc.Frame{Op: ionpb.Op_REVOKE, Handle: c.Handle, Off: e.Off, Len: e.Len, Flags: leaseRead})
			return err
		})
	}
	return c.wait(g.Wait)
}

// openBy is the sessions, other than one, that have the inode open.
func (h *home) openBy(handle uint64, other *session) (out []*session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := h.inodes[handle]; i != nil {
		for id := range i.opens {
			if s := h.srv.sessions.get(id); s != nil && s != other {
				out = append(out, s)
			}
		}
	}
	return out
}

// setSize sets the size at the owners and at PVFS2.
func (c *call) setSize(size int64) error {
	for {
		if err := c.trySize(size); !errors.Is(err, rpc.ErrBroken) {
			return err // else a fence is gone with its stream
		}
	}
}

func (c *call) trySize(size int64) error {
	h := c.srv.home
	if err := h.checkUnsealed(c.ctx, c.Handle); err != nil {
		return err
	}
	before := h.announcements(c.Handle)
	busy, err := h.collect(c.ctx, c, c.Handle, 0)
	if err != nil {
		return err
	}
	a, err := c.srv.pvfs.GetAttr(c.ctx, pvfs.Handle(c.Handle))
	if err != nil {
		return stale(err)
	}
	switch a.Type {
	case wire.TypeMetafile:
	case wire.TypeDirectory:
		return errno.New("ionserver.truncate", syscall.EISDIR)
	default:
		return errno.New("ionserver.truncate", syscall.EINVAL)
	}
	h.overlay(&a)
	if a.Size == size && len(busy) == 0 && h.announcements(c.Handle) == before {
		h.touched(c.Handle)
		return nil // at that moment it had this size
	}
	var flags uint32
	if size <= a.Size {
		flags = uint32(ionpb.Flag_CUT)
	}
	fences, err := h.fence(c, c.Handle, extent.ToEnd(min(size, a.Size)), flags, c.srv.everybody())
	if err != nil {
		return err
	}
	defer fences.release()
	if flags != 0 {
		if err := fences.cut(); err != nil {
			return err
		}
	}
	// Under the fence, because another owner may have spread the file.
	if a, err = c.srv.pvfs.GetAttr(c.ctx, a.Handle); err != nil {
		return stale(err)
	}
	c.srv.owner.spreads(c.Handle)
	if err := c.srv.pvfs.File(a).Truncate(c.ctx, size); err != nil {
		return stale(err)
	}
	h.cut(c.Handle)
	h.touched(c.Handle)
	return nil
}

// cut takes note that the size at PVFS2 is that of the file: no owner has
// bytes beyond it.
func (h *home) cut(handle uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := h.inodes[handle]; i != nil {
		clear(i.ends)
		i.cuts++
		h.dropLocked(handle, i)
	}
}

func (c *call) readlink() (*rpc.Frame, error) {
	a, err := c.srv.pvfs.GetAttr(c.ctx, pvfs.Handle(c.Handle))
	switch {
	case err != nil:
		return nil, stale(err)
	case a.Type != wire.TypeSymlink:
		return nil, errno.New("ionserver.readlink", syscall.EINVAL)
	}
	return okay(&ionpb.ReadlinkResp{Target: []byte(a.Target)})
}
