package ionserver

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// nameKey is a directory entry, there or not. The empty name stands for the directory
// itself, that of the root for the right to move directories.
type nameKey struct {
	dir  uint64
	name string
}

// enterName decodes the body of a request about an entry, and takes the
// entry's lock: shared to look, exclusive to change.
func (c *call) enterName(m named, exclusive bool) (name string, release func(), err error) {
	if err := c.Decode(m); err != nil {
		return "", nil, err
	}
	name = string(m.GetName())
	if err := checkName(name); err != nil {
		return "", nil, err
	}
	if err := c.checkHome(); err != nil {
		return "", nil, err
	}
	if c.hidden(c.Handle, name) && exclusive {
		return "", nil, errno.New("ionserver: reserved name", syscall.EPERM)
	}
	k := nameKey{c.Handle, name}
	if c.Op == ionpb.Op_UNLINK { // which is to know what the name means, and may not read all names with its lock
		if _, ok := c.srv.home.dirs.known(k, time.Now()); !ok {
			c.list(k)
		}
	}
	release, err = c.lockEntry(c.ctx, k, exclusive, c.mount())
	return name, release, err
}

// lockEntry takes the lock of an entry of this home on behalf of a mount. Who
// is to change it has taken the leases of other mounts away before, and says to
// home.dirs what it means before it lets go. Who locks a directory itself has the
// lock of its name, and is about to take it away.
func (c *call) lockEntry(ctx context.Context, k nameKey, exclusive bool, by uint64) (release func(), err error) {
	switch {
	case !exclusive || k.name == "" && k.dir == uint64(c.srv.pvfs.Root()):
		return lockKey(c, ctx, &c.srv.names, k, exclusive)
	case k.name == "":
		return c.alter(k.dir, by, homeLeases)
	}
	h := c.srv.home
	end, err := h.alterLeased(c.ctx, c, k.dir, by, homeLeases)
	if err != nil {
		return nil, err
	}
	unlock, err := lockKey(c, ctx, &c.srv.names, k, true)
	if err != nil {
		end()
		return nil, err
	}
	h.dirs.begin(k, time.Now())
	return func() { h.dirs.end(k); unlock(); end() }, nil
}

// means says what an entry of the call's directory means, now that it was changed,
// and returns the attributes that this has given the directory; nil if not known.
func (c *call) means(name string, h pvfs.Handle, kind wire.ObjType) *ionpb.Attr {
	dirs := &c.srv.home.dirs
	dirs.means(nameKey{c.Handle, name}, meaning{handle: h, kind: kind}, time.Now())
	l := c.look(c.Handle, attrLease)
	defer l.done()
	a, ok := dirs.attr(c.Handle, time.Now())
	if !ok {
		return nil
	}
	m, err := c.sight(a)
	if err == nil {
		err = c.grantAttr(l, m)
	}
	if err != nil {
		return nil
	}
	return m
}

// named is a request about an entry.
type named interface {
	proto.Message
	GetName() []byte
}

// hidden reports whether an entry is not for mounts.
func (c *call) hidden(dir uint64, name string) bool {
	return name == orphanDirName && dir == uint64(c.srv.pvfs.Root())
}

func (c *call) dir() pvfs.Handle { return pvfs.Handle(c.Handle) }

// entry is the reply that names an inode, with its attributes if this is its
// home. The caller holds no name lock.
func (c *call) entry(h pvfs.Handle, created bool) (*rpc.Frame, error) {
	m := &ionpb.EntryResp{Handle: uint64(h), Created: created}
	if c.srv.placement.Home(m.Handle) == c.srv.self {
		a, err := c.lookAt(m.Handle)
		if err != nil {
			return nil, err
		}
		m.Attr, m.Type = a, a.Type
	}
	return okay(m)
}

func (c *call) lookup() (*rpc.Frame, error) {
	l := c.look(c.Handle, entriesLease)
	defer l.done()
	var m ionpb.NameReq
	name, release, err := c.enterName(&m, false)
	if err != nil {
		return nil, err
	}
	if c.hidden(c.Handle, name) {
		release()
		return nil, errno.New("ionserver.lookup", syscall.ENOENT)
	}
	for before := pvfs.Handle(0); ; {
		found, err := c.find(name, true)
		release()
		if errno.Of(err) == syscall.ENOENT {
			f := new(rpc.Frame)
			f.Failure(err)
			if errors.Is(err, errUnlisted) {
				return f, nil
			}
			return c.withEntries(l, f)
		}
		if err != nil {
			return nil, err
		}
		f, err := c.entry(found.handle, false)
		switch {
		case err == nil:
			return c.withEntries(l, f)
		case errno.Of(err) != syscall.ESTALE || c.isStaleView(err):
			return nil, err
		case found.handle == before: // its removal was cut short by a crash
			return nil, errno.Wrap("ionserver.lookup", syscall.ENOENT, err)
		}
		before = found.handle // it went away between the two looks, but the name may mean something else
		if release, err = c.lockEntry(c.ctx, nameKey{c.Handle, name}, false, c.mount()); err != nil {
			return nil, err
		}
	}
}

// withEntries gives the lease on entries along with an answer that tells what
// l has read.
func (c *call) withEntries(l *look, f *rpc.Frame) (*rpc.Frame, error) {
	given, err := c.grant(l, entriesLease)
	f.Flags |= given
	return f, err
}

func (c *call) create() (*rpc.Frame, error) {
	var m ionpb.CreateReq
	name, release, err := c.enterName(&m, true)
	if err != nil {
		return nil, err
	}
	chosen, err := c.inherited(name)
	if err != nil {
		release()
		return nil, err
	}
	a, err := c.srv.pvfs.Create(c.ctx, c.dir(), name, pvfs.CreateOptions{
		Mode: m.Mode & permMask, UID: m.Uid, GID: m.Gid, Xattrs: chosen.xattrs(),
	})
	if errno.Of(err) == syscall.EEXIST {
		c.srv.home.dirs.stays(nameKey{c.Handle, name})
	}
	if errno.Of(err) == syscall.EEXIST && !m.Excl {
		a.Handle, err = c.srv.pvfs.Lookup(c.ctx, c.dir(), name)
		release()
		if err != nil {
			return nil, err
		}
		return c.entry(a.Handle, false)
	}
	defer release()
	if err != nil {
		a, err = c.ownWork(name, err, func(a pvfs.Attr) bool {
			return a.Type == wire.TypeMetafile && a.Mode == m.Mode&permMask && a.UID == m.Uid && a.GID == m.Gid
		})
	}
	if err != nil {
		return nil, err
	}
	dir := c.means(name, a.Handle, a.Type)
	if m.Open {
		if r, err := c.openMade(a, chosen); err == nil {
			r.Dir = dir
			return okay(r)
		} // what asks again opens it
	}
	c.srv.made.add(uint64(a.Handle), time.Now())
	c.madeWith(a.Handle, chosen)
	return c.made(a, chosen, dir)
}

func (c *call) mkdir() (*rpc.Frame, error) {
	var m ionpb.MkdirReq
	name, release, err := c.enterName(&m, true)
	if err != nil {
		return nil, err
	}
	defer release()
	chosen, err := c.srv.home.choice(c.ctx, c.Handle)
	if err != nil {
		return nil, err
	}
	a, err := c.srv.pvfs.Mkdir(c.ctx, c.dir(), name, pvfs.CreateOptions{
		Mode: m.Mode & permMask, UID: m.Uid, GID: m.Gid, Xattrs: append(chosen.xattrs(), parentNote(c.dir())),
	})
	if err != nil {
		a, err = c.ownWork(name, err, func(a pvfs.Attr) bool {
			return a.Type == wire.TypeDirectory && a.Entries == 0 && a.Mode == m.Mode&permMask && a.UID == m.Uid && a.GID == m.Gid
		})
	}
	if err != nil {
		return nil, err
	}
	dir := c.means(name, a.Handle, a.Type)
	c.madeWith(a.Handle, chosen)
	return c.made(a, chosen, dir)
}

func (c *call) symlink() (*rpc.Frame, error) {
	var m ionpb.SymlinkReq
	name, release, err := c.enterName(&m, true)
	if err != nil {
		return nil, err
	}
	defer release()
	switch {
	case len(m.Target) == 0:
		return nil, errno.New("ionserver.symlink", syscall.ENOENT)
	case len(m.Target) > maxTarget:
		return nil, errno.New("ionserver.symlink", syscall.ENAMETOOLONG)
	}
	a, err := c.srv.pvfs.Symlink(c.ctx, c.dir(), name, string(m.Target), m.Uid, m.Gid)
	if err != nil {
		a, err = c.ownWork(name, err, func(a pvfs.Attr) bool {
			return a.Type == wire.TypeSymlink && a.Target == string(m.Target) && a.UID == m.Uid && a.GID == m.Gid
		})
	}
	if err != nil {
		return nil, err
	}
	return c.made(a, choice{}, c.means(name, a.Handle, a.Type))
}

func (c *call) unlink() (*rpc.Frame, error) {
	var m ionpb.NameReq
	name, release, err := c.enterName(&m, true)
	if err != nil {
		return nil, err
	}
	defer release()
	was, err := c.find(name, false)
	if err != nil {
		return nil, err
	}
	if was.kind == wire.TypeNone && uint64(was.handle) != m.Unopened {
		was.kind, err = c.typeOf(was.handle)
		if err != nil && errno.Of(err) != syscall.ENOENT { // an entry without object is removed like any
			return nil, err
		}
	}
	if was.kind == wire.TypeDirectory {
		return nil, errno.New("ionserver.unlink", syscall.EISDIR)
	}
	h, err := c.srv.pvfs.Unlink(c.ctx, c.dir(), name)
	if err != nil {
		return nil, err
	}
	if h == 0 { // the answer was lost
		h = was.handle
	}
	dir := c.means(name, 0, wire.TypeNone)
	var how ionpb.Flag
	if c.srv.made.has(uint64(h), time.Now()) {
		how = ionpb.Flag_NEWCOMER
	}
	open, err := c.orphan(uint64(h), m.Unopened, how)
	if err != nil {
		return nil, err
	}
	return okay(&ionpb.UnlinkResp{Handle: uint64(h), Open: open, Dir: dir})
}

// orphan tells the home of an inode that it has lost its name; how is LINGER,
// NEWCOMER or 0. The call's mount says of unopened that it has not opened that
// without its home knowing.
func (c *call) orphan(handle, unopened uint64, how ionpb.Flag) (open bool, err error) {
	by := c.mount()
	if handle != unopened {
		by = 0 // its lease is to end like those of others
	}
	at := c.srv.placement.Home(handle)
	if at == c.srv.self {
		return c.orphanHere(handle, by, how)
	}
	f := rpc.Frame{Op: ionpb.Op_ORPHAN, Handle: handle, Flags: uint32(how)}
	var r ionpb.OrphanResp
	err = c.wait(func() error {
		return c.srv.peers[at].call(c.ctx, f, &ionpb.SessionReq{Session: by}, &r)
	})
	return r.Open, err
}

// orphanHere is orphan at the inode's home, on behalf of a mount that need not be
// asked whether it has it open; 0: all must.
func (c *call) orphanHere(handle, by uint64, how ionpb.Flag) (open bool, err error) {
	end, err := c.srv.home.alterLeased(c.ctx, c, handle, by, attrLease)
	if err != nil {
		return false, err
	}
	defer end()
	return c.srv.home.orphan(c.ctx, c, handle, c.srv.lingers(handle, how)), nil
}

func (c *call) typeOf(h pvfs.Handle) (wire.ObjType, error) {
	as, errs, err := c.srv.pvfs.ListAttr(c.ctx, []pvfs.Handle{h}, false)
	if err == nil {
		err = errs[0]
	}
	if err != nil {
		return 0, err
	}
	return as[0].Type, nil
}

func (c *call) rmdir() (*rpc.Frame, error) {
	var m ionpb.NameReq
	name, release, err := c.enterName(&m, true)
	if err != nil {
		return nil, err
	}
	defer release()
	h, err := c.srv.pvfs.Lookup(c.ctx, c.dir(), name)
	if err != nil {
		return nil, err
	}
	if err := c.checkEmptyDir(h); err != nil {
		return nil, err
	}
	end, err := c.lockInode(h, m.Unopened)
	if err != nil {
		return nil, err
	}
	defer end()
	// PVFS2 takes the directory away, if it is empty, and then the entry; the
	// name lock hides that.
	if err := c.srv.pvfs.Rmdir(c.ctx, c.dir(), name); err != nil {
		return nil, err
	}
	dir := c.means(name, 0, wire.TypeNone)
	return okay(&ionpb.UnlinkResp{Handle: uint64(h), Dir: dir})
}

// lockInode sees to it that no mount goes by what it knows of a directory that is
// about to be moved or removed, until end; the call's mount does not if it says so.
func (c *call) lockInode(h pvfs.Handle, unused uint64) (end func(), err error) {
	by := c.mount()
	if uint64(h) != unused {
		by = 0
	}
	return c.lockName(nameKey{dir: uint64(h)}, by)
}

// checkEmptyDir saves the attempt to remove what cannot be removed. PVFS2
// decides.
func (c *call) checkEmptyDir(h pvfs.Handle) error {
	a, err := c.srv.pvfs.GetAttr(c.ctx, h)
	switch {
	case err != nil:
		return err
	case a.Type != wire.TypeDirectory:
		return errno.New("ionserver.rmdir", syscall.ENOTDIR)
	case a.Entries > 0:
		return errno.New("ionserver.rmdir", syscall.ENOTEMPTY)
	}
	return nil
}

func (c *call) readDir() (*rpc.Frame, error) {
	var m ionpb.ReadDirReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	if err := c.checkHome(); err != nil {
		return nil, err
	}
	var token pvfs.DirToken
	switch len(m.Token) {
	case 0:
	case 8:
		token = pvfs.DirToken(binary.LittleEndian.Uint64(m.Token))
	default:
		return nil, errno.New("ionserver.readdir: token", syscall.EINVAL)
	}
	l := c.look(c.Handle, entriesLease)
	defer l.done()
	r := &ionpb.ReadDirResp{}
	for len(r.Entries) == 0 && !r.Eof { // the only entry may be one that is hidden
		ents, next, eof, err := c.readPage(token, int(min(max(m.Max, 1), readDirMax)))
		if err != nil {
			return nil, stale(err)
		}
		token, r.Eof = next, eof
		if err := c.fillTypes(r, ents); err != nil {
			return nil, err
		}
	}
	r.Token = binary.LittleEndian.AppendUint64(nil, uint64(token))
	f := new(rpc.Frame)
	f.Encode(r)
	return c.withEntries(l, f)
}

// readPage reads entries of the call's directory, each as it was at some moment when
// nobody was about to change it.
func (c *call) readPage(token pvfs.DirToken, most int) (ents []pvfs.Dirent, next pvfs.DirToken, eof bool, err error) {
	dirs := &c.srv.home.dirs
	r := dirs.read(c.Handle)
	ents, next, eof, err = c.srv.pvfs.ReadDir(c.ctx, c.dir(), token, most)
	for _, name := range dirs.moved(r) {
		if err != nil {
			break
		}
		ents, err = c.lookAgain(ents, name)
	}
	return ents, next, eof, err
}

// lookAgain corrects, or adds, or removes what a name means in a list.
func (c *call) lookAgain(ents []pvfs.Dirent, name string) ([]pvfs.Dirent, error) {
	release, err := c.lockEntry(c.ctx, nameKey{c.Handle, name}, false, c.mount())
	if err != nil {
		return nil, err
	}
	defer release()
	is, err := c.find(name, false)
	ents = slices.DeleteFunc(ents, func(e pvfs.Dirent) bool { return e.Name == name })
	switch {
	case errno.Of(err) == syscall.ENOENT:
		return ents, nil
	case err != nil:
		return nil, err
	}
	return append(ents, pvfs.Dirent{Name: name, Handle: is.handle}), nil
}

// fillTypes adds the entries with the types of their inodes, as far as those
// can be had.
func (c *call) fillTypes(r *ionpb.ReadDirResp, ents []pvfs.Dirent) error {
	hs := make([]pvfs.Handle, len(ents))
	for i, e := range ents {
		hs[i] = e.Handle
	}
	var attrs []pvfs.Attr
	var errs []error
	if len(hs) > 0 {
		var err error
		if attrs, errs, err = c.srv.pvfs.ListAttr(c.ctx, hs, false); err != nil {
			return err
		}
	}
	for i, e := range ents {
		if c.hidden(c.Handle, e.Name) {
			continue
		}
		d := &ionpb.Dirent{Name: []byte(e.Name), Handle: uint64(e.Handle)}
		if errs[i] == nil {
			d.Type = objType(attrs[i].Type)
		}
		r.Entries = append(r.Entries, d)
	}
	return nil
}
