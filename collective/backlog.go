package collective

import (
	"cmp"
	"slices"
	"time"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// Part is a file domain that has unstable bytes.
type Part struct {
	extent.Extent
	Dirty int64     // how many bytes are unstable, at least one
	Since time.Time // when the oldest of them was written
}

// Whole reports whether all bytes of the domain are unstable.
func (p Part) Whole() bool { return p.Dirty == p.Len }

// Backlog is the domains of a file that have unstable bytes which are not being
// written back, in order. It decides which of them are written next. A domain
// that has been written whole costs the servers least, as it is written once; one
// that has not is left to the ranks that may be about to complete it, until
// memory or time ask for it.
type Backlog []Part

// Full takes the first domains that are whole, up to most bytes, if there are least.
func (b Backlog) Full(least, most int64) (out []extent.Extent) {
	total := int64(0)
	for _, p := range b {
		if p.Whole() && total < most {
			out = append(out, p.Extent)
			total += p.Dirty
		}
	}
	if total < least {
		return nil
	}
	return out
}

// Old takes the domains whose oldest byte was not written after due. If there
// are any, those go along that are whole, or that would soon be next.
func (b Backlog) Old(due, along time.Time) (out []extent.Extent) {
	if !slices.ContainsFunc(b, func(p Part) bool { return !p.Since.After(due) }) {
		return nil
	}
	for _, p := range b {
		if p.Whole() || !p.Since.After(along) {
			out = append(out, p.Extent)
		}
	}
	return out
}

// Half takes half of all the bytes there are, by file: whole domains, then
// others, the oldest first.
func Half(files []Backlog) [][]extent.Extent {
	type choice struct {
		file int
		Part
	}
	var all []choice
	total := int64(0)
	for i, b := range files {
		for _, p := range b {
			all = append(all, choice{i, p})
			total += p.Dirty
		}
	}
	slices.SortStableFunc(all, func(a, b choice) int {
		switch {
		case a.Whole() == b.Whole():
			return a.Since.Compare(b.Since)
		case a.Whole():
			return -1
		}
		return 1
	})
	out := make([][]extent.Extent, len(files))
	rest := (total + 1) / 2
	for _, c := range all {
		if rest <= 0 {
			break
		}
		rest -= c.Dirty
		out[c.file] = append(out[c.file], c.Extent)
	}
	for _, exts := range out {
		slices.SortFunc(exts, func(a, b extent.Extent) int { return cmp.Compare(a.Off, b.Off) })
	}
	return out
}
