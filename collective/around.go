package collective

import (
	"math/bits"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// What makes it pay to fetch a whole region for who asks for a piece of it.
const (
	denseUse    = 0.4            // of it is used; of the rest most is never fetched
	densePieces = 8              // of one region in which it begins
	denseSpan   = 4              // granules that these lie in
	smallPiece  = RegionSize / 4 // what is longer than that is a good request as it is
	fullUse     = 0.75           // of a region is nearly all
	fullRegions = 2              // that were used nearly all promise that others will be
)

// Dense reports whether e is a small piece of a part of the file that readers
// use together so thoroughly that it pays to fetch all of the region: several
// have forms that leave few holes between them, or the accesses of that region
// so far lie close to each other, or most of the region before or behind it was
// used. The latter say nothing of who used it, so that readers whose order
// nobody can make out gain as well; one who reads here and there never leaves
// behind a region that is dense.
func (p *Pattern) Dense(e extent.Extent) bool {
	if e.Empty() || e.Len > smallPiece {
		return false
	}
	if p.periodic(2, denseUse) >= denseUse {
		return true
	}
	at := e.Off / RegionSize
	if r := p.regions.look(at); r != nil && r.n >= densePieces && r.compact() {
		return true
	}
	for _, i := range [...]int64{at - 1, at + 1} {
		if r := p.regions.look(i); r != nil && r.n >= densePieces && r.used() >= denseUse {
			return true
		}
	}
	return p.thorough(at)
}

// thorough reports whether a region is as good as sure to be used nearly all because
// others were, wherever they lie: besides it, those in which that is not so, or not yet,
// are no more than twice as many and two, as readers are at several places at a time.
func (p *Pattern) thorough(region int64) bool {
	others := p.regions.order.Len() - p.full
	if r := p.regions.look(region); r != nil && !r.full() {
		others--
	}
	return p.full >= fullRegions && others <= 2*p.full+2
}

// compact reports whether what was used of the region lies close together.
func (r *region) compact() bool {
	const size = RegionSize / granules
	n := bits.OnesCount64(r.touched)
	if n < denseSpan {
		return false
	}
	span := bits.Len64(r.touched) - bits.TrailingZeros64(r.touched)
	return float64(min(r.bytes, int64(n)*size)) >= denseUse*float64(int64(span)*size)
}

// maxAhead bounds how many accesses of one sequence are foreseen.
const maxAhead = 256

// Ahead is what all sequences will read of e, as far as their next accesses can be
// foreseen: sorted, none touch.
func (p *Pattern) Ahead(e extent.Extent) []extent.Extent {
	var out []extent.Extent
	for at := p.sequences.order.Front(); at != nil; at = at.Next() {
		s := &at.Value.(*named[uint64, sequence]).value
		up := s.step() > 0 && (s.runs == 0 || s.outer > 0)
		s.each(maxAhead, func(x extent.Extent) bool {
			if both := x.Intersect(e); !both.Empty() {
				out = append(out, both)
			}
			return !up || x.Off < e.End()
		})
	}
	return extent.Normalize(out)
}

// Forget says that a reader will read no more.
func (p *Pattern) Forget(who uint64) { p.sequences.remove(who) }
