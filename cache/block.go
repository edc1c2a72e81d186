package cache

import (
	"sync/atomic"
	"time"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// block is one piece of the slab. Its holders are counted: the file whose table
// it is in, and each view that has a piece of it. Without holders it is free.
//
// The fields below owner are guarded by the mu of the file that owns the block;
// if none does, they belong to the one who took the block from the free list.
type block struct {
	mem   []byte // immutable
	refs  atomic.Int32
	clean atomic.Bool // in a table, nothing dirty or flying: a hint without the lock

	owner atomic.Pointer[File] // changed with the owner's mu held

	index   int64     // of the block in the file
	row     *row      // that it is in
	valid   set       // bytes whose content is known
	dirty   set       // bytes of valid that are to be written below
	flying  set       // bytes of valid that were taken and not discarded since
	seen    set       // bytes that views may see, if there are views
	written time.Time // of the oldest dirty byte
	flown   time.Time // the same of the oldest flying one
	touched bool      // read or fetched since the hand came by
}

// unclean reports whether b holds what must not be lost.
func (b *block) unclean() bool { return len(b.dirty)+len(b.flying) > 0 }

// covered reports whether a view may see a byte of e.
func (b *block) covered(e extent.Extent) bool {
	if b.refs.Load() == 1 {
		b.seen.clear()
		return false
	}
	return b.seen.overlaps(e)
}

// maxSeen bounds seen, which may say too much but not too little.
const maxSeen = 64

// show notes that a view sees e.
func (b *block) show(e extent.Extent) {
	if b.refs.Add(1) == 2 {
		b.seen.clear()
	}
	b.seen.add(e)
	if len(b.seen) > maxSeen {
		b.seen = append(b.seen[:0], extent.Extent{Off: b.seen[0].Off, Len: b.seen.end() - b.seen[0].Off})
	}
}

// bytes is the memory of e, a part of the file's block that b is.
func (b *block) bytes(e extent.Extent) []byte {
	off := e.Off - b.index*int64(len(b.mem))
	return b.mem[off : off+e.Len : off+e.Len]
}
