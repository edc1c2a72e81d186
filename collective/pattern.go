package collective

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// RegionSize is the size in bytes of the parts of a file of which a Pattern
// learns how much of them is used.
const RegionSize int64 = 1 << 20

const (
	maxSequences = 256 // readers or writers of a file that are told apart
	maxRegions   = 128 // parts of a file that are being used
	regionAge    = 256 // accesses without one of a region, after which it is done with
	granules     = 64  // of a region
)

// Pattern recognises how all who read a file (or all who write it: one Pattern
// each) use it together. It is given every access, with a number that tells
// readers apart, such as the rank or the open file. The zero value is ready. It
// is not safe for concurrent use.
type Pattern struct {
	sequences recent[uint64, sequence]
	regions   recent[int64, region] // by index; Add forgets them
	full      int                   // of the regions, how many were used thoroughly
	seen      int
	used      ratio // of the regions that are done with
}

// region is a part of a file.
type region struct {
	n       int    // accesses
	bytes   int64  // of all of them, also if they overlap
	touched uint64 // a bit a granule
	last    int    // Pattern.seen at its last access
}

// ratio is the exponentially weighted mean of shares.
type ratio struct {
	mean float64
	n    int
}

func (r *ratio) add(x float64) {
	r.n = min(r.n+1, averageOver)
	r.mean += (x - r.mean) / float64(r.n)
}

// Add takes note of an access.
func (p *Pattern) Add(who uint64, e extent.Extent) {
	if e.Empty() {
		return
	}
	p.seen++
	p.sequences.limit(maxSequences).get(who).add(e)
	last := (e.End() - 1) / RegionSize
	for i := max(e.Off/RegionSize, last-maxRegions+1); i <= last; i++ { // of a huge access the end says enough
		p.touch(i, e.Intersect(extent.Extent{Off: i * RegionSize, Len: RegionSize}))
	}
	for e := p.regions.order.Back(); e != nil; e = p.regions.order.Back() {
		r := e.Value.(*named[int64, region])
		if p.regions.order.Len() <= maxRegions && p.seen-r.value.last < regionAge {
			break
		}
		p.used.add(r.value.used())
		if r.value.full() {
			p.full--
		}
		p.regions.remove(r.name)
	}
}

func (p *Pattern) touch(index int64, e extent.Extent) {
	r := p.regions.limit(2 * maxRegions).get(index)
	was := r.full()
	r.last = p.seen
	r.n++
	r.bytes += e.Len
	const size = RegionSize / granules
	first, last := e.Off%RegionSize/size, (e.Off%RegionSize+e.Len-1)/size
	r.touched |= ^uint64(0) << first & (^uint64(0) >> (granules - 1 - last))
	if !was && r.full() {
		p.full++
	}
}

// used is which share of the region was used, at most.
func (r *region) used() float64 {
	return min(float64(bits.OnesCount64(r.touched))/granules, float64(r.bytes)/float64(RegionSize))
}

// full reports whether nearly all of the region was used.
func (r *region) full() bool { return r.used() >= fullUse }

// Use is which share of the bytes around the next access will be used soon, by
// whoever: what the sequences promise together, or what was used of other
// parts of the file, whichever is more. 0 if nothing is known.
func (p *Pattern) Use() float64 {
	return max(p.promised(), p.used.mean)
}

// promised is which share of the file the sequences use together where they
// are going, by their forms.
func (p *Pattern) promised() float64 {
	for e := p.sequences.order.Front(); e != nil; e = e.Next() {
		if e.Value.(*named[uint64, sequence]).value.form() == Sequential {
			return 1
		}
	}
	return p.periodic(1, 0)
}

// periodic is which share of the file those sequences use together that repeat
// with the same period, if they are at least so many and it may be so much or more.
func (p *Pattern) periodic(least int, more float64) float64 {
	if !p.mayRepeat(least, more) {
		return 0
	}
	var dense float64
	byPeriod := map[int64][]extent.Extent{}
	many := map[int64]int{}
	for e := p.sequences.order.Front(); e != nil; e = e.Next() {
		s := &e.Value.(*named[uint64, sequence]).value
		piece, period := s.cycle()
		if period == 0 {
			continue
		}
		off := s.last.Off % period
		if s.form() == Blocks {
			off = s.start % period
		}
		byPeriod[period] = append(byPeriod[period], wrap(off, piece, period)...)
		many[period]++
	}
	for period, exts := range byPeriod {
		if many[period] >= least {
			dense = max(dense, min(1, float64(extent.Total(extent.Normalize(exts)))/float64(period)))
		}
	}
	return dense
}

// mayRepeat reports whether so many sequences or more repeat with one period, and have
// together such a share of it if none overlap.
func (p *Pattern) mayRepeat(least int, more float64) bool {
	type sum struct {
		period, pieces int64
		n              int
	}
	var room [8]sum
	sums := room[:0]
	for e := p.sequences.order.Front(); e != nil; e = e.Next() {
		piece, period := e.Value.(*named[uint64, sequence]).value.cycle()
		if period == 0 {
			continue
		}
		i := slices.IndexFunc(sums, func(s sum) bool { return s.period == period })
		if i < 0 {
			i = len(sums)
			sums = append(sums, sum{period: period})
		}
		sums[i].pieces += piece
		sums[i].n++
	}
	return slices.ContainsFunc(sums, func(s sum) bool { return s.n >= least && float64(s.pieces) >= more*float64(s.period) })
}

// wrap is the extent [off, off+n) of a circle of period bytes.
func wrap(off, n, period int64) []extent.Extent {
	if n >= period {
		return []extent.Extent{{Off: 0, Len: period}}
	}
	if off+n <= period {
		return []extent.Extent{{Off: off, Len: n}}
	}
	return []extent.Extent{{Off: off, Len: period - off}, {Off: 0, Len: off + n - period}}
}

// Shape is how a file is used, for the journal and for people.
type Shape struct {
	Form   Form
	Who    int     // readers or writers seen
	Piece  int64   // bytes of one access of most of them
	Period int64   // bytes from one of its pieces to the next; 0 if there is no such distance
	Use    float64 // Pattern.Use
}

func (s Shape) String() string {
	text := fmt.Sprintf("%v by %d, pieces of %s", s.Form, s.Who, Bytes(s.Piece))
	if s.Period > 0 {
		text += fmt.Sprintf(" every %s", Bytes(s.Period))
	}
	return text + fmt.Sprintf(", %.0f%% used", 100*s.Use)
}

// Shape sums up what has been recognised: the form of most, and what it makes
// of the file if there are several.
func (p *Pattern) Shape() Shape {
	var n [len(forms)]int
	var some [len(forms)]*sequence
	for e := p.sequences.order.Back(); e != nil; e = e.Prev() {
		s := &e.Value.(*named[uint64, sequence]).value
		n[s.form()]++
		some[s.form()] = s
	}
	most := Form(slices.Index(n[:], slices.MaxFunc(n[:], cmp.Compare)))
	out := Shape{Form: most, Who: p.sequences.order.Len(), Use: p.Use()}
	if some[most] != nil {
		out.Piece, out.Period = some[most].cycle()
		if out.Period == 0 {
			out.Piece = some[most].last.Len
		}
	}
	switch {
	case n[most] < 2:
	case most == Sequential:
		out.Form = Segmented
	case most == Strided || most == Nested || most == Blocks:
		out.Form = Sparse
		if out.Use > 0.5 {
			out.Form = Interleaved
		}
	}
	return out
}
