package ionserver

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// saved has the mounts drop what was written up to stamp, which was the file's
// last after began: all of it if nothing of it is left to be written back, else that
// of the domains of wrote that are through. During a grace mounts may be about to
// replay bytes of any stamp, so they are told afterwards, see remind.
func (o *owner) saved(f *ownedFile, began time.Time, stamp int64, wrote []extent.Extent) {
	if o.srv.inGrace(began) {
		return
	}
	size := o.srv.placement.DomainSize()
	left := make(map[int64]bool)
	for _, p := range f.data.DirtyParts(size) {
		if !p.Since.After(began) {
			left[p.Off] = true
		}
	}
	m := &ionpb.StableReq{Stamp: stamp, Drop: true}
	if len(left) > 0 {
		next := int64(0)
		for _, e := range wrote {
			for off := max(next, e.Off/size*size); off < e.End(); off += size {
				if next = off + size; !left[off] {
					m.Domains = append(m.Domains, off)
				}
			}
		}
		if len(m.Domains) == 0 {
			return
		}
	}
	o.tell(f, m)
}

// remind tells mounts anew that nothing of a file is unstable, if they have not
// been told, or not heard it.
func (o *owner) remind(f *ownedFile, now time.Time) {
	if o.srv.inGrace(now) {
		return
	}
	f.mu.Lock()
	stamp, owed := f.stamp, !f.unstable.none() && f.informing == 0
	f.mu.Unlock()
	if dirty, _, _ := f.data.Dirty(); owed && dirty == 0 {
		o.tell(f, &ionpb.StableReq{Stamp: stamp, Drop: true})
	}
}

// forgotten has the mounts drop everything of a file that is gone.
func (o *owner) forgotten(f *ownedFile) {
	f.mu.Lock()
	stamp := f.stamp
	f.mu.Unlock()
	o.tell(f, &ionpb.StableReq{Stamp: stamp, Drop: true})
}

// cutOff returns when no mount keeps, for a replay, what was written to a file
// from off on. The caller holds the range lock of that.
func (o *owner) cutOff(w waiter, ctx context.Context, f *ownedFile, off int64) error {
	f.mu.Lock()
	none, stamp := f.unstable.none(), f.stamp
	f.mu.Unlock()
	if none {
		return nil
	}
	return w.wait(func() error {
		return o.inform(ctx, telling{f, &ionpb.StableReq{Stamp: stamp, Drop: true, Cut: &off}})
	})
}

// telling is what a file's mounts are to be told; the last word counts.
type telling struct {
	f *ownedFile
	m *ionpb.StableReq
}

// tell has m told to the mounts that keep bytes of f, soon.
func (o *owner) tell(f *ownedFile, m *ionpb.StableReq) {
	f.mu.Lock()
	none := f.unstable.none()
	if !none {
		f.informing++
	}
	f.mu.Unlock()
	if none {
		return
	}
	o.mu.Lock()
	f.refs++
	o.mu.Unlock()
	o.news.add(telling{f, m})
}

// news is the queue of what mounts are to be told.
type news struct {
	mu   sync.Mutex
	todo []telling     // guarded by mu; a few for each round that mounts have not heard of
	wake chan struct{} // capacity 1
}

func (n *news) add(t telling) {
	n.mu.Lock()
	n.todo = append(n.todo, t)
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *news) take() []telling {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.todo
	n.todo = nil
	return out
}

// spread tells mounts what there is to tell until ctx ends.
func (o *owner) spread(ctx context.Context) error {
	var g errgroup.Group
	defer g.Wait()
	for {
		select {
		case <-ctx.Done():
			for _, t := range o.news.take() {
				o.put(t.f)
			}
			return nil
		case <-o.news.wake:
		}
		for _, t := range o.news.take() {
			g.Go(func() error {
				o.carry(ctx, t)
				return nil
			})
		}
	}
}

// carry tells mounts what was queued, when the modification time of what they may
// drop is at the servers, too: nobody but them could tell it to a successor of this
// node. Who was not reached keeps the bytes until the next time.
func (o *owner) carry(ctx context.Context, t telling) {
	defer o.put(t.f)
	if o.isTimed(ctx, t.f, t.m.Stamp) {
		_ = o.inform(ctx, t)
	}
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	t.f.informing--
}

// inform tells the mounts that keep bytes of a file what has become of them,
// in two steps if they are several, see unstable.
func (o *owner) inform(ctx context.Context, t telling) error {
	t.f.mu.Lock()
	to := t.f.unstable.sessions()
	t.f.mu.Unlock()
	if t.m.Drop && t.m.Cut == nil && len(to) > 1 {
		if err := o.informAll(ctx, t.f, to, &ionpb.StableReq{Stamp: t.m.Stamp, Domains: t.m.Domains}); err != nil {
			return err
		}
	}
	return o.informAll(ctx, t.f, to, t.m)
}

func (o *owner) informAll(ctx context.Context, f *ownedFile, to []uint64, m *ionpb.StableReq) error {
	var g errgroup.Group
	for _, id := range to {
		sess := o.srv.sessions.get(id)
		if sess == nil { // it ended while a write of it was at work, or does so just now
			f.mu.Lock()
			f.unstable.end(id)
			f.mu.Unlock()
			continue
		}
		g.Go(func() error {
			frame := &rpc.Frame{Op: ionpb.Op_STABLE, Handle: f.handle}
			frame.Encode(m)
			if _, err := sess.push(ctx, frame); err != nil {
				return err
			}
			if m.Drop && len(m.Domains) == 0 && m.Cut == nil {
				f.mu.Lock()
				f.unstable.dropped(id, m.Stamp)
				f.mu.Unlock()
			}
			return nil
		})
	}
	return g.Wait()
}
