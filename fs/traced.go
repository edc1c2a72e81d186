package fs

import (
	"context"
	"path"
	"syscall"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/zoidfs/zoidfs/internal/trace"
)

// traced is a node as go-fuse knows it. While somebody traces the mount it records
// each call; otherwise it only looks whether somebody does. It also tells the
// guard which files are open.
type traced struct{ node }

// newNode makes the node of an object.
func newNode(m *mount, handle uint64) *traced { return &traced{node{m: m, handle: handle}} }

// nodeOf is the node that go-fuse knows as x; nil if it is not ours.
func nodeOf(x fusefs.InodeEmbedder) *node {
	if t, ok := x.(*traced); ok {
		return &t.node
	}
	return nil
}

// trace begins to trace a call on t; nil if nobody wants to know.
func (t *traced) trace(ctx context.Context, o trace.Op) *tracing {
	r := t.m.tracer.current.Load()
	if r == nil {
		return nil
	}
	return r.begin(ctx, &t.node, o)
}

// traceName is trace for a call on a name in t, by a process that may never
// have called before and, unlike one that reads and writes, can be looked at
// meanwhile.
func (t *traced) traceName(ctx context.Context, o trace.Op, name string) *tracing {
	c := t.trace(ctx, o)
	if c == nil {
		return nil
	}
	c.call.Path, c.call.File = path.Join(t.Path(nil), name), 0
	if k := t.known(name); k != nil {
		c.call.File = k.handle
	}
	c.meet()
	return c
}

// by is c as a call through an open file.
func (c *tracing) by(fh fusefs.FileHandle) *tracing {
	if f, ok := fh.(*openFile); ok && c != nil {
		c.call.Open = f.id
	}
	return c
}

// bytes is c as a call that asks for bytes.
func (c *tracing) bytes(off, n int64) *tracing {
	if c != nil {
		c.call.Off, c.call.Len = off, n
	}
	return c
}

// with is c with an argument.
func (c *tracing) with(arg uint32) *tracing {
	if c != nil {
		c.call.Arg = arg
	}
	return c
}

// opened ends c, an open.
func (c *tracing) opened(fh fusefs.FileHandle, e syscall.Errno) {
	if f, ok := fh.(*openFile); ok && c != nil && e == 0 {
		c.call.Mode = f.Mode()
	}
	c.by(fh).end(e)
}

func (t *traced) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	c := t.traceName(ctx, trace.Lookup, name)
	inode, e := t.node.Lookup(ctx, name, out)
	c.of(out.Attr.Ino).end(e)
	return inode, e
}

func (t *traced) Getattr(ctx context.Context, fh fusefs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	c := t.trace(ctx, trace.Getattr).by(fh)
	e := t.node.Getattr(ctx, fh, out)
	c.got(int64(out.Size), e)
	return e
}

func (t *traced) Setattr(ctx context.Context, fh fusefs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	c := t.trace(ctx, trace.Setattr).by(fh)
	if c != nil {
		if mode, ok := in.GetMode(); ok {
			c.call.Op, c.call.Arg = trace.Chmod, mode&07777
		}
		if size, ok := in.GetSize(); ok {
			c.call.Op, c.call.Len = trace.Truncate, int64(min(size, trace.MaxOff))
		}
	}
	e := t.node.Setattr(ctx, fh, in, out)
	c.end(e)
	return e
}

func (t *traced) Readlink(ctx context.Context) ([]byte, syscall.Errno) {
	c := t.trace(ctx, trace.Readlink)
	target, e := t.node.Readlink(ctx)
	c.end(e)
	return target, e
}

func (t *traced) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	c := t.traceName(ctx, trace.Symlink, name).to(target)
	inode, e := t.node.Symlink(ctx, target, name, out)
	c.of(out.Attr.Ino).end(e)
	return inode, e
}

func (t *traced) Mknod(ctx context.Context, name string, mode, dev uint32, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	c := t.traceName(ctx, trace.Mknod, name)
	inode, e := t.node.Mknod(ctx, name, mode, dev, out)
	c.of(out.Attr.Ino).end(e)
	return inode, e
}

func (t *traced) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	c := t.traceName(ctx, trace.Mkdir, name).with(mode & 07777)
	inode, e := t.node.Mkdir(ctx, name, mode, out)
	c.of(out.Attr.Ino).end(e)
	return inode, e
}

func (t *traced) Unlink(ctx context.Context, name string) syscall.Errno {
	c := t.traceName(ctx, trace.Unlink, name)
	e := t.node.Unlink(ctx, name)
	c.end(e)
	return e
}

func (t *traced) Rmdir(ctx context.Context, name string) syscall.Errno {
	c := t.traceName(ctx, trace.Rmdir, name)
	e := t.node.Rmdir(ctx, name)
	c.end(e)
	return e
}

func (t *traced) Rename(ctx context.Context, name string, newParent fusefs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	c := t.traceName(ctx, trace.Rename, name).with(flags)
	if to := nodeOf(newParent); to != nil && c != nil {
		c.to(path.Join(to.Path(nil), newName))
	}
	e := t.node.Rename(ctx, name, newParent, newName, flags)
	c.end(e)
	return e
}

func (t *traced) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fusefs.Inode, fusefs.FileHandle, uint32, syscall.Errno) {
	c := t.traceName(ctx, trace.Create, name).with(flags)
	inode, fh, keep, e := t.node.Create(ctx, name, flags, mode, out)
	if inode != nil {
		t.m.guard.opened(nodeOf(inode.Operations()))
	}
	c.of(out.Attr.Ino).opened(fh, e)
	return inode, fh, keep, e
}

func (t *traced) Open(ctx context.Context, flags uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	c := t.trace(ctx, trace.Open).with(flags &^ openKillPriv)
	if c != nil {
		c.call.Path = t.Path(nil)
		c.meet()
	}
	fh, keep, e := t.node.Open(ctx, flags)
	t.m.guard.opened(&t.node)
	c.opened(fh, e)
	return fh, keep, e
}

func (t *traced) Read(ctx context.Context, fh fusefs.FileHandle, dest []byte, packed int64) (fuse.ReadResult, syscall.Errno) {
	off, _ := unpackRead(packed)
	c := t.trace(ctx, trace.Read).by(fh).bytes(off, int64(len(dest)))
	r, e := t.node.Read(ctx, fh, dest, packed)
	n := 0
	if r != nil {
		n = r.Size()
	}
	c.got(int64(n), e)
	return r, e
}

func (t *traced) Write(ctx context.Context, fh fusefs.FileHandle, data []byte, packed int64) (uint32, syscall.Errno) {
	off, flags := unpackWrite(packed)
	c := t.trace(ctx, trace.Write).by(fh).bytes(off, int64(len(data)))
	if c == nil {
		return t.node.Write(ctx, fh, data, packed)
	}
	if flags.atEnd {
		c.call.Arg |= trace.WriteAppend
		ctx = c.placing(ctx)
	}
	if flags.sync {
		c.call.Arg |= trace.WriteSync
	}
	n, e := t.node.Write(ctx, fh, data, packed)
	c.got(int64(n), e)
	return n, e
}

// CopyFileRange is a read and a write.
func (t *traced) CopyFileRange(ctx context.Context, in fusefs.FileHandle, offIn uint64, inode *fusefs.Inode, to fusefs.FileHandle, offOut, length, flags uint64) (uint32, syscall.Errno) {
	n := int64(min(length, maxCopy))
	from := t.trace(ctx, trace.Read).by(in).bytes(int64(min(offIn, maxOffset)), n)
	dest := nodeOf(inode.Operations())
	copied, e := t.node.CopyFileRange(ctx, in, offIn, inode, to, offOut, length, flags)
	if from == nil || dest == nil {
		return copied, e
	}
	c := *from
	c.node, c.call.Op, c.call.File, c.call.Off = dest, trace.Copy, dest.handle, int64(min(offOut, maxOffset))
	from.got(int64(copied), e)
	c.by(to).got(int64(copied), e)
	return copied, e
}

func (t *traced) Flush(ctx context.Context, fh fusefs.FileHandle) syscall.Errno {
	c := t.trace(ctx, trace.Flush).by(fh)
	e := t.node.Flush(ctx, fh)
	c.end(e)
	return e
}

func (t *traced) Fsync(ctx context.Context, fh fusefs.FileHandle, flags uint32) syscall.Errno {
	c := t.trace(ctx, trace.Fsync).by(fh)
	e := t.node.Fsync(ctx, fh, flags)
	c.end(e)
	return e
}

func (t *traced) Release(ctx context.Context, fh fusefs.FileHandle) syscall.Errno {
	c := t.trace(ctx, trace.Release).by(fh)
	e := t.node.Release(ctx, fh)
	t.m.guard.closed(&t.node)
	c.end(e)
	return e
}

func (t *traced) OpendirHandle(ctx context.Context, flags uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	c := t.trace(ctx, trace.Readdir)
	if c != nil {
		c.call.Path = t.Path(nil)
		c.meet()
	}
	fh, keep, e := t.node.OpendirHandle(ctx, flags)
	c.end(e)
	return fh, keep, e
}

// traceLock is trace for a lock or an unlock.
func (t *traced) traceLock(ctx context.Context, fh fusefs.FileHandle, lk *fuse.FileLock, flags uint32, wait bool) *tracing {
	c := t.trace(ctx, trace.Lock).by(fh)
	if c == nil {
		return nil
	}
	switch lk.Typ {
	case syscall.F_UNLCK:
		c.call.Op = trace.Unlock
	case syscall.F_RDLCK:
		c.call.Arg |= trace.LockShared
	}
	if flags&fuse.LK_FLOCK != 0 {
		c.call.Arg |= trace.LockFlock
	}
	if wait {
		c.call.Arg |= trace.LockWait
	}
	off := min(lk.Start, trace.MaxOff)
	return c.bytes(int64(off), int64(min(lk.End, trace.MaxOff-1)-off)+1)
}

func (t *traced) Setlk(ctx context.Context, fh fusefs.FileHandle, owner uint64, lk *fuse.FileLock, flags uint32) syscall.Errno {
	c := t.traceLock(ctx, fh, lk, flags, false)
	e := t.node.Setlk(ctx, fh, owner, lk, flags)
	c.end(e)
	return e
}

func (t *traced) Setlkw(ctx context.Context, fh fusefs.FileHandle, owner uint64, lk *fuse.FileLock, flags uint32) syscall.Errno {
	c := t.traceLock(ctx, fh, lk, flags, true)
	e := t.node.Setlkw(ctx, fh, owner, lk, flags)
	c.end(e)
	return e
}
