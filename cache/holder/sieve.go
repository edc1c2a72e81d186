package holder

import "github.com/zoidfs/zoidfs/internal/extent"

// glances is the extents that were read last through a handle that may write.
//
// MPI libraries read a window, change some of it and write all of it back:
// data sieving, and two-phase writes with holes. Bytes that they were not asked
// to change then look like written ones, and must not be kept back: another
// node that writes them meanwhile would lose its own when they are published.
// So what overlaps a glance is published at once, in every mode.
//
// Source: Thakur, Gropp and Lusk, "Data Sieving and Collective I/O in ROMIO",
// Frontiers '99, sections 3 and 4.
type glances struct {
	exts [8]extent.Extent
	next int
}

func (g *glances) add(e extent.Extent) {
	g.exts[g.next%len(g.exts)] = e
	g.next++
}

func (g *glances) overlap(e extent.Extent) bool {
	for _, x := range g.exts {
		if x.Overlaps(e) {
			return true
		}
	}
	return false
}

// glanced takes note of a read.
func (h *Handle) glanced(e extent.Extent) {
	if !h.mayWrite || !h.mode.holds() {
		return
	}
	h.streamMu.Lock()
	defer h.streamMu.Unlock()
	h.seenLast.add(e)
}

// sieves reports whether a write may bring back bytes that were read only.
func (h *Handle) sieves(e extent.Extent) bool {
	if !h.mode.holds() {
		return false
	}
	h.streamMu.Lock()
	defer h.streamMu.Unlock()
	return h.seenLast.overlap(e)
}
