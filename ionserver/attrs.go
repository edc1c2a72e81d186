package ionserver

import (
	"context"
	"errors"
	"math"
	"strings"
	"syscall"
	"time"

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

// attrMsg is a as mounts see it.
func (h *home) attrMsg(a pvfs.Attr) *ionpb.Attr {
	m := &ionpb.Attr{
		Handle: uint64(a.Handle), Type: objType(a.Type), Mode: a.Mode & permMask, Uid: a.UID, Gid: a.GID, Nlink: 1,
		Size: a.Size, Blocks: (a.Size + 511) / 512, Blksize: max(a.StripeSize, defaultBlock),
		Atime: a.Atime, Mtime: a.Mtime, Ctime: a.Ctime,
	}
	switch {
	case a.Type == wire.TypeDirectory:
		m.Nlink, m.Size, m.Blocks, m.Blksize = 2, defaultBlock, defaultBlock/512, defaultBlock
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
	return h.attrMsg(a), nil
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
	release, err := lockKey(c, c.ctx, &h.ops, c.Handle, true)
	if err != nil {
		return nil, err
	}
	defer release()
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
	return okay(h.attrMsg(a))
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
	if _, err := h.collect(c.ctx, c, c.Handle, false); err != nil {
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
		i.noPriv = false
	}
	if mtime {
		i.mtime = 0
		h.dropLocked(handle, i)
	}
}

// touched takes note that this home itself changed the file's data.
func (h *home) touched(handle uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.inodeLocked(handle)
	i.mtime = max(i.mtime, time.Now().Unix())
}

// truncate sets the size. The caller holds the inode's place in ops,
// exclusively.
func (c *call) truncate(size int64) error {
	h := c.srv.home
	before := h.announcements(c.Handle)
	busy, err := h.collect(c.ctx, c, c.Handle, false)
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
	if a.Size == size && len(busy) == 0 && h.announcements(c.Handle) == before {
		h.touched(c.Handle)
		return nil // at that moment it had this size
	}
	release, err := h.fence(c, c.Handle, extent.ToEnd(min(size, a.Size)), false, c.srv.everybody())
	if err != nil {
		return err
	}
	defer release()
	// Under the fence, because another owner may have spread the file.
	if a, err = c.srv.pvfs.GetAttr(c.ctx, a.Handle); err != nil {
		return stale(err)
	}
	if err := c.srv.pvfs.File(a).Truncate(c.ctx, size); err != nil {
		return stale(err)
	}
	h.touched(c.Handle)
	return nil
}

// append answers APPEND: the offset is chosen here, under a fence where the
// bytes will lie.
func (c *call) append() (*rpc.Frame, error) {
	if err := c.checkHome(); err != nil {
		return nil, err
	}
	h := c.srv.home
	release, err := lockKey(c, c.ctx, &h.ops, c.Handle, true)
	if err != nil {
		return nil, err
	}
	defer release()
	if c.Flags&uint32(ionpb.Flag_KILL_PRIV) != 0 {
		if err := h.announce(c, c.Handle, c.srv.self, true); err != nil {
			return nil, err
		}
	}
	var off int64
	var n int
	for done := false; !done; {
		size, err := c.size()
		if err != nil {
			return nil, err
		}
		if off, n, done, err = c.appendAt(size); err != nil {
			return nil, err
		}
	}
	return &rpc.Frame{Off: off, Len: int64(n)}, nil
}

func (c *call) size() (int64, error) {
	a, err := c.srv.pvfs.GetAttr(c.ctx, pvfs.Handle(c.Handle))
	switch {
	case err != nil:
		return 0, stale(err)
	case a.Type == wire.TypeDirectory:
		return 0, errno.New("ionserver.append", syscall.EISDIR)
	case a.Type != wire.TypeMetafile:
		return 0, errno.New("ionserver.append", syscall.EINVAL)
	}
	return a.Size, nil
}

// appendAt writes the call's data at size, if that is still the size once
// nobody else can write there; else done is false.
func (c *call) appendAt(size int64) (off int64, n int, done bool, err error) {
	s := c.srv
	total := int64(c.Data.Len())
	if total > math.MaxInt64-size {
		return 0, 0, false, errno.New("ionserver.append", syscall.EFBIG)
	}
	type part struct {
		ext   extent.Extent
		owner int
		token *token
	}
	var parts []part
	defer func() {
		for _, p := range parts {
			if p.token != nil {
				_ = c.wait(func() error { p.token.release(); return nil })
			}
		}
	}()
	for _, ext := range s.placement.Split(extent.Extent{Off: size, Len: total}) {
		p := part{ext: ext, owner: s.placement.Owner(c.Handle, ext.Off)}
		if p.owner == s.self {
			release, err := s.owner.fence(c, c.ctx, c.Handle, ext, false)
			if err != nil {
				return 0, 0, false, err
			}
			defer release()
		} else if err := c.wait(func() (err error) {
			p.token, err = s.peers[p.owner].take(c.ctx, rpc.Frame{Op: ionpb.Op_FENCE, Handle: c.Handle, Off: ext.Off, Len: ext.Len}, nil)
			return err
		}); err != nil {
			return 0, 0, false, err
		}
		parts = append(parts, p)
	}
	if now, err := c.size(); err != nil || now != size {
		return 0, 0, false, err
	}
	pieces := c.Data.Append(nil)
	for _, p := range parts {
		head := takePieces(&pieces, p.ext.Len)
		var m int
		if p.token == nil {
			m, err = s.owner.writeFenced(c.ctx, c.Handle, p.ext.Off, head, c.Flags)
		} else {
			m, err = c.writeAt(p.token, p.ext.Off, head)
		}
		n += m
		if err != nil || int64(m) < p.ext.Len {
			break
		}
	}
	if n > 0 {
		s.home.touched(c.Handle)
		return size, n, true, nil // an error behind what was written shows at the next try
	}
	if errors.Is(err, rpc.ErrBroken) {
		return 0, 0, false, nil // the fence is gone with the stream; try again
	}
	return size, 0, err == nil, err
}

// writeAt writes at another owner, within a fence there.
func (c *call) writeAt(t *token, off int64, pieces [][]byte) (n int, err error) {
	err = c.wait(func() error {
		b := c.srv.pool.New(int(piecesLen(pieces)))
		at := b.Bytes()
		for _, p := range pieces {
			at = at[copy(at, p):]
		}
		r, err := t.link.callOn(c.ctx, t.conn, rpc.Frame{Op: ionpb.Op_FENCED_WRITE, Handle: c.Handle, Off: off, Flags: c.Flags, Data: rpc.Pooled(b)},
			&ionpb.TokenReq{Token: t.id}, nil)
		if err == nil {
			n = int(r.Len)
		}
		return err
	})
	return n, err
}

func piecesLen(pieces [][]byte) (n int64) {
	for _, p := range pieces {
		n += int64(len(p))
	}
	return n
}

// takePieces cuts the first n bytes off pieces.
func takePieces(pieces *[][]byte, n int64) (head [][]byte) {
	for n > 0 && len(*pieces) > 0 {
		p := (*pieces)[0]
		if int64(len(p)) > n {
			(*pieces)[0] = p[n:]
			return append(head, p[:n])
		}
		head = append(head, p)
		n -= int64(len(p))
		*pieces = (*pieces)[1:]
	}
	return head
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

// hiddenXattr reports whether an attribute is not for mounts: PVFS2's own, and
// those of other name spaces than user, security and trusted.
func hiddenXattr(name string) bool {
	if name == viewXattr || name == parentXattr {
		return true
	}
	for _, p := range []string{"user.", "security.", "trusted."} {
		if strings.HasPrefix(name, p) {
			return false
		}
	}
	return true
}

func checkXattr(name string) error {
	switch {
	case len(name) > 255:
		return errno.New("ionserver.xattr", syscall.ERANGE)
	case name == "" || strings.Contains(name, "\x00"):
		return errno.New("ionserver.xattr", syscall.EINVAL)
	case hiddenXattr(name):
		return errno.New("ionserver.xattr", syscall.EOPNOTSUPP)
	}
	return nil
}

func (c *call) getXattr() (*rpc.Frame, error) {
	var m ionpb.NameReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	if err := checkXattr(string(m.Name)); err != nil {
		return nil, err
	}
	v, err := c.srv.pvfs.GetXattr(c.ctx, pvfs.Handle(c.Handle), string(m.Name))
	if err != nil {
		return nil, stale(err)
	}
	return okay(&ionpb.XattrResp{Value: v})
}

func (c *call) setXattr() (*rpc.Frame, error) {
	var m ionpb.SetXattrReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	if err := checkXattr(string(m.Name)); err != nil {
		return nil, err
	}
	if m.Flags > 3 {
		return nil, errno.New("ionserver.xattr", syscall.EINVAL)
	}
	return c.changeXattr(func(ctx context.Context) error {
		return c.srv.pvfs.SetXattr(ctx, pvfs.Handle(c.Handle), string(m.Name), m.Value, pvfs.XattrFlags(m.Flags))
	})
}

func (c *call) removeXattr() (*rpc.Frame, error) {
	var m ionpb.NameReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	if err := checkXattr(string(m.Name)); err != nil {
		return nil, err
	}
	return c.changeXattr(func(ctx context.Context) error {
		return c.srv.pvfs.RemoveXattr(ctx, pvfs.Handle(c.Handle), string(m.Name))
	})
}

// changeXattr runs fn as the only change of the inode's attributes, because
// PVFS2 does not look and change in one step.
func (c *call) changeXattr(fn func(context.Context) error) (*rpc.Frame, error) {
	if err := c.checkHome(); err != nil {
		return nil, err
	}
	release, err := lockKey(c, c.ctx, &c.srv.home.ops, c.Handle, true)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := fn(c.ctx); err != nil {
		return nil, stale(err)
	}
	return okay(nil)
}

func (c *call) listXattr() (*rpc.Frame, error) {
	names, err := c.srv.pvfs.ListXattr(c.ctx, pvfs.Handle(c.Handle))
	if err != nil {
		return nil, stale(err)
	}
	m := &ionpb.ListXattrResp{}
	for _, n := range names {
		if !hiddenXattr(n) {
			m.Names = append(m.Names, []byte(n))
		}
	}
	return okay(m)
}

func (c *call) statFS() (*rpc.Frame, error) {
	s, err := c.srv.pvfs.StatFS(c.ctx)
	if err != nil {
		return nil, err
	}
	return okay(&ionpb.StatFSResp{
		BlockSize: defaultBlock, Blocks: uint64(s.Total) / defaultBlock,
		BlocksFree: uint64(s.Free) / defaultBlock, BlocksAvail: uint64(s.Free) / defaultBlock,
		Files: s.Handles, FilesFree: s.HandlesFree, NameMax: 255,
	})
}
