package cache

import "github.com/zoidfs/zoidfs/internal/extent"

// set is a set of bytes: extents sorted by Off, of which none touch and none
// is empty. Sets are small; their memory is reused.
type set []extent.Extent

// after is the index of the first extent that ends behind off.
func (s set) after(off int64) int {
	lo, hi := 0, len(s)
	for lo < hi {
		if mid := (lo + hi) / 2; s[mid].End() > off {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// add puts the bytes of e into the set and returns how many are new.
func (s *set) add(e extent.Extent) (added int64) {
	if e.Empty() {
		return 0
	}
	i := s.after(e.Off - 1) // the first that e touches or that lies behind e
	lo, hi, had, j := e.Off, e.End(), int64(0), i
	for ; j < len(*s) && (*s)[j].Off <= hi; j++ {
		lo, hi, had = min(lo, (*s)[j].Off), max(hi, (*s)[j].End()), had+(*s)[j].Len
	}
	s.replace(i, j, extent.Extent{Off: lo, Len: hi - lo})
	return hi - lo - had
}

// remove takes the bytes of e out of the set and returns how many there were.
func (s *set) remove(e extent.Extent) (removed int64) {
	if e.Empty() {
		return 0
	}
	i := s.after(e.Off)
	j := i
	var keep [2]extent.Extent
	n := 0
	for ; j < len(*s) && (*s)[j].Off < e.End(); j++ {
		x := (*s)[j]
		if x.Off < e.Off {
			keep[n] = extent.Extent{Off: x.Off, Len: e.Off - x.Off}
			n++
		}
		if x.End() > e.End() {
			keep[n] = extent.Extent{Off: e.End(), Len: x.End() - e.End()}
			n++
		}
		removed += x.Intersect(e).Len
	}
	s.replace(i, j, keep[:n]...)
	return removed
}

// replace puts with in the place of the extents from i to j.
func (s *set) replace(i, j int, with ...extent.Extent) {
	old := *s
	if grow := len(with) - (j - i); grow > 0 {
		for range grow {
			*s = append(*s, extent.Extent{})
		}
		copy((*s)[i+len(with):], old[j:])
	} else if grow < 0 {
		copy(old[i+len(with):], old[j:])
		*s = old[:len(old)+grow]
	}
	copy((*s)[i:], with)
}

// clear empties the set and keeps its memory.
func (s *set) clear() { *s = (*s)[:0] }

// overlaps reports whether a byte of e is in the set.
func (s set) overlaps(e extent.Extent) bool {
	i := s.after(e.Off)
	return i < len(s) && s[i].Overlaps(e)
}

// contains reports whether all bytes of e are in the set.
func (s set) contains(e extent.Extent) bool {
	i := s.after(e.Off)
	return e.Empty() || i < len(s) && s[i].Contains(e)
}

// within appends to dst the parts of e that are in the set, in order.
func (s set) within(dst []extent.Extent, e extent.Extent) []extent.Extent {
	if e.Empty() {
		return dst
	}
	for _, x := range s[s.after(e.Off):] {
		if x.Off >= e.End() {
			break
		}
		dst = append(dst, x.Intersect(e))
	}
	return dst
}

// gaps appends to dst the parts of e that are not in the set, in order.
func (s set) gaps(dst []extent.Extent, e extent.Extent) []extent.Extent {
	off := e.Off
	for _, x := range s[s.after(e.Off):] {
		if x.Off >= e.End() {
			break
		}
		if x.Off > off {
			dst = append(dst, extent.Extent{Off: off, Len: x.Off - off})
		}
		off = x.End()
	}
	if off < e.End() {
		dst = append(dst, extent.Extent{Off: off, Len: e.End() - off})
	}
	return dst
}

// end is where the last extent ends, 0 if there is none.
func (s set) end() int64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].End()
}

// link appends e to dst, as a part of the last extent if it touches that.
func link(dst []extent.Extent, e extent.Extent) []extent.Extent {
	if n := len(dst); n > 0 && dst[n-1].End() == e.Off {
		dst[n-1].Len += e.Len
		return dst
	}
	return append(dst, e)
}

// without appends to dst the parts of the set that are not in e, in order.
func (s set) without(dst []extent.Extent, e extent.Extent) []extent.Extent {
	if e.Empty() {
		return append(dst, s...)
	}
	for _, x := range s {
		if x.Off < e.Off {
			dst = append(dst, extent.Extent{Off: x.Off, Len: min(x.End(), e.Off) - x.Off})
		}
		if x.End() > e.End() {
			off := max(x.Off, e.End())
			dst = append(dst, extent.Extent{Off: off, Len: x.End() - off})
		}
	}
	return dst
}
