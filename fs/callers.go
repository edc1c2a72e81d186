package fs

import (
	"context"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/zoidfs/zoidfs/fs/ranks"
)

// looks are the calls whose caller is found out if it is not known yet. Calls
// on an open file are those of the process that opened it, others those of a
// process that is known.
var looks = [numOps]bool{
	opLookup: true, opSymlink: true, opMknod: true, opMkdir: true, opUnlink: true, opRmdir: true, opRename: true,
	opOpen: true, opCreate: true, opOpendir: true,
}

// process is who makes a call that is about no open file; nil if that is not
// known.
func (m *mount) process(ctx context.Context, o op) *ranks.Process {
	c, ok := fuse.FromContext(ctx)
	switch {
	case !ok:
		return nil
	case looks[o]:
		return m.ranks.Lookup(c.Pid, c.Uid)
	}
	return m.ranks.Known(c.Pid, c.Uid)
}

// openedBy is who opened the file or directory fh; nil if that is not known.
func openedBy(fh fusefs.FileHandle) *ranks.Process {
	switch f := fh.(type) {
	case *openFile:
		return f.process
	case *dirHandle:
		return f.process
	}
	return nil
}

// countRead and countWritten count bytes that a call moved.
func (m *mount) countRead(c *call, n int) {
	m.stats.bytesRead.Add(uint64(n))
	if j := c.process.Job(); j != nil {
		j.BytesRead.Add(uint64(n))
	}
}

func (m *mount) countWritten(c *call, n int) {
	m.stats.bytesWritten.Add(uint64(n))
	if j := c.process.Job(); j != nil {
		j.BytesWritten.Add(uint64(n))
	}
}
