package holder

import "github.com/zoidfs/zoidfs/internal/extent"

// maxAheadBytes is how far a handle's reads are read ahead of at most.
const maxAheadBytes = 4 << 20

// readAhead is told of each read of a handle, and fetches what the next ones
// will ask for, if it may be cached.
func (h *Handle) readAhead(e extent.Extent) {
	f := h.file
	d := f.domain(e.Off)
	d.mu.RLock()
	denied := d.denied
	d.mu.RUnlock()
	if denied {
		return
	}
	h.streamMu.Lock()
	h.stream.Limit = min(maxAheadBytes, f.h.opt.Bytes/16)
	next := h.stream.Next(e)
	h.streamMu.Unlock()
	size := f.h.client.View().DomainSize
	for _, e := range next {
		chunksOf(e, size, func(_, part extent.Extent) {
			f.h.spawn(func() { f.prefetch(part, h.right) })
		})
	}
}

// prefetch has e in the cache, if it may be and an owner answers.
func (f *File) prefetch(e extent.Extent, r right) {
	hold, err := f.order.Lock(f.h.life, e, false)
	if err != nil {
		return
	}
	defer hold.Release()
	v, got, err := f.gather(f.h.life, []extent.Extent{e}, r)
	if err != nil {
		f.h.opt.Logger.Debug("read ahead", "handle", f.handle, "err", err)
		return
	}
	v.Release()
	got.Release()
}
