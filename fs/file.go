package fs

import (
	"context"
	"syscall"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// fileOpenFlags keep the kernel's page cache out of read(2) and write(2) and
// let several threads write one file at a time.
const fileOpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES

// openFile is an open file description. The home counts it, the kernel keeps
// its flags.
type openFile struct{ mode consistency.Mode }

// Open is not asked for a file just made, see Create.
func (n *node) Open(ctx context.Context, flags uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	c := n.begin(ctx, opOpen)
	defer c.end()
	a, err := n.m.client.Open(c, n.handle, flags&^openKillPriv, flags&openKillPriv != 0)
	if err != nil {
		return nil, 0, n.failGone(opOpen, err)
	}
	name, _ := n.Parent()
	return n.m.opened(name, &a), fileOpenFlags, 0
}

// Release ends an open; nobody waits for it.
func (n *node) Release(ctx context.Context, f fusefs.FileHandle) syscall.Errno {
	n.m.closed(n.handle, f.(*openFile))
	n.m.stats.calls[opRelease].Add(1)
	c := n.m.calls.begin(ctx, true)
	defer c.end()
	if err := n.m.client.CloseFile(c, n.handle); err != nil {
		return n.failGone(opRelease, err)
	}
	return 0
}

// Flush has nothing to do: what was written is where it belongs. Locks are
// dropped in rawFS.
func (n *node) Flush(context.Context, fusefs.FileHandle) syscall.Errno {
	n.m.stats.calls[opFlush].Add(1)
	return 0
}

const fsyncDataOnly = 1 // FUSE_FSYNC_FDATASYNC

func (n *node) Fsync(ctx context.Context, _ fusefs.FileHandle, flags uint32) syscall.Errno {
	c := n.begin(ctx, opFsync)
	defer c.end()
	if err := n.m.client.Fsync(c, n.handle, flags&fsyncDataOnly != 0); err != nil {
		return n.failGone(opFsync, err)
	}
	return 0
}

// readResult hands the buffers in which data arrived to writev(2) on the FUSE
// device and lets go of them afterwards.
type readResult struct{ data *ionclient.Data }

func (r *readResult) Size() int                       { return r.data.Len() }
func (r *readResult) Slices() ([][]byte, fuse.Status) { return r.data.Slices(), fuse.OK }
func (r *readResult) Done()                           { r.data.Release() }

// Bytes is there for the interface; with Slices it is not called.
func (r *readResult) Bytes(p []byte) ([]byte, fuse.Status) {
	return p[:r.data.CopyTo(p)], fuse.OK
}

func (n *node) Read(ctx context.Context, _ fusefs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	c := n.begin(ctx, opRead)
	defer c.end()
	data, err := n.m.client.Read(c, n.handle, off, len(dest))
	if err != nil {
		return nil, n.failGone(opRead, err)
	}
	if data.Len() == 0 { // go-fuse does not call Done for nothing
		data.Release()
		return fuse.ReadResultData(nil), 0
	}
	n.m.stats.bytesRead.Add(uint64(data.Len()))
	return &readResult{data}, 0
}

// Write writes data at an offset packed by packWrite.
func (n *node) Write(ctx context.Context, _ fusefs.FileHandle, data []byte, packed int64) (uint32, syscall.Errno) {
	c := n.begin(ctx, opWrite)
	defer c.end()
	off, f := unpackWrite(packed)
	var flags uint32
	if f.killPriv {
		flags |= ionclient.KillPriv
	}
	if f.sync {
		flags |= ionclient.Sync
	}
	var done int
	var err error
	if f.atEnd {
		_, done, err = n.m.client.Append(c, n.handle, data, flags)
	} else {
		done, err = n.m.client.Write(c, n.handle, off, data, flags)
	}
	n.m.stats.bytesWritten.Add(uint64(done))
	if err != nil && done == 0 {
		return 0, n.failGone(opWrite, err)
	}
	return uint32(done), 0 // a short write: the next one meets the error again
}

// maxCopy is how much one copy_file_range request copies at most; the caller
// asks again for the rest.
const maxCopy = 4 << 20

// CopyFileRange copies through this process but not through the application,
// and not through the kernel's page cache, which may hold old data.
func (n *node) CopyFileRange(ctx context.Context, _ fusefs.FileHandle, offIn uint64, out *fusefs.Inode, _ fusefs.FileHandle, offOut, length, flags uint64) (uint32, syscall.Errno) {
	to, ok := out.Operations().(*node)
	switch {
	case !ok:
		return 0, syscall.EXDEV
	case flags != 0:
		return 0, syscall.EINVAL
	case offIn > maxOffset-maxCopy || offOut > maxOffset-maxCopy:
		return 0, syscall.EFBIG
	}
	c := n.begin(ctx, opCopyFileRange)
	defer c.end()
	var kill uint32
	if uid, _ := caller(ctx); uid != 0 { // the kernel does not say; too often does no harm
		kill = ionclient.KillPriv
	}
	piece := make([]byte, min(length, maxRequest))
	var done int64
	for want := int64(min(length, maxCopy)); done < want; {
		k, err := n.copyPiece(c, int64(offIn)+done, to, int64(offOut)+done, piece[:min(want-done, maxRequest)], kill)
		done += int64(k)
		if err != nil && done == 0 {
			return 0, n.failGone(opCopyFileRange, err)
		}
		if err != nil || k == 0 {
			break
		}
	}
	return uint32(done), 0
}

// copyPiece copies up to len(buf) bytes and returns how many; 0 at the end of
// the file.
func (n *node) copyPiece(c *call, offIn int64, to *node, offOut int64, buf []byte, flags uint32) (int, error) {
	data, err := n.m.client.Read(c, n.handle, offIn, len(buf))
	if err != nil {
		return 0, err
	}
	buf = buf[:data.CopyTo(buf)]
	data.Release()
	n.m.stats.bytesRead.Add(uint64(len(buf)))
	if len(buf) == 0 {
		return 0, nil
	}
	done, err := n.m.client.Write(c, to.handle, offOut, buf, flags)
	n.m.stats.bytesWritten.Add(uint64(done))
	return done, err
}
