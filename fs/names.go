package fs

import (
	"context"
	"syscall"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// caller returns whom a request is from.
func caller(ctx context.Context) (uid, gid uint32) {
	if c, ok := fuse.FromContext(ctx); ok {
		return c.Uid, c.Gid
	}
	return 0, 0
}

// newOwner returns whom what is made in n belongs to: the caller, and the
// group of the directory if that is setgid, as a new directory is then too.
func (n *node) newOwner(ctx context.Context, mode uint32, dir bool) (uid, gid, newMode uint32) {
	uid, gid = caller(ctx)
	if v := n.inherit.Load(); v&inheritGroup != 0 {
		gid = uint32(v)
		if dir {
			mode |= syscall.S_ISGID
		}
	}
	return uid, gid, mode
}

// Create makes a file that the kernel just found missing, and opens it; if
// somebody else was faster and the caller does not insist on making it, it opens
// what there is.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (inode *fusefs.Inode, fh fusefs.FileHandle, fuseFlags uint32, e syscall.Errno) {
	c := n.begin(ctx, opCreate)
	defer c.end()
	var a ionclient.Attr
	for again, tries := true, 0; again && tries < maxAgain; tries++ {
		inode, a, e = n.createFile(ctx, c, n.m.known.CreateOpen, name, mode, out)
		if again = e == syscall.EEXIST && flags&syscall.O_EXCL == 0; again {
			inode, a, again, e = n.openFound(ctx, c, name, flags, out)
		}
	}
	if e != 0 {
		return nil, nil, 0, e
	}
	n.m.letGo(c, n.m.again.end(c.pid))
	f := n.m.opened(c, name, &a, mayWrite(flags))
	return inode, f, f.openFlags(), 0
}

// createFile makes a regular file by create, and returns its attributes too;
// EEXIST if the name is taken.
func (n *node) createFile(ctx context.Context, c *call, create creator, name string, mode uint32, out *fuse.EntryOut) (inode *fusefs.Inode, a ionclient.Attr, e syscall.Errno) {
	if len(name) > maxName {
		return nil, a, syscall.ENAMETOOLONG
	}
	mode, e = storableMode(mode, false)
	if e != 0 {
		return nil, a, e
	}
	uid, gid, mode := n.newOwner(ctx, mode, false)
	a, err := create(c, n.handle, name, mode, uid, gid)
	if err != nil {
		return nil, a, n.fail(opCreate, err)
	}
	return n.child(ctx, name, &a, out), a, 0
}

// creator is known.Create or known.CreateOpen.
type creator func(ctx context.Context, dir uint64, name string, mode, uid, gid uint32) (ionclient.Attr, error)

// Mknod makes regular files; PVFS2 has nothing else that mknod(2) could make.
func (n *node) Mknod(ctx context.Context, name string, mode, _ uint32, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	if t := mode & syscall.S_IFMT; t != 0 && t != syscall.S_IFREG {
		return nil, syscall.EPERM
	}
	c := n.begin(ctx, opMknod)
	defer c.end()
	inode, _, e := n.createFile(ctx, c, n.m.known.Create, name, mode, out)
	return inode, e
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	if len(name) > maxName {
		return nil, syscall.ENAMETOOLONG
	}
	mode, e := storableMode(mode, true)
	if e != 0 {
		return nil, e
	}
	c := n.begin(ctx, opMkdir)
	defer c.end()
	uid, gid, mode := n.newOwner(ctx, mode, true)
	a, err := n.m.known.Mkdir(c, n.handle, name, mode, uid, gid)
	if err != nil {
		return nil, n.fail(opMkdir, err)
	}
	return n.child(ctx, name, &a, out), 0
}

func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	if len(name) > maxName {
		return nil, syscall.ENAMETOOLONG
	}
	c := n.begin(ctx, opSymlink)
	defer c.end()
	uid, gid, _ := n.newOwner(ctx, 0, false)
	a, err := n.m.known.Symlink(c, n.handle, name, target, uid, gid)
	if err != nil {
		return nil, n.fail(opSymlink, err)
	}
	return n.child(ctx, name, &a, out), 0
}

// Link fails: a PVFS2 object has no count of the names it has.
func (n *node) Link(context.Context, fusefs.InodeEmbedder, string, *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	n.m.stats.calls[opLink].Add(1)
	return nil, syscall.EPERM
}

// Tmpfile fails: a file without a name could get one by link(2) only. ENOSYS
// makes the kernel remember and answer EOPNOTSUPP by itself.
func (n *node) Tmpfile(context.Context, uint32, uint32, *fuse.EntryOut) (*fusefs.Inode, fusefs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.ENOSYS
}

func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	c := n.begin(ctx, opUnlink)
	defer c.end()
	if err := n.m.known.Unlink(c, n.handle, name, n.fileOf(name)); err != nil {
		return n.fail(opUnlink, err)
	}
	return 0
}

func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	c := n.begin(ctx, opRmdir)
	defer c.end()
	if err := n.m.known.Rmdir(c, n.handle, name, n.nameOf(name).Handle); err != nil {
		return n.fail(opRmdir, err)
	}
	return 0
}

func (n *node) Rename(ctx context.Context, name string, newParent fusefs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to := nodeOf(newParent)
	switch {
	case to == nil:
		return syscall.EXDEV
	case flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0: // RENAME_WHITEOUT
		return syscall.EINVAL
	case len(newName) > maxName:
		return syscall.ENAMETOOLONG
	}
	c := n.begin(ctx, opRename)
	defer c.end()
	if e := n.publishChild(c, name); e != 0 { // who finds the new name finds the content
		return e
	}
	if err := n.m.known.Rename(c, n.nameOf(name), to.nameOf(newName), flags); err != nil {
		return n.fail(opRename, err)
	}
	return 0
}
