package holder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/cache"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/internal/round"
	"github.com/zoidfs/zoidfs/internal/shared"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// Options adjusts a Holder.
type Options struct {
	Visibility time.Duration // of eventual: how old what is seen may be; 0: 5 s
	Bytes      int64         // of memory for all files; 0: 256 MiB
	// Memory is what they lie in, Bytes long, of the holder from now on; nil: memory
	// of its own.
	Memory *shared.Region
	// NoCollective has every request for data sent as it comes, merged with none.
	NoCollective bool
	Logger       *slog.Logger // nil: discard
	// Journal, if not nil, takes in which reads were made one.
	Journal *round.Journal

	// Race, if not nil, is told of accesses in weak modes that race with those of
	// other mounts. Its error is that of the read, or of the next fsync or close
	// after the write.
	Race func(handle uint64, r ionclient.Race) error

	// Stale, if not nil, is told when what was read of a file may not be kept any
	// more: when LEASE_DATA on some of it has ended, others have cut the file, or a
	// lock was taken. An I/O node may wait until it returns.
	Stale func(handle uint64)
}

// Validate names the field that makes no sense.
func (o Options) Validate() error {
	switch {
	case o.Visibility < 0:
		return errors.New("cache: the visibility is negative")
	case o.Bytes < 0 || o.Bytes > 0 && o.Bytes < minBytes:
		return errors.New("cache: the cache is smaller than 8 MiB")
	}
	return nil
}

const (
	minBytes     = 8 << 20
	defaultBytes = 256 << 20

	maxIdle  = 4096 // files that are kept though nobody has them open
	maxSends = 64   // chunks being sent at a time
)

func (o Options) withDefaults() Options {
	if o.Visibility == 0 {
		o.Visibility = 5 * time.Second
	}
	if o.Bytes == 0 {
		o.Bytes = defaultBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Attrs is what the mount knows of attributes, under leases of their homes.
type Attrs interface {
	// Quiet reports whether surely no other mount holds unpublished bytes.
	Quiet(handle uint64) bool
	// Size returns the size in bytes, if it is surely known: that of what is
	// published, or more. While since stays the same, no other mount has changed the file.
	Size(handle uint64) (size int64, since uint64, ok bool)
}

// Holder keeps bytes of the files of one mount. It is the client's Keeper.
type Holder struct {
	client *ionclient.Client
	opt    Options
	store  *cache.Store
	attrs  Attrs
	ended  context.Context // has ended: of locks that are not waited for
	life   context.Context // of what goes on in the background
	end    context.CancelFunc
	full   chan struct{} // capacity 1: too much is retained
	sends  chan struct{} // a token for each chunk being sent
	reads  *round.Group[domainReads, *wish, struct{}]

	retained atomic.Int64 // bytes that wait to be stable
	opens    atomic.Uint64

	mu    sync.Mutex
	files map[uint64]*File // guarded by mu
	idle  []*File          // guarded by mu; those that nobody has open, longest first

	groupMu sync.Mutex // innermost
	closed  bool       // guarded by groupMu; nothing is spawned any more
	group   sync.WaitGroup
}

var _ ionclient.Keeper = (*Holder)(nil)

// New returns a Holder and makes it the client's Keeper. attrs may be nil. Run
// must be called.
func New(client *ionclient.Client, attrs Attrs, opt Options) (*Holder, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	opt = opt.withDefaults()
	if attrs == nil {
		attrs = unknown{}
	}
	store, err := cache.New(cache.Options{Bytes: opt.Bytes, Memory: opt.Memory})
	if err != nil {
		return nil, err
	}
	h := &Holder{
		client: client, opt: opt, store: store, attrs: attrs, files: make(map[uint64]*File),
		full: make(chan struct{}, 1), sends: make(chan struct{}, maxSends),
	}
	ended, end := context.WithCancel(context.Background())
	end()
	h.ended = ended
	h.reads = h.newReads()
	h.life, h.end = context.WithCancel(context.Background())
	client.SetKeeper(h)
	return h, nil
}

// closeTime is how long Run tries to publish what is left when it ends.
const closeTime = 10 * time.Second

// Run looks after what gets old or too much until ctx is done. Then it publishes
// what is left, and returns when nothing goes on any more; nothing may be
// called after that. The error is that of Flush.
func (h *Holder) Run(ctx context.Context) error {
	tick := time.NewTicker(min(time.Second, h.opt.Visibility/8+1))
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-tick.C:
			h.publishOld(now)
		case <-h.store.Pressure():
			h.publishOldest(h.opt.Bytes / 8)
			h.commit()
		case <-h.full:
			h.commit()
		}
	}
	last, cancel := context.WithTimeout(h.life, closeTime)
	defer cancel()
	err := h.Flush(last)
	h.Close()
	return err
}

// maxFlushes is how many files are flushed at a time.
const maxFlushes = 64

// Flush publishes what is left of all files and has their owners write it to
// the PVFS2 servers, as far as that is done before ctx ends. The error names
// files of which something is not there, and why.
func (h *Holder) Flush(ctx context.Context) error {
	files := h.all()
	slices.SortFunc(files, func(a, b *File) int { return cmp.Compare(a.handle, b.handle) })
	errs := make([]error, len(files))
	var group errgroup.Group
	group.SetLimit(maxFlushes)
	for i, f := range files {
		group.Go(func() error {
			if err := f.flush(ctx); err != nil && !hopeless(err) {
				h.opt.Logger.Error("not flushed", "handle", f.handle, "err", err)
				errs[i] = fmt.Errorf("file %d is not flushed: %w", f.handle, err)
			}
			return nil
		})
	}
	_ = group.Wait() // errs has them
	return errno.Some(errs)
}

// flush publishes what is unpublished, and has it reach the servers.
func (f *File) flush(ctx context.Context) error {
	if err := f.publish(ctx, everything); err != nil {
		return err
	}
	f.mu.Lock()
	var owners []int64 // by an offset that each has
	for _, u := range f.unstable {
		if len(u.list) > 0 {
			owners = append(owners, u.list[0].load.exts[0].Off)
		}
	}
	f.mu.Unlock()
	errs := make([]error, len(owners))
	each(len(owners), func(i int) { errs[i] = f.h.client.Commit(ctx, f.handle, owners[i]) })
	return cmp.Or(errs...)
}

// Close ends a Holder that does not Run.
func (h *Holder) Close() {
	h.end()
	h.groupMu.Lock()
	h.closed = true
	h.groupMu.Unlock()
	h.group.Wait()
	h.reads.Wait()
	for _, f := range h.all() {
		f.forget()
	}
	h.store.Close()
}

var everything = extent.ToEnd(0)

// spawn runs f in a goroutine that Run waits for. It reports whether it did.
func (h *Holder) spawn(f func()) bool {
	h.groupMu.Lock()
	defer h.groupMu.Unlock()
	if h.closed {
		return false
	}
	h.group.Go(f)
	return true
}

// stale tells that what was read of a file may not be kept any more.
func (h *Holder) stale(handle uint64) {
	if h.opt.Stale != nil {
		h.opt.Stale(handle)
	}
}

// known returns the file, or nil if nothing is kept of it.
func (h *Holder) known(handle uint64) *File {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.files[handle]
}

// all returns every file.
func (h *Holder) all() []*File {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]*File, 0, len(h.files))
	for _, f := range h.files {
		out = append(out, f)
	}
	return out
}

// get returns the file for one more user, making it if need be.
func (h *Holder) get(handle uint64) *File {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.files[handle]
	if f == nil {
		f = newFile(h, handle)
		h.files[handle] = f
	}
	f.users++
	return f
}

// put ends a use. What is cached of a file stays for the next open.
func (h *Holder) put(f *File) {
	h.mu.Lock()
	var drop []*File
	if f.users--; f.users == 0 {
		h.idle = append(h.idle, f)
	}
	if len(h.idle) > maxIdle {
		drop = h.pruneLocked(len(h.idle) / 8)
	}
	h.mu.Unlock()
	for _, f := range drop {
		f.forget()
		h.stale(f.handle) // what others do is not told any more
	}
}

// pruneLocked takes up to n of those that are idle longest out of the table. mu
// is held.
func (h *Holder) pruneLocked(n int) (drop []*File) {
	var keep []*File
	for _, f := range h.idle {
		switch {
		case f.users > 0: // in use again
		case len(drop) < n && !f.owes():
			delete(h.files, f.handle)
			drop = append(drop, f)
		default:
			keep = append(keep, f)
		}
	}
	h.idle = keep
	return drop
}

// unknown is the Attrs of a mount that keeps none.
type unknown struct{}

func (unknown) Quiet(uint64) bool                 { return false }
func (unknown) Size(uint64) (int64, uint64, bool) { return 0, 0, false }
