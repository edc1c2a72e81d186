package ionserver

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// What is written back at a time, and when without being asked.
const (
	maxFlight  = 32 << 20 // bytes of one noncontiguous request to all servers
	eagerBytes = 16 << 20 // unstable bytes of a file at which whole domains go
	backFiles  = 8        // files that are written back at the same time

	lastWord = time.Second // for mounts to hear what was written back at the end, or what could not be
)

// spaceInterval is how often the free space is looked at while bytes are
// unstable, and spaceReserve what must be free beyond them.
const (
	spaceInterval = 5 * time.Second
	spaceReserve  = 64 << 20
)

// space is whether what is acknowledged may be expected to fit. When it may
// not, writes go through to the servers, which say so at once.
type space struct {
	scarce atomic.Bool
	stuck  atomic.Bool // a write-back has met ENOSPC, and none succeeded since
}

func (s *space) low() bool { return s.scarce.Load() || s.stuck.Load() }

// look asks how much is free.
func (o *owner) look(ctx context.Context) {
	st, err := o.srv.pvfs.StatFS(ctx)
	if err == nil {
		o.space.scarce.Store(st.Free < o.store.Snapshot().BytesDirty+spaceReserve)
	}
}

// writeBack returns when every byte of ext that was written before is at the
// PVFS2 servers. Those that are written meanwhile may be too.
func (o *owner) writeBack(w waiter, ctx context.Context, f *ownedFile, ext extent.Extent) error {
	if dirty, _, _ := f.data.Dirty(); dirty == 0 {
		return nil
	}
	leave, err := f.takeBack(w, ctx)
	if err != nil {
		return err
	}
	defer leave()
	f.mu.Lock()
	stamp := f.stamp
	f.mu.Unlock()
	for {
		v := f.data.Take(ext, maxFlight)
		if v == nil {
			break
		}
		err := o.flyHome(ctx, f, v.Extents(), v.Slices())
		f.data.Done(v, err == nil)
		v.Release()
		if err != nil {
			o.failed(w, ctx, f, err)
			return err
		}
	}
	o.space.stuck.Store(false)
	f.mu.Lock()
	f.failed = 0
	f.mu.Unlock()
	if dirty, _, _ := f.data.Dirty(); dirty == 0 || ext == extent.ToEnd(0) {
		o.saved(f, stamp)
	}
	return nil
}

// takeBack waits until nobody else writes the file back.
func (f *ownedFile) takeBack(w waiter, ctx context.Context) (leave func(), err error) {
	leave = func() { <-f.back }
	select {
	case f.back <- struct{}{}:
		return leave, nil
	default:
	}
	err = w.wait(func() error {
		select {
		case f.back <- struct{}{}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return leave, err
}

// flyHome writes bytes to the servers, as long as this node may.
func (o *owner) flyHome(ctx context.Context, f *ownedFile, exts []extent.Extent, bufs [][]byte) error {
	if err := o.srv.awaitView(ctx); err != nil {
		return err
	}
	file, err := o.file(ctx, f)
	if err != nil {
		return err
	}
	if _, err := file.WriteExtents(ctx, exts, bufs); err != nil {
		f.forgetLayout()
		return stale(err)
	}
	return nil
}

// stabilise writes a file back and returns when no mount keeps bytes of it for a
// replay: before something is done that is durable at once, and that an older
// byte must not be replayed over.
func (o *owner) stabilise(w waiter, ctx context.Context, f *ownedFile) error {
	f.mu.Lock()
	none, stamp := f.unstable.none(), f.stamp
	f.mu.Unlock()
	if none {
		return nil
	}
	if err := o.writeBack(w, ctx, f, extent.ToEnd(0)); err != nil {
		return err
	}
	return w.wait(func() error { return o.inform(ctx, telling{f, &ionpb.StableReq{Stamp: stamp, Drop: true}}) })
}

// failed takes note of a write-back that failed. Its bytes stay, unless there
// is no file that they could be written to. That it fails again is no news for
// the mounts. They know before the caller does, so that whoever is told by a
// reply does not report it once more.
func (o *owner) failed(w waiter, ctx context.Context, f *ownedFile, err error) {
	switch {
	case noSpace(err):
		o.space.stuck.Store(true)
	case errno.Of(err) == syscall.ESTALE:
		f.data.Discard(extent.ToEnd(0))
	}
	f.mu.Lock()
	known, first := f.failed == f.stamp, f.failed == 0
	f.failed = f.stamp
	f.mu.Unlock()
	if known {
		return
	}
	if first {
		o.srv.log.Warn("not written back yet", "handle", f.handle, "errno", errno.Of(err), "err", err)
	}
	_ = w.wait(func() error {
		ctx, cancel := context.WithTimeout(ctx, lastWord)
		defer cancel()
		return o.inform(ctx, telling{f, &ionpb.StableReq{Errno: uint32(errno.Of(err)), Text: err.Error()}})
	})
}

func noSpace(err error) bool {
	e := errno.Of(err)
	return e == syscall.ENOSPC || e == syscall.EDQUOT
}

// saved has the mounts drop what was written up to stamp.
func (o *owner) saved(f *ownedFile, stamp int64) {
	o.tell(f, &ionpb.StableReq{Stamp: stamp, Drop: true})
}

// forgotten has the mounts drop everything of a file that is gone.
func (o *owner) forgotten(f *ownedFile) {
	f.mu.Lock()
	stamp := f.stamp
	f.mu.Unlock()
	o.saved(f, stamp)
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
	todo []telling     // guarded by mu; bounded by the files that are written back
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
				defer o.put(t.f)
				_ = o.inform(ctx, t) // who was not told keeps the bytes until the next time
				return nil
			})
		}
	}
}

// inform tells the mounts that keep bytes of a file what has become of them,
// in two steps if they are several, see unstable.
func (o *owner) inform(ctx context.Context, t telling) error {
	t.f.mu.Lock()
	to := t.f.unstable.sessions()
	t.f.mu.Unlock()
	if t.m.Drop && len(to) > 1 {
		if err := o.informAll(ctx, t.f, to, &ionpb.StableReq{Stamp: t.m.Stamp}); err != nil {
			return err
		}
	}
	return o.informAll(ctx, t.f, to, t.m)
}

func (o *owner) informAll(ctx context.Context, f *ownedFile, to []uint64, m *ionpb.StableReq) error {
	var g errgroup.Group
	for _, id := range to {
		sess := o.srv.sessions.get(id)
		if sess == nil {
			continue
		}
		g.Go(func() error {
			frame := &rpc.Frame{Op: ionpb.Op_STABLE, Handle: f.handle}
			frame.Encode(m)
			if _, err := sess.push(ctx, frame); err != nil {
				return err
			}
			if m.Drop {
				f.mu.Lock()
				f.unstable.dropped(id, m.Stamp)
				f.mu.Unlock()
			}
			return nil
		})
	}
	return g.Wait()
}

// makeRoom has unstable bytes written back because writers wait for memory.
func (o *owner) makeRoom() {
	select {
	case o.urge <- struct{}{}:
	default:
	}
}

// consider has whole domains of a file written back when there are many.
func (o *owner) consider(f *ownedFile) {
	dirty, _, _ := f.data.Dirty()
	if dirty < eagerBytes || f.eager.Swap(true) {
		return
	}
	select {
	case o.full <- f.handle:
	default:
		f.eager.Store(false) // the next write comes by again
	}
}

// writeBackAll writes back what is old, much, or in the way, until ctx ends.
func (o *owner) writeBackAll(ctx context.Context) error {
	tick := time.NewTicker(max(o.srv.opt.WriteBack/5, 10*time.Millisecond))
	defer tick.Stop()
	g := new(errgroup.Group)
	g.SetLimit(backFiles)
	defer g.Wait()
	looked := time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case h := <-o.full:
			f := o.get(h)
			g.Go(func() error {
				defer o.put(f)
				f.eager.Store(false)
				o.wholeDomains(ctx, f)
				return nil
			})
			continue
		case <-o.store.Pressure():
		case <-o.urge:
		case now := <-tick.C:
			if now.Sub(looked) >= spaceInterval && o.store.Snapshot().BytesDirty > 0 {
				looked = now
				g.Go(func() error { o.look(ctx); return nil })
			}
			o.writeBackOld(ctx, g, now)
			continue
		}
		o.writeBackMuch(ctx, g)
	}
}

// writeBackOld writes back the files whose oldest unstable byte is old enough.
func (o *owner) writeBackOld(ctx context.Context, g *errgroup.Group, now time.Time) {
	for _, f := range o.all() {
		dirty, _, since := f.data.Dirty()
		if dirty == 0 || now.Sub(since) < o.srv.opt.WriteBack*4/5 {
			o.put(f)
			continue
		}
		g.Go(func() error {
			defer o.put(f)
			_ = o.writeBack(background{}, ctx, f, extent.ToEnd(0)) // is told and tried again
			return nil
		})
	}
}

// writeBackMuch writes back the files with the most unstable bytes: half of
// all there is.
func (o *owner) writeBackMuch(ctx context.Context, g *errgroup.Group) {
	type load struct {
		f     *ownedFile
		bytes int64
	}
	var loads []load
	var total int64
	for _, f := range o.all() {
		dirty, _, _ := f.data.Dirty()
		loads = append(loads, load{f, dirty})
		total += dirty
	}
	slices.SortStableFunc(loads, func(a, b load) int { return int(min(max(b.bytes-a.bytes, -1), 1)) })
	for rest := total / 2; len(loads) > 0; loads = loads[1:] {
		l := loads[0]
		if l.bytes == 0 || rest < 0 {
			o.put(l.f)
			continue
		}
		rest -= l.bytes
		g.Go(func() error {
			defer o.put(l.f)
			_ = o.writeBack(background{}, ctx, l.f, extent.ToEnd(0))
			return nil
		})
	}
}

// wholeDomains writes back the domains of a file that have been written whole.
func (o *owner) wholeDomains(ctx context.Context, f *ownedFile) {
	size := o.srv.placement.DomainSize()
	for _, e := range f.data.DirtyExtents(extent.ToEnd(0)) {
		first, end := (e.Off+size-1)/size*size, e.End()/size*size
		if first < end {
			if o.writeBack(background{}, ctx, f, extent.Extent{Off: first, Len: end - first}) != nil {
				return
			}
		}
	}
}

// commit answers COMMIT.
func (c *call) commit() (*rpc.Frame, error) {
	if err := c.checkOwner(extent.Extent{Off: c.Off}); err != nil {
		return nil, err
	}
	o := c.srv.owner
	f := o.get(c.Handle)
	defer o.put(f)
	if err := o.writeBack(c, c.ctx, f, extent.ToEnd(0)); err != nil {
		return nil, err
	}
	return okay(nil)
}

// writeBack has everything that was written to a file here reach the PVFS2
// servers, also what other sessions keep back, and collects.
func (c *call) writeBack(handle, mount uint64) (*ionpb.CollectResp, error) {
	o := c.srv.owner
	session := c.srv.sessions.of(mount)
	f := o.get(handle)
	defer o.put(f)
	if err := c.awaitLeases(c.ctx, f, extent.ToEnd(0), false, session); err != nil {
		return nil, err
	}
	if err := o.writeBack(c, c.ctx, f, extent.ToEnd(0)); err != nil {
		return nil, err
	}
	return o.collect(handle, mount), nil
}

// finish writes everything back, as far as that can be done in time, and tells
// the mounts.
func (o *owner) finish(ctx context.Context, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(backFiles)
	for _, f := range o.all() {
		g.Go(func() error {
			defer o.put(f)
			_ = o.writeBack(background{}, ctx, f, extent.ToEnd(0)) // mounts keep what was not
			return nil
		})
	}
	_ = g.Wait()
	ctx, cancelNews := context.WithTimeout(ctx, min(timeout, lastWord))
	defer cancelNews()
	for _, t := range o.news.take() {
		g.Go(func() error {
			defer o.put(t.f)
			_ = o.inform(ctx, t)
			return nil
		})
	}
	_ = g.Wait()
}

// close gives the memory back. Nothing is at work any more.
func (o *owner) close() {
	for _, f := range o.files {
		f.data.Close()
	}
	o.store.Close()
}
