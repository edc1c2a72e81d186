package ionserver

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

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
	// destroying keeps two from destroying one orphan, and its entry from
	// coming after its end.
	destroying keyLock[uint64]
	// dirs is what is known of directories in which names are changed.
	dirs dirTable
	// chosen is what is known of the modes and hints that were chosen.
	chosen choices

	grants   *grantTable
	versions *versionTable

	mu     sync.Mutex
	inodes map[uint64]*inode // guarded by mu
	holds  uint64            // guarded by mu; HOLDs so far
}

// inode is an inode that is open, being written or an orphan. All fields are
// guarded by home.mu.
type inode struct {
	opens    map[uint64]openOf   // by session; none zero
	holds    map[*session]uint64 // who holds unpublished bytes, with the number of its last HOLD
	orphan   bool                // has no name; kept in the directory of orphans
	linked   bool                // has its entry there
	linger   time.Time           // an orphan is not destroyed before
	gone     bool                // is being destroyed: cannot be opened any more
	writers  map[int]writer      // owners that announced writes
	announce uint64              // announcements so far
	stamps   map[int]int64       // last stamp heard from each owner
	unaware  map[int]bool        // owners that may not know that the time of their last write is seen to
	ends     map[int]int64       // of the bytes at each owner that PVFS2 may not show yet; none 0
	tail     int64               // where the last append ended; 0: not known
	seal     seal                // as far as known
	shut     bool                // is being sealed
	pins     int                 // who needs that it is not forgotten
	mtime    int64               // s; of the last write, not yet saved; 0: PVFS2 knows best
	again    bool                // an owner has told of writes that an earlier life may have seen to
	saved    int64               // s; the time that PVFS2 has, for mtime and, at least, for ctime; 0: not known
	noPriv   bool                // is known to have neither setuid nor setgid with group execute
	modes    uint64              // changes of permission bits so far
	cuts     uint64              // truncations so far

	flushed   []uint64 // what the servers have flushed last, by owner: CollectResp.sent; nil: not known
	flushedAt uint64   // cuts before that
}

// openOf is how often one session has an inode open.
type openOf struct {
	n    uint32 // as OPEN and CLOSE count
	told bool   // and once more, as an answer to REVOKE told
}

// writer is an owner that announced writes.
type writer struct {
	n  uint64 // the number of the announcement
	by uint64 // the mount whose writes they are; 0: several
}

func newHome(s *Server) *home {
	h := &home{srv: s, inodes: make(map[uint64]*inode), grants: newGrantTable(s.opt.Calm), versions: newVersionTable(s.started.UnixNano())}
	h.grants.told = h.toldOpen
	return h
}

// inodeLocked returns the inode, making it if needed.
func (h *home) inodeLocked(handle uint64) *inode {
	i := h.inodes[handle]
	if i == nil {
		i = &inode{
			opens: make(map[uint64]openOf), holds: make(map[*session]uint64),
			writers: make(map[int]writer), stamps: make(map[int]int64), ends: make(map[int]int64),
			unaware: make(map[int]bool),
		}
		h.inodes[handle] = i
	}
	return i
}

// dropLocked forgets an inode that holds nothing.
func (h *home) dropLocked(handle uint64, i *inode) {
	used := len(i.opens)+len(i.holds)+len(i.writers)+len(i.unaware)+len(i.ends)+i.pins > 0 || i.shut || i.mtime != 0
	if !used && !i.orphan && !i.gone && h.inodes[handle] == i {
		delete(h.inodes, handle)
	}
}

// announce takes note that an owner writes on behalf of a mount, 0 for several;
// with kill it has cleared setuid and setgid when it returns. A sealed file
// refuses.
func (h *home) announce(c *call, handle uint64, from int, by uint64, kill bool) error {
	if from != h.srv.self {
		h.srv.owner.spreads(handle)
	}
	var clear bool
	if err := h.ifUnsealed(c.ctx, handle, func(i *inode) {
		i.announce++
		i.writers[from] = writer{i.announce, by}
		clear = kill && !i.noPriv
	}); err != nil {
		return err
	}
	if clear {
		by = 0 // the writer's mount does not know whether there is something to clear
	}
	end, err := c.alter(handle, by, attrLease)
	if err != nil {
		return err
	}
	defer end()
	if clear {
		return h.clearPriv(c, handle)
	}
	return nil
}

// written takes note of what an owner has told that it owes this home, as of writes
// that several mounts have announced.
func (h *home) written(ctx context.Context, handles []uint64, from int) error {
	var g errgroup.Group
	g.SetLimit(8)
	for _, handle := range handles {
		h.srv.owner.spreads(handle)
		h.mu.Lock()
		i := h.inodeLocked(handle)
		i.announce++
		i.writers[from] = writer{i.announce, 0}
		i.again = true
		h.mu.Unlock()
		g.Go(func() error {
			end, err := h.alter(ctx, background{}, handle, 0, attrLease)
			if err == nil {
				end()
			}
			return err
		})
	}
	return g.Wait()
}

// clearPriv takes setuid and setgid away.
func (h *home) clearPriv(c *call, handle uint64) error {
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

// fences are those of one extent of a file at several owners, in the order in which
// they were taken.
type fences []held

// held is a fence at one owner.
type held struct {
	release func()
	cut     func() error // has the owner forget what it has within the fence
}

// fence keeps accesses to ext out at the owners with the given indexes, in
// the order of the view, until the fences are released.
func (h *home) fence(c *call, handle uint64, ext extent.Extent, flags uint32, at []int) (all fences, err error) {
	f := rpc.Frame{Op: ionpb.Op_FENCE, Handle: handle, Off: ext.Off, Len: ext.Len, Flags: flags}
	var by ionpb.SessionReq
	if flags&uint32(ionpb.Flag_SHARED) != 0 { // what the call's own mount keeps back it knows itself
		by.Session = c.mount()
	}
	slices.Sort(at)
	for _, at := range at {
		if at == h.srv.self {
			r, err := h.srv.owner.fence(c, c.ctx, fencing{handle, ext, flags, by.Session})
			if err != nil {
				all.release()
				return nil, err
			}
			all = append(all, held{r, func() error { return h.srv.owner.cut(c, c.ctx, handle, ext.Off) }})
			h.reaches(handle, at, h.srv.owner.reach(handle))
			continue
		}
		var t *token
		if err := c.wait(func() (err error) { t, err = h.srv.peers[at].take(c.ctx, f, &by); return err }); err != nil {
			all.release()
			return nil, err
		}
		h.reaches(handle, at, t.reach)
		all = append(all, held{
			func() { _ = c.wait(func() error { t.release(); return nil }) },
			func() error { return c.wait(func() error { return t.cut(c.ctx, handle, ext.Off) }) },
		})
	}
	return all, nil
}

// release lets the accesses in again, last where they were kept out first.
func (f fences) release() {
	for _, h := range slices.Backward(f) {
		h.release()
	}
}

// cut has all owners forget what they have within the fences.
func (f fences) cut() error {
	for _, h := range f {
		if err := h.cut(); err != nil {
			return err
		}
	}
	return nil
}

// reaches takes note of how far the bytes of a fenced owner reach.
func (h *home) reaches(handle uint64, at int, end int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if end > 0 {
		reachesLocked(h.inodeLocked(handle), at, end)
	}
}

// everybody is the indexes of all I/O nodes.
func (s *Server) everybody() []int {
	out := make([]int, len(s.peers))
	for i := range out {
		out[i] = i
	}
	return out
}

// orphaned reports whether the inode has no name any more.
func (h *home) orphaned(handle uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.inodes[handle]
	return i != nil && i.orphan
}
