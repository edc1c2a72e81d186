package holder

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/zoidfs/zoidfs/cache"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// retained is bytes that are published but not stable: they are sent again if
// the I/O node that has them is restarted. They lie in a View, of which this is
// one holder.
//
// Source: RFC 1813 §4.8 (unstable writes and commit).
type retained struct {
	view     *cache.View
	load     load
	stamp    int64
	prepared bool // they are stable, but older ones of others may not be
}

// unstable is what of a file one I/O node has that is not stable.
type unstable struct {
	list       []retained
	committing bool // a COMMIT is under way

	// What STABLE has told: it may come before the answer to the WRITE.
	all     stable           // of all domains
	domains map[int64]stable // by offset, where more is known than of all
	cuts    []cut
}

// cut is that bytes from off on that were written up to stamp were cut off.
type cut struct{ off, stamp int64 }

// stable is the stamps up to which bytes are prepared, and may be dropped.
type stable struct{ prepared, dropped int64 }

func (s stable) with(o stable) stable {
	return stable{max(s.prepared, o.prepared), max(s.dropped, o.dropped)}
}

// of is what is known of the domain at off.
func (u *unstable) of(off int64) stable { return u.all.with(u.domains[off]) }

// learn takes over what STABLE tells.
func (u *unstable) learn(s ionclient.Stable) {
	told := stable{prepared: s.Stamp}
	if s.Drop {
		told.dropped = s.Stamp
	}
	if s.Cut != nil {
		u.cuts = append(u.cuts, cut{*s.Cut, s.Stamp})
		return
	}
	if len(s.Domains) == 0 {
		u.all = u.all.with(told)
		maps.DeleteFunc(u.domains, func(_ int64, d stable) bool { return u.all == u.all.with(d) })
		u.cuts = slices.DeleteFunc(u.cuts, func(c cut) bool { return c.stamp <= u.all.dropped })
		return
	}
	if u.domains == nil {
		u.domains = make(map[int64]stable)
	}
	for _, off := range s.Domains {
		u.domains[off] = u.domains[off].with(told)
	}
}

// left is what of r, which was written to the domain at off, is still to be kept;
// without bytes if nothing is.
func (u *unstable) left(r retained, off int64) retained {
	known := u.of(off)
	if r.stamp <= known.dropped {
		r.load = load{}
	}
	r.prepared = r.stamp <= known.prepared
	for _, c := range u.cuts {
		if r.stamp <= c.stamp {
			r.load = r.load.before(c.off)
		}
	}
	return r
}

// retain keeps r until its owner says that it is stable. The error is errAgain
// if the owner may have lost it already.
func (f *File) retain(r retained, t ionclient.Tenure) error {
	if r.stamp == 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !t.Lives() { // what there was to be replayed has been
		return errAgain
	}
	f.retainLocked(t.Session(), r)
	return nil
}

// retainLocked is retain for what a session's owner surely has. mu is held.
func (f *File) retainLocked(session uint64, r retained) {
	h := f.h
	u := f.unstableLocked(session)
	if r = u.left(r, f.domainOf(r)); r.load.len() == 0 {
		return
	}
	r.view.Ref()
	u.list = append(u.list, r)
	if h.retained.Add(r.load.len()) > h.opt.Bytes/4 {
		select {
		case h.full <- struct{}{}:
		default:
		}
	}
}

// domainOf is the offset of the domain of which r is bytes.
func (f *File) domainOf(r retained) int64 {
	return domainAt(r.load.exts[0].Off, f.h.client.View().DomainSize).Off
}

func (f *File) unstableLocked(session uint64) *unstable {
	u := f.unstable[session]
	if u == nil {
		u = new(unstable)
		f.unstable[session] = u
	}
	return u
}

// unretainLocked takes everything of a session out of the table. mu is held.
func (f *File) unretainLocked(session uint64) []retained {
	u := f.unstable[session]
	if u == nil {
		return nil
	}
	delete(f.unstable, session)
	return u.list
}

// release lets go of what was retained.
func (h *Holder) release(old []retained) {
	for _, r := range old {
		h.retained.Add(-r.load.len())
		r.view.Release()
	}
}

// Stable implements ionclient.Keeper.
func (h *Holder) Stable(session, handle uint64, s ionclient.Stable) {
	f := h.known(handle)
	if f == nil {
		return
	}
	f.mu.Lock()
	u := f.unstableLocked(session)
	u.learn(s)
	var old, keep []retained
	for _, r := range u.list {
		now := u.left(r, f.domainOf(r))
		gone := r.load.len() - now.load.len()
		if now.load.len() == 0 {
			old = append(old, r)
			continue
		}
		h.retained.Add(-gone)
		keep = append(keep, now)
	}
	u.list = keep
	if s.Err != nil {
		f.failLocked(s.Err)
	}
	f.mu.Unlock()
	h.release(old)
}

// commit has owners write what is retained to the PVFS2 servers, so that they
// say that it is stable.
func (h *Holder) commit() {
	for _, f := range h.all() {
		f.mu.Lock()
		for _, u := range f.unstable {
			if len(u.list) == 0 || u.committing {
				continue
			}
			u.committing = true
			off := u.list[0].load.exts[0].Off
			h.spawn(func() {
				if err := h.client.Commit(h.life, f.handle, off); err != nil {
					h.opt.Logger.Debug("commit", "handle", f.handle, "err", err)
				}
				f.mu.Lock()
				u.committing = false
				f.mu.Unlock()
			})
		}
		f.mu.Unlock()
	}
}

// Retains implements ionclient.Keeper. Where a lease lets writes be kept back, one
// may be before it is known that the session is over.
func (h *Holder) Retains(session uint64) bool {
	for _, f := range h.all() {
		f.mu.Lock()
		u := f.unstable[session]
		owes := u != nil && len(u.list) > 0
		f.mu.Unlock()
		if owes || len(f.keptBack(f.under(session))) > 0 {
			return true
		}
		if slices.ContainsFunc(f.within(everything), func(d *domain) bool { return d.mayKeep(session) }) {
			return true
		}
	}
	return false
}

// mayKeep reports whether writes in d may be kept back under a lease from session.
func (d *domain) mayKeep(session uint64) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return (d.leases&ionclient.LeaseWrite != 0 || len(d.pieces) > 0) && d.tenure.Session() == session
}

// under picks the domains by an offset whose last leases were from a session.
func (f *File) under(session uint64) func(off int64) bool {
	return func(off int64) bool { return f.domain(off).session() == session }
}

// session is the id of that from which the last leases on d were, or 0.
func (d *domain) session() uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.tenure.Session()
}

// Lost implements ionclient.Keeper.
func (h *Holder) Lost(session uint64, livedOn bool) {
	for _, f := range h.all() {
		lost := 0
		if livedOn {
			lost = f.loseKept(f.under(session))
		}
		for _, d := range f.within(everything) {
			if d.session() == session {
				d.renounce(ionclient.DataLeases)
			}
		}
		if livedOn {
			f.mu.Lock()
			old := f.unretainLocked(session)
			f.mu.Unlock()
			h.release(old)
			f.lost(lost)
		}
	}
}

// keptBack returns the chunks with bytes that are kept back under a lease, in
// the domains that owned picks by an offset, in order.
func (f *File) keptBack(owned func(off int64) bool) []*chunk {
	var out []*chunk
	f.mu.Lock()
	for _, c := range f.chunks {
		if c.how.kept || c.flying != nil && c.sends.kept {
			out = append(out, c)
		}
	}
	f.mu.Unlock()
	out = slices.DeleteFunc(out, func(c *chunk) bool { return !owned(c.ext.Off) })
	slices.SortFunc(out, func(a, b *chunk) int { return cmp.Compare(a.ext.Off, b.ext.Off) })
	return out
}

// loseKept drops what was kept back in the domains that owned picks by an offset,
// which others may have written over since, and returns how many chunks that were.
func (f *File) loseKept(owned func(off int64) bool) (n int) {
	for _, c := range f.keptBack(owned) {
		f.park(c)
		f.discard(c.ext)
		f.unpark(c)
		n++
	}
	return n
}

// Revoke implements ionclient.Keeper.
func (h *Holder) Revoke(ctx context.Context, handle uint64, e extent.Extent, leases uint32) {
	f := h.known(handle)
	if leases&ionclient.LeaseData != 0 {
		defer h.stale(handle) // also if f is not known any more
	}
	if f == nil {
		return
	}
	for _, d := range f.within(e) {
		d.renounce(leases)
	}
	kept := func(c *chunk) bool { return c.how.kept || c.flying != nil && c.sends.kept }
	if err := f.publishIf(ctx, e, kept); err != nil {
		h.opt.Logger.Warn("bytes kept back under a lease that was revoked are not published", "handle", handle, "err", err)
	}
}

// Publish implements ionclient.Keeper. As long as somebody may write it is not
// worth while to call the file clean.
func (h *Holder) Publish(ctx context.Context, handle uint64, e extent.Extent) (clean bool) {
	f := h.known(handle)
	if f == nil {
		return true
	}
	if err := f.publish(ctx, e); err != nil {
		return false
	}
	f.mu.Lock()
	busy := f.writable > 0
	f.mu.Unlock()
	if busy {
		return false
	}
	select {
	case f.settling <- struct{}{}:
		defer f.settled()
		return f.clean()
	default:
		return false
	}
}

// Holds implements ionclient.Keeper.
func (h *Holder) Holds(handle uint64) bool {
	f := h.known(handle)
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held
}
