package ionserver

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

// collect asks the owners that announced writes for the time of the last one.
// It returns those that are still writing, or where others than the mount by
// may keep writes back.
func (h *home) collect(ctx context.Context, w waiter, handle, by uint64) (busy []int, err error) {
	h.mu.Lock()
	i := h.inodes[handle]
	if i == nil || len(i.writers) == 0 {
		h.mu.Unlock()
		return nil, nil
	}
	asked := maps.Clone(i.writers)
	h.mu.Unlock()
	return h.collectFrom(ctx, w, handle, asked, question{by: by})
}

// collectTimes asks all owners that may have written what has a time that is not saved.
func (h *home) collectTimes(ctx context.Context, w waiter, handle uint64, q question) error {
	h.mu.Lock()
	asked := make(map[int]writer)
	if i := h.inodes[handle]; i != nil {
		maps.Copy(asked, i.writers)
		for at := range i.unaware {
			asked[at] = i.writers[at]
		}
	}
	h.mu.Unlock()
	if len(asked) == 0 {
		return nil
	}
	_, err := h.collectFrom(ctx, w, handle, asked, q)
	return err
}

// question is how owners are asked.
type question struct {
	by    uint64 // the mount on whose behalf; 0: nobody's
	hurry bool   // who cannot be reached at once is not waited for
	anew  bool   // what they say of how far their bytes reach takes the place of what was known
	timed bool   // they need not tell the time of what they have written again, since another one is being set
}

// settle asks the owners whose bytes PVFS2 did not show yet whether it does
// now. The caller holds the inode's place in ops, exclusively.
func (h *home) settle(ctx context.Context, w waiter, handle uint64, hurry bool) error {
	h.mu.Lock()
	asked := make(map[int]writer)
	if i := h.inodes[handle]; i != nil {
		for at := range i.ends {
			asked[at] = i.writers[at]
		}
	}
	h.mu.Unlock()
	if len(asked) == 0 {
		return nil
	}
	_, err := h.collectFrom(ctx, w, handle, asked, question{hurry: hurry, anew: true})
	return err
}

// collectFrom is collect from the owners asked.
func (h *home) collectFrom(ctx context.Context, w waiter, handle uint64, asked map[int]writer, q question) (busy []int, err error) {
	got := make(map[int]*ionpb.CollectResp)
	if _, ok := asked[h.srv.self]; ok {
		got[h.srv.self] = h.srv.owner.collect(handle, q.by, q.timed)
	}
	if len(asked) > len(got) {
		err = w.wait(func() error {
			return h.ask(ctx, handle, asked, got, q)
		})
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.inodeLocked(handle)
	defer h.dropLocked(handle, i)
	for _, at := range slices.Sorted(maps.Keys(got)) {
		r := got[at]
		if q.anew {
			delete(i.ends, at)
			h.srv.owner.grown(handle)
		}
		h.learnLocked(handle, i, at, r)
		switch {
		case r.Busy:
			busy = append(busy, at)
		case !r.Kept && i.writers[at] == asked[at]: // has not announced again meanwhile
			delete(i.writers, at)
			h.srv.owner.grown(handle)
		}
	}
	return busy, err
}

// learnLocked takes over what an owner said.
func (h *home) learnLocked(handle uint64, i *inode, at int, r *ionpb.CollectResp) {
	if r.Stamp == 0 {
		delete(i.unaware, at)
	} else {
		i.unaware[at] = true
		h.stampedLocked(handle, i, at, r.Stamp)
	}
	reachesLocked(i, at, r.End)
}

// stampedLocked takes note of the last write at an owner.
func (h *home) stampedLocked(handle uint64, i *inode, at int, stamp int64) {
	if stamp > i.stamps[at] {
		i.stamps[at] = stamp
		i.mtime = max(i.mtime, stamp/int64(time.Second))
		h.versions.changed(handle)
	}
}

// reachesLocked takes note of how far an owner's bytes reach. What was known
// stays so until PVFS2 shows it, or a truncation, because looks at attributes
// overlap and this may be the older one's.
func reachesLocked(i *inode, at int, end int64) {
	if end > 0 {
		i.ends[at] = max(i.ends[at], end)
	}
}

// ask collects from peers at the same time, into got; not from those that are away, or
// go away meanwhile, if there is a hurry, as when all I/O nodes stop, or if they have
// announced nothing.
func (h *home) ask(ctx context.Context, handle uint64, from map[int]writer, got map[int]*ionpb.CollectResp, q question) error {
	var g errgroup.Group
	var mu sync.Mutex
	for at, announced := range from {
		if at == h.srv.self {
			continue
		}
		g.Go(func() error {
			r := new(ionpb.CollectResp)
			call := h.srv.peers[at].call
			if q.hurry || announced == (writer{}) {
				call = h.srv.peers[at].once
			}
			err := call(ctx, rpc.Frame{Op: ionpb.Op_COLLECT, Handle: handle}, &ionpb.CollectReq{Session: q.by, Timed: q.timed}, r)
			switch {
			case errors.Is(err, rpc.ErrBroken): // of once; call goes on
				return nil
			case err != nil:
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			got[at] = r
			return nil
		})
	}
	return g.Wait()
}

// writtenBy reports whether no other mount than this one may be writing to the
// file.
func (h *home) writtenBy(handle, mount uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := h.inodes[handle]; i != nil {
		for _, w := range i.writers {
			if w.by != mount {
				return false
			}
		}
	}
	return true
}

// attr returns the attributes of an inode as of one moment within the call.
// The caller holds the inode's place in ops.
//
// The size lies on many servers, so a write under way could show in part, or a
// later one without an earlier one. Owners that are writing are held up while
// the sizes are read; if another begins meanwhile it is done again.
func (h *home) attr(c *call, handle uint64) (pvfs.Attr, error) {
	const tries = 3
	if a, ok := h.dirs.attr(handle, time.Now()); ok {
		return a, nil
	}
	for try := 1; ; try++ {
		asking, generation := h.dirs.ask(handle), h.srv.pvfs.Generation()
		before := h.announcements(handle)
		busy, err := h.collect(c.ctx, c, handle, c.mount())
		if err != nil {
			return pvfs.Attr{}, err
		}
		if try == tries {
			busy = h.srv.everybody()
		}
		fences, err := h.fence(c, handle, extent.ToEnd(0), uint32(ionpb.Flag_SHARED), busy)
		if err != nil {
			return pvfs.Attr{}, err
		}
		overlay := h.overlaying(handle)
		a, err := h.srv.pvfs.GetAttr(c.ctx, pvfs.Handle(handle))
		fences.release()
		if err != nil {
			return pvfs.Attr{}, stale(err)
		}
		if try == tries || h.announcements(handle) == before {
			h.learnShape(a, asking, generation)
			overlay(&a)
			return h.dirs.learn(a, asking, time.Now()), nil
		}
	}
}

// overlaying is overlay of attributes for which PVFS2 is asked from now on. Another
// look, which asks later, may find that PVFS2 shows how far an owner's bytes reach, and
// have that forgotten, before this one has its answer.
func (h *home) overlaying(handle uint64) func(a *pvfs.Attr) {
	reached := int64(0)
	h.mu.Lock()
	if i := h.inodes[handle]; i != nil {
		for _, end := range i.ends {
			reached = max(reached, end)
		}
	}
	h.mu.Unlock()
	return func(a *pvfs.Attr) {
		h.overlay(a)
		a.Size = max(a.Size, reached)
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
			h.srv.owner.grown(uint64(a.Handle))
		}
	}
	for _, end := range i.ends {
		a.Size = max(a.Size, end)
	}
	if i.mtime != 0 {
		mtime := i.mtime
		if i.again {
			mtime = max(mtime, a.Mtime)
		}
		a.Mtime, a.Ctime = mtime, max(a.Ctime, mtime)
	}
	h.dropLocked(uint64(a.Handle), i)
}
