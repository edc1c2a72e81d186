package rpc

import (
	"errors"
	"fmt"
	"math"
	"syscall"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// Field numbers of message Frame.
const (
	fieldID     = 1
	fieldOp     = 2
	fieldEpoch  = 3
	fieldHandle = 4
	fieldOff    = 5
	fieldLen    = 6
	fieldFlags  = 7
	fieldErrno  = 8
	fieldAcked  = 9
	fieldBody   = 14
	fieldData   = 15
)

// maxHeader is what Frame's fields but the bytes of body and data take at most.
const maxHeader = 9*(1+binaryMaxVarint) + 2*(1+binaryMaxVarint)

const binaryMaxVarint = 10

// codec encodes *Frame by hand, so that payloads are neither copied nor made
// contiguous, and every other message as generated code does. Both are
// protobuf, hence the name: a plain protobuf peer understands them.
type codec struct{ other encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// Name is the content subtype.
func (c codec) Name() string { return "proto" }

// Marshal takes over the hold on a Frame's Data.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*Frame)
	if !ok {
		return c.other.Marshal(v)
	}
	n := f.Data.Len()
	if len(f.Body) > MaxBody || n > MaxData {
		f.Data.Release()
		return nil, fmt.Errorf("rpc: frame of %d bytes body and %d bytes data is over the limit", len(f.Body), n)
	}
	h := appendHeader(make([]byte, 0, maxHeader+len(f.Body)), f, n)
	out := make(mem.BufferSlice, 0, 1+len(f.Data.bufs))
	return append(append(out, mem.SliceBuffer(h)), f.Data.bufs...), nil
}

// appendHeader encodes f up to where its n bytes of data begin.
func appendHeader(h []byte, f *Frame, n int) []byte {
	for num, x := range [...]uint64{
		fieldID: f.ID, fieldOp: uint64(uint32(f.Op)), fieldEpoch: f.Epoch, fieldHandle: f.Handle,
		fieldOff: uint64(f.Off), fieldLen: uint64(f.Len), fieldFlags: uint64(f.Flags),
		fieldErrno: uint64(uint32(f.Errno)), fieldAcked: f.Acked,
	} {
		if x != 0 {
			h = append(h, byte(num<<3)|byte(protowire.VarintType))
			h = protowire.AppendVarint(h, x)
		}
	}
	if len(f.Body) > 0 {
		h = append(h, fieldBody<<3|byte(protowire.BytesType))
		h = protowire.AppendBytes(h, f.Body)
	}
	if n > 0 {
		h = append(h, fieldData<<3|byte(protowire.BytesType))
		h = protowire.AppendVarint(h, uint64(n))
	}
	return h
}

// Unmarshal decodes into a *Frame, which must be zero and gets a hold of its
// own on the pieces of in that are its payload.
func (c codec) Unmarshal(in mem.BufferSlice, v any) error {
	f, ok := v.(*Frame)
	if !ok {
		return c.other.Unmarshal(in, v)
	}
	r := reader{bufs: in}
	for r.more() {
		r.field(f)
		if r.err != nil {
			f.Data.Release()
			f.Data = Data{}
			return r.err
		}
	}
	return nil
}

var (
	errTruncated = errors.New("rpc: frame ends within a field")
	errMalformed = errors.New("rpc: malformed field in a frame")
	errTooLong   = errors.New("rpc: field of a frame is over the limit")
)

// reader walks over the pieces of a message; flow control may have cut it
// anywhere, within a number too. The first error sticks.
type reader struct {
	bufs mem.BufferSlice // what follows cur
	cur  []byte          // the unread rest of buf
	buf  mem.Buffer      // the piece that cur is the end of
	err  error
}

// more moves on to a piece with unread bytes and tells whether there is one.
func (r *reader) more() bool {
	for len(r.cur) == 0 {
		if len(r.bufs) == 0 {
			return false
		}
		r.buf, r.bufs = r.bufs[0], r.bufs[1:]
		r.cur = r.buf.ReadOnlyData()
	}
	return true
}

// field decodes one field of f, or skips one that it does not know.
func (r *reader) field(f *Frame) {
	tag := r.varint()
	num, typ := tag>>3, protowire.Type(tag&7)
	if r.err == nil && (num == 0 || num > uint64(protowire.MaxValidNumber)) {
		r.fail(errMalformed)
	}
	if r.err != nil {
		return
	}
	switch typ {
	case protowire.VarintType:
		f.setVarint(num, r.varint())
	case protowire.BytesType:
		n := r.varint()
		switch {
		case r.err != nil:
		case num == fieldBody && n > MaxBody, num == fieldData && n > MaxData, n > math.MaxInt32:
			r.fail(errTooLong)
		case num == fieldBody:
			f.Body = r.bytes(int(n))
		case num == fieldData:
			f.Data.Release() // the last one counts, as in protobuf
			f.Data = Data{bufs: r.slices(int(n))}
		default:
			r.skip(int(n))
		}
	case protowire.Fixed32Type:
		r.skip(4)
	case protowire.Fixed64Type:
		r.skip(8)
	default: // groups are not used, and have not been for long
		r.fail(errMalformed)
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
	}
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) varint() uint64 {
	if r.err != nil {
		return 0
	}
	if x, n := protowire.ConsumeVarint(r.cur); n > 0 { // all in one piece, as nearly always
		r.cur = r.cur[n:]
		return x
	}
	var x uint64
	for shift := 0; shift < 70; shift += 7 {
		if !r.more() {
			r.fail(errTruncated)
			return 0
		}
		b := r.cur[0]
		r.cur = r.cur[1:]
		if shift == 63 && b > 1 {
			break
		}
		x |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return x
		}
	}
	r.fail(errMalformed)
	return 0
}

// left tells whether n more bytes are there; the caller has checked n against
// the field's limit.
func (r *reader) left(n int) bool {
	if len(r.cur)+r.bufs.Len() < n {
		r.fail(errTruncated)
	}
	return r.err == nil
}

// bytes copies n bytes out.
func (r *reader) bytes(n int) []byte {
	if !r.left(n) || n == 0 {
		return nil
	}
	p := make([]byte, 0, n)
	for len(p) < n && r.more() {
		k := min(n-len(p), len(r.cur))
		p = append(p, r.cur[:k]...)
		r.cur = r.cur[k:]
	}
	return p
}

func (r *reader) skip(n int) {
	if !r.left(n) {
		return
	}
	for n > 0 && r.more() {
		k := min(n, len(r.cur))
		r.cur = r.cur[k:]
		n -= k
	}
}

// slices is n bytes as references into the pieces.
func (r *reader) slices(n int) mem.BufferSlice {
	if !r.left(n) || n == 0 {
		return nil
	}
	pieces := 1
	if n > len(r.cur) {
		pieces += len(r.bufs)
	}
	out := make(mem.BufferSlice, 0, pieces)
	for n > 0 && r.more() {
		k := min(n, len(r.cur))
		from := r.buf.Len() - len(r.cur)
		out = append(out, r.buf.Slice(from, from+k))
		r.cur = r.cur[k:]
		n -= k
	}
	return out
}
