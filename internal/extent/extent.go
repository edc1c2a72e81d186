// Package extent is the arithmetic of byte ranges of one file.
//
// It is pure: no I/O, no goroutine, no lock. Offsets and lengths are int64
// bytes; an end beyond the largest int64 saturates there.
package extent

import (
	"cmp"
	"math"
	"slices"
)

// Extent is the half-open byte range [Off, Off+Len) of one file. Both fields
// are in bytes and never negative; an Extent with Len 0 is empty.
type Extent struct{ Off, Len int64 }

// ToEnd is the extent from off to the largest offset a file can have.
func ToEnd(off int64) Extent { return Extent{off, math.MaxInt64 - off} }

// End is the first byte behind e, saturated at math.MaxInt64.
func (e Extent) End() int64 {
	if e.Len > math.MaxInt64-e.Off {
		return math.MaxInt64
	}
	return e.Off + e.Len
}

// Empty reports whether e holds no byte.
func (e Extent) Empty() bool { return e.Len <= 0 }

// Overlaps reports whether e and o share a byte.
func (e Extent) Overlaps(o Extent) bool {
	return !e.Empty() && !o.Empty() && e.Off < o.End() && o.Off < e.End()
}

// Intersect is the bytes that e and o share; empty, with Off 0, if none.
func (e Extent) Intersect(o Extent) Extent {
	if !e.Overlaps(o) {
		return Extent{}
	}
	off, end := max(e.Off, o.Off), min(e.End(), o.End())
	return Extent{off, end - off}
}

// Contains reports whether every byte of o is in e. An empty o is in any e.
func (e Extent) Contains(o Extent) bool {
	return o.Empty() || (e.Off <= o.Off && o.End() <= e.End())
}

// Hull is the extent from the first to the last of exts, which are sorted and not
// none.
func Hull(exts []Extent) Extent {
	return Extent{exts[0].Off, exts[len(exts)-1].End() - exts[0].Off}
}

// Total is the sum of the lengths in bytes; bytes named twice count twice.
func Total(exts []Extent) int64 {
	var n int64
	for _, e := range exts {
		n += e.Len
	}
	return n
}

// Normalize returns the union of exts as a new slice sorted by Off in which
// no two extents overlap or touch and none is empty.
func Normalize(exts []Extent) []Extent {
	out := make([]Extent, 0, len(exts))
	for _, e := range exts {
		if !e.Empty() {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b Extent) int { return cmp.Compare(a.Off, b.Off) })
	n := 0
	for _, e := range out {
		if n > 0 && e.Off <= out[n-1].End() {
			out[n-1].Len = max(out[n-1].End(), e.End()) - out[n-1].Off
			continue
		}
		out[n] = e
		n++
	}
	return out[:n]
}

// Subtract returns the bytes of exts that are not in others. Both are sorted and
// none touch, and so is the result.
func Subtract(exts, others []Extent) (out []Extent) {
	for _, e := range exts {
		for len(others) > 0 && others[0].End() <= e.Off {
			others = others[1:]
		}
		for _, o := range others {
			if o.Off >= e.End() {
				break
			}
			if o.Off > e.Off {
				out = append(out, Extent{e.Off, o.Off - e.Off})
			}
			e = Extent{o.End(), max(e.End()-o.End(), 0)}
		}
		if !e.Empty() {
			out = append(out, e)
		}
	}
	return out
}

// Meet reports whether a byte is in one of a and in one of b. Both are sorted.
func Meet(a, b []Extent) bool {
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0].Overlaps(b[0]):
			return true
		case a[0].End() <= b[0].End():
			a = a[1:]
		default:
			b = b[1:]
		}
	}
	return false
}

// AheadTo is where ends what is read ahead of a sequence that has come to end: window
// bytes further, or up to the next multiple of unit if window is as large. 0 is no unit.
func AheadTo(end, window, unit int64) int64 {
	front := end + min(window, math.MaxInt64-end)
	if unit > 0 && window >= unit && front <= math.MaxInt64-unit {
		front = (front + unit - 1) / unit * unit
	}
	return front
}
