package rpc

import (
	"slices"
	"sync/atomic"
	"unsafe"

	"google.golang.org/grpc/mem"

	"github.com/zoidfs/zoidfs/internal/buf"
)

// Data is a payload: bytes in one or more pieces of counted memory. The zero
// value is empty. A Data has one holder, who calls Release exactly once; Ref
// makes another. Copies of a Data value share the one hold.
type Data struct {
	bufs mem.BufferSlice
	lend bool // to be sent from where it is; see link
}

// Static is a payload of garbage-collected memory that never changes again.
func Static(p []byte) Data {
	if len(p) == 0 {
		return Data{}
	}
	return Data{bufs: mem.BufferSlice{mem.SliceBuffer(p)}, lend: true}
}

// Pooled is the payload b; the caller's reference to b goes with it.
func Pooled(b *buf.Buf) Data {
	if b.Len() == 0 {
		b.Release()
		return Data{}
	}
	return Data{bufs: mem.BufferSlice{(&hold{mem: b.Bytes(), letGo: b.Release}).buffer()}, lend: true}
}

// Lent is a payload of memory in several places that does not change until
// letGo is called, once, at the end of the last hold.
func Lent(pieces [][]byte, letGo func()) Data { return lent(pieces, nil, letGo) }

// lent is the payload of pieces that stay where they are, on their way over l
// if it is not nil. letGo is called when nobody has any of them any more.
func lent(pieces [][]byte, l *link, letGo func()) (d Data) {
	out := new(atomic.Int64) // how many are still lent, and 1 while this runs
	out.Store(1)
	end := func() {
		if out.Add(-1) == 0 {
			letGo()
		}
	}
	d.bufs = make(mem.BufferSlice, 0, len(pieces))
	holds := make([]hold, len(pieces)) // at once: there may be many
	for i, p := range pieces {
		if len(p) > 0 {
			out.Add(1)
			h := &holds[i]
			h.mem, h.letGo, h.link = p, end, l
			d.bufs = append(d.bufs, h.buffer())
		}
	}
	d.lend = l == nil
	end()
	return d
}

// Len is the number of bytes.
func (d Data) Len() int { return d.bufs.Len() }

// Append adds the pieces, in order, to dst. Nobody may write to them, and
// they are valid until the caller's hold is released.
func (d Data) Append(dst [][]byte) [][]byte {
	dst = slices.Grow(dst, len(d.bufs))
	for _, b := range d.bufs {
		dst = append(dst, b.ReadOnlyData())
	}
	return dst
}

// CopyTo copies as much as fits into dst and returns the number of bytes.
func (d Data) CopyTo(dst []byte) int { return d.bufs.CopyTo(dst) }

// Ref adds a holder.
func (d Data) Ref() { d.bufs.Ref() }

// Release ends the caller's hold.
func (d Data) Release() { d.bufs.Free() }

// hold is memory lent to the transport. It has the shape of a mem.BufferPool
// because a mem.Buffer tells its end to a pool and to nobody else.
type hold struct {
	mem   []byte
	letGo func() // called at the end
	ended atomic.Bool

	link       *link // over which it is sent; nil if not known yet
	listed     bool  // guarded by link.mu, as are the neighbours
	prev, next *hold
}

// buffer is the memory of h. Who gets it frees it; the last one ends h.
func (h *hold) buffer() mem.Buffer {
	if mem.IsBelowBufferPoolingThreshold(cap(h.mem)) {
		// mem.NewBuffer would not tell when such a small one is free.
		b := mem.SliceBuffer(append([]byte(nil), h.mem...))
		h.end()
		return b
	}
	if h.link != nil {
		h.link.lend(h)
	}
	return mem.NewBuffer(&h.mem, h)
}

// contains tells whether p lies in the memory of h.
func (h *hold) contains(p []byte) bool {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	start := uintptr(unsafe.Pointer(unsafe.SliceData(h.mem)))
	return start <= at && at+uintptr(len(p)) <= start+uintptr(len(h.mem))
}

// Get is never called: nothing is allocated from a hold.
func (h *hold) Get(int) *[]byte { panic("rpc: a hold allocates nothing") }

// Put is called by the transport when it drops the last reference.
func (h *hold) Put(*[]byte) {
	if h.link != nil {
		h.link.letGo(h)
	} else {
		h.end()
	}
}

func (h *hold) end() {
	if h.ended.Swap(true) {
		return
	}
	if h.link != nil {
		h.link.forget(h)
	}
	h.letGo()
}
