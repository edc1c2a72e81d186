package rpc

import (
	"math"
	"syscall"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// reader walks over the pieces of a message; flow control may have cut it
// anywhere, within a number too. The first error sticks and ends everything.
type reader struct {
	bufs mem.BufferSlice // what follows cur
	cur  []byte          // the unread rest of buf
	buf  mem.Buffer      // the piece that cur is the end of
	left int             // unread bytes of the message being decoded, an inner one perhaps
	err  error
	near *nearConn // that the message comes from, or nil
}

// more moves on to a piece with unread bytes and tells whether the message
// goes on.
func (r *reader) more() bool {
	if r.left == 0 || r.err != nil {
		return false
	}
	for len(r.cur) == 0 {
		r.buf, r.bufs = r.bufs[0], r.bufs[1:]
		r.cur = r.buf.ReadOnlyData()
	}
	return true
}

// take returns the next bytes, at most n and at most what is in one piece.
func (r *reader) take(n int) []byte {
	if !r.more() {
		return nil
	}
	p := r.cur[:min(n, len(r.cur), r.left)]
	r.cur = r.cur[len(p):]
	r.left -= len(p)
	return p
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) tag() (num uint64, typ protowire.Type) {
	tag := r.varint()
	num, typ = tag>>3, protowire.Type(tag&7)
	if num == 0 || num > uint64(protowire.MaxValidNumber) {
		r.fail(errMalformed)
	}
	return num, typ
}

// length reads the length of a field, which is at most limit.
func (r *reader) length(limit int) int {
	n := r.varint()
	switch {
	case r.err != nil:
		return 0
	case n > uint64(limit):
		r.fail(errTooLong)
		return 0
	case n > uint64(r.left):
		r.fail(errTruncated)
		return 0
	}
	return int(n)
}

// field decodes one field of f, or skips one that it does not know.
func (r *reader) field(f *Frame) {
	num, typ := r.tag()
	switch {
	case r.err != nil:
	case typ == protowire.VarintType:
		f.setVarint(num, r.varint())
	case num == fieldBody && typ == protowire.BytesType:
		f.Body = r.bytes(r.length(MaxBody))
	case num == fieldData && typ == protowire.BytesType:
		f.Data.Release() // the last one counts, as in protobuf
		f.Data = Data{bufs: r.slices(r.length(MaxData))}
	case num == fieldLent && typ == protowire.BytesType && r.near != nil && r.near.borrower != nil:
		r.lent(f)
	default:
		r.skip(typ)
	}
}

// lent makes what the peer lends the data of f.
func (r *reader) lent(f *Frame) {
	refs := r.bytes(r.length(maxLent))
	if r.err != nil {
		return
	}
	d, err := r.near.borrower.borrow(refs)
	if err != nil {
		r.fail(err)
		return
	}
	f.Data.Release()
	f.Data = d
}

// returned takes a loan back.
func (r *reader) returned(id uint64) {
	if r.err == nil && r.near != nil && r.near.lender != nil {
		r.near.lender.returned(id)
	}
}

// skip reads over a field of this type.
func (r *reader) skip(typ protowire.Type) {
	n := 0
	switch typ {
	case protowire.VarintType:
		r.varint()
		return
	case protowire.Fixed32Type:
		n = 4
	case protowire.Fixed64Type:
		n = 8
	case protowire.BytesType:
		n = r.length(math.MaxInt32)
	default: // groups are not used, and have not been for long
		r.fail(errMalformed)
	}
	if n > r.left {
		r.fail(errTruncated)
	}
	for n > 0 && r.more() {
		n -= len(r.take(n))
	}
}

func (f *Frame) setVarint(num, x uint64) {
	switch num {
	case fieldID:
		f.ID = x
	case fieldOp:
		f.Op = ionpb.Op(uint32(x))
	case fieldEpoch:
		f.Epoch = x
	case fieldHandle:
		f.Handle = x
	case fieldOff:
		f.Off = int64(x)
	case fieldLen:
		f.Len = int64(x)
	case fieldFlags:
		f.Flags = uint32(x)
	case fieldErrno:
		f.Errno = syscall.Errno(uint32(x))
	case fieldAcked:
		f.Acked = x
	case fieldJob:
		f.Job = x
	case fieldAge:
		f.Age = x
	case fieldBuffer:
		f.Buffer = x
	}
}

func (r *reader) varint() uint64 {
	if r.more() { // nearly always it is all in one piece
		if x, n := protowire.ConsumeVarint(r.cur[:min(len(r.cur), r.left)]); n > 0 {
			r.take(n)
			return x
		}
	}
	var x uint64
	for shift := 0; shift < 70; shift += 7 {
		p := r.take(1)
		if p == nil {
			r.fail(errTruncated)
			return 0
		}
		if shift == 63 && p[0] > 1 {
			break
		}
		x |= uint64(p[0]&0x7f) << shift
		if p[0] < 0x80 {
			return x
		}
	}
	r.fail(errMalformed)
	return 0
}

// bytes is n bytes of garbage-collected memory. Small messages arrive in such
// memory, and then nothing is copied.
func (r *reader) bytes(n int) []byte {
	if n == 0 || !r.more() {
		return nil
	}
	if _, ok := r.buf.(mem.SliceBuffer); ok && n <= len(r.cur) {
		return r.take(n)[:n:n]
	}
	p := make([]byte, 0, n)
	for len(p) < n && r.more() {
		p = append(p, r.take(n-len(p))...)
	}
	return p
}

// slices is n bytes as references into the pieces.
func (r *reader) slices(n int) mem.BufferSlice {
	if n == 0 || !r.more() {
		return nil
	}
	pieces := 1
	if n > len(r.cur) {
		pieces += len(r.bufs)
	}
	out := make(mem.BufferSlice, 0, pieces)
	for n > 0 && r.more() {
		from := r.buf.Len() - len(r.cur)
		k := len(r.take(n))
		out = append(out, r.buf.Slice(from, from+k))
		n -= k
	}
	return out
}
