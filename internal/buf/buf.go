// Package buf keeps large buffers for reuse, uncleared, and counts the
// references to them.
//
// A buffer comes from a Pool and goes back there; what it holds after Get is
// whatever its last user left. A build with the race detector, or with the
// tag zoidpoison, fills returned memory with a pattern, so that a use after
// the last Release shows. Pools and Bufs are safe for concurrent use, the
// bytes in them are as safe as their users make them.
//
// The package knows nothing of grpc, but a *Pool has the shape of its
// mem.BufferPool.
package buf

import (
	"sync"
	"sync/atomic"
)

// tiers are the capacities that a Pool keeps, ascending. The two largest have
// room for a header next to a payload of a power of two.
var tiers = [...]int{1 << 10, 4 << 10, 16 << 10, 32 << 10, 128 << 10, 256<<10 + 4<<10, 1<<20 + 4<<10}

// Pool hands out buffers. The zero value is ready; it must not be copied.
type Pool struct {
	tiers [len(tiers)]sync.Pool // of *[]byte with cap tiers[i]
	bufs  sync.Pool             // of *Buf without memory
}

// Get returns a buffer of length n with unspecified content. One larger than
// the largest tier is allocated and will not be kept.
func (p *Pool) Get(n int) *[]byte {
	for i, size := range tiers {
		if n > size {
			continue
		}
		if b, ok := p.tiers[i].Get().(*[]byte); ok {
			*b = (*b)[:n]
			return b
		}
		b := make([]byte, n, size)
		return &b
	}
	b := make([]byte, n)
	return &b
}

// Put gives b back. The caller must not touch it again. A buffer that is not
// of a tier's capacity is left to the garbage collector.
func (p *Pool) Put(b *[]byte) {
	for i, size := range tiers {
		if cap(*b) == size {
			if poisoned {
				poison((*b)[:size])
			}
			p.tiers[i].Put(b)
			return
		}
	}
}

// New returns a Buf of n bytes with unspecified content and one reference.
func (p *Pool) New(n int) *Buf {
	b, ok := p.bufs.Get().(*Buf)
	if !ok {
		b = &Buf{pool: p}
	}
	b.mem = p.Get(n)
	b.refs.Store(1)
	return b
}

// Buf is a counted buffer from a Pool. Each holder has one reference and
// calls Release exactly once; the last one gives the memory back.
type Buf struct {
	pool *Pool
	mem  *[]byte // nil once the last reference is gone
	refs atomic.Int32
}

// Bytes is the memory, valid until the caller's reference is released.
func (b *Buf) Bytes() []byte { return *b.mem }

// Len is the length in bytes.
func (b *Buf) Len() int { return len(*b.mem) }

// Truncate shortens the buffer to its first n bytes. Only the sole holder may
// call it.
func (b *Buf) Truncate(n int) { *b.mem = (*b.mem)[:n] }

// Ref adds a reference. The caller must hold one.
func (b *Buf) Ref() {
	if b.refs.Add(1) <= 1 {
		panic("buf: Ref of a released buffer")
	}
}

// Sole tells whether the caller's reference is the only one.
func (b *Buf) Sole() bool { return b.refs.Load() == 1 }

// Release drops one reference.
func (b *Buf) Release() {
	switch n := b.refs.Add(-1); {
	case n < 0:
		panic("buf: released more often than held")
	case n == 0:
		m := b.mem
		b.mem = nil
		b.pool.Put(m)
		b.pool.bufs.Put(b)
	}
}

func poison(b []byte) {
	b[0] = 0xdb
	for n := 1; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}
