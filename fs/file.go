package fs

import (
	"context"
	"syscall"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/zoidfs/zoidfs/cache/holder"
	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/fs/ranks"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// fileOpenFlags keep the kernel's page cache out of read(2) and write(2) and
// let several threads write one file at a time.
const fileOpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES

// openFile is an open file description. The home counts it, the kernel keeps
// its flags.
type openFile struct {
	*holder.Handle
	id      uint64           // of the mount's opens
	process *ranks.Process   // that opened it, whose Caller has the rank; nil: nothing is known of it
	job     collective.JobID // of process then, or 0
	writes  bool             // open for writing
	era     uint64           // of its pages when it was opened to be executed; else 0
}

// openFlags are those that the kernel is told. It keeps pages of its own only of
// a file that does not change.
func (f *openFile) openFlags() uint32 {
	switch sealed, keep := f.Sealed(); {
	case keep:
		return fuse.FOPEN_KEEP_CACHE
	case sealed:
		return 0
	}
	return fileOpenFlags
}

// openExec is __FMODE_EXEC: the kernel opens a file to execute it.
const openExec = 0x20

// executed returns the flags of a file that is opened to be executed. The kernel drops
// the pages of one that is open for direct I/O each time that a part of it is mapped.
func (n *node) executed(f *openFile) (flags uint32) {
	if sealed, _ := f.Sealed(); sealed {
		return f.openFlags()
	}
	var keep bool
	if f.era, keep = n.m.pages.execute(n, f.Leased()); keep {
		return fuse.FOPEN_KEEP_CACHE
	}
	return 0
}

// mayWrite reports whether a file opened with these flags can be written.
func mayWrite(flags uint32) bool { return flags&syscall.O_ACCMODE != syscall.O_RDONLY }

// Open is not asked for a file just made, see Create.
func (n *node) Open(ctx context.Context, flags uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	c := n.begin(ctx, opOpen)
	defer c.end()
	a, err := n.m.openFile(c, n.handle, flags)
	if err != nil {
		return nil, 0, n.failGone(c, opOpen, err)
	}
	n.m.letGo(c, n.m.again.end(c.pid))
	name, _ := n.Parent()
	f := n.m.opened(c, name, &a, mayWrite(flags))
	if flags&openExec != 0 {
		return f, n.executed(f), 0
	}
	return f, f.openFlags(), 0
}

// openFile counts one more open of h, with the flags of open(2) and openKillPriv.
func (m *mount) openFile(c *call, h uint64, flags uint32) (a ionclient.Attr, err error) {
	open := func() (err error) {
		a, err = m.known.Open(c, h, flags&^openKillPriv, flags&openKillPriv != 0)
		return err
	}
	if flags&syscall.O_TRUNC != 0 {
		err = m.held.Truncate(c, h, 0, open)
	} else {
		err = open()
	}
	return a, err
}

// Release ends an open; nobody waits for it.
func (n *node) Release(ctx context.Context, fh fusefs.FileHandle) syscall.Errno {
	f := fh.(*openFile)
	n.m.closed(n.handle, f)
	c := n.m.beginAs(ctx, opRelease, f.process, true)
	defer c.end()
	err := f.Release(c, func(clean bool) error { return n.m.known.Close(c, n.handle, clean) })
	if err != nil {
		return n.failGone(c, opRelease, err)
	}
	return 0
}

// Flush publishes what was written, as each close(2) does. Locks are dropped in
// rawFS, after that.
func (n *node) Flush(ctx context.Context, fh fusefs.FileHandle) syscall.Errno {
	c := n.m.beginOn(ctx, opFlush, fh)
	defer c.end()
	if err := fh.(*openFile).Flush(c); err != nil {
		return n.failGone(c, opFlush, err)
	}
	return 0
}

const fsyncDataOnly = 1 // FUSE_FSYNC_FDATASYNC

func (n *node) Fsync(ctx context.Context, fh fusefs.FileHandle, flags uint32) syscall.Errno {
	f, ok := fh.(*openFile)
	if !ok { // a directory: what is in it is durable
		return 0
	}
	c := n.m.beginOn(ctx, opFsync, fh)
	defer c.end()
	key := syncKey{n.handle, flags&fsyncDataOnly != 0}
	_, err := n.m.known.rounds.syncs.do(c, key)
	if err := f.Reported(err); err != nil {
		return n.failGone(c, opFsync, err)
	}
	return 0
}

// readResult hands the memory in which data lies to writev(2) on the FUSE
// device and lets go of it afterwards.
type readResult holder.Bytes

func (r *readResult) data() *holder.Bytes { return (*holder.Bytes)(r) }

func (r *readResult) Size() int                       { return r.data().Len() }
func (r *readResult) Slices() ([][]byte, fuse.Status) { return r.data().Slices(), fuse.OK }
func (r *readResult) Done()                           { r.data().Release() }

// Bytes is there for the interface; with Slices it is not called.
func (r *readResult) Bytes(p []byte) ([]byte, fuse.Status) {
	return p[:r.data().CopyTo(p)], fuse.OK
}

// Read reads at an offset as unpackRead takes it.
func (n *node) Read(ctx context.Context, fh fusefs.FileHandle, dest []byte, packed int64) (fuse.ReadResult, syscall.Errno) {
	c := n.m.beginOn(ctx, opRead, fh)
	defer c.end()
	off, fills := unpackRead(packed)
	f := fh.(*openFile)
	if sealed, _ := f.Sealed(); fills && !sealed {
		res, err := n.readPages(c, f, off, len(dest))
		if err != nil {
			return nil, n.failGone(c, opRead, err)
		}
		n.m.countRead(c, res.Size())
		return res, 0
	}
	data, err := f.Read(c, off, len(dest))
	if err != nil {
		return nil, n.failGone(c, opRead, err)
	}
	if data.Len() == 0 { // go-fuse does not call Done for nothing
		data.Release()
		return fuse.ReadResultData(nil), 0
	}
	n.m.countRead(c, data.Len())
	return (*readResult)(data), 0
}

// Write writes data at an offset packed by packWrite.
func (n *node) Write(ctx context.Context, fh fusefs.FileHandle, data []byte, packed int64) (uint32, syscall.Errno) {
	c := n.m.beginOn(ctx, opWrite, fh)
	defer c.end()
	off, f := unpackWrite(packed)
	var flags uint32
	if f.killPriv && n.m.known.mayHavePriv(n.handle) {
		flags |= ionclient.KillPriv
	}
	if f.sync {
		flags |= ionclient.Sync
	}
	done, err := len(data), error(nil)
	if f.atEnd {
		off, done, err = fh.(*openFile).Append(c, data, flags)
		c.placedAt(off)
		n.m.pages.stale(n.handle) // the kernel takes another place for the end, perhaps
	} else {
		err = fh.(*openFile).Write(c, off, data, flags)
	}
	if err != nil {
		return 0, n.failGone(c, opWrite, err)
	}
	n.m.countWritten(c, done)
	return uint32(done), 0
}

// maxCopy is how much one copy_file_range request copies at most; the caller
// asks again for the rest.
const maxCopy = 4 << 20

// CopyFileRange copies through this process but not through the application,
// and not through the kernel's page cache, which may hold old data. The copy is
// published when it returns.
func (n *node) CopyFileRange(ctx context.Context, in fusefs.FileHandle, offIn uint64, _ *fusefs.Inode, to fusefs.FileHandle, offOut, length, flags uint64) (uint32, syscall.Errno) {
	from, okFrom := in.(*openFile)
	dest, okTo := to.(*openFile)
	switch {
	case !okFrom || !okTo:
		return 0, syscall.EXDEV
	case flags != 0:
		return 0, syscall.EINVAL
	case offIn > maxOffset-maxCopy || offOut > maxOffset-maxCopy:
		return 0, syscall.EFBIG
	}
	c := n.m.beginOn(ctx, opCopyFileRange, to)
	defer c.end()
	var kill uint32
	if uid, _ := caller(ctx); uid != 0 { // the kernel does not say; too often does no harm
		kill = ionclient.KillPriv
	}
	piece := make([]byte, min(length, maxRequest))
	var done int64
	for want := int64(min(length, maxCopy)); done < want; {
		k, err := n.copyPiece(c, from, int64(offIn)+done, dest, int64(offOut)+done, piece[:min(want-done, maxRequest)], kill)
		done += int64(k)
		if err != nil && done == 0 {
			return 0, n.failGone(c, opCopyFileRange, err)
		}
		if err != nil || k == 0 {
			break
		}
	}
	if err := dest.Publish(c); err != nil {
		return 0, n.failGone(c, opCopyFileRange, err)
	}
	return uint32(done), 0
}

// copyPiece copies up to len(buf) bytes and returns how many; 0 at the end of
// the file.
func (n *node) copyPiece(c *call, from *openFile, offIn int64, to *openFile, offOut int64, buf []byte, flags uint32) (int, error) {
	data, err := from.Read(c, offIn, len(buf))
	if err != nil {
		return 0, err
	}
	buf = buf[:data.CopyTo(buf)]
	data.Release()
	n.m.countRead(c, len(buf))
	if len(buf) == 0 {
		return 0, nil
	}
	if err := to.Write(c, offOut, buf, flags); err != nil {
		return 0, err
	}
	n.m.countWritten(c, len(buf))
	return len(buf), nil
}
