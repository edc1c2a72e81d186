package sim

import (
	"slices"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// spans is a set of bytes: extents that are sorted and do not touch.
type spans []extent.Extent

// find is the index of the first extent that ends at or behind off.
func (s spans) find(off int64) int {
	i, _ := slices.BinarySearchFunc(s, off, func(e extent.Extent, off int64) int {
		if e.End() < off {
			return -1
		}
		return 1
	})
	return i
}

// add takes e in and returns by how many bytes the set has grown.
func (s *spans) add(e extent.Extent) int64 {
	if e.Empty() {
		return 0
	}
	from := s.find(e.Off)
	to, before := from, int64(0)
	for ; to < len(*s) && (*s)[to].Off <= e.End(); to++ {
		before += (*s)[to].Len
		end := max(e.End(), (*s)[to].End())
		e.Off = min(e.Off, (*s)[to].Off)
		e.Len = end - e.Off
	}
	*s = slices.Replace(*s, from, to, e)
	return e.Len - before
}

// missing returns what of e is not in the set.
func (s spans) missing(e extent.Extent) []extent.Extent {
	var out []extent.Extent
	for i := s.find(e.Off); i < len(s) && s[i].Off < e.End(); i++ {
		if gap := s[i].Off - e.Off; gap > 0 {
			out = append(out, extent.Extent{Off: e.Off, Len: gap})
		}
		if s[i].End() > e.Off {
			e = extent.Extent{Off: s[i].End(), Len: e.End() - s[i].End()}
		}
	}
	if !e.Empty() {
		out = append(out, e)
	}
	return out
}

// missingOf returns what of exts is not in the set.
func (s spans) missingOf(exts []extent.Extent) []extent.Extent {
	var out []extent.Extent
	for _, e := range exts {
		out = append(out, s.missing(e)...)
	}
	return out
}

// remove takes e, which is in the set, out.
func (s *spans) remove(e extent.Extent) {
	i := s.find(e.Off)
	if i < len(*s) && (*s)[i].End() == e.Off { // it only touches
		i++
	}
	all := (*s)[i]
	var rest []extent.Extent
	for _, r := range []extent.Extent{{Off: all.Off, Len: e.Off - all.Off}, {Off: e.End(), Len: all.End() - e.End()}} {
		if !r.Empty() {
			rest = append(rest, r)
		}
	}
	*s = slices.Replace(*s, i, i+1, rest...)
}

// place is a file domain.
type place struct {
	object uint64
	domain int64
}

// store is the bytes of file domains.
type store map[place]*spans

func (s store) of(p place) *spans {
	x := s[p]
	if x == nil {
		x = new(spans)
		s[p] = x
	}
	return x
}
