package pvfsd

import (
	"math"
	"slices"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// attributes fills in what mask asks for of the object h, as far as its type
// has it; cred is for the capability and may be nil without.
func (s *Server) attributes(t *txn, h wire.Handle, mask wire.AttrMask, cred *wire.Credential) (wire.Attr, error) {
	o, err := t.object(h)
	if err != nil {
		return wire.Attr{}, err
	}
	return s.attributesOf(t, h, o, mask, cred)
}

func (s *Server) attributesOf(t *txn, h wire.Handle, o *object, mask wire.AttrMask, cred *wire.Credential) (wire.Attr, error) {
	a := wire.Attr{
		UID: o.uid, GID: o.gid, Perms: o.perms,
		Atime: o.atime, Mtime: o.mtime, Ctime: o.ctime,
		Mask: wire.AttrCommon, Type: o.typ,
	}
	var err error
	switch o.typ {
	case wire.TypeMetafile:
		err = s.metafileAttr(&a, o, mask)
	case wire.TypeDatafile:
		a.Mask |= wire.AttrSize // also if nobody asked
		a.Size, err = s.streams.size(h)
	case wire.TypeDirectory:
		t.directoryAttr(&a, h, o, mask, int32(s.fs.DistrDirSplitSize))
	case wire.TypeDirdata:
		err = t.dirdataAttr(&a, o, mask)
	case wire.TypeSymlink:
		if mask&wire.AttrTarget != 0 {
			a.Mask |= wire.AttrTarget
			a.Target = o.target
		}
	}
	if err != nil {
		return wire.Attr{}, err
	}
	if mask&wire.AttrCapability != 0 && cred != nil {
		a.Mask |= wire.AttrCapability
		a.Cap = s.capability(h, o, cred)
	}
	return a, nil
}

func (s *Server) metafileAttr(a *wire.Attr, o *object, mask wire.AttrMask) error {
	if mask&wire.AttrDist != 0 && o.dist.Name != "" {
		a.Mask |= wire.AttrDist
		a.Dist = o.dist
	}
	if mask&wire.AttrDFiles != 0 {
		a.Mask |= wire.AttrDFiles
		a.DFiles, a.Flags = o.dfiles, o.flags
	}
	if !o.stuffed {
		if mask&(wire.AttrDist|wire.AttrDFiles) != 0 {
			a.Mask |= wire.AttrUnstuffed
		}
		return nil
	}
	size, err := s.streams.size(o.dfiles[0])
	if err != nil {
		return err
	}
	// The field has 32 bits; a strip, and so a stuffed file, may be larger.
	a.StuffedSize = int32(min(size, math.MaxInt32))
	return nil
}

// directoryAttr shows the directory's own times; those that its entries change
// are the dirdata's, and clients take the later ones.
func (t *txn) directoryAttr(a *wire.Attr, h wire.Handle, o *object, mask wire.AttrMask, split int32) {
	if mask&wire.AttrDirHint != 0 {
		a.Mask |= wire.AttrDirHint
		a.DirHint = t.dirHint(h)
	}
	if mask&wire.AttrDistDir != 0 {
		a.Mask |= wire.AttrDistDir
		a.DistDir = distDir(o.other, split)
		if o.buckets != nil {
			a.DistDir = o.buckets.wire()
		}
	}
}

// distDir describes a directory with a single dirdata object.
func distDir(dirdata wire.Handle, split int32) wire.DistDir {
	return wire.DistDir{
		SplitSize: split,
		Bitmap:    []uint32{1}, Dirdata: []wire.Handle{dirdata},
	}
}

// dirdataAttr shows the owner and mode of the directory that d belongs to, if
// that is on this server.
func (t *txn) dirdataAttr(a *wire.Attr, d *object, mask wire.AttrMask) error {
	dir, err := t.typed(d.other, wire.TypeDirectory)
	switch {
	case err == nil:
		a.UID, a.GID, a.Perms = dir.uid, dir.gid, dir.perms
	case d.buckets == nil && d.other != 0:
		return err
	}
	if mask&wire.AttrDirentCount != 0 {
		a.Mask |= wire.AttrDirentCount
		a.DirentCount = d.entries
	}
	return nil
}

// setRights says which right a SETATTR of these attributes needs; any of them
// is enough. Source: OrangeFS src/server/set-attr.sm.
var setRights = []struct{ attrs, any uint32 }{
	{uint32(wire.AttrUID | wire.AttrGID | wire.AttrPerm | wire.AttrTarget | wire.AttrAtimeSet), uint32(wire.MaySetAttr)},
	{uint32(wire.AttrMtime | wire.AttrMtimeSet | wire.AttrCtime), uint32(wire.MayWrite | wire.MaySetAttr)},
	{uint32(wire.AttrAtime), uint32(wire.MayRead | wire.MayWrite | wire.MaySetAttr)},
}

// allowSetAttr checks the rights that a SETATTR of these attributes needs. Only
// who may administrate gives files away, or to groups that he is not in.
// A symlink without a target has just been made by somebody who may not have
// any right to it before its owner is set.
func (s *Server) allowSetAttr(hdr *wire.RequestHeader, h wire.Handle, o *object, a *wire.Attr, cred *wire.Credential) error {
	if o.typ == wire.TypeSymlink && o.target == "" && o.uid == 0 {
		return nil
	}
	for _, r := range setRights {
		if uint32(a.Mask)&r.attrs != 0 && uint32(hdr.Cap.Ops)&r.any == 0 {
			return errno.New("pvfsd.setattr", syscall.EACCES)
		}
	}
	if hdr.Cap.IsNull() || !hdr.Cap.Covers(h) {
		return errno.New("pvfsd.setattr", syscall.EACCES)
	}
	if err := s.checkExpiry(hdr); err != nil {
		return err
	}
	if a.Mask&(wire.AttrUID|wire.AttrGID) == 0 || hdr.Cap.Ops&wire.MayAdmin != 0 {
		return nil
	}
	newUID := a.Mask&wire.AttrUID != 0 && a.UID != cred.UID
	newGID := a.Mask&wire.AttrGID != 0 && a.GID != o.gid && !slices.Contains(cred.Groups, a.GID)
	if cred.UID != o.uid || newUID || newGID {
		return errno.New("pvfsd.setattr", syscall.EPERM)
	}
	return nil
}

// setAttr changes what a.Mask names. It reports whether anything changed.
func (t *txn) setAttr(h wire.Handle, o *object, a *wire.Attr, now int64) (changed bool, err error) {
	before := *o
	if a.Mask&wire.AttrUID != 0 {
		o.uid = a.UID
	}
	if a.Mask&wire.AttrGID != 0 {
		o.gid = a.GID
	}
	if a.Mask&wire.AttrPerm != 0 {
		o.perms = a.Perms & permMask
	}
	setTime(&o.atime, a.Atime, a.Mask&wire.AttrAtime != 0, a.Mask&wire.AttrAtimeSet != 0, now)
	setTime(&o.mtime, a.Mtime, a.Mask&wire.AttrMtime != 0, a.Mask&wire.AttrMtimeSet != 0, now)
	// Reading a file may set its atime; that alone is no change of the inode.
	const quiet = wire.AttrAtime | wire.AttrAtimeSet | wire.AttrType
	if a.Mask&^quiet != 0 {
		o.ctime = now
	}
	dirdata, err := t.setDirAttr(h, o, a, now)
	if err != nil {
		return false, err
	}
	if a.Mask&wire.AttrTarget != 0 && o.typ == wire.TypeSymlink {
		o.target = a.Target
	}
	files := false
	if o.typ == wire.TypeMetafile && a.Mask&(wire.AttrDist|wire.AttrDFiles) != 0 {
		files = true
		setFiles(o, a)
	}
	same := before.uid == o.uid && before.gid == o.gid && before.perms == o.perms && before.atime == o.atime &&
		before.mtime == o.mtime && before.ctime == o.ctime && before.target == o.target
	if same && !files {
		return dirdata, nil
	}
	return true, t.putObject(h, o)
}

// setFiles takes over distribution and datafiles, for clients that put a
// metafile together themselves.
func setFiles(o *object, a *wire.Attr) {
	if a.Mask&wire.AttrDist != 0 {
		o.dist = a.Dist
	}
	if a.Mask&wire.AttrDFiles != 0 {
		o.dfiles, o.want, o.stuffed = a.DFiles, uint32(len(a.DFiles)), false
	}
}

// setDirAttr does the part of setAttr that is about directories: an explicit
// mtime holds for the dirdata object too, whose time is shown if it is later.
func (t *txn) setDirAttr(h wire.Handle, o *object, a *wire.Attr, now int64) (changed bool, err error) {
	if o.typ != wire.TypeDirectory {
		return false, nil
	}
	if a.Mask&wire.AttrMtime != 0 {
		d, err := t.dirdata(o.other)
		if err != nil {
			return false, err
		}
		d.mtime, d.ctime = o.mtime, now
		if err := t.putObject(o.other, d); err != nil {
			return false, err
		}
		changed = true
	}
	if a.Mask&wire.AttrDirHint != 0 {
		changed = true
		err = t.setDirHint(h, &a.DirHint)
	}
	return changed, err
}

func setTime(p *int64, v int64, wanted, explicit bool, now int64) {
	switch {
	case wanted && explicit:
		*p = v
	case wanted:
		*p = now
	}
}
