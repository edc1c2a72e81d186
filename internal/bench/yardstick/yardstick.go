// Package yardstick serves the file systems that zoidfs is measured against.
package yardstick

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"syscall"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// What every mount that is compared has: the largest FUSE request, and the
// processors that a zoidfs mount uses if it is not told otherwise. More make small
// calls dearer, as idle ones look for work, so that a mount with more would be no
// yardstick.
const (
	maxWrite = 1 << 20
	procs    = 2
)

// mountOptions are those of the zoidfs mount that matter for speed.
func mountOptions(name string) fuse.MountOptions {
	return fuse.MountOptions{
		DirectMount: true, Name: name, FsName: name,
		MaxWrite: maxWrite, MaxReadAhead: maxWrite, MaxBackground: 64,
		DisableSplice: true, EnableLocks: true,
		ExtraCapabilities: fuse.CAP_HANDLE_KILLPRIV_V2,
	}
}

// Loopback serves go-fuse's loopback of folder until ctx ends, and prints "ready"
// when it does. The kernel may not pass data through, so the daemon sees all of it.
func Loopback(ctx context.Context, folder, mountpoint string, out io.Writer) error {
	root, err := fusefs.NewLoopbackRoot(folder)
	if err != nil {
		return err
	}
	opt := &fusefs.Options{MountOptions: mountOptions("bench-loopback")}
	opt.DisabledCapabilities |= fuse.CAP_PASSTHROUGH
	return serve(ctx, mountpoint, root, opt, out)
}

// Null serves a file system that does nothing, on go-fuse's node API with direct
// I/O, until ctx ends, and prints "ready" when it does. Every name in it is a file
// of 1 TiB that forgets what is written and reads as what the buffers hold.
func Null(ctx context.Context, mountpoint string, out io.Writer) error {
	return serve(ctx, mountpoint, &nullRoot{}, &fusefs.Options{MountOptions: mountOptions("bench-null")}, out)
}

// serve mounts and serves until ctx ends, then unmounts.
func serve(ctx context.Context, mountpoint string, root fusefs.InodeEmbedder, opt *fusefs.Options, out io.Writer) error {
	runtime.GOMAXPROCS(procs)
	srv, err := fusefs.Mount(mountpoint, root, opt)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "ready")
	unmount := context.AfterFunc(ctx, func() {
		for srv.Unmount() != nil {
			time.Sleep(100 * time.Millisecond)
		}
	})
	defer unmount()
	srv.Wait()
	return nil
}

type nullRoot struct{ fusefs.Inode }

type nullFile struct{ fusefs.Inode }

const nullSize = 1 << 40

var (
	_ fusefs.NodeLookuper = (*nullRoot)(nil)
	_ fusefs.NodeCreater  = (*nullRoot)(nil)
	_ fusefs.NodeOpener   = (*nullFile)(nil)
	_ fusefs.NodeReader   = (*nullFile)(nil)
	_ fusefs.NodeWriter   = (*nullFile)(nil)
)

func nullAttr(out *fuse.Attr) { out.Mode, out.Size, out.Nlink = syscall.S_IFREG|0o644, nullSize, 1 }

func (r *nullRoot) child(ctx context.Context, name string) *fusefs.Inode {
	if n := r.GetChild(name); n != nil {
		return n
	}
	return r.NewInode(ctx, &nullFile{}, fusefs.StableAttr{Mode: syscall.S_IFREG})
}

func (r *nullRoot) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	nullAttr(&out.Attr)
	return r.child(ctx, name), 0
}

func (r *nullRoot) Create(ctx context.Context, name string, _, _ uint32, out *fuse.EntryOut) (*fusefs.Inode, fusefs.FileHandle, uint32, syscall.Errno) {
	nullAttr(&out.Attr)
	return r.child(ctx, name), nil, fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES, 0
}

func (f *nullFile) Getattr(_ context.Context, _ fusefs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	nullAttr(&out.Attr)
	return 0
}

func (f *nullFile) Open(context.Context, uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES, 0
}

func (f *nullFile) Read(_ context.Context, _ fusefs.FileHandle, dest []byte, _ int64) (fuse.ReadResult, syscall.Errno) {
	return fuse.ReadResultVector([][]byte{dest}), 0
}

func (f *nullFile) Write(_ context.Context, _ fusefs.FileHandle, data []byte, _ int64) (uint32, syscall.Errno) {
	return uint32(len(data)), 0
}
