package holder

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// Handle is one open of a file.
type Handle struct {
	file     *File
	number   uint64 // of the opens of this node
	mode     mode
	mayWrite bool
	right    right
	lenient  bool // right is not a lease
	cached   bool // the kernel may keep the pages that it has
	opened   time.Time

	seen uint64 // guarded by File.mu; deferred errors that were reported, or came before

	streamMu sync.Mutex        // innermost
	stream   collective.Stream // guarded by streamMu
	seenLast glances           // guarded by streamMu; by reads of a handle that may write
}

// Open returns a handle of a file that was just opened, in a mode that is not
// Default, with the attributes that came with it. Release must be called.
func (h *Holder) Open(a *ionclient.Attr, m consistency.Mode, mayWrite bool) *Handle {
	f := h.get(a.Handle)
	hd := &Handle{file: f, number: h.opens.Add(1), mode: mode(m), mayWrite: mayWrite, opened: time.Now()}
	hd.right = hd.mode.right(mayWrite)
	sealed := hd.mode == laminated && a.Sealed && a.Version != 0 && !mayWrite
	if sealed {
		hd.right = byAcquire
	}
	hd.lenient = hd.right != byLease
	f.saw(a)
	f.readers.opened(a.Size)
	f.mu.Lock()
	stale := hd.mode.revalidates(sealed) && (a.Version == 0 || a.Version != f.version)
	f.version = a.Version
	hd.cached = sealed && f.pages == a.Version
	if sealed {
		f.pages = a.Version
	}
	hd.seen = f.failures
	if mayWrite {
		f.writable++
	}
	if hd.lenient {
		f.lenient++
	}
	f.mu.Unlock()
	if stale {
		f.acquire()
	}
	return hd
}

// Mode is the mode of the handle.
func (h *Handle) Mode() consistency.Mode { return consistency.Mode(h.mode) }

// Sealed reports whether the content cannot change while the handle is open, so
// that the kernel may cache it; keep, whether also what it has already.
func (h *Handle) Sealed() (sealed, keep bool) {
	return h.mode == laminated && h.right == byAcquire, h.cached
}

// looseTime is how long bytes for which there is no right to keep them may be kept
// where they cannot be asked for with each access.
const looseTime = 50 * time.Millisecond

// KeepUntil returns until when b, which a Read of n bytes at off that was called at
// that time has returned, may be kept by who is told by Options.Stale; zero: until then.
func (h *Handle) KeepUntil(b *Bytes, off int64, n int, called time.Time) time.Time {
	switch h.right {
	case byLease:
		last := h.file.domain(off + int64(max(b.n, 1)) - 1)
		if b.loose || b.n == 0 || last.ext.End() < off+int64(n) { // nothing tells when there is more
			return called.Add(looseTime)
		}
	case byAge:
		oldest := called
		for _, d := range h.file.within(extent.Extent{Off: off, Len: int64(n)}) {
			d.mu.RLock()
			if !d.filled.IsZero() && d.filled.Before(oldest) {
				oldest = d.filled
			}
			d.mu.RUnlock()
		}
		return oldest.Add(share(h.file.h.opt.Visibility))
	}
	return time.Time{}
}

// Leased reports whether LEASE_DATA is held on all of the file of which something was
// read, and is what the handle's reads go by.
func (h *Handle) Leased() bool {
	domains := h.file.within(everything)
	return h.right == byLease && len(domains) > 0 && !slices.ContainsFunc(domains, func(d *domain) bool { return !d.isLeased() })
}

// report returns a deferred error that this handle has not reported yet.
func (h *Handle) report() error {
	f := h.file
	f.mu.Lock()
	defer f.mu.Unlock()
	if h.seen == f.failures {
		return nil
	}
	h.seen = f.failures
	return f.failure
}

// Flush publishes what was written on this node, by whatever handle, as
// close(2) does; one that may write reports deferred errors.
func (h *Handle) Flush(ctx context.Context) error {
	if !h.mayWrite && !h.mode.holds() {
		return nil
	}
	err := h.file.publish(ctx, everything)
	if !h.mayWrite {
		return nil // who wrote is told
	}
	if deferred := h.report(); err == nil {
		err = deferred
	}
	return err
}

// Fsync is Flush, and returns when everything is durable; dataOnly is as for
// ionclient.Client.Fsync.
func (h *Handle) Fsync(ctx context.Context, dataOnly bool) error {
	_, err := h.file.h.Sync(ctx, h.file.handle, dataOnly)
	return h.Reported(err)
}

// Reported is what the caller of fsync(2) is told after a Sync that returned err:
// that, or a deferred error that this handle has not reported yet.
func (h *Handle) Reported(err error) error {
	if deferred := h.report(); err == nil {
		err = deferred
	}
	return err
}

// Sync publishes what was written to a file on this node, and returns when it is
// durable; dataOnly is as for ionclient.Client.Fsync. It also returns how often the
// home was asked for that.
func (h *Holder) Sync(ctx context.Context, handle uint64, dataOnly bool) (asked int, err error) {
	f := h.get(handle)
	defer h.put(f)
	now, known := f.state(dataOnly)
	if known && f.isDurable(now) {
		return 0, nil
	}
	if err := f.publish(ctx, everything); err != nil {
		return 0, err
	}
	err = f.telling(ctx, func(clean bool) error {
		return h.client.Fsync(ctx, handle, dataOnly, clean)
	})
	if err == nil && known {
		f.mu.Lock()
		f.durable = now
		f.mu.Unlock()
	}
	return 1, err
}

// durable is a state of a file. While it stays the same, so does the file: the kernel
// hands on one fsync of a file at a time, so those of many ranks come one by one.
type durable struct {
	since    uint64 // of Attrs.Size, which is not 0
	changes  uint64 // File.changes
	dataOnly bool
}

// state is how the file is now. It is not known where other mounts may be writing.
func (f *File) state(dataOnly bool) (now durable, known bool) {
	now = durable{changes: f.changes.Load(), dataOnly: dataOnly}
	_, now.since, known = f.h.attrs.Size(f.handle)
	return now, known
}

// isDurable reports whether nothing has changed since all was made durable.
func (f *File) isDurable(now durable) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := f.durable
	return !f.held && last.since != 0 && last.since == now.since && last.changes == now.changes && (now.dataOnly || !last.dataOnly)
}

// telling has the home told, by tell, whether nothing of f is unpublished.
func (f *File) telling(ctx context.Context, tell func(clean bool) error) error {
	f.mu.Lock()
	held := f.held
	f.mu.Unlock()
	if !held {
		return tell(false)
	}
	if err := f.settle(ctx); err != nil {
		return err
	}
	defer f.settled()
	return tell(f.clean())
}

// Release ends the open; close tells the home, and whether nothing of the file
// is unpublished any more. What could not be published when the last handle
// that may write is released is lost: whoever wrote it was told by Flush.
func (h *Handle) Release(ctx context.Context, close func(clean bool) error) error {
	f := h.file
	defer f.h.put(f)
	lost := error(nil)
	if h.mayWrite {
		lost = f.publish(ctx, everything)
	}
	f.mu.Lock()
	if h.mayWrite {
		f.writable--
	}
	if h.lenient {
		f.lenient--
	}
	last := f.writable == 0
	f.mu.Unlock()
	f.readers.mu.Lock()
	f.readers.pattern.Forget(h.number)
	f.readers.mu.Unlock()
	f.writers.forget(h.number)
	if lost != nil && last {
		f.h.opt.Logger.Error("bytes are lost that could not be published", "handle", f.handle, "err", lost)
		f.discard(everything)
	}
	return f.telling(ctx, close)
}

// discard drops bytes that will not be published.
func (f *File) discard(e extent.Extent) {
	f.data.Discard(e)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.chunks {
		if e.Contains(c.ext) && c.next != nil && !c.next.wanted {
			c.next, c.how = nil, manner{}
			f.tidyLocked(c)
		}
	}
}

// Publish publishes what was written on this node.
func (h *Handle) Publish(ctx context.Context) error { return h.file.publish(ctx, everything) }

// PublishAll publishes what is unpublished of a file: before an unlock, a
// rename, or a change of its attributes.
func (h *Holder) PublishAll(ctx context.Context, handle uint64) error {
	f := h.known(handle)
	if f == nil {
		return nil
	}
	return f.publish(ctx, everything)
}

// Acquired tells that a lock of a file was granted: what is read from now on
// through handles of modes that go by locks is not older.
func (h *Holder) Acquired(handle uint64) {
	if f := h.known(handle); f != nil {
		f.mu.Lock()
		f.locked = time.Now()
		lenient := f.lenient > 0
		f.mu.Unlock()
		f.acquire()
		if lenient {
			h.stale(handle)
		}
	}
}

// Truncate has cut carried out, which sets the size of a file.
func (h *Holder) Truncate(ctx context.Context, handle uint64, size int64, cut func() error) error {
	f := h.known(handle)
	if f == nil {
		return cut()
	}
	defer f.changes.Add(1)
	hold, err := f.order.Lock(ctx, everything, true)
	if err != nil {
		return err
	}
	defer hold.Release()
	if err := f.publish(ctx, everything); err != nil {
		return err
	}
	if err := cut(); err != nil {
		return err
	}
	f.discard(extent.ToEnd(size))
	f.mu.Lock()
	f.written = time.Time{}
	f.mu.Unlock()
	return nil
}
