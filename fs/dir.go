package fs

import (
	"context"
	"sync"
	"syscall"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/zoidfs/zoidfs/fs/ranks"
)

// readDirBatch is how many entries are asked for at a time.
const readDirBatch = 1024

// dirHandle is an open directory. Its entries are read at once, when the first
// one is asked for after opendir(3) or rewinddir(3), and do not change until
// the next rewinddir: whoever deletes what it lists, as rm -r does, misses
// nothing and sees nothing twice. The cookie of an entry is its position
// counted from 1, so telldir(3) and seekdir(3) work as long as the directory
// is open.
type dirHandle struct {
	node    *node
	process *ranks.Process // that opened it; nil: nothing is known of it

	mu      sync.Mutex
	entries []fuse.DirEntry // nil until read; guarded by mu
	next    int             // position of the next entry; guarded by mu
}

var (
	_ fusefs.FileReaddirenter = (*dirHandle)(nil)
	_ fusefs.FileSeekdirer    = (*dirHandle)(nil)
	_ fusefs.FileFsyncdirer   = (*dirHandle)(nil)
)

// OpendirHandle costs no request.
func (n *node) OpendirHandle(ctx context.Context, _ uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	c := n.begin(ctx, opOpendir)
	defer c.end()
	return &dirHandle{node: n, process: c.process}, 0, 0
}

// Readdirent returns the next entry, or nil at the end.
func (d *dirHandle) Readdirent(ctx context.Context) (*fuse.DirEntry, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.entries == nil {
		if e := d.loadLocked(ctx); e != 0 {
			return nil, e
		}
	}
	if d.next >= len(d.entries) {
		return nil, 0
	}
	e := &d.entries[d.next]
	d.next++
	return e, 0
}

// Seekdir goes to the entry behind the one whose cookie is off.
func (d *dirHandle) Seekdir(ctx context.Context, off uint64) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off == 0 {
		d.entries, d.next = nil, 0
		return 0
	}
	if d.entries == nil {
		if e := d.loadLocked(ctx); e != 0 {
			return e
		}
	}
	d.next = int(min(off, uint64(len(d.entries))))
	return 0
}

// Fsyncdir makes what happened to names in the directory durable.
func (d *dirHandle) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	return d.node.Fsync(ctx, nil, flags)
}

// loadLocked reads the whole directory.
func (d *dirHandle) loadLocked(ctx context.Context) syscall.Errno {
	n := d.node
	c := n.m.beginOn(ctx, opReaddir, d)
	defer c.end()
	up := n.handle // of the root is the root
	if _, parent := n.Parent(); parent != nil {
		up = parent.StableAttr().Ino
	}
	entries := []fuse.DirEntry{
		{Name: ".", Ino: n.handle, Mode: syscall.S_IFDIR, Off: 1},
		{Name: "..", Ino: up, Mode: syscall.S_IFDIR, Off: 2},
	}
	all, err := n.m.known.ReadDir(c, n.handle)
	if err != nil {
		return n.failGone(c, opReaddir, err)
	}
	for _, e := range all {
		entries = append(entries, fuse.DirEntry{
			Name: e.Name, Ino: e.Handle, Mode: typeMode(objType(e.Entry)), Off: uint64(len(entries) + 1),
		})
	}
	d.entries, d.next = entries, 0
	return 0
}
