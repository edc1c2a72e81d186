package ionserver

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/cache"
	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// layoutLife is how long an unused layout is kept. It is far below the time
// after which a PVFS2 server that was not restarted gives a removed object's
// handle to a new one.
const layoutLife = 20 * time.Second

// owner carries out reads and writes of the file domains that this node owns.
type owner struct {
	srv   *Server
	store *cache.Store

	mu    sync.Mutex
	files map[uint64]*ownedFile // guarded by mu
	lost  uint64                // guarded by mu; the last ownedFile.sent of all files that are not known any more

	sends atomic.Uint64 // writes to the servers, from when this node started on

	space space
	news  news
	urge  chan struct{} // capacity 1: writers wait for memory
	soon  chan soon     // what is to be fetched ahead of its readers
	full  chan uint64   // files with many unstable bytes

	reading, writing prices
}

// ownedFile is what the owner knows of a file that it has domains of.
//
// A write is announced to the home before it takes its range lock, once until
// the home collects; so the home knows whom to ask for modification times, and
// whose writes may be changing the size. While a mount may keep writes back it
// stays announced. Written bytes are in data, and at the PVFS2 servers when
// they have been written back.
type ownedFile struct {
	handle   uint64
	ranges   cache.RangeLock
	data     *cache.File
	back     chan struct{} // capacity 1: whoever writes back has its place
	eager    atomic.Bool   // is in owner.full, or just being seen to
	fresh    atomic.Int64  // bytes written since consider last looked
	streamed atomic.Int64  // bytes that were written back since nothing was unstable
	job      atomic.Uint64 // that wrote last; 0: none, or none is known
	buffer   atomic.Int64  // MPI-IO's hint cb_buffer_size, as the last READ or WRITE had it; 0: none
	sent     atomic.Uint64 // owner.sends after the last write of it to the servers

	writes writes // since the last round of writing back

	refs int       // guarded by owner.mu
	gone bool      // guarded by owner.mu; destroyed: not kept beyond the last put
	used time.Time // guarded by owner.mu; when refs became 0

	mu        sync.Mutex
	layout    *pvfs.File // guarded by mu; nil if not known
	learned   uint64     // guarded by mu; pvfs.Client.Generation before layout was asked for
	spread    bool       // guarded by mu; others may have given the file its other datafiles; known at its home alone
	writers   int        // guarded by mu; writes at work, from before their announcement
	announced bool       // guarded by mu; the home will collect
	by        uint64     // guarded by mu; the mount whose writes were announced; 0: several
	killed    bool       // guarded by mu; the home has cleared setuid and setgid since the last collect
	collects  uint64     // guarded by mu; how often the home came
	stamp     int64      // guarded by mu; time of the last write in ns, ever growing; 0: none
	failed    int64      // guarded by mu; what stamp was when the write-back failed that the mounts know of; 0: the last one did not
	timed     int64      // guarded by mu; up to this stamp the home has nothing more to do with the times of writes

	floor     int64                    // guarded by mu; the file ends there or behind, while it is being cut
	leases    leaseTable               // guarded by mu
	revoking  map[uint64]chan struct{} // guarded by mu; by session; closed when it has answered
	unstable  unstable                 // guarded by mu
	informing int                      // guarded by mu; STABLEs that are to be told, or being told
	replayed  *replayed                // guarded by mu; during the grace
	guard     guardLog                 // guarded by mu

	ahead   collective.Lookahead                // guarded by mu
	flights map[*collective.Ahead]chan struct{} // guarded by mu; closed when it has landed
}

func newOwner(s *Server, store *cache.Store) *owner {
	o := &owner{
		srv: s, store: store, files: make(map[uint64]*ownedFile), lost: uint64(s.started.UnixNano()),
		news: news{wake: make(chan struct{}, 1)}, urge: make(chan struct{}, 1), full: make(chan uint64, 64),
		soon: make(chan soon, 64),
	}
	o.sends.Store(o.lost)
	return o
}

// get returns the file, to be put back.
func (o *owner) get(handle uint64) *ownedFile {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.files[handle]
	if f == nil {
		f = &ownedFile{
			handle: handle, data: o.store.File(), back: make(chan struct{}, 1),
			leases: newLeaseTable(o.srv.placement.DomainSize()), revoking: make(map[uint64]chan struct{}),
			ahead: o.lookahead(handle), flights: make(map[*collective.Ahead]chan struct{}),
		}
		f.sent.Store(o.lost)
		o.files[handle] = f
	}
	f.refs++
	return f
}

// peek is the file, which may be forgotten meanwhile, or nil if nothing is known of it.
func (o *owner) peek(handle uint64) *ownedFile {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.files[handle]
}

// known is peek at a file that is not forgotten until it is put back.
func (o *owner) known(handle uint64) *ownedFile {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.files[handle]
	if f != nil {
		f.refs++
	}
	return f
}

func (o *owner) put(f *ownedFile) {
	o.mu.Lock()
	if f.refs--; f.refs > 0 {
		o.mu.Unlock()
		return
	}
	f.used = time.Now()
	gone := f.gone
	if gone {
		o.loseLocked(f)
	}
	o.mu.Unlock()
	if gone {
		f.data.Close()
	}
}

// loseLocked takes f off the files that are known.
func (o *owner) loseLocked(f *ownedFile) {
	delete(o.files, f.handle)
	o.lost = max(o.lost, f.sent.Load())
}

// all is every known file, to be put back, in the order of handles.
func (o *owner) all() (out []*ownedFile) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, h := range slices.Sorted(maps.Keys(o.files)) {
		o.files[h].refs++
		out = append(out, o.files[h])
	}
	return out
}

// abandon drops what is unstable of a file that is about to be destroyed, and
// waits until nothing of it is being written: a write could give a stuffed file datafiles
// that nobody would remove. None begins before resume is called.
func (o *owner) abandon(w waiter, ctx context.Context, handle uint64) (resume func(), err error) {
	f := o.get(handle)
	release, err := o.lockRange(w, ctx, f, extent.ToEnd(0), true)
	if err != nil {
		o.put(f)
		return nil, err
	}
	leave, err := f.takeBack(w, ctx)
	if err != nil {
		release()
		o.put(f)
		return nil, err
	}
	f.data.Discard(extent.ToEnd(0))
	return func() { leave(); release(); o.put(f) }, nil
}

// forget drops what is known of a file that was destroyed: its handle may come
// to name another one.
func (o *owner) forget(handle uint64) {
	f := o.known(handle)
	if f == nil {
		return
	}
	o.mu.Lock()
	f.gone = true
	o.mu.Unlock()
	f.data.Discard(extent.ToEnd(0))
	o.forgotten(f)
	o.put(f)
}

// destroyed has all owners forget what is known of a file that was destroyed.
func (s *Server) destroyed(handle uint64) {
	s.owner.forget(handle)
	for _, p := range s.peers {
		if p != nil {
			p.forget(handle)
		}
	}
}

// expire forgets files that nobody uses or has leases of, and whose last write
// is at the PVFS2 servers, with its time.
func (o *owner) expire(now time.Time) {
	var closed []*ownedFile
	o.mu.Lock()
	for _, f := range o.files {
		if f.refs > 0 || now.Sub(f.used) < layoutLife {
			continue
		}
		f.mu.Lock()
		f.layout = nil
		if dirty, _, _ := f.data.Dirty(); dirty == 0 && f.stamp == f.timed && f.unstable.none() && f.leases.Idle(now) {
			o.loseLocked(f)
			closed = append(closed, f)
		}
		f.mu.Unlock()
	}
	o.mu.Unlock()
	for _, f := range closed {
		f.data.Close()
	}
}

// file returns the means to read and write f. Only regular files have one. It
// finds out by itself when another owner has spread a stuffed file. A layout
// does not outlive a connection to the PVFS2 servers: one that was restarted
// may have given the handles to another file.
func (o *owner) file(ctx context.Context, f *ownedFile) (*pvfs.File, error) {
	now := o.srv.pvfs.Generation()
	f.mu.Lock()
	l, learned := f.layout, f.learned
	f.mu.Unlock()
	if l != nil && learned == now {
		return l, nil
	}
	spread := o.srv.home.elsewhere(f.handle)
	a, err := o.srv.pvfs.GetAttr(ctx, pvfs.Handle(f.handle))
	if err != nil {
		return nil, stale(err)
	}
	switch a.Type {
	case wire.TypeMetafile:
	case wire.TypeDirectory:
		return nil, errno.New("ionserver.owner", syscall.EISDIR)
	case wire.TypeSymlink:
		return nil, errno.New("ionserver.owner", syscall.EINVAL)
	default:
		return nil, errno.New("ionserver.owner", syscall.ESTALE)
	}
	l = o.srv.pvfs.File(a)
	f.mu.Lock()
	f.layout, f.learned, f.spread = l, now, f.spread || spread
	f.ahead.Ends(a.Size) // at the servers; who reads on finds more
	f.mu.Unlock()
	return l, nil
}

// stale turns the absence of an object that was named by its handle into
// ESTALE; the known layout is of no use any more.
func stale(err error) error {
	if errors.Is(err, syscall.ENOENT) {
		return errno.Wrap("ionserver", syscall.ESTALE, err)
	}
	return err
}

func (f *ownedFile) forgetLayout() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.layout = nil
}
