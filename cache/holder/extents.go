package holder

import (
	"github.com/zoidfs/zoidfs/cache"
	"github.com/zoidfs/zoidfs/internal/extent"
)

// maxChunk is how much one WRITE carries of what was kept back.
const maxChunk = 1 << 20

// domainAt is the file domain of off.
func domainAt(off, size int64) extent.Extent {
	return extent.Extent{Off: off - off%size, Len: size}
}

// partAt is the part of off: domains of that size are cut, from their start,
// into parts of at most n.
func partAt(off, size, n int64) extent.Extent {
	d := domainAt(off, size)
	start := d.Off + (off-d.Off)/n*n
	return extent.Extent{Off: start, Len: min(n, d.End()-start)}
}

// chunkAt is the chunk of off: the part of maxChunk.
func chunkAt(off, size int64) extent.Extent { return partAt(off, size, maxChunk) }

// partsOf calls f for each part of n that e touches, with what of e lies in it.
func partsOf(e extent.Extent, size, n int64, f func(part, in extent.Extent)) {
	for off := e.Off; off < e.End(); {
		p := partAt(off, size, n)
		f(p, p.Intersect(e))
		off = p.End()
	}
}

// chunksOf calls f for each chunk that e touches, with the part of e in it.
func chunksOf(e extent.Extent, size int64, f func(chunk, part extent.Extent)) {
	partsOf(e, size, maxChunk, f)
}

// run is an extent of a View.
type run struct {
	ext    extent.Extent
	pieces [][]byte
}

// runsOf is the runs of v, in order.
func runsOf(v *cache.View) []run {
	pieces := v.Slices()
	out := make([]run, 0, len(v.Extents()))
	for _, e := range v.Extents() { // none touch, and no piece crosses an end
		n := 0
		for left := e.Len; left > 0; n++ {
			left -= int64(len(pieces[n]))
		}
		out = append(out, run{e, pieces[:n:n]})
		pieces = pieces[n:]
	}
	return out
}

// load is what one request carries of a View: its extents, and their bytes in
// order.
type load struct {
	exts   []extent.Extent
	pieces [][]byte
}

func (l load) len() int64 { return extent.Total(l.exts) }

// before is the part of l before off.
func (l load) before(off int64) load {
	if n := len(l.exts); n == 0 || l.exts[n-1].End() <= off {
		return l
	}
	e := extent.Extent{Len: off}
	out := load{pieces: clip(nil, l.exts, l.pieces, e)}
	for _, x := range l.exts {
		if part := x.Intersect(e); !part.Empty() {
			out.exts = append(out.exts, part)
		}
	}
	return out
}

// loadsOf divides v into loads of at most so many extents.
func loadsOf(v *cache.View, most int) (out []load) {
	if len(v.Extents()) == 1 {
		return []load{{v.Extents(), v.Slices()}}
	}
	runs, pieces := runsOf(v), v.Slices()
	for exts := v.Extents(); len(exts) > 0; {
		k := min(len(exts), most)
		n := 0
		for _, r := range runs[:k] {
			n += len(r.pieces)
		}
		out = append(out, load{exts[:k:k], pieces[:n:n]})
		exts, runs, pieces = exts[k:], runs[k:], pieces[n:]
	}
	return out
}

// byExtent calls f for each of exts with its pieces; those at the end may have
// fewer, or none.
func byExtent(exts []extent.Extent, pieces [][]byte, f func(off int64, pieces [][]byte)) {
	if len(exts) == 1 {
		f(exts[0].Off, pieces)
		return
	}
	var mine [][]byte
	used := 0 // of pieces[0]
	for _, e := range exts {
		mine = mine[:0]
		for rest := e.Len; rest > 0 && len(pieces) > 0; {
			p := pieces[0][used:]
			if int64(len(p)) <= rest {
				pieces, used = pieces[1:], 0
			} else {
				p = p[:rest]
				used += len(p)
			}
			mine, rest = append(mine, p), rest-int64(len(p))
		}
		if len(mine) > 0 {
			f(e.Off, mine)
		}
	}
}

// clip appends to dst what pieces, which are the bytes of exts, have of e.
func clip(dst [][]byte, exts []extent.Extent, pieces [][]byte, e extent.Extent) [][]byte {
	byExtent(exts, pieces, func(at int64, pieces [][]byte) {
		for _, p := range pieces {
			here := extent.Extent{Off: at, Len: int64(len(p))}
			if in := here.Intersect(e); !in.Empty() {
				dst = append(dst, p[in.Off-at:][:in.Len])
			}
			at += here.Len
		}
	})
	return dst
}

// zeros is what holes read as.
var zeros = make([]byte, 64<<10)

// appendZeros appends n zero bytes to dst.
func appendZeros(dst [][]byte, n int64) [][]byte {
	for ; n > 0; n -= int64(len(zeros)) {
		dst = append(dst, zeros[:min(n, int64(len(zeros)))])
	}
	return dst
}
