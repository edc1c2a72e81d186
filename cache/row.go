package cache

import (
	"maps"
	"math"
	"slices"

	"github.com/zoidfs/zoidfs/internal/extent"
)

const (
	maxRow  = 16  // how many blocks a row has at most
	minRows = 512 // how many rows a store has room for at least, if it has as many blocks
)

// rowOf is how many blocks a row has where there is room for n blocks: a power of
// two.
func rowOf(n int) int64 {
	row := 1
	for row < maxRow && n/(2*row) >= minRows {
		row *= 2
	}
	return int64(row)
}

// row is neighbouring blocks of a file, those of one aligned stretch. What is clean
// in it stays or goes together.
type row struct {
	file  *File // immutable
	index int64 // immutable; of the row in the file

	// guarded by file.mu
	blocks  [maxRow]*block
	n       int    // of blocks that are there
	counted uint32 // Store.turn when ristretto heard of a read last

	// guarded by Store.mu
	clean         int // blocks that are clean
	place         place
	before, after *row   // neighbours in Store.recent
	gen           uint32 // counts how often it was left to ristretto
}

// place is who says whether the clean blocks of a row stay.
type place uint8

const (
	nowhere place = iota // there are none
	recent               // Store.recent
	between              // nobody: it is on its way from recent to ristretto, or out
	policed              // ristretto
)

// extent is what the row covers, as far as offsets reach.
func (r *row) extent() extent.Extent {
	span := r.file.store.span()
	off := r.index * span
	return extent.Extent{Off: off, Len: min(span, math.MaxInt64-off)}
}

// span is how many bytes a row covers.
func (s *Store) span() int64 { return s.size * s.perRow }

// blockLocked is block index, nil if there is none.
func (f *File) blockLocked(index int64) *block {
	if r := f.rows[index/f.store.perRow]; r != nil {
		return r.blocks[index%f.store.perRow]
	}
	return nil
}

// adoptLocked makes b the file's block index, which it has not, or is about to be
// detached. One holding of b becomes the file's.
func (f *File) adoptLocked(b *block, index int64) {
	at := index / f.store.perRow
	r := f.rows[at]
	if r == nil {
		r = &row{file: f, index: at}
		f.rows[at] = r
	}
	slot := &r.blocks[index%f.store.perRow]
	if *slot == nil {
		r.n++
	}
	*slot = b
	b.index, b.row, b.touched = index, r, false
	b.owner.Store(f)
}

// detachLocked drops b, which is neither clean nor unclean any more.
func (f *File) detachLocked(b *block) {
	r := b.row
	if slot := &r.blocks[b.index%f.store.perRow]; *slot == b {
		*slot = nil
		if r.n--; r.n == 0 {
			delete(f.rows, r.index)
		}
	}
	b.valid.clear()
	b.row = nil
	b.owner.Store(nil)
	one := [1]*block{b}
	f.store.unref(one[:])
}

// walkLocked calls fn for e, block by block in order; b is nil for parts that
// no block of the file has, which may be long. fn may drop b from the file.
func (f *File) walkLocked(e extent.Extent, fn func(b *block, part extent.Extent)) {
	span := f.store.span()
	if e.Empty() {
		return
	}
	if n := (e.End()-1)/span - e.Off/span; n <= int64(len(f.rows)) {
		for e.Len > 0 {
			part := extent.Extent{Off: e.Off, Len: min(e.Len, span-e.Off%span)}
			f.rows[e.Off/span].walk(f.store, part, fn)
			e.Off, e.Len = e.Off+part.Len, e.Len-part.Len
		}
		return
	}
	for _, i := range slices.Sorted(maps.Keys(f.rows)) {
		r := f.rows[i]
		part := r.extent().Intersect(e)
		if part.Empty() {
			continue
		}
		if part.Off > e.Off {
			fn(nil, extent.Extent{Off: e.Off, Len: part.Off - e.Off})
		}
		r.walk(f.store, part, fn)
		e = extent.Extent{Off: part.End(), Len: e.End() - part.End()}
	}
	if e.Len > 0 {
		fn(nil, e)
	}
}

// walk is walkLocked of a part of the row.
func (r *row) walk(s *Store, e extent.Extent, fn func(b *block, part extent.Extent)) {
	if r == nil {
		fn(nil, e)
		return
	}
	for e.Len > 0 {
		part := s.part(e)
		fn(r.blocks[part.Off/s.size%s.perRow], part)
		e.Off, e.Len = e.Off+part.Len, e.Len-part.Len
	}
}

// queue is rows, first in first out. The zero value is empty.
type queue struct{ first, last *row }

func (q *queue) push(r *row) {
	r.before, r.after = q.last, nil
	if q.last == nil {
		q.first = r
	} else {
		q.last.after = r
	}
	q.last = r
}

// remove takes r, which is in it, out.
func (q *queue) remove(r *row) {
	if r.before == nil {
		q.first = r.after
	} else {
		r.before.after = r.after
	}
	if r.after == nil {
		q.last = r.before
	} else {
		r.after.before = r.before
	}
	r.before, r.after = nil, nil
}
