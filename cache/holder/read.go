package holder

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync"

	"github.com/zoidfs/zoidfs/cache"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// Bytes is what Read returned: pieces that stay valid until Release, which must
// be called once.
type Bytes struct {
	slices [][]byte
	n      int

	mu    sync.Mutex
	loose bool                      // guarded by mu; some came without LEASE_DATA
	under []interface{ Release() }  // guarded by mu; what the slices lie in
	few   [2]interface{ Release() } // memory of under, if that is enough
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
	if b.under == nil {
		b.under = b.few[:0]
	}
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
	if e.Empty() {
		return new(Bytes), nil
	}
	f := h.file
	ctx = h.guarded(ctx)
	h.glanced(e)
	if h.recalls() {
		if err := f.h.client.Recall(ctx, f.handle, e); err != nil {
			return nil, err
		}
	}
	out, dense, err := h.read(ctx, e)
	if err == nil && out.n < n && h.recalls() {
		// What others have not published may lie further on, and a hole here.
		out.Release()
		if err := f.h.client.Recall(ctx, f.handle, extent.ToEnd(off)); err != nil {
			return nil, err
		}
		out, dense, err = h.read(ctx, e)
	}
	if err == nil && out.n == n && !dense {
		h.readAhead(ctx, e)
	}
	return out, err
}

// recalls reports whether a read must first have other nodes publish what they
// hold of the range.
func (h *Handle) recalls() bool {
	return h.mode.recalls(h.mayWrite) && !h.file.h.attrs.Quiet(h.file.handle)
}

// read reads what is published of e, and what this node has written. It says
// whether more was fetched because the ranks of the node read densely.
//
// The bytes and the end of the file must be of one moment. So where this node had to
// say where the file ends, and would say something else when the bytes are there, all
// is read again, while no write of this node begins that could move the end.
func (h *Handle) read(ctx context.Context, e extent.Extent) (out *Bytes, dense bool, err error) {
	out, dense, ok, err := h.tryRead(ctx, e, e)
	for err == nil && !ok {
		out.Release()
		out, dense, ok, err = h.tryRead(ctx, e, extent.ToEnd(e.Off))
	}
	return out, dense, err
}

// tryRead is read with writes of this node to alone, which contains e, kept out. It is
// not ok if the bytes and the end may be of different moments.
func (h *Handle) tryRead(ctx context.Context, e, alone extent.Extent) (out *Bytes, dense, ok bool, err error) {
	f := h.file
	hold, err := f.order.Lock(ctx, alone, false)
	if err != nil {
		return nil, false, false, err
	}
	defer hold.Release()
	before, short := f.cut(e)
	out, filled := new(Bytes), false
	if !short.Empty() {
		if dense, filled, err = h.readAll(ctx, short, &before, out); err != nil {
			out.Release()
			return nil, false, false, err
		}
	}
	if int64(out.n) == e.Len && !filled {
		return out, dense, true, nil
	}
	after := f.sight()
	if alone != e { // writes may wait
		after.written = before.written
	}
	return out, dense, after.same(before, short != e), nil
}

// readAll reads e into out; filled tells that it ends in a hole before what is
// unpublished. If something has to be asked for, before is from before that.
func (h *Handle) readAll(ctx context.Context, e extent.Extent, before *sight, out *Bytes) (dense, filled bool, err error) {
	f := h.file
	v := f.known(e, h.right)
	dense, late := h.fetchAround(ctx, e, v != nil)
	if v != nil {
		out.keep(v)
		out.slices, out.n = slices.Clip(v.Slices()), v.Len()
		return dense, false, nil
	}
	if *before == (sight{}) {
		*before = f.sight()
	}
	filled, err = f.readParts(ctx, e, h.right, before.end, out)
	if err == nil && late {
		h.fetchParts(ctx, e)
	}
	return dense, filled, err
}

// known is e if all of it is in the cache and may be used, and lies in one domain;
// else nil.
func (f *File) known(e extent.Extent, r right) *cache.View {
	d := f.domain(e.Off)
	if !d.ext.Contains(e) || !d.mayUse(r) {
		return nil
	}
	v, missing := f.data.Peek(e)
	if len(missing) > 0 {
		v.Release()
		return nil
	}
	return v
}

// readParts reads e, as many requests as that takes, and puts out together; end is
// where what is unpublished ended before any of them.
func (f *File) readParts(ctx context.Context, e extent.Extent, r right, end int64, out *Bytes) (filled bool, err error) {
	if chunkAt(e.Off, f.h.client.View().DomainSize).Contains(e) { // as most do, and this takes less memory
		p, err := f.readPart(ctx, e, r, out)
		if err != nil {
			return false, err
		}
		return join(out, end, p), nil
	}
	exts := f.h.client.Split(e)
	parts, errs := make([]part, len(exts)), make([]error, len(exts))
	each(len(exts), func(i int) { parts[i], errs[i] = f.readPart(ctx, exts[i], r, out) })
	if err := cmp.Or(errs...); err != nil {
		return false, err
	}
	return join(out, end, parts...), nil
}

// readPart reads e, which one READ can carry, from the cache or its owner.
func (f *File) readPart(ctx context.Context, e extent.Extent, r right, out *Bytes) (part, error) {
	v, got, err := f.gather(ctx, []extent.Extent{e}, r)
	if err != nil {
		return part{}, err
	}
	out.keep(v)
	if int64(v.Len()) == e.Len { // all was known
		return part{ext: e, end: e.End(), slices: slices.Clip(v.Slices())}, nil
	}
	out.keep(got)
	if !got.leased {
		out.mu.Lock()
		out.loose = true
		out.mu.Unlock()
	}
	return lay(e, v, got), nil
}

// maxPatience is how often a read waits for others, which may have brought what
// it lacks, before it asks itself.
const maxPatience = 4

// gather returns what is known of exts, which one READ can carry, and what such
// a READ has brought of the rest. Both are to be released.
func (f *File) gather(ctx context.Context, exts []extent.Extent, r right) (*cache.View, brought, error) {
	d := f.domain(exts[0].Off)
	for patience := maxPatience; ; patience-- {
		known := d.grounds()
		if !d.mayUse(r) {
			for _, e := range exts {
				f.data.Drop(e)
			}
		}
		v, missing := f.data.Peek(exts...)
		if len(missing) == 0 {
			return v, brought{}, nil
		}
		if patience > 0 && d.await(ctx, missing) {
			v.Release()
			continue
		}
		got, err := d.ask(ctx, missing, r)
		if err != nil {
			v.Release()
			return nil, brought{}, err
		}
		if v.Len() > 0 && r == byLease && d.grounds() != known { // what was known may be older than what came
			v.Release()
			got.Release()
			continue
		}
		return v, got, nil
	}
}

// brought is what a READ of exts has brought.
type brought struct {
	ionclient.Data
	exts   []extent.Extent
	pieces [][]byte // of Data
	leased bool     // it may be kept under LEASE_DATA
}

// end is where the file ends, or something behind exts if it does not end there.
func (b brought) end() int64 {
	rest := int64(b.Len())
	for _, e := range b.exts {
		if rest < e.Len {
			return e.Off + rest
		}
		rest -= e.Len
	}
	return math.MaxInt64
}

// fetch carries out x: it reads from the owner, and caches what comes if there is
// a right to.
func (d *domain) fetch(ctx context.Context, x *fetch, at moment, r right) (brought, error) {
	defer d.fetched(x)
	data, g, err := d.f.h.client.Read(ctx, d.f.handle, x.exts, r.asks())
	if err != nil {
		return brought{}, err
	}
	if err := d.f.raced(g); err != nil {
		data.Release()
		return brought{}, err
	}
	got := brought{Data: data, exts: x.exts, pieces: data.Slices()}
	got.leased = d.insert(at, r, g, x.exts, got.pieces)
	return got, nil
}

// lay puts the bytes of v, which are newer, over those that came. Where nobody
// knows of a byte before one of v lies a hole.
func lay(e extent.Extent, v *cache.View, got brought) part {
	p := part{ext: e, end: e.Off, slices: make([][]byte, 0, len(v.Slices())+len(got.pieces))}
	gotEnd := got.end()
	gap := func(end int64) {
		g := extent.Extent{Off: p.end, Len: end - p.end}
		p.slices = clip(p.slices, got.exts, got.pieces, g)
		p.end = max(p.end, min(end, gotEnd))
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
// published; if what this node has written ends further on, at end, a hole lies there,
// which is filled.
func join(out *Bytes, end int64, parts ...part) (filled bool) {
	for _, p := range parts {
		if hole := min(p.ext.End(), end) - p.end; hole > 0 {
			p.slices = appendZeros(p.slices, hole)
			p.end += hole
			filled = true
		}
		if out.slices == nil {
			out.slices = p.slices
		} else {
			out.slices = append(out.slices, p.slices...)
		}
		out.n += int(p.end - p.ext.Off)
		if p.short() {
			break
		}
	}
	return filled
}
