package ionserver

import (
	"context"
	"errors"
	"fmt"
	"math"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/internal/hints"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

const (
	backFiles = 8                // files that are written back at the same time
	lastWord  = time.Second      // for mounts to hear what was written back at the end
	hearing   = 10 * time.Second // for mounts to hear what could not be written back
)

// writeBack returns when every byte of ext that was written before is at the
// PVFS2 servers. Those that are written meanwhile may be too.
func (o *owner) writeBack(w waiter, ctx context.Context, f *ownedFile, ext extent.Extent) error {
	return o.writeBackParts(w, ctx, f, func() []extent.Extent { return []extent.Extent{ext} })
}

// writeBackParts writes back what next says, in as many rounds as it takes, and
// asks it again, until there is nothing left to be written of what it says.
func (o *owner) writeBackParts(w waiter, ctx context.Context, f *ownedFile, next func() []extent.Extent) error {
	if dirty, _, _ := f.data.Dirty(); dirty == 0 {
		return nil
	}
	leave, err := f.takeBack(w, ctx)
	if err != nil {
		return err
	}
	defer leave()
	for exts := next(); len(exts) > 0; exts = next() {
		more, err := o.round(w, ctx, f, exts)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	if dirty, _, _ := f.data.Dirty(); dirty == 0 {
		f.streamed.Store(0)
		f.mu.Lock()
		f.failed = 0
		f.mu.Unlock()
	}
	return nil
}

// round carries out one noncontiguous write of unstable bytes of exts, and has
// the mounts told. It reports whether there were any. The caller has the
// file's place of who writes back, so that whatever is not dirty is stable.
func (o *owner) round(w waiter, ctx context.Context, f *ownedFile, exts []extent.Extent) (more bool, err error) {
	began := time.Now()
	f.mu.Lock()
	stamp := f.stamp // of the bytes that the view has, and of those that are stable
	f.mu.Unlock()
	v := f.data.TakeFrom(exts, o.flows(f).Most)
	if v == nil {
		return false, nil
	}
	wrote, writes := v.Extents(), f.writes.take()
	err = o.flyHome(ctx, f, wrote, v.Slices())
	f.data.Done(v, err == nil)
	v.Release()
	if err != nil {
		o.failed(w, ctx, f, err)
		return false, err
	}
	o.space.stuck.Store(false)
	f.streamed.Add(extent.Total(wrote))
	o.saved(f, began, stamp, wrote)
	o.noteRound(f, writes, wrote, began)
	return true, nil
}

// flows is how many bytes of a file are moved at a time.
func (o *owner) flows(f *ownedFile) collective.Flows {
	return o.flowsBy(f, collective.Hints{CBBufferSize: f.buffer.Load()})
}

func (o *owner) flowsBy(f *ownedFile, h collective.Hints) collective.Flows {
	f.mu.Lock()
	layout := f.layout
	f.mu.Unlock()
	servers := len(o.srv.pvfs.Servers())
	if layout != nil && !layout.Layout().Stuffed {
		servers = len(layout.Layout().DFiles)
	}
	return collective.FlowsOf(servers, h, o.srv.placement.DomainSize(), o.srv.opt.CacheBytes)
}

// hinted takes note of the hint that a mount was told of.
func (f *ownedFile) hinted(buffer uint64) { f.buffer.Store(int64(min(buffer, math.MaxInt64))) }

// plan says for the journal what the hint has made of the rounds of a file; nothing
// if they are what they would be without it.
func (o *owner) plan(f *ownedFile) string {
	if f.buffer.Load() == 0 {
		return ""
	}
	n := o.flows(f).Least
	if n == o.flowsBy(f, collective.Hints{}).Least {
		return ""
	}
	return fmt.Sprintf("at most %s at a time, by the hint %s", collective.Bytes(n), hints.CBBufferSize)
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
	ctx = o.srv.jobs.onBehalf(ctx, collective.JobID(f.job.Load()))
	file, err := o.file(ctx, f)
	if err != nil {
		return err
	}
	_, err = file.WriteExtents(ctx, exts, bufs)
	o.reached(f)
	if err != nil {
		f.forgetLayout()
		return stale(err)
	}
	return nil
}

// reached takes note that bytes of f have been written to the servers, or perhaps in
// part. Before that nobody learns that they are there.
func (o *owner) reached(f *ownedFile) { f.sent.Store(o.sends.Add(1)) }

// stabilise writes a file back and returns when no mount keeps bytes of it for a
// replay: before something is done that is durable at once, and that an older
// byte must not be replayed over. In the grace, in which mounts are told nothing, it
// leaves that to supersede.
func (o *owner) stabilise(w waiter, ctx context.Context, f *ownedFile) error {
	if o.srv.inGrace(time.Now()) {
		return nil
	}
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
	if errors.Is(err, errStaleView) {
		return // others serve the file, and get from the mounts what these retain
	}
	gone := errno.Of(err) == syscall.ESTALE
	switch {
	case noSpace(err):
		o.space.stuck.Store(true)
	case gone:
		f.data.Discard(extent.ToEnd(0))
	}
	f.mu.Lock()
	known, first := f.failed == f.stamp, f.failed == 0
	f.failed = f.stamp
	f.mu.Unlock()
	if known {
		return
	}
	switch {
	case gone: // removed while it was on its way, as a rule by its last close
		o.srv.log.Debug("not written back: the file is gone", "handle", f.handle, "err", err)
	case first:
		o.srv.log.Warn("not written back yet", "handle", f.handle, "errno", errno.Of(err), "err", err)
	}
	_ = w.wait(func() error {
		ctx, cancel := context.WithTimeout(ctx, hearing)
		defer cancel()
		return o.inform(ctx, telling{f, &ionpb.StableReq{Errno: uint32(errno.Of(err)), Text: err.Error()}})
	})
}

// makeRoom has unstable bytes written back because writers wait for memory.
func (o *owner) makeRoom() {
	select {
	case o.urge <- struct{}{}:
	default:
	}
}

// lookEvery is after how many written bytes it is worth while to look whether
// enough domains of a file have been written whole.
const lookEvery = 1 << 20

// consider has whole domains of a file written back when there are many. n bytes
// were just written.
func (o *owner) consider(f *ownedFile, n int64) {
	if f.fresh.Add(n) < lookEvery {
		return
	}
	f.fresh.Store(0)
	if dirty, _, _ := f.data.Dirty(); dirty < o.flows(f).Enough(f.streamed.Load()) || f.eager.Swap(true) {
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
				defer f.eager.Store(false)
				o.writeBackSome(ctx, f, func(b collective.Backlog) []extent.Extent {
					flows := o.flows(f)
					return b.Full(flows.Enough(f.streamed.Load()), flows.Most)
				})
				return nil
			})
		case <-o.store.Pressure():
			o.relieve(ctx, g)
		case <-o.urge:
			o.relieve(ctx, g)
		case now := <-tick.C:
			if now.Sub(looked) >= spaceInterval && o.store.Snapshot().BytesDirty > 0 {
				looked = now
				g.Go(func() error { o.look(ctx); return nil })
			}
			o.writeBackOld(ctx, g, now)
		}
	}
}

// writeBackSome writes back what choose takes of what there is. What fails is
// told and tried again.
func (o *owner) writeBackSome(ctx context.Context, f *ownedFile, choose func(collective.Backlog) []extent.Extent) {
	_ = o.writeBackParts(background{}, ctx, f, func() []extent.Extent {
		return choose(o.backlog(f))
	})
}

// backlog is what of a file is unstable and not being written back.
func (o *owner) backlog(f *ownedFile) (b collective.Backlog) {
	for _, p := range f.data.DirtyParts(o.srv.placement.DomainSize()) {
		b = append(b, collective.Part(p))
	}
	return b
}

// writeBackOld writes back the domains whose oldest unstable byte is old enough.
func (o *owner) writeBackOld(ctx context.Context, g *errgroup.Group, now time.Time) {
	due, along := now.Add(-o.srv.opt.WriteBack*4/5), now.Add(-o.srv.opt.WriteBack*2/5)
	for _, f := range o.all() {
		o.remind(f, now)
		if dirty, _, since := f.data.Dirty(); dirty == 0 || since.After(due) {
			o.put(f)
			continue
		}
		g.Go(func() error {
			defer o.put(f)
			o.writeBackSome(ctx, f, func(b collective.Backlog) []extent.Extent { return b.Old(due, along) })
			return nil
		})
	}
}

// relieve writes back half of all there is.
func (o *owner) relieve(ctx context.Context, g *errgroup.Group) {
	files := o.all()
	var all []collective.Backlog
	for _, f := range files {
		all = append(all, o.backlog(f))
	}
	for i, exts := range collective.Half(all) {
		f := files[i]
		if len(exts) == 0 {
			o.put(f)
			continue
		}
		g.Go(func() error {
			defer o.put(f)
			_ = o.writeBackParts(background{}, ctx, f, func() []extent.Extent { return exts })
			return nil
		})
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
	r := o.collect(handle, mount, false)
	r.Sent = f.sent.Load() // of what is written back from now on, the servers may not have been told to flush it
	return r, nil
}

// finish writes everything back, as far as that can be done in time, has the times of
// it saved, and tells the mounts, which keep what was not. The error names files of which something
// is not at the PVFS2 servers, and why.
func (o *owner) finish(ctx context.Context, timeout time.Duration) error {
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	files := o.all()
	errs := make([]error, len(files))
	var g errgroup.Group
	g.SetLimit(backFiles)
	for i, f := range files {
		g.Go(func() error {
			if err := o.writeBack(background{}, within, f, extent.ToEnd(0)); err != nil && errno.Of(err) != syscall.ESTALE {
				errs[i] = fmt.Errorf("file %d is not written back: %w", f.handle, err)
			}
			return nil
		})
	}
	_ = g.Wait()
	within, cancelTimes := context.WithTimeout(ctx, timeout)
	defer cancelTimes()
	o.lastTimes(within, files)
	for _, f := range files {
		o.put(f)
	}
	within, cancelNews := context.WithTimeout(ctx, min(timeout, lastWord))
	defer cancelNews()
	for _, t := range o.news.take() {
		g.Go(func() error {
			o.carry(within, t)
			return nil
		})
	}
	_ = g.Wait()
	return errno.Some(errs)
}

// close gives the memory back. Nothing is at work any more.
func (o *owner) close() {
	for _, f := range o.files {
		f.data.Close()
	}
	o.store.Close()
}
