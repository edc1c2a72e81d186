package ionserver

import (
	"errors"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// parentXattr of a directory names the directory that it is in, in hex. PVFS2
// directories do not know; it is needed to refuse moving a directory into
// itself when two mounts move at the same time.
const parentXattr = "user.zoidfs.parent"

// maxDepth bounds the walk from a directory to the root.
const maxDepth = 1 << 12

func (c *call) isStaleView(err error) bool { return errors.Is(err, errStaleView) }

// setParent takes note of where a directory is. A directory without the note,
// made by other PVFS2 clients, is taken for one of the root.
func (c *call) setParent(dir, parent pvfs.Handle) {
	x := parentNote(parent)
	err := c.srv.pvfs.SetXattr(c.ctx, dir, x.Name, x.Value, 0)
	if err != nil {
		c.srv.log.Warn("parent of a directory not noted", "handle", uint64(dir), "err", err)
	}
}

// parentNote is the note itself.
func parentNote(parent pvfs.Handle) pvfs.Xattr {
	return pvfs.Xattr{Name: parentXattr, Value: []byte(strconv.FormatUint(uint64(parent), 16))}
}

// checkNotBelow refuses to move directory moved to below itself. The caller
// holds the right to move directories, so nothing moves meanwhile.
func (c *call) checkNotBelow(moved, to pvfs.Handle) error {
	root := c.srv.pvfs.Root()
	for range maxDepth {
		if to == moved {
			return errno.New("ionserver.rename: into itself", syscall.EINVAL)
		}
		if to == root {
			return nil
		}
		b, err := c.srv.pvfs.GetXattr(c.ctx, to, parentXattr)
		if errno.Of(err) == syscall.ENODATA {
			return nil
		}
		if err != nil {
			return stale(err)
		}
		up, err := strconv.ParseUint(string(b), 16, 64)
		if err != nil {
			return errno.Wrap("ionserver.rename: parent of a directory", syscall.EIO, err)
		}
		to = pvfs.Handle(up)
	}
	return errno.New("ionserver.rename: too deep", syscall.ELOOP)
}

// move is a rename at work, at the home of the new directory.
type move struct {
	*call
	from, to nameKey
	flags    uint32
	seen     uint64 // as RenameReq says of the old name
	unopened uint64 // and of the new one
	meant    pair   // what the names meant before, if an earlier life may have carried it out; else zero
	dirs     bool   // holds the right to move directories
	source   pvfs.Handle
	target   pvfs.Handle // 0: the new name is free
	srcType  wire.ObjType
	dstType  wire.ObjType
}

// pair is what the old and the new name mean; 0: not known, or nothing.
type pair struct{ old, new pvfs.Handle }

func (c *call) rename() (*rpc.Frame, error) {
	var m ionpb.RenameReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	from, to := nameKey{m.OldDir, string(m.OldName)}, nameKey{c.Handle, string(m.NewName)}
	if err := errors.Join(checkName(from.name), checkName(to.name)); err != nil {
		return nil, err
	}
	if err := c.checkHome(); err != nil {
		return nil, err
	}
	switch {
	case c.hidden(from.dir, from.name) || c.hidden(to.dir, to.name):
		return nil, errno.New("ionserver: reserved name", syscall.EPERM)
	case m.OldDir == 0 || m.OldDir == c.srv.orphanDir:
		return nil, errno.New("ionserver: handle", syscall.ESTALE)
	case m.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 || m.Flags == unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE:
		return nil, errno.New("ionserver.rename: flags", syscall.EINVAL)
	}
	v := &move{call: c, from: from, to: to, flags: m.Flags, seen: m.Meant, unopened: m.Unopened}
	if c.Flags&uint32(ionpb.Flag_IN_DOUBT) != 0 && m.Meant != 0 && m.Unopened != 0 {
		v.meant = pair{pvfs.Handle(m.Meant), pvfs.Handle(m.Unopened)}
	}
	for {
		r, again, err := v.try()
		if err != nil {
			return nil, err
		}
		if !again {
			return okay(r)
		}
		v.dirs = true
	}
}

// try renames. again is true when a directory would change its parent, which
// needs a right that the move does not have yet.
func (v *move) try() (r *ionpb.RenameResp, again bool, err error) {
	release, err := v.lock()
	if err != nil {
		return nil, false, err
	}
	defer release()
	if err := v.look(); err != nil {
		return nil, false, err
	}
	if v.exchanged() {
		v.noteParents(v.target, v.dstType, v.source, v.srcType)
		return &ionpb.RenameResp{Moved: uint64(v.target), Replaced: uint64(v.source), Open: true}, false, nil
	}
	movesDir := v.from.dir != v.to.dir && (v.srcType == wire.TypeDirectory ||
		v.flags&unix.RENAME_EXCHANGE != 0 && v.dstType == wire.TypeDirectory)
	if movesDir && !v.dirs {
		return nil, true, nil
	}
	if movesDir {
		end, err := v.lockMoved()
		if err != nil {
			return nil, false, err
		}
		defer end()
	}
	if r, err = v.carryOut(); err == nil && !movesDir {
		err = v.disturbMoved()
	}
	if err != nil {
		return nil, false, err
	}
	return r, false, nil
}

// exchanged reports whether an earlier life has carried out the exchange. If it broke
// off between its two steps, the move goes on with what the new name meant: both mean
// the same, and PVFS2 has no links.
func (v *move) exchanged() bool {
	if v.flags&unix.RENAME_EXCHANGE == 0 || v.meant == (pair{}) {
		return false
	}
	if v.source == v.target && v.source == v.meant.old {
		if t, err := v.typeOf(v.meant.new); err == nil {
			v.target, v.dstType = v.meant.new, t
		}
	}
	return v.meant == pair{v.target, v.source}
}

// lockMoved is lockInode of what changes its directory: the note of its parent changes
// the times of a directory.
func (v *move) lockMoved() (end func(), err error) {
	first, err := v.lockInode(v.source, v.seen)
	if err != nil || v.flags&unix.RENAME_EXCHANGE == 0 || v.target == 0 {
		return first, err
	}
	second, err := v.lockInode(v.target, v.unopened)
	if err != nil {
		first()
		return nil, err
	}
	return func() { second(); first() }, nil
}

// disturbMoved ends the leases on what was moved, as lockMoved has done before. With
// what was replaced that has been done, too.
func (v *move) disturbMoved() error {
	if v.from == v.to {
		return nil
	}
	err := v.disturb(uint64(v.source))
	if v.target != v.source && v.flags&unix.RENAME_EXCHANGE != 0 {
		err = errors.Join(err, v.disturb(uint64(v.target)))
	}
	return err
}

// lock takes the right to move directories if wanted, then both entries, in
// the order of directory and name, so that renames never wait in a circle.
func (v *move) lock() (release func(), err error) {
	var keys []nameKey
	if v.dirs {
		keys = append(keys, nameKey{dir: uint64(v.srv.pvfs.Root())})
	}
	switch first, second := v.from, v.to; {
	case first == second:
		keys = append(keys, first)
	case second.dir < first.dir || second.dir == first.dir && second.name < first.name:
		keys = append(keys, second, first)
	default:
		keys = append(keys, first, second)
	}
	var releases []func()
	release = func() {
		for i := len(releases) - 1; i >= 0; i-- {
			releases[i]()
		}
	}
	for _, k := range keys {
		r, err := v.lockName(k, v.mount())
		if err != nil {
			release()
			return nil, err
		}
		releases = append(releases, r)
	}
	return release, nil
}

// lockName takes an entry's lock, or a directory's, at the directory's home.
func (c *call) lockName(k nameKey, by uint64) (release func(), err error) {
	at := c.srv.placement.Home(k.dir)
	if at == c.srv.self {
		return c.lockEntry(c.ctx, k, true, by)
	}
	var t *token
	err = c.wait(func() (err error) {
		t, err = c.srv.peers[at].take(c.ctx, rpc.Frame{Op: ionpb.Op_NAME_LOCK, Handle: k.dir},
			&ionpb.NameLockReq{Name: []byte(k.name), Exclusive: true, Mount: by})
		return err
	})
	if err != nil {
		return nil, err
	}
	return func() { _ = c.wait(func() error { t.release(); return nil }) }, nil
}

// look finds out what both names mean.
func (v *move) look() (err error) {
	p := v.srv.pvfs
	if v.source, err = p.Lookup(v.ctx, pvfs.Handle(v.from.dir), v.from.name); err != nil {
		return err
	}
	if v.srcType, err = v.typeOf(v.source); err != nil {
		return err
	}
	v.target, err = p.Lookup(v.ctx, pvfs.Handle(v.to.dir), v.to.name)
	if errno.Of(err) == syscall.ENOENT {
		v.target, v.dstType = 0, wire.TypeNone
		// The directory itself may be what is missing.
		t, err := v.typeOf(pvfs.Handle(v.to.dir))
		if err != nil {
			return stale(err)
		}
		if t != wire.TypeDirectory {
			return errno.New("ionserver.rename", syscall.ENOTDIR)
		}
		return nil
	}
	if err != nil {
		return err
	}
	v.dstType, err = v.typeOf(v.target)
	return err
}

func (v *move) carryOut() (*ionpb.RenameResp, error) {
	r := &ionpb.RenameResp{Moved: uint64(v.source)}
	switch {
	case v.from != v.to && v.source == v.target && v.flags&unix.RENAME_EXCHANGE == 0:
		return r, v.leave() // PVFS2 has no links: this move was begun before, and broke off
	case v.flags&unix.RENAME_EXCHANGE != 0 && v.target == 0:
		return nil, errno.New("ionserver.rename", syscall.ENOENT)
	case v.flags&unix.RENAME_NOREPLACE != 0 && v.target != 0:
		return nil, errno.New("ionserver.rename", syscall.EEXIST)
	case v.source == v.target:
		return r, nil
	}
	if err := v.checkMoved(v.source, v.srcType, v.to.dir); err != nil {
		return nil, err
	}
	r.Replaced = uint64(v.target)
	if v.flags&unix.RENAME_EXCHANGE != 0 {
		if err := v.checkMoved(v.target, v.dstType, v.from.dir); err != nil {
			return nil, err
		}
		r.Open = true
		return r, v.exchange()
	}
	var err error
	r.Open, err = v.replace()
	return r, err
}

// checkMoved refuses to move a directory to below itself.
func (v *move) checkMoved(h pvfs.Handle, t wire.ObjType, to uint64) error {
	if t != wire.TypeDirectory || v.from.dir == v.to.dir {
		return nil
	}
	return v.checkNotBelow(h, pvfs.Handle(to))
}

// noteParent takes note of a directory's new parent.
func (v *move) noteParent(h pvfs.Handle, t wire.ObjType, parent uint64) {
	if t == wire.TypeDirectory && v.from.dir != v.to.dir {
		v.setParent(h, pvfs.Handle(parent))
	}
}

// noteParents is noteParent of two that have changed places.
func (v *move) noteParents(moved pvfs.Handle, t wire.ObjType, back pvfs.Handle, backType wire.ObjType) {
	v.noteParent(moved, t, v.to.dir)
	v.noteParent(back, backType, v.from.dir)
}

// mean says what a name means now. The home of another directory learns that the
// name was changed when its lock is released.
func (v *move) mean(k nameKey, h pvfs.Handle, t wire.ObjType) {
	v.srv.home.dirs.means(k, meaning{handle: h, kind: t}, time.Now())
}

// exchange swaps what both names mean.
func (v *move) exchange() error {
	p := v.srv.pvfs
	if _, err := p.Relink(v.ctx, pvfs.Handle(v.to.dir), v.to.name, v.source); err != nil {
		return err
	}
	if _, err := p.Relink(v.ctx, pvfs.Handle(v.from.dir), v.from.name, v.target); err != nil {
		_, undo := p.Relink(v.ctx, pvfs.Handle(v.to.dir), v.to.name, v.target)
		return errors.Join(err, undo)
	}
	v.mean(v.to, v.source, v.srcType)
	v.mean(v.from, v.target, v.dstType)
	v.noteParents(v.source, v.srcType, v.target, v.dstType)
	return nil
}

// replace makes the new name mean the source, and takes the old name away.
// open is true when what the new name meant before lives on.
func (v *move) replace() (open bool, err error) {
	p := v.srv.pvfs
	to := pvfs.Handle(v.to.dir)
	switch {
	case v.target == 0:
		err = p.Link(v.ctx, to, v.to.name, v.source)
	case v.dstType == wire.TypeDirectory && v.srcType != wire.TypeDirectory:
		return false, errno.New("ionserver.rename", syscall.EISDIR)
	case v.dstType != wire.TypeDirectory && v.srcType == wire.TypeDirectory:
		return false, errno.New("ionserver.rename", syscall.ENOTDIR)
	case v.dstType == wire.TypeDirectory:
		err = v.replaceDir(to)
	default:
		_, err = p.Relink(v.ctx, to, v.to.name, v.source)
	}
	if err != nil {
		return false, err
	}
	if err := v.leave(); err != nil {
		return false, err
	}
	if v.target == 0 || v.dstType == wire.TypeDirectory {
		return false, nil
	}
	return v.orphan(uint64(v.target), v.unopened, ionpb.Flag_LINGER)
}

// leave takes the old name away from what has the new one already.
func (v *move) leave() error {
	v.noteParent(v.source, v.srcType, v.to.dir)
	_, err := v.srv.pvfs.Unlink(v.ctx, pvfs.Handle(v.from.dir), v.from.name)
	if err != nil && errno.Of(err) != syscall.ENOENT {
		return err
	}
	v.mean(v.to, v.source, v.srcType)
	v.mean(v.from, 0, wire.TypeNone)
	return nil
}

// replaceDir puts the source in the place of an empty directory.
func (v *move) replaceDir(to pvfs.Handle) error {
	p := v.srv.pvfs
	if err := v.checkEmptyDir(v.target); err != nil {
		return err
	}
	end, err := v.lockInode(v.target, v.unopened)
	if err != nil {
		return err
	}
	defer end()
	if _, err := p.Relink(v.ctx, to, v.to.name, v.source); err != nil {
		return err
	}
	if err := p.Destroy(v.ctx, v.target); err != nil && errno.Of(err) != syscall.ENOENT {
		// Somebody made an entry in it meanwhile.
		_, undo := p.Relink(v.ctx, to, v.to.name, v.target)
		return errors.Join(err, undo)
	}
	return nil
}
