package sim

import (
	"slices"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// held is what a node or an I/O node knows of a file, and what it is fetching.
type held struct {
	known, flying spans
	waits         []wait
}

// wait is for bytes that are being fetched.
type wait struct {
	exts []extent.Extent
	hull extent.Extent
	do   func()
}

// has reports whether all of exts is known.
func (h *held) has(exts []extent.Extent) bool { return len(h.known.missingOf(exts)) == 0 }

// take is what of exts is neither known nor being fetched. It is from now on.
func (h *held) take(exts []extent.Extent) []extent.Extent {
	out := h.flying.missingOf(h.known.missingOf(exts))
	for _, e := range out {
		h.flying.add(e)
	}
	return out
}

// landed says that what take has returned is there. It returns whom that lets go on.
func (h *held) landed(exts []extent.Extent) (do []func()) {
	for _, e := range exts {
		h.flying.remove(e)
		h.known.add(e)
	}
	hull := extent.Hull(exts)
	h.waits = slices.DeleteFunc(h.waits, func(w wait) bool {
		if !w.hull.Overlaps(hull) || !h.has(w.exts) {
			return false
		}
		do = append(do, w.do)
		return true
	})
	return do
}

// when has do run when all of exts, which is known or being fetched, is known.
func (h *held) when(exts []extent.Extent, do func()) {
	if h.has(exts) {
		do()
		return
	}
	h.waits = append(h.waits, wait{exts, extent.Hull(exts), do})
}
