package cache

import (
	"slices"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// flight is what the file remembers of a view that was taken.
type flight struct {
	f    *File
	left set // bytes of the view that were not discarded since
}

// Take returns a snapshot of dirty bytes of ext for the caller to write below,
// at most so many: whole runs of dirty bytes, the lowest first. Only a
// single run longer than that is cut, at the end of a block if it has one there.
// Until Done the bytes are flying: not dirty, but not dropped either. Bytes
// that are flying already are not taken, even if they were written again or
// discarded, so that two versions of a byte never overtake each other. Take
// returns nil if there is nothing to take. It needs no RangeLock: writers that
// hold one may be waiting for the room it makes.
func (f *File) Take(ext extent.Extent, most int64) *View {
	f.mu.Lock()
	defer f.mu.Unlock()
	runs := f.runsLocked(ext, most)
	if len(runs) == 0 {
		return nil
	}
	n := 0
	for _, e := range runs {
		n += f.store.blocksOf(e)
	}
	v := f.store.newView(n)
	for _, e := range runs {
		f.air.add(e)
		for rest := e; rest.Len > 0; {
			part := f.store.part(rest)
			rest.Off, rest.Len = rest.Off+part.Len, rest.Len-part.Len
			b := f.blocks[part.Off/f.store.size]
			if len(b.flying) == 0 {
				b.flown = b.written
			} else {
				b.flown = earlier(b.flown, b.written)
			}
			b.dirty.remove(part)
			b.flying.add(part)
			f.showLocked(v, b, part)
		}
	}
	v.flight = &flight{f: f, left: slices.Clone(runs)}
	f.flights = append(f.flights, v.flight)
	return v
}

// runsLocked chooses what Take takes.
func (f *File) runsLocked(ext extent.Extent, most int64) (runs []extent.Extent) {
	total := int64(0)
	var parts, free []extent.Extent
	if most <= 0 {
		return nil
	}
	for _, b := range f.unclean[f.uncleanIndexLocked(ext.Off/f.store.size):] {
		if b.index*f.store.size >= ext.End() || total > most {
			break
		}
		parts = b.dirty.within(parts[:0], ext)
		for _, p := range parts {
			free = f.air.gaps(free[:0], p)
			for _, e := range free {
				runs = link(runs, e)
				total += e.Len
			}
		}
	}
	for total > most && len(runs) > 1 {
		total -= runs[len(runs)-1].Len
		runs = runs[:len(runs)-1]
	}
	if total > most {
		e := &runs[0]
		cut := e.Off + most
		if edge := cut - cut%f.store.size; edge > e.Off {
			cut = edge
		}
		e.Len = cut - e.Off
	}
	return runs
}

// Done ends the flight of a view that Take returned, once. If ok, its bytes are
// clean, but for those that were written again; else they are dirty again, but
// for those that were discarded. The view is still to be released.
func (f *File) Done(v *View, ok bool) {
	if v.flight == nil || v.flight.f != f {
		panic("cache: Done of a view that does not fly here")
	}
	f.mu.Lock()
	for _, e := range v.exts {
		f.air.remove(e)
	}
	f.flights = slices.DeleteFunc(f.flights, func(x *flight) bool { return x == v.flight })
	for _, e := range v.flight.left {
		f.walkLocked(e, func(b *block, part extent.Extent) { f.landedLocked(b, part, ok) })
	}
	v.flight = nil
	f.mu.Unlock()
	f.store.settle()
}

// landedLocked ends the flight of part of b.
func (f *File) landedLocked(b *block, part extent.Extent, ok bool) {
	if !ok {
		b.written = b.oldest()
		f.countLocked(b.dirty.add(part))
	}
	f.countLocked(-b.flying.remove(part))
	if f.washedLocked(b) {
		f.cleanedLocked(b)
	}
}
