package rpc

import (
	"io"
	"net"
	"sync"
	"syscall"
	"unsafe"

	"github.com/zoidfs/zoidfs/internal/buf"
)

const (
	slabSize = 256 << 10 // bytes that one system call may receive
	minRoom  = 32 << 10  // bytes at the end of a slab that are worth one
)

// inbound is the receiving half of a link. The socket fills slabs of memory;
// gRPC, which wants the content of a DATA frame in a buffer from its pool, gets
// the very piece of the slab where that content is, or will be once it has
// come, and the read into that buffer that follows only moves on. A slab is
// used again when all its pieces are free.
//
// All of it belongs to gRPC's reader: it alone calls Read and, between the
// reads of a frame's header and content, Get. Put may be called by anybody.
type inbound struct {
	conn net.Conn
	raw  syscall.RawConn // nil if conn is no socket
	pool *buf.Pool

	slab   *buf.Buf // nil if there is nothing in it
	r, w   int      // what was received and not read is slab[r:w]
	needed int      // the piece handed out last ends here; it must not move
	pieces sync.Pool

	ready func(fd uintptr) bool // receive, as a value
	n     int                   // what the last one
	err   error                 // came to
}

// piece is a part of a slab in gRPC's hands.
type piece struct {
	mem  []byte // the first field: Put gets its address
	slab *buf.Buf
}

func (in *inbound) init(conn net.Conn, pool *buf.Pool) {
	in.conn, in.pool = conn, pool
	in.ready = in.receive
	if c, ok := conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			in.raw = raw
		}
	}
}

// Read fills p, or moves on if p is the memory where its content is already.
func (in *inbound) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if in.r == in.w {
		if err := in.fill(); err != nil {
			return 0, err
		}
	}
	n := min(len(p), in.w-in.r)
	if here := in.slab.Bytes()[in.r:in.w]; &here[0] != &p[0] {
		copy(p, here)
	}
	in.r += n
	return n, nil
}

// Get returns memory for the next n bytes.
func (in *inbound) Get(n int) *[]byte {
	if n > slabSize {
		b := make([]byte, n)
		return &b
	}
	if in.slab == nil || slabSize-in.r < n {
		next := in.pool.New(slabSize)
		rest := 0
		if in.slab != nil {
			rest = copy(next.Bytes(), in.slab.Bytes()[in.r:in.w])
			in.slab.Release()
		}
		in.slab, in.r, in.w = next, 0, rest
	}
	p, ok := in.pieces.Get().(*piece)
	if !ok {
		p = new(piece)
	}
	in.needed = in.r + n
	in.slab.Ref()
	p.slab, p.mem = in.slab, in.slab.Bytes()[in.r:in.needed:in.needed]
	return &p.mem
}

// Put frees what Get returned.
func (in *inbound) Put(b *[]byte) {
	if cap(*b) > slabSize {
		return
	}
	p := (*piece)(unsafe.Pointer(b))
	p.slab.Release()
	p.slab, p.mem = nil, nil
	in.pieces.Put(p)
}

// fill receives at least one byte behind w.
func (in *inbound) fill() error {
	in.n, in.err = 0, nil
	if in.raw == nil {
		in.n, in.err = in.conn.Read(in.space())
		in.w += in.n
	} else if err := in.raw.Read(in.ready); err != nil {
		return err
	}
	if in.n == 0 && in.err == nil {
		return io.EOF
	}
	if in.n > 0 {
		return nil
	}
	return in.err
}

// receive tells whether it received something, or failed to. As long as there
// is nothing, a connection need not hold a slab.
func (in *inbound) receive(fd uintptr) bool {
	for {
		in.n, in.err = syscall.Read(int(fd), in.space())
		switch in.err {
		case nil:
			in.w += in.n
			return true
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			in.n, in.err = 0, nil
			if in.r >= in.needed && in.slab.Sole() {
				in.slab.Release()
				in.slab, in.r, in.w, in.needed = nil, 0, 0, 0
			}
			return false
		}
		in.n = 0
		return true
	}
}

// space is where to receive; everything before was read.
func (in *inbound) space() []byte {
	switch {
	case in.r < in.needed: // the rest of a piece
	case in.slab != nil && in.slab.Sole():
		in.r, in.w, in.needed = 0, 0, 0
	case in.slab == nil || slabSize-in.w < minRoom:
		if in.slab != nil {
			in.slab.Release()
		}
		in.slab, in.r, in.w, in.needed = in.pool.New(slabSize), 0, 0, 0
	}
	return in.slab.Bytes()[in.w:]
}
