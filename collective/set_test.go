package collective

import "github.com/zoidfs/zoidfs/internal/extent"

// set is the dumbest set of bytes: extents, sorted, none touch.
type set []extent.Extent

func (s *set) add(e extent.Extent) { *s = extent.Normalize(append(*s, e)) }

func (s *set) remove(e extent.Extent) { *s = extent.Subtract(*s, []extent.Extent{e}) }

// gaps appends what of e is not in the set.
func (s set) gaps(dst []extent.Extent, e extent.Extent) []extent.Extent {
	return append(dst, extent.Subtract([]extent.Extent{e}, s)...)
}

func (s set) end() int64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].End()
}
