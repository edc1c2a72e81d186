package holder

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/extent"
)

const (
	maxAheadBytes = 8 << 20 // how far is read ahead at most
	maxAheadRead  = collective.AheadRead
)

// readers is how all handles of this node read a file together.
type readers struct {
	mu      sync.Mutex         // innermost
	pattern collective.Readers // guarded by mu
	end     int64              // guarded by mu; the file ended there when it was opened, or was found to; 0: not known
}

// fetchAround is told of each read of a handle, and whether all of e is known,
// before anything is asked for. Where small pieces are read densely, by whichever
// handles, it has whole parts of domains fetched: those of e, for which the read is
// to wait, and those that will be next. Where races are told the owner is to see
// first what the program reads, and no more: if late is true, the parts of e are to
// be fetched when it was read.
func (h *Handle) fetchAround(ctx context.Context, e extent.Extent, known bool) (dense, late bool) {
	f, size := h.file, h.file.h.client.View().DomainSize
	if f.h.opt.NoCollective {
		return false, false
	}
	dense, next := f.readers.add(h.number, e, chunkAt(e.Off, size), known, f.h.aheadLimit())
	if !dense || f.domain(e.Off).isDenied() {
		return false, false
	}
	late = !known && f.h.opt.Race != nil
	if !known && !late {
		h.fetchParts(ctx, e)
	}
	h.fetchAhead(ctx, next)
	return true, late
}

// fetchParts has the parts of domains that e lies in in the cache soon.
func (h *Handle) fetchParts(ctx context.Context, e extent.Extent) {
	f := h.file
	partsOf(e, f.h.client.View().DomainSize, maxAheadRead, func(part, _ extent.Extent) {
		f.prefetch(ctx, []extent.Extent{part}, h.right, densely)
	})
}

// add takes note of a read in a chunk, as collective.Readers does.
func (r *readers) add(who uint64, e, chunk extent.Extent, known bool, limit int64) (dense bool, next []extent.Extent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.End() > r.end {
		r.end = 0 // it has grown
	}
	return r.pattern.Add(who, e, chunk, known, limit)
}

// ends takes note of where the file was found to end; 0: it was not.
func (r *readers) ends(at int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at > 0 && (r.end == 0 || at < r.end) {
		r.end = at
	}
}

// opened takes note of how long the file is when it is opened.
func (r *readers) opened(size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end = size
}

// within is those of exts that do not lie behind the end of the file for sure.
func (r *readers) within(exts []extent.Extent) []extent.Extent {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.end == 0 {
		return exts
	}
	return slices.DeleteFunc(exts, func(e extent.Extent) bool { return e.Off >= r.end })
}

// aheadLimit is how many bytes are read ahead of a reader.
func (h *Holder) aheadLimit() int64 { return min(maxAheadBytes, h.opt.Bytes/16) }

// readAhead is told of each read of a handle, and fetches what the next ones
// will ask for, if it may be cached.
func (h *Handle) readAhead(ctx context.Context, e extent.Extent) {
	f := h.file
	if f.domain(e.Off).isDenied() {
		return
	}
	h.streamMu.Lock()
	h.stream.Limit, h.stream.Unit = f.h.aheadLimit(), maxAheadRead
	next := h.stream.Next(e)
	h.streamMu.Unlock()
	h.fetchAhead(ctx, next)
}

// fetchAhead has exts in the cache soon, with one READ for each maxAheadRead of a
// domain: together with what other handles are about to read there, if these are
// pieces.
func (h *Handle) fetchAhead(ctx context.Context, exts []extent.Extent) {
	f := h.file
	var pieces []extent.Extent // of at
	at := extent.Extent{Off: -1}
	start := func() {
		if len(pieces) > 0 {
			f.prefetch(ctx, f.withOthers(at, pieces), h.right, ahead)
		}
	}
	for _, e := range f.readers.within(exts) {
		partsOf(e, f.h.client.View().DomainSize, maxAheadRead, func(part, in extent.Extent) {
			if part != at || f.h.opt.NoCollective {
				start()
				at, pieces = part, nil
			}
			pieces = append(pieces, in)
		})
	}
	start()
}

// withOthers is pieces, which lie in one part of a domain in any order, and what
// any handle is about to read behind the first of them in the part.
func (f *File) withOthers(part extent.Extent, pieces []extent.Extent) []extent.Extent {
	if f.h.opt.NoCollective {
		return pieces
	}
	r := &f.readers
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pattern.With(part, pieces)
}

// prefetch begins to fetch what is not known of exts, which one READ can carry,
// unless it is being fetched already, or somebody writes there. It does not
// wait; a read that needs any of it does. ctx is of the read upon which it is done, and
// ends nothing.
func (f *File) prefetch(ctx context.Context, exts []extent.Extent, r right, why way) {
	if size, _, ok := f.h.attrs.Size(f.handle); ok {
		exts = below(exts, max(size, f.glimpse().end))
	}
	if len(exts) == 0 {
		return
	}
	hold, err := f.order.Lock(f.h.ended, extent.Hull(exts), false)
	if err != nil {
		return
	}
	d := f.domain(exts[0].Off)
	if !d.mayUse(r) {
		for _, e := range exts {
			f.data.Drop(e)
		}
	}
	x, at := d.fetching(f.data.Missing(exts...), true)
	if x == nil {
		hold.Release()
		return
	}
	by := collective.CallerOf(ctx).Member
	if !f.h.spawn(func() {
		defer hold.Release()
		began := time.Now()
		got, err := d.fetch(f.h.life, x, at, r)
		if err != nil {
			f.h.opt.Logger.Debug("read ahead", "handle", f.handle, "err", err)
			return
		}
		f.note(by, got, why, began)
		if end := got.end(); end < extent.Hull(got.exts).End() {
			f.readers.ends(end)
		}
		got.Release()
	}) {
		d.fetched(x)
		hold.Release()
	}
}

// way says for the journal for what a READ was sent.
type way string

// The ways.
const (
	missing way = ""
	ahead   way = "ahead of its readers"
	densely way = "whole parts of domains, which the processes here read densely"
)

// note has the journal take in a READ upon a read of by, which has brought got.
func (f *File) note(by collective.Member, got brought, why way, began time.Time) {
	n, plan := extent.Total(got.exts), string(why)
	if why == densely {
		f.readers.mu.Lock()
		plan += ": " + f.readers.pattern.Shape().String()
		f.readers.mu.Unlock()
	}
	c := collective.Call[struct{}]{Member: by, Bytes: n, At: began}
	f.h.opt.Journal.One("read", f.handle, c, time.Since(began), collective.Outcome{
		Extents: len(got.exts), Runs: len(got.exts), Requests: 1, Moved: int64(got.Len()), Plan: plan,
	})
}

// below is what of exts, which are sorted, lies before end.
func below(exts []extent.Extent, end int64) []extent.Extent {
	for i, e := range exts {
		if e.End() > end {
			if e.Len = max(end-e.Off, 0); e.Len == 0 {
				return exts[:i]
			}
			return append(exts[:i:i], e)
		}
	}
	return exts
}
