package systest

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// weakness says how a weakFS differs from one that shows a write as soon as it
// is published. The first two are lawful, the others are bugs.
type weakness struct {
	writeBehind  bool // writes are published at sync points, else at once
	snapshot     bool // readers see the file as it was when they opened it
	atRelease    bool // publishes at the last close, not at every one
	wholePages   bool // publishes whole pages, with what was around the write when it was made
	noRecall     bool // does not publish for others what they read to write it back, or write beside
	ownLocks     bool // locks exclude nobody on other mounts
	staleSize    bool // does not notice a truncation by others
	losesWrites  int  // of so many published writes loses one
	twoTimes     bool // publishes a write again at the next sync point
	appendsAtEnd bool // appends where the mount believes that the file ends
}

// weakFS shows a directory at several mounts, each of which has a cache of its
// own. It is what a file system of relaxed consistency is, on one page, and a
// known liar when it is told to.
type weakFS struct {
	weakness
	mu        sync.Mutex
	mounts    []*weakMount // guarded by mu, as all below it
	published int
}

type weakMount struct {
	*weakFS
	files map[uint64]*weakFile // by inode number of the directory below
}

type weakFile struct {
	dirty, old []patch // in the order in which they were written; old: published already
	handles    []*weakHandle
	size       int64 // the largest that was seen, for staleSize
}

type patch struct {
	off  int64
	data []byte
	to   *os.File // of the writer
}

func (p patch) end() int64 { return p.off + int64(len(p.data)) }

// mountWeak mounts a weakFS twice and returns the mount points.
func mountWeak(t *testing.T, w weakness) []string {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		skipOrFail(t, "no /dev/fuse: %v", err)
	}
	dir := shortTempDir(t)
	below := filepath.Join(dir, "below")
	require.NoError(t, os.Mkdir(below, 0o755))
	fs := &weakFS{weakness: w}
	var out []string
	for _, name := range []string{"a", "b"} {
		point := filepath.Join(dir, name)
		require.NoError(t, os.Mkdir(point, 0o755))
		m := &weakMount{weakFS: fs, files: map[uint64]*weakFile{}}
		fs.mounts = append(fs.mounts, m)
		root := &fusefs.LoopbackNode{RootData: &fusefs.LoopbackRoot{Path: below}}
		opt := &fusefs.Options{MountOptions: fuse.MountOptions{Name: "weakfs", DisableSplice: true, EnableLocks: !w.ownLocks, MaxWrite: 1 << 20}}
		srv, err := fusefs.Mount(point, &weakNode{root, m}, opt)
		require.NoError(t, err)
		t.Cleanup(func() { // it is busy while a child of ours has files open that it closes when it becomes another program
			require.Eventually(t, func() bool { return srv.Unmount() == nil }, 10*time.Second, 10*time.Millisecond, point)
		})
		out = append(out, point)
	}
	return out
}

type weakNode struct {
	*fusefs.LoopbackNode
	m *weakMount
}

func (n *weakNode) WrapChild(_ context.Context, ops fusefs.InodeEmbedder) fusefs.InodeEmbedder {
	return &weakNode{ops.(*fusefs.LoopbackNode), n.m}
}

// Rename publishes: what is renamed into its place is complete in every mode.
func (n *weakNode) Rename(ctx context.Context, name string, to fusefs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	var st syscall.Stat_t
	if err := syscall.Lstat(filepath.Join(n.RootData.Path, n.Path(nil), name), &st); err != nil {
		return fusefs.ToErrno(err)
	}
	n.m.mu.Lock()
	n.m.publishLocked(st.Ino)
	n.m.mu.Unlock()
	return n.LoopbackNode.Rename(ctx, name, to, newName, flags)
}

type weakHandle struct {
	fusefs.FileHandle
	m     *weakMount
	ino   uint64
	file  *os.File
	flags uint32
	snap  []byte
}

func (n *weakNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fusefs.Inode, fusefs.FileHandle, uint32, syscall.Errno) {
	child, fh, _, errno := n.LoopbackNode.Create(ctx, name, flags&^syscall.O_WRONLY|syscall.O_RDWR, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	if r, ok := fh.(fusefs.FileReleaser); ok {
		r.Release(ctx)
	}
	h, f, errno := n.m.open(filepath.Join(n.RootData.Path, n.Path(nil), name), flags)
	return child, h, f, errno
}

func (n *weakNode) Open(_ context.Context, flags uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	return n.m.open(filepath.Join(n.RootData.Path, n.Path(nil)), flags)
}

func (m *weakMount) open(path string, flags uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	how := int(flags) & syscall.O_ACCMODE
	if how == syscall.O_WRONLY {
		how = syscall.O_RDWR // whole pages are read to be written
	}
	fd, err := syscall.Open(path, how|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, fusefs.ToErrno(err)
	}
	dup, err := syscall.Dup(fd)
	if err != nil {
		return nil, 0, fusefs.ToErrno(err)
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return nil, 0, fusefs.ToErrno(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.files[st.Ino]
	if f == nil {
		f = &weakFile{}
		m.files[st.Ino] = f
	}
	h := &weakHandle{FileHandle: fusefs.NewLoopbackFile(dup), m: m, ino: st.Ino, file: os.NewFile(uintptr(fd), path), flags: flags}
	f.handles = append(f.handles, h)
	h.refreshLocked()
	return h, fuse.FOPEN_DIRECT_IO, 0
}

// refreshLocked lets the handle see what is published now.
func (h *weakHandle) refreshLocked() {
	if h.m.snapshot {
		h.snap, _ = os.ReadFile("/proc/self/fd/" + strconv.Itoa(int(h.file.Fd())))
	}
}

func (h *weakHandle) writable() bool { return h.flags&syscall.O_ACCMODE != syscall.O_RDONLY }

// publishLocked writes what the mount has written to a file to the directory
// below, where other mounts see it.
func (m *weakMount) publishLocked(ino uint64) {
	f := m.files[ino]
	if f == nil {
		return
	}
	all := f.dirty
	if m.twoTimes {
		all = append(f.old, f.dirty...)
		f.old = f.dirty
	}
	for _, p := range all {
		if m.published++; m.losesWrites > 0 && m.published%m.losesWrites == 0 {
			continue
		}
		p.to.WriteAt(p.data, p.off)
		for _, h := range f.handles { // the node goes on seeing it
			if h.snap != nil {
				h.snap = append(h.snap, make([]byte, max(0, p.end()-int64(len(h.snap))))...)
				copy(h.snap[p.off:], p.data)
			}
		}
	}
	f.dirty = nil
}

// recallLocked publishes what other mounts have written.
func (m *weakMount) recallLocked(ino uint64) {
	if m.noRecall {
		return
	}
	for _, o := range m.mounts {
		if o != m {
			o.publishLocked(ino)
		}
	}
}

func (h *weakHandle) Read(_ context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	m := h.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if h.writable() {
		m.recallLocked(h.ino)
	}
	return fuse.ReadResultData(h.viewLocked(dest, off)), 0
}

// viewLocked fills buf with the bytes at off as the handle sees them.
func (h *weakHandle) viewLocked(buf []byte, off int64) []byte {
	n := 0
	if h.snap != nil && (!h.writable() || h.m.noRecall) {
		n = copy(buf, h.snap[min(off, int64(len(h.snap))):])
	} else {
		n, _ = h.file.ReadAt(buf, off)
	}
	clear(buf[n:])
	for _, p := range h.m.files[h.ino].dirty {
		if p.off < off+int64(len(buf)) && off < p.end() {
			from := max(p.off, off)
			n = max(n, int(from-off)+copy(buf[from-off:], p.data[from-p.off:]))
		} else if p.off >= off+int64(len(buf)) {
			n = len(buf)
		}
	}
	return buf[:n]
}

func (h *weakHandle) Write(_ context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	m := h.m
	m.mu.Lock()
	defer m.mu.Unlock()
	m.recallLocked(h.ino)
	f := m.files[h.ino]
	if h.flags&syscall.O_APPEND != 0 && !m.appendsAtEnd {
		m.publishLocked(h.ino)
		off = fileSize(h.file)
	}
	p := patch{off, slices.Clone(data), h.file}
	if m.wholePages {
		page := patch{off &^ 4095, make([]byte, (off&4095+int64(len(data))+4095)&^4095), h.file}
		got := h.viewLocked(page.data, page.off)
		copy(page.data[off-page.off:], data)
		page.data = page.data[:max(int64(len(got)), off-page.off+int64(len(data)))]
		p = page
	}
	f.dirty = append(f.dirty, p)
	if !m.writeBehind || h.flags&(syscall.O_DSYNC|syscall.O_APPEND) != 0 {
		m.publishLocked(h.ino)
	}
	return uint32(len(data)), 0
}

func (h *weakHandle) publish() syscall.Errno {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	h.m.publishLocked(h.ino)
	return 0
}

func (h *weakHandle) Fsync(context.Context, uint32) syscall.Errno { return h.publish() }

func (h *weakHandle) Flush(context.Context) syscall.Errno {
	if h.m.atRelease {
		return 0
	}
	return h.publish()
}

func (h *weakHandle) Release(ctx context.Context) syscall.Errno {
	h.publish()
	h.m.mu.Lock()
	f := h.m.files[h.ino]
	f.handles = slices.DeleteFunc(f.handles, func(o *weakHandle) bool { return o == h })
	f.old = nil
	h.m.mu.Unlock()
	h.file.Close()
	return h.FileHandle.(fusefs.FileReleaser).Release(ctx)
}

func (h *weakHandle) Setlk(ctx context.Context, owner uint64, lk *fuse.FileLock, flags uint32) syscall.Errno {
	return h.lock(lk, func() syscall.Errno { return h.FileHandle.(fusefs.FileSetlker).Setlk(ctx, owner, lk, flags) })
}

func (h *weakHandle) Setlkw(ctx context.Context, owner uint64, lk *fuse.FileLock, flags uint32) syscall.Errno {
	return h.lock(lk, func() syscall.Errno { return h.FileHandle.(fusefs.FileSetlkwer).Setlkw(ctx, owner, lk, flags) })
}

// lock publishes before a lock is given back and looks anew once it is taken.
func (h *weakHandle) lock(lk *fuse.FileLock, do func() syscall.Errno) syscall.Errno {
	if lk.Typ == unix.F_UNLCK {
		h.publish()
	}
	errno := do()
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	h.refreshLocked()
	return errno
}

func (n *weakNode) Getattr(ctx context.Context, fh fusefs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	if errno := n.LoopbackNode.Getattr(ctx, nil, out); errno != 0 {
		return errno
	}
	if f := n.m.files[out.Ino]; f != nil && out.Mode&syscall.S_IFREG != 0 {
		if n.m.staleSize {
			f.size = max(f.size, int64(out.Size))
			out.Size = uint64(f.size)
		}
		for _, p := range f.dirty {
			out.Size = max(out.Size, uint64(p.end()))
		}
	}
	return 0
}

func (n *weakNode) Setattr(ctx context.Context, fh fusefs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	h, _ := fh.(*weakHandle)
	if h != nil {
		for _, m := range n.m.mounts {
			m.publishLocked(h.ino)
		}
	}
	errno := n.LoopbackNode.Setattr(ctx, nil, in, out)
	if h != nil {
		for _, m := range n.m.mounts {
			if f := m.files[h.ino]; f != nil {
				for _, o := range f.handles {
					o.refreshLocked()
				}
			}
		}
	}
	return errno
}

func fileSize(f *os.File) int64 {
	st, err := f.Stat()
	if err != nil {
		return 0
	}
	return st.Size()
}
