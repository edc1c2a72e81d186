package holder

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/zoidfs/zoidfs/cache"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// Bytes is what Read returned: pieces that stay valid until Release, which must
// be called once.
type Bytes struct {
	slices [][]byte
	n      int

	mu    sync.Mutex
	under []interface{ Release() } // guarded by mu; what the slices lie in
}

// Len is the number of bytes.
func (b *Bytes) Len() int { return b.n }

// Slices is the pieces in order. Nobody may write to them.
func (b *Bytes) Slices() [][]byte { return b.slices }

// CopyTo copies as much as fits into p and returns the number of bytes.
func (b *Bytes) CopyTo(p []byte) int {
	n := 0
	for _, s := range b.slices {
		n += copy(p[n:], s)
	}
	return n
}

// Release gives the memory back.
func (b *Bytes) Release() {
	for _, u := range b.under {
		u.Release()
	}
	b.slices, b.under, b.n = nil, nil, 0
}

func (b *Bytes) keep(u interface{ Release() }) {
	b.mu.Lock()
	b.under = append(b.under, u)
	b.mu.Unlock()
}

// part is what was found of a part of a read, up to end. Further on nothing is
// published.
type part struct {
	ext    extent.Extent
	end    int64
	slices [][]byte
}

func (p *part) short() bool { return p.end < p.ext.End() }

// Read reads n bytes at off; fewer, perhaps none, only at the end of the file.
func (h *Handle) Read(ctx context.Context, off int64, n int) (*Bytes, error) {
	e := extent.Extent{Off: off, Len: int64(n)}
	out := new(Bytes)
	if e.Empty() {
		return out, nil
	}
	f := h.file
	h.glanced(e)
	if h.mode.recalls(h.mayWrite, f.h.attrs.Quiet(f.handle)) {
		if err := f.h.client.Recall(ctx, f.handle, e); err != nil {
			return nil, err
		}
	}
	before := f.glimpse()
	if size, ok := f.h.attrs.Size(f.handle); ok {
		if e.Len = min(e.Len, max(size, before.end)-off); e.Len <= 0 {
			return out, nil
		}
	}
	release, err := f.order.Lock(ctx, e, false)
	if err != nil {
		return nil, err
	}
	defer release()
	exts := f.h.client.Split(e)
	parts, errs := make([]part, len(exts)), make([]error, len(exts))
	each(len(exts), func(i int) { parts[i], errs[i] = f.readPart(ctx, exts[i], h.right, out) })
	if err := cmp.Or(errs...); err != nil {
		out.Release()
		return nil, err
	}
	join(parts, max(before.end, f.glimpse().end), out)
	if out.n == n {
		h.readAhead(e)
	}
	return out, nil
}

// readPart reads e, which one READ can carry, from the cache or its owner.
func (f *File) readPart(ctx context.Context, e extent.Extent, r right, out *Bytes) (part, error) {
	d := f.domain(e.Off)
	for patient := true; ; patient = false {
		era := d.begin()
		if !d.mayUse(r, time.Now()) {
			f.data.Drop(e)
		}
		v, missing := f.data.Peek(e)
		if len(missing) == 0 {
			out.keep(v)
			return part{e, e.End(), v.Slices()}, nil
		}
		hull := extent.Extent{Off: missing[0].Off, Len: missing[len(missing)-1].End() - missing[0].Off}
		if x := d.join(hull); patient && x != nil {
			v.Release()
			select {
			case <-x.done:
				continue
			case <-ctx.Done():
				return part{}, errno.Wrap("cache.holder", errno.Of(context.Cause(ctx)), context.Cause(ctx))
			}
		}
		data, err := d.fetch(ctx, hull, r)
		if err != nil {
			v.Release()
			return part{}, err
		}
		if v.Len() > 0 && r == byLease && d.begin() != era { // what was cached may be older than what came
			v.Release()
			data.Release()
			continue
		}
		out.keep(v)
		out.keep(data)
		return lay(e, v, hull.Off, data), nil
	}
}

// fetch reads e from the owner, and caches it if there is a right to.
func (d *domain) fetch(ctx context.Context, e extent.Extent, r right) (ionclient.Data, error) {
	x, era := d.fetching(e)
	defer d.fetched(x)
	data, g, err := d.f.h.client.Read(ctx, d.f.handle, e, r.asks())
	if err != nil {
		return data, err
	}
	d.insert(era, r, g, e.Off, data.Slices())
	return data, nil
}

// lay puts the bytes of v, which are newer, over data, which begins at off. Where
// nobody knows of a byte before one of v lies a hole.
func lay(e extent.Extent, v *cache.View, off int64, data ionclient.Data) part {
	p := part{ext: e, end: e.Off}
	pieces, dataEnd := data.Slices(), off+int64(data.Len())
	gap := func(end int64) {
		g := extent.Extent{Off: p.end, Len: end - p.end}
		p.slices = clip(p.slices, off, pieces, g)
		p.end = max(p.end, min(end, dataEnd))
	}
	for _, r := range runsOf(v) {
		gap(r.ext.Off)
		p.slices = appendZeros(p.slices, r.ext.Off-p.end)
		p.slices = append(p.slices, r.pieces...)
		p.end = r.ext.End()
	}
	gap(e.End())
	return p
}

// join puts parts together. One that is short ends at the end of what is
// published; if this node has written further on, a hole lies there.
func join(parts []part, end int64, out *Bytes) {
	for _, p := range parts {
		if hole := min(p.ext.End(), end) - p.end; hole > 0 {
			p.slices = appendZeros(p.slices, hole)
			p.end += hole
		}
		out.slices = append(out.slices, p.slices...)
		out.n += int(p.end - p.ext.Off)
		if p.short() {
			break
		}
	}
}
