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

// chunkAt is the chunk of off: domains of that size are cut, from their start,
// into parts of maxChunk.
func chunkAt(off, size int64) extent.Extent {
	d := domainAt(off, size)
	start := d.Off + (off-d.Off)/maxChunk*maxChunk
	return extent.Extent{Off: start, Len: min(maxChunk, d.End()-start)}
}

// chunksOf calls f for each chunk that e touches, with the part of e in it.
func chunksOf(e extent.Extent, size int64, f func(chunk, part extent.Extent)) {
	for off := e.Off; off < e.End(); {
		c := chunkAt(off, size)
		part := c.Intersect(e)
		f(c, part)
		off = c.End()
	}
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

// clip appends to dst what pieces, which begin at the offset at, have of e.
func clip(dst [][]byte, at int64, pieces [][]byte, e extent.Extent) [][]byte {
	for _, p := range pieces {
		here := extent.Extent{Off: at, Len: int64(len(p))}
		if in := here.Intersect(e); !in.Empty() {
			dst = append(dst, p[in.Off-at:][:in.Len])
		}
		at += int64(len(p))
	}
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
