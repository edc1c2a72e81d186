package cache

import (
	"slices"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// Take is TakeFrom of one extent.
func (f *File) Take(ext extent.Extent, most int64) *View {
	return f.TakeFrom([]extent.Extent{ext}, most)
}

// TakeFrom returns a snapshot of dirty bytes of exts, which are sorted and do
// not overlap, for the caller to write below: at most so many, the lowest first.
// Where that cuts a run of dirty bytes, it does so at the end of a block, unless
// there would be nothing left to take. Until Done the bytes are flying: not
// dirty, but not dropped either. Bytes that are flying already are not taken,
// even if they were written again or discarded, so that two versions of a byte
// never overtake each other. TakeFrom returns nil if there is nothing to take.
// It needs no RangeLock: writers that hold one may be waiting for the room it
// makes.
func (f *File) TakeFrom(exts []extent.Extent, most int64) *View {
	f.mu.Lock()
	defer f.mu.Unlock()
	var few [4]extent.Extent
	runs, total := few[:0], int64(0)
	for _, e := range exts {
		runs, total = f.runsLocked(runs, total, e, most)
	}
	if runs = f.store.cut(runs, total-most); len(runs) == 0 {
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
			b := f.blockLocked(part.Off / f.store.size)
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
	v.flies, v.left = f, append(v.left1[:0], runs...)
	f.flights = append(f.flights, v)
	return v
}

// runsLocked appends to runs, which have total bytes, what TakeFrom may take of
// ext, until there is more than most.
func (f *File) runsLocked(runs []extent.Extent, total int64, ext extent.Extent, most int64) ([]extent.Extent, int64) {
	var few, fewer [4]extent.Extent
	parts, free := few[:0], fewer[:0]
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
	return runs, total
}

// cut takes at least the last n bytes off runs; more, so that the last run ends
// where a block does, if that leaves something.
func (s *Store) cut(runs []extent.Extent, n int64) []extent.Extent {
	if n <= 0 {
		return runs
	}
	for len(runs) > 0 && runs[len(runs)-1].Len <= n {
		n -= runs[len(runs)-1].Len
		runs = runs[:len(runs)-1]
	}
	if len(runs) == 0 {
		return nil
	}
	last := &runs[len(runs)-1]
	end := last.End() - n
	switch edge := end - end%s.size; {
	case n == 0:
	case edge > last.Off:
		last.Len = edge - last.Off
	case len(runs) > 1:
		runs = runs[:len(runs)-1]
	default:
		last.Len = end - last.Off
	}
	return runs
}

// Done ends the flight of a view that Take returned, once. If ok, its bytes are
// clean, but for those that were written again; else they are dirty again, but
// for those that were discarded. The view is still to be released.
func (f *File) Done(v *View, ok bool) {
	if v.flies != f {
		panic("cache: Done of a view that does not fly here")
	}
	f.mu.Lock()
	for _, e := range v.exts {
		f.air.remove(e)
	}
	f.flights = slices.DeleteFunc(f.flights, func(x *View) bool { return x == v })
	if ok {
		f.grown++
	}
	for _, e := range v.left {
		f.walkLocked(e, func(b *block, part extent.Extent) { f.landedLocked(b, part, ok) })
	}
	v.flies, v.left = nil, nil
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
