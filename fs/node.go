package fs

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/cache/holder"
	"github.com/zoidfs/zoidfs/fs/ranks"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/round"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// Limits of names, of requests, more than maxRequest bytes never come in one,
// and of what stat(2) calls the best size of them: programs take buffers of
// that size.
const (
	maxName    = 255
	maxRequest = 1 << 20
	minBlock   = 4 << 10
	maxBlock   = 64 << 20
)

// mount is what all nodes of one mount share.
type mount struct {
	client *ionclient.Client
	known  *known
	held   *holder.Holder // file data
	ranks  *ranks.Table
	log    *slog.Logger
	opts   Options
	calls  calls
	stats  stats
	open   openModes
	pages  *pages
	opens  atomic.Uint64 // numbers open files
	tracer *tracer
	guard  *guard
	again  secondTries

	journal *round.Journal // of what was carried out together

	mu   sync.Mutex
	base AppStats // counts at the last reset; guarded by mu
}

// node is a file, directory or symbolic link. It has next to no state but its
// name in PVFS2: what is known of it is in mount.known and mount.held.
type node struct {
	fusefs.Inode
	m      *mount
	handle uint64

	// What the attributes of a directory, when seen last, hand down to what
	// is made in it: inheritGroup and the group if it is setgid, else 0. The
	// kernel has us look at them within every call that makes something, to
	// check the permission, so it costs no request to know.
	inherit atomic.Uint64
}

const inheritGroup = 1 << 32 // above the group

// saw remembers what a sight of the node's attributes tells.
func (n *node) saw(a *ionclient.Attr) {
	if a.Type != ionpb.ObjType_DIR {
		return
	}
	var v uint64
	if a.Mode&syscall.S_ISGID != 0 {
		v = inheritGroup | uint64(a.GID)
	}
	n.inherit.Store(v)
}

// The node API asks for these; what is not here it refuses by itself
// (fallocate with EOPNOTSUPP, ioctl with ENOTTY).
var (
	_ fusefs.NodeLookuper       = (*traced)(nil)
	_ fusefs.NodeGetattrer      = (*traced)(nil)
	_ fusefs.NodeSetattrer      = (*traced)(nil)
	_ fusefs.NodeStatfser       = (*traced)(nil)
	_ fusefs.NodeReadlinker     = (*traced)(nil)
	_ fusefs.NodeSymlinker      = (*traced)(nil)
	_ fusefs.NodeMknoder        = (*traced)(nil)
	_ fusefs.NodeMkdirer        = (*traced)(nil)
	_ fusefs.NodeUnlinker       = (*traced)(nil)
	_ fusefs.NodeRmdirer        = (*traced)(nil)
	_ fusefs.NodeRenamer        = (*traced)(nil)
	_ fusefs.NodeLinker         = (*traced)(nil)
	_ fusefs.NodeTmpfiler       = (*traced)(nil)
	_ fusefs.NodeCreater        = (*traced)(nil)
	_ fusefs.NodeOpener         = (*traced)(nil)
	_ fusefs.NodeReader         = (*traced)(nil)
	_ fusefs.NodeWriter         = (*traced)(nil)
	_ fusefs.NodeCopyFileRanger = (*traced)(nil)
	_ fusefs.NodeLseeker        = (*traced)(nil)
	_ fusefs.NodeFlusher        = (*traced)(nil)
	_ fusefs.NodeFsyncer        = (*traced)(nil)
	_ fusefs.NodeReleaser       = (*traced)(nil)
	_ fusefs.NodeOpendirHandler = (*traced)(nil)
	_ fusefs.NodeGetxattrer     = (*traced)(nil)
	_ fusefs.NodeSetxattrer     = (*traced)(nil)
	_ fusefs.NodeListxattrer    = (*traced)(nil)
	_ fusefs.NodeRemovexattrer  = (*traced)(nil)
	_ fusefs.NodeGetlker        = (*traced)(nil)
	_ fusefs.NodeSetlker        = (*traced)(nil)
	_ fusefs.NodeSetlkwer       = (*traced)(nil)
)

// begin counts one call of an application and returns the context for it.
func (m *mount) begin(ctx context.Context, o op) *call {
	return m.beginAs(ctx, o, m.process(ctx, o), false)
}

// beginAs is like begin, on behalf of p; sure is as for calls.begin.
func (m *mount) beginAs(ctx context.Context, o op, p *ranks.Process, sure bool) *call {
	m.stats.calls[o].Add(1)
	c := m.calls.begin(ctx, sure).onBehalf(p, o)
	m.known.rounds.elsewhere(c.caller.Member, o)
	return c
}

// beginOn is like begin for a call on an open file.
func (m *mount) beginOn(ctx context.Context, o op, fh fusefs.FileHandle) *call {
	return m.beginAs(ctx, o, openedBy(fh), false)
}

// begin is like mount.begin.
func (n *node) begin(ctx context.Context, o op) *call { return n.m.begin(ctx, o) }

// fail maps err to what the kernel is told. EIO says nothing to the user, so
// its cause is logged here, where it is lost.
func (n *node) fail(o op, err error) syscall.Errno {
	e := errno.Of(err)
	if e == syscall.EIO {
		n.m.log.Error("input/output error", "op", o.String(), "handle", n.handle, "err", err)
	}
	return e
}

// failGone is fail for a call on an object that the kernel knows already. If
// the object is gone, ESTALE makes the kernel look its path up again.
func (n *node) failGone(c *call, o op, err error) syscall.Errno {
	e := n.fail(o, err)
	if e == syscall.ENOENT {
		e = syscall.ESTALE
	}
	if e == syscall.ESTALE {
		n.m.again.begin(c.pid, time.Now())
	}
	return e
}

// child returns the inode for an object that was found in n, and fills out.
func (n *node) child(ctx context.Context, name string, a *ionclient.Attr, out *fuse.EntryOut) *fusefs.Inode {
	fillAttr(&out.Attr, a)
	id := fusefs.StableAttr{Mode: typeMode(a.Type), Ino: a.Handle}
	if known := n.GetChild(name); known != nil && known.StableAttr() == id {
		return known
	}
	return n.NewInode(ctx, newNode(n.m, a.Handle), id)
}

// fillAttr translates attributes.
func fillAttr(out *fuse.Attr, a *ionclient.Attr) {
	out.Ino = a.Handle
	out.Mode = typeMode(a.Type) | a.Mode&07777
	out.Nlink = a.Nlink
	out.Uid, out.Gid = a.UID, a.GID
	out.Size = uint64(a.Size)
	out.Blocks = uint64(a.Blocks)
	out.Blksize = uint32(min(max(a.Blksize, minBlock), maxBlock))
	out.Atime, out.Mtime, out.Ctime = uint64(a.Atime), uint64(a.Mtime), uint64(a.Ctime)
}

// typeMode is the file type as in st_mode; 0 if it is not known.
func typeMode(t ionpb.ObjType) uint32 {
	switch t {
	case ionpb.ObjType_FILE:
		return syscall.S_IFREG
	case ionpb.ObjType_DIR:
		return syscall.S_IFDIR
	case ionpb.ObjType_LINK:
		return syscall.S_IFLNK
	}
	return 0
}

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	if len(name) > maxName {
		return nil, syscall.ENAMETOOLONG
	}
	c := n.begin(ctx, opLookup)
	defer c.end()
	look := n.lookup
	if n.m.again.has(c.pid, time.Now()) {
		look = n.lookupAgain
	}
	a, err := look(c, name)
	if err != nil {
		return nil, n.fail(opLookup, err)
	}
	return n.child(ctx, name, &a, out), 0
}

// lookup returns the attributes of what a name means, as they are with what this
// node has written and not published.
func (n *node) lookup(c *call, name string) (ionclient.Attr, error) {
	return holder.Overlaid(func() holder.Glimpse { return n.glimpseChild(name) },
		func() (ionclient.Attr, error) { return n.m.known.Lookup(c, n.handle, name) })
}

func (n *node) Getattr(ctx context.Context, _ fusefs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	c := n.begin(ctx, opGetattr)
	defer c.end()
	a, err := n.getAttr(c)
	if err != nil {
		return n.failGone(c, opGetattr, err)
	}
	n.saw(&a)
	fillAttr(&out.Attr, &a)
	return 0
}

func (n *node) Setattr(ctx context.Context, _ fusefs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	set, e := setAttrOf(in, n.IsDir())
	if e != 0 {
		return e
	}
	c := n.begin(ctx, opSetattr)
	defer c.end()
	a, err := n.setAttr(c, set)
	if err != nil {
		return n.failGone(c, opSetattr, err)
	}
	n.saw(&a)
	fillAttr(&out.Attr, &a)
	return 0
}

// setAttrOf translates what the kernel wants changed. The kernel has applied
// the rules of chmod(2) and chown(2) to it already, except for clearing setuid
// and setgid, which is left to the home.
func setAttrOf(in *fuse.SetAttrIn, dir bool) (ionclient.SetAttr, syscall.Errno) {
	var s ionclient.SetAttr
	if mode, ok := in.GetMode(); ok {
		mode, e := storableMode(mode, dir)
		if e != 0 {
			return s, e
		}
		s.Mode = &mode
	}
	if uid, ok := in.GetUID(); ok {
		s.UID = &uid
	}
	if gid, ok := in.GetGID(); ok {
		s.GID = &gid
	}
	if size, ok := in.GetSize(); ok {
		if size > maxOffset {
			return s, syscall.EFBIG
		}
		n := int64(size)
		s.Size = &n
	}
	switch {
	case in.Valid&fuse.FATTR_ATIME_NOW != 0:
		s.AtimeNow = true
	case in.Valid&fuse.FATTR_ATIME != 0:
		t := int64(in.Atime)
		s.Atime = &t
	}
	switch {
	case in.Valid&fuse.FATTR_MTIME_NOW != 0:
		s.MtimeNow = true
	case in.Valid&fuse.FATTR_MTIME != 0:
		t := int64(in.Mtime)
		s.Mtime = &t
	}
	s.KillSUID = in.Valid&fuse.FATTR_KILL_SUIDGID != 0
	return s, 0
}

// storableMode returns the part of mode that PVFS2 can store. It has no sticky
// bit, which on a directory is a promise of safety that must not be broken.
func storableMode(mode uint32, dir bool) (uint32, syscall.Errno) {
	if mode&syscall.S_ISVTX != 0 && dir {
		return 0, syscall.EPERM
	}
	return mode & 07777 &^ syscall.S_ISVTX, 0
}

func (n *node) Readlink(ctx context.Context) ([]byte, syscall.Errno) {
	c := n.begin(ctx, opReadlink)
	defer c.end()
	target, err := n.m.known.Readlink(c, n.handle)
	if err != nil {
		return nil, n.failGone(c, opReadlink, err)
	}
	return []byte(target), 0
}

func (n *node) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	c := n.begin(ctx, opStatfs)
	defer c.end()
	s, err := n.m.known.rounds.stats.do(c, struct{}{})
	if err != nil {
		return n.fail(opStatfs, err)
	}
	out.Bsize, out.Frsize = s.BlockSize, s.BlockSize
	out.Blocks, out.Bfree, out.Bavail = s.Blocks, s.BlocksFree, s.BlocksAvail
	out.Files, out.Ffree = s.Files, s.FilesFree
	out.NameLen = min(s.NameMax, maxName)
	if out.NameLen == 0 {
		out.NameLen = maxName
	}
	return 0
}

func (n *node) Lseek(ctx context.Context, fh fusefs.FileHandle, off uint64, whence uint32) (uint64, syscall.Errno) {
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, syscall.EINVAL
	}
	c := n.m.beginOn(ctx, opLseek, fh)
	defer c.end()
	a, err := n.getAttr(c)
	if err != nil {
		return 0, n.failGone(c, opLseek, err)
	}
	// PVFS2 does not tell its holes: all is data, and a hole lies at the end.
	switch {
	case off > math.MaxInt64 || off >= uint64(a.Size):
		return 0, syscall.ENXIO
	case whence == unix.SEEK_HOLE:
		return uint64(a.Size), 0
	}
	return off, 0
}
