package holder

import (
	"cmp"
	"context"
	"slices"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// Reclaim implements ionclient.Keeper: first what was published and not stable,
// in the order of stamps, then what was kept back.
func (h *Holder) Reclaim(ctx context.Context, r *ionclient.Reclaim) error {
	for _, f := range h.all() {
		for _, d := range f.within(everything) {
			if r.Owns(f.handle, d.ext.Off) && d.session() != r.Session() {
				d.renounce(ionclient.DataLeases)
			}
		}
		if err := f.replay(ctx, r); err != nil {
			return err
		}
	}
	for _, f := range h.all() {
		f.lost(f.loseKept(func(off int64) bool {
			return r.Owns(f.handle, off) && !r.Awaits(f.domain(off).session())
		}))
		for _, c := range f.keptBack(func(off int64) bool { return r.Owns(f.handle, off) }) {
			if err := f.resend(ctx, c, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// lost reports that n writes are lost.
func (f *File) lost(n int) {
	if n > 0 {
		f.fail(errno.New("cache.holder: written bytes were lost with the session", syscall.EIO))
	}
}

// owed is what is retained for a session.
type owed struct {
	session uint64
	retained
}

// replay sends what is retained of f in the domains of the I/O node that r is a
// conversation with, and has it retained for that one from then on. What the I/O
// node does not await, or refuses, and the PVFS2 servers may not have, is lost.
func (f *File) replay(ctx context.Context, r *ionclient.Reclaim) error {
	list := f.owed(r)
	var err error
	for _, x := range list {
		taken := false
		if err == nil && r.Awaits(x.session) {
			taken, err = r.Replay(ctx, f.handle, x.load.exts, x.load.pieces, x.stamp, x.prepared)
		}
		if err == nil {
			f.settleWith(r.Session(), x, taken)
		}
		x.view.Release()
	}
	return err
}

// owed is what replay is to send, in the order of stamps, each with a further
// reference to its view.
func (f *File) owed(r *ionclient.Reclaim) (list []owed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for session, u := range f.unstable {
		for _, x := range u.list {
			if session != r.Session() && r.Owns(f.handle, x.load.exts[0].Off) {
				x.view.Ref()
				list = append(list, owed{session, x})
			}
		}
	}
	slices.SortFunc(list, func(a, b owed) int { return cmp.Compare(a.stamp, b.stamp) })
	return list
}

// settleWith has x retained for another session instead, if that has taken it;
// unless it was told to be stable meanwhile.
func (f *File) settleWith(session uint64, x owed, taken bool) {
	f.mu.Lock()
	u, i := f.unstable[x.session], -1
	if u != nil {
		i = slices.IndexFunc(u.list, func(y retained) bool { return y.stamp == x.stamp && y.view == x.view })
	}
	if i < 0 {
		f.mu.Unlock()
		return
	}
	y := u.list[i]
	if u.list = slices.Delete(u.list, i, i+1); len(u.list) == 0 {
		delete(f.unstable, x.session)
	}
	if taken {
		f.retainLocked(session, y)
	}
	f.mu.Unlock()
	f.h.release([]retained{y})
	if !taken && !y.prepared {
		f.lost(1)
	}
}

// resend sends what was kept back of c, in place of the goroutine that would.
func (f *File) resend(ctx context.Context, c *chunk, r *ionclient.Reclaim) error {
	f.park(c)
	defer f.unpark(c)
	f.mu.Lock()
	b, how := c.next, c.how
	c.next, c.how = nil, manner{} // or the next restart would find it kept back under a session that is long over
	f.mu.Unlock()
	err := f.sendAgain(ctx, c.ext, r)
	f.mu.Lock()
	if err != nil {
		f.sentLocked(c, how, errAgain)
	}
	f.mu.Unlock()
	if b != nil {
		if err != nil {
			b.err = errAgain
		}
		close(b.done)
	}
	return err
}

// sendAgain sends what is dirty of e over r.
func (f *File) sendAgain(ctx context.Context, e extent.Extent, r *ionclient.Reclaim) error {
	v := f.data.Take(e, e.Len)
	if v == nil {
		return nil
	}
	defer v.Release()
	var first error
	for _, x := range loadsOf(v, f.h.maxPieces()) {
		_, g, err := r.Write(ctx, f.handle, x.exts, x.pieces, ionclient.Recalled)
		if err != nil {
			first = cmp.Or(first, err)
			continue
		}
		first = cmp.Or(first, f.retain(retained{view: v, load: x, stamp: g.Stamp}, g.Tenure))
	}
	f.data.Done(v, first == nil)
	if ionclient.IsRefusal(first) && hopeless(first) {
		for _, e := range v.Extents() {
			f.data.Discard(e)
		}
		f.fail(first)
		return nil
	}
	return first
}
