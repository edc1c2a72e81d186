package holder

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zoidfs/zoidfs/cache"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
)

// File is what a node keeps of one inode.
type File struct {
	h       *Holder
	handle  uint64
	data    *cache.File
	order   cache.RangeLock // of the node's reads and writes
	readers readers
	writers writers
	crowd   atomic.Int64 // until when others are thought to write too, in ns

	changes atomic.Uint64 // writes, appends and truncations on this node that have returned, or are about to

	users int // guarded by Holder.mu; opens, and calls that are about to

	// settling is held while the home is told whether bytes are unpublished: it
	// must hear it in the order in which it came true. Capacity 1.
	settling chan struct{}

	mu       sync.Mutex
	writable int                  // guarded by mu; handles that may write
	lenient  int                  // guarded by mu; handles that read without a lease
	domains  map[int64]*domain    // guarded by mu; by offset
	chunks   map[int64]*chunk     // guarded by mu; unpublished or being sent, by offset
	ready    []*chunk             // guarded by mu; full, to be sent ahead
	ahead    int                  // guarded by mu; how many are being sent ahead
	held     bool                 // guarded by mu; the home knows of unpublished bytes
	setID    bool                 // guarded by mu; setuid or setgid was seen, a write is to clear it
	putting  int                  // guarded by mu; writes that may be about to make some
	direct   []direct             // guarded by mu; of writes under way, what they do not keep back
	appends  int                  // guarded by mu; under way
	written  time.Time            // guarded by mu; the last write on this node
	locked   time.Time            // guarded by mu; when a lock was last granted
	version  uint64               // guarded by mu; of the attributes, at the last open
	pages    uint64               // guarded by mu; the version that the kernel may have pages of
	failures uint64               // guarded by mu; deferred errors so far
	failure  error                // guarded by mu; the last of them
	durable  durable              // guarded by mu; what was when it was last seen to that all is durable
	unstable map[uint64]*unstable // guarded by mu; by session with the owner
}

func newFile(h *Holder, handle uint64) *File {
	return &File{
		h: h, handle: handle, data: h.store.File(), settling: make(chan struct{}, 1),
		domains: make(map[int64]*domain), chunks: make(map[int64]*chunk), unstable: make(map[uint64]*unstable),
	}
}

// domain returns that of off.
func (f *File) domain(off int64) *domain {
	e := domainAt(off, f.h.client.View().DomainSize)
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.domains[e.Off]
	if d == nil {
		d = &domain{f: f, ext: e}
		f.domains[e.Off] = d
	}
	return d
}

// within returns the domains that overlap e.
func (f *File) within(e extent.Extent) []*domain {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*domain
	for _, d := range f.domains {
		if d.ext.Overlaps(e) {
			out = append(out, d)
		}
	}
	return out
}

// acquire has later reads see what others have published by now.
func (f *File) acquire() {
	for _, d := range f.within(everything) {
		d.acquire()
	}
}

// owes reports whether something of f must not be forgotten.
func (f *File) owes() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, u := range f.unstable {
		if len(u.list) > 0 {
			return true
		}
	}
	return len(f.chunks) > 0
}

// forget drops everything. Nobody uses f any more.
func (f *File) forget() {
	f.mu.Lock()
	var old []retained
	for session := range f.unstable {
		old = append(old, f.unretainLocked(session)...)
	}
	f.mu.Unlock()
	f.h.release(old)
	f.data.Close()
}

// fail is failLocked for who does not hold mu.
func (f *File) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failLocked(err)
}

// failLocked keeps an error of something whose caller has returned, for the next
// fsync or close through each handle. mu is held.
func (f *File) failLocked(err error) {
	f.failures++
	f.failure = err
}

// beginPut announces that bytes may be about to be kept back; the home is told
// first if it has to be. endPut must follow if it succeeds.
func (f *File) beginPut(ctx context.Context, m mode) error {
	for {
		f.mu.Lock()
		if f.held || !m.holds() {
			f.putting++
			f.written = time.Now()
			f.mu.Unlock()
			return nil
		}
		f.mu.Unlock()
		if err := f.hold(ctx); err != nil {
			return err
		}
	}
}

func (f *File) endPut() {
	f.mu.Lock()
	f.putting--
	f.mu.Unlock()
}

// hold tells the home that bytes are going to be unpublished.
func (f *File) hold(ctx context.Context) error {
	if err := f.settle(ctx); err != nil {
		return err
	}
	defer f.settled()
	f.mu.Lock()
	held := f.held
	f.mu.Unlock()
	if held {
		return nil
	}
	if err := f.h.client.Hold(ctx, f.handle); err != nil {
		return err
	}
	f.mu.Lock()
	f.held = true
	f.mu.Unlock()
	return nil
}

// settle takes settling, settled gives it back.
func (f *File) settle(ctx context.Context) error {
	select {
	case f.settling <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errno.Wrap("cache.holder", errno.Of(context.Cause(ctx)), context.Cause(ctx))
	}
}

func (f *File) settled() { <-f.settling }

// clean reports whether nothing is unpublished, and if so makes the next write
// tell the home otherwise. settling is held until the home has heard of it.
func (f *File) clean() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.putting > 0 || len(f.chunks) > 0 {
		return false
	}
	f.held = false
	return true
}
