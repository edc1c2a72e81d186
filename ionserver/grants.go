package ionserver

import (
	"container/list"
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

const (
	// maxLeases bounds the inodes of one home of which one session has leases.
	maxLeases = 1 << 16
	// evictLeases is how many of the oldest are taken back at a time.
	evictLeases = 64
	// calmTime is how long an inode must not have been fought over before
	// leases on it are given again, if Options say nothing else. So a directory in which several mounts make
	// files costs no more messages than without leases, but for a few a second.
	calmTime = time.Second
)

// Kinds of leases that homes give.
const (
	attrLease    = uint32(ionpb.Flag_LEASE_ATTR)
	entriesLease = uint32(ionpb.Flag_LEASE_ENTRIES)
	homeLeases   = attrLease | entriesLease
)

// grantTable is which mounts may keep what they were told about the inodes of
// this home. A lease ends with its session, or when the mount has answered a
// REVOKE, which it does at once and without asking anybody.
//
// What reads is a look and what changes something is a change. A change spoils
// the looks of other mounts that are at work, takes their leases back before
// it does anything, and no look that begins while it is at work is given one:
// so who has a lease was told what is true until the lease ends. A mount knows
// what it changes itself and keeps its leases.
type grantTable struct {
	told func(*holder) // called when a mount told, with its answer, that it has the inode open

	mu     sync.Mutex
	max    int                     // guarded by mu; maxLeases but in tests
	calm   time.Duration           // guarded by mu; Options.Calm but in tests
	inodes map[uint64]*leased      // guarded by mu
	ages   map[*session]*list.List // guarded by mu; of *holder, the oldest first
}

// leased is an inode that somebody has a lease on, looks at, changes, or has
// just changed. All fields but handle are guarded by grantTable.mu.
type leased struct {
	handle  uint64
	holders map[*session]*holder
	looks   []*look
	changes []*change
	by      uint64    // the mount of the last change
	at      time.Time // when that ended
	fought  time.Time // when two mounts last changed it within calmTime
	revoked time.Time // when a change last took a lease away
}

// holder is the leases of one session on one inode.
type holder struct {
	inode *leased
	sess  *session
	kinds uint32        // guarded by grantTable.mu
	done  chan struct{} // guarded by grantTable.mu; while they are being revoked; then closed
	shut  bool          // guarded by grantTable.mu; the mount has closed the inode meanwhile
	age   *list.Element // guarded by grantTable.mu
}

// look is a request at work that tells a mount about an inode. nil is one that
// asks for no lease.
type look struct {
	table   *grantTable
	inode   *leased
	sess    *session
	spoiled uint32 // guarded by grantTable.mu; kinds that changed meanwhile
}

// change is a request at work that changes an inode.
type change struct {
	table *grantTable
	inode *leased
	by    uint64
	kinds uint32
}

func newGrantTable(calm time.Duration) *grantTable {
	return &grantTable{max: maxLeases, calm: calm, inodes: make(map[uint64]*leased), ages: make(map[*session]*list.List)}
}

// inodeLocked returns the inode, making it if needed.
func (t *grantTable) inodeLocked(handle uint64) *leased {
	i := t.inodes[handle]
	if i == nil {
		i = &leased{handle: handle, holders: make(map[*session]*holder)}
		t.inodes[handle] = i
	}
	return i
}

// tidyLocked forgets an inode about which there is nothing to know.
func (t *grantTable) tidyLocked(i *leased, now time.Time) {
	if len(i.holders)+len(i.looks)+len(i.changes) == 0 && now.Sub(i.at) >= t.calm {
		delete(t.inodes, i.handle)
	}
}

// look begins a look of sess at an inode, before it reads anything. done must
// follow.
func (t *grantTable) look(handle uint64, sess *session) *look {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := &look{table: t, inode: t.inodeLocked(handle), sess: sess}
	for _, c := range l.inode.changes {
		if c.by != sess.mount {
			l.spoiled |= c.kinds
		}
	}
	l.inode.looks = append(l.inode.looks, l)
	return l
}

// done ends the look.
func (l *look) done() {
	if l == nil {
		return
	}
	t := l.table
	t.mu.Lock()
	defer t.mu.Unlock()
	l.inode.looks = without(l.inode.looks, l)
	t.tidyLocked(l.inode, time.Now())
}

// grant gives the leases of kinds on what the look has read, if nothing has
// changed since, and reports which. The caller takes back those of evict.
func (l *look) grant(kinds uint32) (given uint32, evict []*holder) {
	if l == nil {
		return 0, nil
	}
	t, i, now := l.table, l.inode, time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	h := i.holders[l.sess]
	given = kinds &^ l.spoiled
	if given == 0 || h != nil && h.done != nil || !t.calmLocked(i, l.sess.mount, now) || l.sess.isDead() {
		return 0, nil
	}
	ages := t.ages[l.sess]
	if ages == nil {
		ages = list.New()
		t.ages[l.sess] = ages
	}
	if h == nil {
		h = &holder{inode: i, sess: l.sess}
		h.age = ages.PushBack(h)
		i.holders[l.sess] = h
	}
	h.kinds |= given
	ages.MoveToBack(h.age)
	if ages.Len() > t.max {
		for e := ages.Front(); e != h.age && len(evict) < evictLeases; e = e.Next() {
			evict = append(evict, e.Value.(*holder))
		}
	}
	return given, evict
}

// calmLocked reports whether leases may be given to a mount again.
func (t *grantTable) calmLocked(i *leased, mount uint64, now time.Time) bool {
	if now.Sub(i.fought) < t.calm {
		return false
	}
	return now.Sub(i.revoked) >= t.calm || i.by == mount
}

// change begins a change by a mount, 0 for several or none, of what leases of
// kinds cover. It returns the leases that must be revoked before anything is
// done; end must follow.
func (t *grantTable) change(handle, by uint64, kinds uint32) (c *change, revoke []*holder) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.inodeLocked(handle)
	c = &change{table: t, inode: i, by: by, kinds: kinds}
	i.changes = append(i.changes, c)
	for _, l := range i.looks {
		if l.sess.mount != by {
			l.spoiled |= kinds
		}
	}
	for s, h := range i.holders {
		if s.mount != by && h.kinds&kinds != 0 {
			revoke = append(revoke, h)
		}
	}
	if len(revoke) > 0 {
		i.revoked = now
	}
	if by != i.by && now.Sub(i.at) < t.calm {
		i.fought = now
	}
	i.by, i.at = by, now
	return c, revoke
}

// end ends the change.
func (c *change) end() {
	t, now := c.table, time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	c.inode.changes = without(c.inode.changes, c)
	c.inode.at = now
	t.tidyLocked(c.inode, now)
}

// without takes the one x out of list.
func without[T comparable](list []T, x T) []T {
	at := slices.Index(list, x)
	return slices.Delete(list, at, at+1)
}

// revoke takes leases of kinds back and returns when all those mounts have
// answered or their sessions have ended.
func (t *grantTable) revoke(ctx context.Context, from []*holder, kinds uint32) error {
	if len(from) == 1 {
		return t.revokeOne(ctx, from[0], kinds)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, h := range from {
		g.Go(func() error { return t.revokeOne(ctx, h, kinds) })
	}
	return g.Wait()
}

func (t *grantTable) revokeOne(ctx context.Context, h *holder, kinds uint32) error {
	for {
		t.mu.Lock()
		left, busy := h.kinds&kinds, h.done
		if left == 0 {
			t.mu.Unlock()
			return nil
		}
		if busy == nil {
			h.done = make(chan struct{})
		}
		t.mu.Unlock()
		if busy == nil {
			r, err := h.sess.push(ctx, &rpc.Frame{Op: ionpb.Op_REVOKE, Handle: h.inode.handle, Flags: left})
			if r != nil && r.Flags&uint32(ionpb.Flag_TOLD_OPEN) != 0 {
				t.told(h)
			}
			t.revoked(h, left, err == nil)
			return err
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// closed takes note that a mount has closed an inode of which it has told with its
// answer to a REVOKE, which may come later than this.
func (t *grantTable) closed(handle uint64, sess *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := t.inodes[handle]; i != nil && i.holders[sess] != nil && i.holders[sess].done != nil {
		i.holders[sess].shut = true
	}
}

func (t *grantTable) isClosed(h *holder) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return h.shut
}

// revoked takes note of how a revocation ended.
func (t *grantTable) revoked(h *holder, kinds uint32, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(h.done)
	h.done, h.shut = nil, false
	if ok {
		t.takeLocked(h, kinds)
	}
}

// takeLocked takes note that leases have ended.
func (t *grantTable) takeLocked(h *holder, kinds uint32) {
	if h.kinds &^= kinds; h.kinds != 0 || h.inode.holders[h.sess] != h {
		return
	}
	delete(h.inode.holders, h.sess)
	if ages := t.ages[h.sess]; ages != nil {
		ages.Remove(h.age)
		if ages.Len() == 0 {
			delete(t.ages, h.sess)
		}
	}
	t.tidyLocked(h.inode, time.Now())
}

// dropSession ends the leases of a session that is dead.
func (t *grantTable) dropSession(sess *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ages := t.ages[sess]
	if ages == nil {
		return
	}
	for e := ages.Front(); e != nil; {
		next := e.Next()
		t.takeLocked(e.Value.(*holder), homeLeases)
		e = next
	}
}

// expire forgets what is not hot any more.
func (t *grantTable) expire(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range t.inodes {
		t.tidyLocked(i, now)
	}
}

// count is the number of leases, by inode and session.
func (t *grantTable) count() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range t.inodes {
		n += len(i.holders)
	}
	return n
}
