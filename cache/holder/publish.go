package holder

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// chunk is a part of a domain of which bytes are unpublished or on their way.
// One WRITE after the other carries them, so that two that overlap cannot
// overtake each other; what is written while one is under way makes up the
// next batch. Its fields are guarded by File.mu.
type chunk struct {
	ext    extent.Extent
	next   *batch // of the bytes that are not being sent; nil: there are none
	flying *batch // being sent; nil: none
	busy   bool   // a goroutine sends
	how    manner // of next
	sends  manner // of flying
	bytes  int64  // written into next
	since  time.Time
	abort  context.CancelFunc // of the WRITEs of flying
	parked bool               // nothing may be sent but by who has parked it
	idle   chan struct{}      // closed when busy ends; nil: nobody waits for it
	others int                // writes at work of what is not under LEASE_PIECES
}

// batch is the bytes of a chunk that are sent at a time.
type batch struct {
	wanted bool          // guarded by File.mu; somebody wants it sent
	done   chan struct{} // closed when it was
	err    error         // set before done is closed
}

// manner is how bytes are to be sent.
type manner struct {
	flags    uint32 // of the WRITE
	deferred bool   // there are bytes whose write has returned
	kept     bool   // of these, some under LEASE_WRITE
	pieces   bool   // of these, some under LEASE_PIECES, and all under leases
	maxAge   time.Duration
	last     time.Time // when the last of them was written, if races are to be told
}

// with is the manner for bytes of both.
func (m manner) with(o manner) manner {
	if m.maxAge == 0 || o.maxAge > 0 && o.maxAge < m.maxAge {
		m.maxAge = o.maxAge
	}
	m.flags |= o.flags
	m.deferred = m.deferred || o.deferred
	m.kept = m.kept || o.kept
	m.pieces = m.pieces || o.pieces
	if o.last.After(m.last) {
		m.last = o.last
	}
	return m
}

// errAgain tells that a batch was taken back: its bytes are dirty again.
var errAgain = errno.New("cache.holder", syscall.EAGAIN)

// chunkLocked returns the chunk with that extent. mu is held.
func (f *File) chunkLocked(e extent.Extent) *chunk {
	c := f.chunks[e.Off]
	if c == nil {
		c = &chunk{ext: e}
		f.chunks[e.Off] = c
	}
	return c
}

// dirtied takes note of n bytes that were written into a chunk and are dirty in
// the cache. Those that are to be published at once are sent, and the batch
// that carries them is returned.
func (f *File) dirtied(e extent.Extent, n int64, how manner, now bool) *batch {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dirtiedLocked(f.chunkLocked(e), n, how, now)
}

// dirtiedLocked is dirtied. mu is held.
func (f *File) dirtiedLocked(c *chunk, n int64, how manner, now bool) *batch {
	if c.next == nil {
		c.next, c.since, c.bytes = newBatch(), time.Now(), 0
	}
	c.how = c.how.with(how)
	c.bytes += n
	if now {
		return f.wantLocked(c)
	}
	if c.bytes-n < c.ext.Len && c.bytes >= c.ext.Len {
		f.ready = append(f.ready, c)
		f.sendAheadLocked()
	}
	return nil
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

// maxAhead is how many full chunks of a file are sent ahead at a time.
const maxAhead = 4

// sendAheadLocked sends full chunks ahead of whoever will want them. mu is held.
func (f *File) sendAheadLocked() {
	for f.ahead < maxAhead && len(f.ready) > 0 {
		c := f.ready[0]
		f.ready = f.ready[1:]
		b := c.next
		if b == nil || b.wanted || c.bytes < c.ext.Len {
			continue
		}
		f.ahead++
		f.wantLocked(c)
		f.h.spawn(func() {
			<-b.done
			f.mu.Lock()
			f.ahead--
			f.sendAheadLocked()
			f.mu.Unlock()
		})
	}
}

// wantLocked has the bytes of c sent, and returns the batch that carries the
// last of them; nil if there are none. mu is held.
func (f *File) wantLocked(c *chunk) *batch {
	b := c.next
	if b == nil {
		return c.flying
	}
	b.wanted = true
	f.startLocked(c)
	return b
}

// startLocked has c.next sent if nothing is in the way. mu is held.
func (f *File) startLocked(c *chunk) {
	if c.busy || c.parked {
		return
	}
	c.busy = true
	if !f.h.spawn(func() { f.send(c) }) {
		c.busy = false
		c.next.err = errno.New("cache.holder", syscall.ESHUTDOWN)
		close(c.next.done)
		c.next = newBatch()
	}
}

// park keeps c from being sent until unpark. What is on its way is taken back:
// it is dirty again.
func (f *File) park(c *chunk) {
	f.mu.Lock()
	c.parked = true
	var idle chan struct{}
	if c.busy {
		idle = make(chan struct{})
		c.idle = idle
	}
	if c.abort != nil {
		c.abort()
	}
	f.mu.Unlock()
	if idle != nil {
		<-idle
	}
}

// unpark lets c be sent again.
func (f *File) unpark(c *chunk) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.parked = false
	if c.next != nil && c.next.wanted {
		f.startLocked(c)
	}
	f.tidyLocked(c)
}

// publish returns when what was unpublished of e is published. The error is that
// of a WRITE, or of ctx if that ends first.
func (f *File) publish(ctx context.Context, e extent.Extent) error {
	return f.publishIf(ctx, e, func(*chunk) bool { return true })
}

// publishIf is publish for the chunks that want picks.
func (f *File) publishIf(ctx context.Context, e extent.Extent, want func(*chunk) bool) error {
	for {
		var waits []*batch
		f.mu.Lock()
		for _, c := range f.chunks {
			if c.ext.Overlaps(e) && want(c) {
				if b := f.wantLocked(c); b != nil {
					waits = append(waits, b)
				}
			}
		}
		f.mu.Unlock()
		err := await(ctx, waits...)
		if err != errAgain {
			return err
		}
	}
}

// await waits for batches and returns the first error.
func await(ctx context.Context, waits ...*batch) (err error) {
	for _, b := range waits {
		select {
		case <-b.done:
			err = cmp.Or(err, b.err)
		case <-ctx.Done():
			return errno.Wrap("cache.holder", errno.Of(context.Cause(ctx)), context.Cause(ctx))
		}
	}
	return err
}

// send sends what is wanted of c, batch after batch.
func (f *File) send(c *chunk) {
	for {
		f.mu.Lock()
		b := c.next
		if b == nil || !b.wanted || c.parked {
			c.busy = false
			f.tidyLocked(c)
			if c.idle != nil {
				close(c.idle)
				c.idle = nil
			}
			f.mu.Unlock()
			return
		}
		ctx, abort := f.h.life, context.CancelFunc(func() {})
		if c.how.kept {
			ctx, abort = context.WithCancel(ctx)
		}
		c.flying, c.sends, c.abort = b, c.how, abort
		c.next, c.how = nil, manner{}
		how := c.sends
		f.mu.Unlock()
		err := f.sendBatch(ctx, c.ext, how)
		if err != nil && ctx.Err() != nil && f.h.life.Err() == nil {
			err = errAgain
		}
		abort()
		f.mu.Lock()
		c.flying, c.abort = nil, nil
		b.err = err
		f.sentLocked(c, how, err)
		f.mu.Unlock()
		close(b.done)
	}
}

// tidyLocked forgets c if nothing of it is unpublished. mu is held.
func (f *File) tidyLocked(c *chunk) {
	if c.next == nil && !c.busy && !c.parked && c.others == 0 {
		delete(f.chunks, c.ext.Off)
	}
}

// sentLocked takes note of what became of a batch. What could not be sent is
// dirty again, and whoever wants it next gets the error if it cannot be sent
// again; what nobody will ever take is lost, which each handle reports. mu is
// held.
func (f *File) sentLocked(c *chunk, how manner, err error) {
	switch {
	case err == nil:
		return
	case hopeless(err):
		if how.deferred {
			f.failLocked(err)
		}
		return
	case c.next == nil:
		c.next, c.bytes = newBatch(), 0
	}
	c.since = time.Now()
	c.how = c.how.with(how)
}

// hopeless reports whether the file will take no bytes any more.
func hopeless(err error) bool {
	switch errno.Of(err) {
	case syscall.ESTALE, syscall.ENOENT, syscall.EPERM, syscall.EISDIR, syscall.EFBIG:
		return true
	}
	return false
}

// maxAtOnce is how many requests of a batch or of a read are under way at a time.
const maxAtOnce = 16

// sendBatch sends what is dirty of e, as one WRITE if nothing forbids it.
func (f *File) sendBatch(ctx context.Context, e extent.Extent, how manner) error {
	if !how.kept { // an I/O node may be waiting for what was kept back
		f.h.sends <- struct{}{}
		defer func() { <-f.h.sends }()
	}
	v := f.data.Take(e, e.Len)
	if v == nil {
		return nil
	}
	defer v.Release()
	if how.kept {
		how.flags |= ionclient.Recalled
	}
	if !how.last.IsZero() {
		ctx = ionclient.Guarded(ctx, how.last)
	}
	loads := loadsOf(v, f.h.maxPieces())
	d := f.domain(e.Off)
	at := d.begin()
	var sent struct {
		sync.Mutex
		first  error
		leased bool
	}
	sent.leased = true
	each(len(loads), func(i int) {
		ctx, flags := d.wishing(ctx, how.flags, how.kept)
		_, g, err := f.h.client.WriteFrom(ctx, f.handle, loads[i].exts, loads[i].pieces, v, flags)
		if err == nil {
			err = f.retain(retained{view: v, load: loads[i], stamp: g.Stamp}, g.Tenure)
		}
		sent.Lock()
		defer sent.Unlock()
		if err == nil {
			sent.leased = d.grant(at, g) && sent.leased
			d.answered(flags, g.Leases)
		}
		sent.first = cmp.Or(sent.first, err)
		if raced := f.raced(g); raced != nil {
			f.fail(raced)
		}
	})
	first := sent.first
	if first == nil {
		f.mu.Lock()
		f.setID = f.setID && how.flags&ionclient.KillPriv == 0
		f.mu.Unlock()
	}
	f.data.Done(v, first == nil)
	switch {
	case first == nil:
		d.published(v.Extents(), at, sent.leased)
	case hopeless(first):
		for _, e := range v.Extents() {
			f.data.Discard(e)
		}
	}
	return first
}

// maxPieces is how many extents one WRITE carries.
func (h *Holder) maxPieces() int {
	if h.opt.NoCollective {
		return 1
	}
	return ionclient.MaxPieces
}

// each runs f for every index below n, several at once.
func each(n int, f func(i int)) {
	if n == 1 {
		f(0)
		return
	}
	var group sync.WaitGroup
	limit := make(chan struct{}, maxAtOnce)
	for i := range n {
		limit <- struct{}{}
		group.Go(func() {
			f(i)
			<-limit
		})
	}
	group.Wait()
}

// published is told of bytes that have become clean, and were sent from that moment
// on.
func (d *domain) published(exts []extent.Extent, at moment, leased bool) {
	d.f.mu.Lock()
	keep := leased || d.f.lenient > 0
	d.f.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !leased || d.era != at.era {
		d.bared++
	}
	if keep && d.era == at.era && d.mayKeepLocked(leased) {
		d.filledLocked(at)
		return
	}
	for _, e := range exts {
		d.f.data.Drop(e)
	}
}

// publishOld sends, for all files, what is older than its mode wants.
func (h *Holder) publishOld(now time.Time) {
	for _, f := range h.all() {
		f.mu.Lock()
		for _, c := range f.chunks {
			if c.next != nil && !c.next.wanted && now.Sub(c.since) >= c.how.maxAge {
				f.wantLocked(c)
			}
		}
		f.mu.Unlock()
	}
}

// publishOldest sends the n bytes that are unpublished longest.
func (h *Holder) publishOldest(n int64) {
	type old struct {
		f     *File
		c     *chunk
		since time.Time
		bytes int64
	}
	var all []old
	for _, f := range h.all() {
		f.mu.Lock()
		for _, c := range f.chunks {
			if c.next != nil && !c.next.wanted {
				all = append(all, old{f, c, c.since, min(c.bytes, c.ext.Len)})
			}
		}
		f.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b old) int { return a.since.Compare(b.since) })
	for _, o := range all {
		if n <= 0 {
			return
		}
		n -= o.bytes
		o.f.mu.Lock()
		o.f.wantLocked(o.c)
		o.f.mu.Unlock()
	}
}
