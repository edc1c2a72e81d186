package cache

import (
	"sync/atomic"

	"github.com/zoidfs/zoidfs/internal/buf"
	"github.com/zoidfs/zoidfs/internal/extent"
)

// View is an immutable snapshot of bytes of a file. Its holders are counted:
// who gets one calls Release exactly once, and Ref before giving it to another
// holder. The bytes never change until the last holder has released.
type View struct {
	refs   atomic.Int32
	store  *Store
	size   int
	exts   []extent.Extent // sorted, none touch
	mem    [][]byte        // the bytes of exts; no piece crosses the end of an extent
	blocks []*block        // what mem lies in, held once for each entry
	under  []*View         // other views that mem lies in
	heap   *buf.Buf        // memory that is no block's, or nil

	flies *File // of a view made by Take, until Done; else nil
	left  set   // guarded by flies.mu; its bytes that were not discarded since

	// memory of the slices of a view that has but one piece
	ext1   [1]extent.Extent
	left1  [1]extent.Extent
	mem1   [1][]byte
	block1 [1]*block
}

// wideView is a view with memory for the pieces of a MiB.
type wideView struct {
	View
	mem    [16][]byte
	blocks [16]*block
}

// newView returns an empty view with room for n pieces and one holder.
func (s *Store) newView(n int) *View {
	var v *View
	switch {
	case n <= 1:
		v = new(View)
		v.mem, v.blocks = v.mem1[:0], v.block1[:0]
	case n <= len(wideView{}.mem):
		w := new(wideView)
		v = &w.View
		v.mem, v.blocks = w.mem[:0], w.blocks[:0]
	default:
		v = &View{mem: make([][]byte, 0, n), blocks: make([]*block, 0, n)}
	}
	v.store, v.exts = s, v.ext1[:0]
	v.refs.Store(1)
	return v
}

// Len is the number of bytes.
func (v *View) Len() int { return v.size }

// Slices are the bytes, piece by piece, to be read only and not after Release.
func (v *View) Slices() [][]byte { return v.mem }

// Extents says what bytes these are: sorted, none touch, none is empty. The
// pieces of Slices follow one another in them, and none crosses from one extent
// to the next.
func (v *View) Extents() []extent.Extent { return v.exts }

// Ref adds a holder. The caller must be one.
func (v *View) Ref() {
	if v.refs.Add(1) <= 1 {
		panic("cache: Ref of a released view")
	}
}

// Release ends the caller's holding.
func (v *View) Release() {
	switch n := v.refs.Add(-1); {
	case n < 0:
		panic("cache: view released more often than held")
	case n > 0:
		return
	}
	v.store.unref(v.blocks)
	for _, u := range v.under {
		u.Release()
	}
	if v.heap != nil {
		v.heap.Release()
	}
	v.mem, v.blocks, v.under, v.heap = nil, nil, nil, nil
}

// CopyTo copies the bytes, one extent behind the other, and returns how many
// fit into p.
func (v *View) CopyTo(p []byte) int {
	n := 0
	for _, m := range v.mem {
		n += copy(p[n:], m)
	}
	return n
}

// append adds memory that v keeps alive by other means as its next bytes.
func (v *View) append(e extent.Extent, mem []byte) {
	v.exts = link(v.exts, e)
	v.mem = append(v.mem, mem)
	v.size += len(mem)
}

// appendZeros adds zeros from at to end.
func (v *View) appendZeros(at, end int64) {
	for zeros := v.store.zeros; at < end; {
		n := min(end-at, int64(len(zeros)))
		v.append(extent.Extent{Off: at, Len: n}, zeros[:n])
		at += n
	}
}

// showLocked adds bytes of a block of f.
func (f *File) showLocked(v *View, b *block, e extent.Extent) {
	b.show(e)
	v.blocks = append(v.blocks, b)
	v.append(e, b.bytes(e))
}

// each calls fn for each piece.
func (v *View) each(fn func(e extent.Extent, mem []byte)) {
	i := 0
	for _, e := range v.exts {
		for off := e.Off; off < e.End(); i++ {
			n := int64(len(v.mem[i]))
			fn(extent.Extent{Off: off, Len: n}, v.mem[i])
			off += n
		}
	}
}
