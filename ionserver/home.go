package ionserver

import (
	"context"
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

// Permission bits that a write by an ordinary user takes away.
const (
	modeSetUID = 0o4000
	modeSetGID = 0o2000
	modeGroupX = 0o010
)

// home keeps what PVFS2 does not know about the inodes whose home this node is.
type home struct {
	srv *Server

	// ops orders what must not overlap on one inode: changes of attributes,
	// truncation and append exclude each other and looking at attributes.
	ops keyLock[uint64]
	// modes orders changes of permission bits. Held over PVFS2 requests only,
	// so announcements may wait for it.
	modes keyLock[uint64]
	// destroying keeps two from destroying one orphan.
	destroying keyLock[uint64]
	// chosen is what is known of the consistency modes that were chosen.
	chosen modeCache

	mu     sync.Mutex
	inodes map[uint64]*inode // guarded by mu
}

// inode is an inode that is open, being written or an orphan. All fields are
// guarded by home.mu.
type inode struct {
	opens    map[uint64]uint32 // by session; none 0
	orphan   bool              // has no name; kept in the directory of orphans
	linked   bool              // has its entry there
	linger   time.Time         // an orphan is not destroyed before
	gone     bool              // is being destroyed: cannot be opened any more
	writers  map[int]uint64    // owners that announced writes, with the number of the announcement
	announce uint64            // announcements so far
	stamps   map[int]int64     // last stamp collected from each owner
	ends     map[int]int64     // of bytes at owners that PVFS2 may not show yet
	mtime    int64             // s; of the last write, not yet saved; 0: PVFS2 knows best
	noPriv   bool              // is known to have neither setuid nor setgid with group execute
	modes    uint64            // changes of permission bits so far
}

func newHome(s *Server) *home { return &home{srv: s, inodes: make(map[uint64]*inode)} }

// inodeLocked returns the inode, making it if needed.
func (h *home) inodeLocked(handle uint64) *inode {
	i := h.inodes[handle]
	if i == nil {
		i = &inode{opens: make(map[uint64]uint32), writers: make(map[int]uint64), stamps: make(map[int]int64), ends: make(map[int]int64)}
		h.inodes[handle] = i
	}
	return i
}

// dropLocked forgets an inode that holds nothing.
func (h *home) dropLocked(handle uint64, i *inode) {
	if len(i.opens) == 0 && !i.orphan && !i.gone && len(i.writers) == 0 && len(i.ends) == 0 && i.mtime == 0 {
		delete(h.inodes, handle)
	}
}

// announce takes note that an owner writes; with kill it has cleared setuid
// and setgid when it returns.
func (h *home) announce(c *call, handle uint64, from int, kill bool) error {
	h.mu.Lock()
	i := h.inodeLocked(handle)
	i.announce++
	i.writers[from] = i.announce
	clear := kill && !i.noPriv
	h.mu.Unlock()
	if !clear {
		return nil
	}
	release, err := lockKey(c, c.ctx, &h.modes, handle, true)
	if err != nil {
		return err
	}
	defer release()
	a, err := h.srv.pvfs.GetAttr(c.ctx, pvfs.Handle(handle))
	if err != nil {
		return stale(err)
	}
	if mode := withoutPriv(a.Mode); mode != a.Mode {
		if err := h.srv.pvfs.SetAttr(c.ctx, a.Handle, pvfs.SetAttr{Mode: &mode}); err != nil {
			return stale(err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := h.inodes[handle]; i != nil {
		i.noPriv = true
	}
	return nil
}

// withoutPriv is mode without setuid, and without setgid where group execute
// gives it its meaning.
func withoutPriv(mode uint32) uint32 {
	mode &^= modeSetUID
	if mode&modeGroupX != 0 {
		mode &^= modeSetGID
	}
	return mode
}

// waiter is who can give up a worker while it waits: a call, or background
// work that has none.
type waiter interface {
	wait(fn func() error) error
}

type background struct{}

func (background) wait(fn func() error) error { return fn() }

// lockKey takes a key's lock, without a worker if it has to wait.
func lockKey[K comparable](w waiter, ctx context.Context, l *keyLock[K], key K, exclusive bool) (release func(), err error) {
	if release, ok := l.TryLock(key, exclusive); ok {
		return release, nil
	}
	err = w.wait(func() error {
		release, err = l.Lock(ctx, key, exclusive)
		return err
	})
	return release, err
}

// collect asks the owners that announced writes for the time of the last one.
// It returns those that are still writing. With hurry, owners that cannot be
// reached at once are left for later.
func (h *home) collect(ctx context.Context, w waiter, handle uint64, hurry bool) (busy []int, err error) {
	h.mu.Lock()
	i := h.inodes[handle]
	if i == nil || len(i.writers) == 0 {
		h.mu.Unlock()
		return nil, nil
	}
	asked := maps.Clone(i.writers)
	h.mu.Unlock()
	if hurry {
		maps.DeleteFunc(asked, func(at int, _ uint64) bool { return at != h.srv.self && !h.srv.peers[at].isUp() })
	}
	got := make(map[int]*ionpb.CollectResp)
	if _, ok := asked[h.srv.self]; ok {
		got[h.srv.self] = h.srv.owner.collect(handle, 0)
	}
	if len(asked) > len(got) {
		err = w.wait(func() error { return h.ask(ctx, handle, asked, got) })
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, at := range slices.Sorted(maps.Keys(got)) {
		c := got[at]
		if c.Stamp > i.stamps[at] {
			i.stamps[at] = c.Stamp
			i.mtime = max(i.mtime, c.Stamp/int64(time.Second))
		}
		if c.End > 0 {
			i.ends[at] = c.End
		} else {
			delete(i.ends, at)
		}
		switch {
		case c.Busy:
			busy = append(busy, at)
		case !c.Kept && i.writers[at] == asked[at]: // has not announced again meanwhile
			delete(i.writers, at)
		}
	}
	return busy, err
}

// ask collects from the asked peers at the same time, into got.
func (h *home) ask(ctx context.Context, handle uint64, asked map[int]uint64, got map[int]*ionpb.CollectResp) error {
	var g errgroup.Group
	var mu sync.Mutex
	for at := range asked {
		if at == h.srv.self {
			continue
		}
		g.Go(func() error {
			var r ionpb.CollectResp
			if err := h.srv.peers[at].call(ctx, rpc.Frame{Op: ionpb.Op_COLLECT, Handle: handle}, nil, &r); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			got[at] = &r
			return nil
		})
	}
	return g.Wait()
}

// announcements counts the announcements of an inode: while it stands still,
// nobody has begun to write who was not writing.
func (h *home) announcements(handle uint64) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := h.inodes[handle]; i != nil {
		return i.announce
	}
	return 0
}

// fence keeps accesses to ext out at the owners with the given indexes, in
// the order of the view. release is not nil.
func (h *home) fence(c *call, handle uint64, ext extent.Extent, flags uint32, at []int) (release func(), err error) {
	var releases []func()
	release = func() {
		for _, r := range slices.Backward(releases) {
			r()
		}
	}
	f := rpc.Frame{Op: ionpb.Op_FENCE, Handle: handle, Off: ext.Off, Len: ext.Len, Flags: flags}
	slices.Sort(at)
	for _, at := range at {
		if at == h.srv.self {
			r, err := h.srv.owner.fence(c, c.ctx, fencing{handle, ext, flags, 0})
			if err != nil {
				release()
				return func() {}, err
			}
			releases = append(releases, r)
			continue
		}
		var t *token
		if err := c.wait(func() (err error) { t, err = h.srv.peers[at].take(c.ctx, f, nil); return err }); err != nil {
			release()
			return func() {}, err
		}
		releases = append(releases, func() { _ = c.wait(func() error { t.release(); return nil }) })
	}
	return release, nil
}

// everybody is the indexes of all I/O nodes.
func (s *Server) everybody() []int {
	out := make([]int, len(s.peers))
	for i := range out {
		out[i] = i
	}
	return out
}

// attr returns the attributes of an inode as of one moment within the call.
// The caller holds the inode's place in ops.
//
// The size lies on many servers, so a write under way could show in part, or a
// later one without an earlier one. Owners that are writing are held up while
// the sizes are read; if another begins meanwhile it is done again.
func (h *home) attr(c *call, handle uint64) (pvfs.Attr, error) {
	const tries = 3
	for try := 1; ; try++ {
		before := h.announcements(handle)
		busy, err := h.collect(c.ctx, c, handle, false)
		if err != nil {
			return pvfs.Attr{}, err
		}
		if try == tries {
			busy = h.srv.everybody()
		}
		release, err := h.fence(c, handle, extent.ToEnd(0), uint32(ionpb.Flag_SHARED), busy)
		if err != nil {
			return pvfs.Attr{}, err
		}
		a, err := h.srv.pvfs.GetAttr(c.ctx, pvfs.Handle(handle))
		release()
		if err != nil {
			return pvfs.Attr{}, stale(err)
		}
		if try == tries || h.announcements(handle) == before {
			h.overlay(&a)
			return a, nil
		}
	}
}

// overlay adds to the attributes what PVFS2 does not know yet.
func (h *home) overlay(a *pvfs.Attr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.inodes[uint64(a.Handle)]
	if i == nil {
		return
	}
	for at, end := range i.ends {
		if end <= a.Size {
			delete(i.ends, at)
		}
		a.Size = max(a.Size, end)
	}
	if i.mtime != 0 {
		a.Mtime, a.Ctime = i.mtime, max(a.Ctime, i.mtime)
	}
}

// orphaned reports whether the inode has no name any more.
func (h *home) orphaned(handle uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.inodes[handle]
	return i != nil && i.orphan
}

// persist saves the modification time. The caller holds the inode's place in
// ops, exclusively.
func (h *home) persist(ctx context.Context, handle uint64) error {
	h.mu.Lock()
	var mtime int64
	if i := h.inodes[handle]; i != nil {
		mtime = i.mtime
		h.dropLocked(handle, i)
	}
	h.mu.Unlock()
	if mtime == 0 {
		return nil
	}
	err := stale(h.srv.pvfs.SetAttr(ctx, pvfs.Handle(handle), pvfs.SetAttr{Mtime: &mtime, CtimeNow: true}))
	if err != nil && errno.Of(err) != syscall.ESTALE { // of what is gone there is nothing to save
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := h.inodes[handle]; i != nil {
		if i.mtime == mtime {
			i.mtime = 0
		}
		h.dropLocked(handle, i)
	}
	return err
}

// persistAll collects and saves all modification times, as far as that can be
// done now.
func (h *home) persistAll(ctx context.Context, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	h.mu.Lock()
	var todo []uint64
	for handle, i := range h.inodes {
		if (i.mtime != 0 || len(i.writers) > 0) && !i.gone {
			todo = append(todo, handle)
		}
		h.dropLocked(handle, i)
	}
	h.mu.Unlock()
	slices.Sort(todo)
	for _, handle := range todo {
		if err := h.save(ctx, background{}, handle, true); err != nil && ctx.Err() != nil {
			return
		} else if err != nil && errno.Of(err) != syscall.ESTALE {
			h.srv.log.Warn("modification time not saved", "handle", handle, "err", err)
		}
	}
}

// save collects and persists.
func (h *home) save(ctx context.Context, w waiter, handle uint64, hurry bool) error {
	release, err := lockKey(w, ctx, &h.ops, handle, true)
	if err != nil {
		return err
	}
	defer release()
	if _, err := h.collect(ctx, w, handle, hurry); err != nil {
		return err
	}
	return h.persist(ctx, handle)
}
