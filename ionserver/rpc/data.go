package rpc

import (
	"sync/atomic"

	"google.golang.org/grpc/mem"

	"github.com/zoidfs/zoidfs/internal/buf"
)

// Data is a payload: bytes in one or more pieces of counted memory. The zero
// value is empty. A Data has one holder, who calls Release exactly once; Ref
// makes another. Copies of a Data value share the one hold.
type Data struct {
	bufs mem.BufferSlice
	lent bool // one piece of memory that somebody waits to get back; see sender
}

// Static is a payload of garbage-collected memory that never changes again.
func Static(p []byte) Data {
	if len(p) == 0 {
		return Data{}
	}
	return Data{bufs: mem.BufferSlice{mem.SliceBuffer(p)}}
}

// Pooled is the payload b; the caller's reference to b goes with it.
func Pooled(b *buf.Buf) Data {
	if b.Len() == 0 {
		b.Release()
		return Data{}
	}
	return lend(b.Bytes(), b.Release, nil)
}

// lend is a payload of memory that somebody waits to get back: letGo is
// called once, when the last reference is gone or owner gives up on it.
func lend(p []byte, letGo func(), owner *sender) Data {
	return (&hold{mem: p, letGo: letGo, owner: owner}).data()
}

// Len is the number of bytes.
func (d Data) Len() int { return d.bufs.Len() }

// Append adds the pieces, in order, to dst. Nobody may write to them, and
// they are valid until the caller's hold is released.
func (d Data) Append(dst [][]byte) [][]byte {
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
	letGo func()        // called at the end; may be nil
	back  chan struct{} // closed at the end; may be nil
	ended atomic.Bool
	owner *sender // keeps a list of its holds; may be nil
}

// data is the payload in h. Its holder releases it; the last one ends h.
func (h *hold) data() Data {
	if mem.IsBelowBufferPoolingThreshold(cap(h.mem)) {
		// mem.NewBuffer would not tell when such a small one is free.
		d := Static(append([]byte(nil), h.mem...))
		h.end()
		return d
	}
	if h.owner != nil {
		h.owner.remember(h)
	}
	return Data{bufs: mem.BufferSlice{mem.NewBuffer(&h.mem, h)}, lent: true}
}

// Get is never called: nothing is allocated from a hold.
func (h *hold) Get(int) *[]byte { panic("rpc: a hold allocates nothing") }

// Put is called by the transport when it drops the last reference.
func (h *hold) Put(*[]byte) { h.end() }

func (h *hold) end() {
	if h.ended.Swap(true) {
		return
	}
	if h.owner != nil {
		h.owner.forget(h)
	}
	if h.letGo != nil {
		h.letGo()
	}
	if h.back != nil {
		close(h.back)
	}
}
