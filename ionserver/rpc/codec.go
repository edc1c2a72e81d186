package rpc

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of message Packet and message Frame.
const (
	fieldFrames   = 1
	fieldReturned = 2

	fieldID     = 1
	fieldOp     = 2
	fieldEpoch  = 3
	fieldHandle = 4
	fieldOff    = 5
	fieldLen    = 6
	fieldFlags  = 7
	fieldErrno  = 8
	fieldAcked  = 9
	fieldJob    = 10
	fieldAge    = 11
	fieldBuffer = 12
	fieldLent   = 13
	fieldBody   = 14
	fieldData   = 15
)

const (
	maxVarint = 10
	// maxHeader is what a Frame takes at most without the bytes of its body
	// and data, and with its own tag and length.
	maxHeader = 16 * (1 + maxVarint)

	maxFrames  = 256      // of one packet
	maxBatch   = 64 << 10 // bytes of a packet without the data of its last frame, if that is long
	maxMessage = maxBatch + maxHeader + MaxBody + MaxData
)

// outPacket is the frames of one message to be sent. Only the last may have
// more than minLent bytes of data.
type outPacket struct {
	items []*item
	head  *head
	link  *link
}

// head is memory for everything of a message but its data. It has the shape
// of a mem.BufferPool for the same reason as a hold.
type head struct {
	mem  []byte
	gone func(*head) // called when the transport has written it
}

// newHead has more memory than gRPC leaves to the garbage collector unseen.
func newHead(gone func(*head)) *head { return &head{make([]byte, 0, 2<<10), gone} }

// Get is never called.
func (h *head) Get(int) *[]byte { panic("rpc: a head allocates nothing") }

// Put is called by the transport when it drops the last reference.
func (h *head) Put(*[]byte) { h.gone(h) }

// inPacket is the frames of one message received, each from newFrame.
type inPacket struct {
	frames   []*Frame
	newFrame func() *Frame
	near     *nearConn // that they come from; nil: nothing is lent there
}

// release drops the payloads of frames that nobody will handle.
func (p *inPacket) release() {
	for _, f := range p.frames {
		f.Data.Release()
	}
	p.frames = p.frames[:0]
}

// codec encodes packets by hand, so that payloads are neither copied nor made
// contiguous, and every other message as generated code does. Both are
// protobuf, hence the name: a plain protobuf peer understands them.
type codec struct{ other encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// Name is the content subtype.
func (c codec) Name() string { return "proto" }

// Marshal takes over the holds on the frames' Data.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	p, ok := v.(*outPacket)
	if !ok {
		return c.other.Marshal(v)
	}
	h := p.head.mem[:0]
	if p.link.borrows() { // first, as data come last
		h = p.link.near.borrower.appendReturns(h)
	}
	var data Data
	for _, it := range p.items {
		n := it.frame.Data.Len()
		h = append(h, fieldFrames<<3|byte(protowire.BytesType))
		if refs := p.link.loan(it.frame.Data); refs != nil {
			h = protowire.AppendVarint(h, uint64(headerSize(&it.frame, refs, 0)))
			h = appendHeader(h, &it.frame, refs, 0)
			break
		}
		h = protowire.AppendVarint(h, uint64(headerSize(&it.frame, nil, n)+n))
		h = appendHeader(h, &it.frame, nil, n)
		if n >= minLent {
			data = p.link.carry(it.frame.Data)
			break
		}
		for _, b := range it.frame.Data.bufs {
			h = append(h, b.ReadOnlyData()...)
		}
		it.frame.Data.Release()
	}
	out := make(mem.BufferSlice, 0, 1+len(data.bufs))
	p.head.mem = h
	return append(append(out, mem.NewBuffer(&p.head.mem, p.head)), data.bufs...), nil
}

// varints is the numeric fields of f by field number.
func (f *Frame) varints() [fieldBuffer + 1]uint64 {
	return [...]uint64{
		fieldID: f.ID, fieldOp: uint64(uint32(f.Op)), fieldEpoch: f.Epoch, fieldHandle: f.Handle,
		fieldOff: uint64(f.Off), fieldLen: uint64(f.Len), fieldFlags: uint64(f.Flags),
		fieldErrno: uint64(uint32(f.Errno)), fieldAcked: f.Acked, fieldJob: f.Job, fieldAge: f.Age,
		fieldBuffer: f.Buffer,
	}
}

// headerSize is the length of what appendHeader appends.
func headerSize(f *Frame, refs []byte, n int) int {
	size := 0
	for _, x := range f.varints() {
		if x != 0 {
			size += 1 + protowire.SizeVarint(x)
		}
	}
	if len(refs) > 0 {
		size += 1 + protowire.SizeBytes(len(refs))
	}
	if len(f.Body) > 0 {
		size += 1 + protowire.SizeBytes(len(f.Body))
	}
	if n > 0 {
		size += 1 + protowire.SizeVarint(uint64(n))
	}
	return size
}

// appendHeader encodes f, with the places of what is lent, up to where its n bytes
// of data begin.
func appendHeader(h []byte, f *Frame, refs []byte, n int) []byte {
	for num, x := range f.varints() {
		if x != 0 {
			h = append(h, byte(num<<3)|byte(protowire.VarintType))
			h = protowire.AppendVarint(h, x)
		}
	}
	if len(refs) > 0 {
		h = append(h, fieldLent<<3|byte(protowire.BytesType))
		h = protowire.AppendBytes(h, refs)
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

// Unmarshal decodes into an *inPacket whose frames get holds of their own on
// the pieces of in that are payload.
func (c codec) Unmarshal(in mem.BufferSlice, v any) error {
	p, ok := v.(*inPacket)
	if !ok {
		return c.other.Unmarshal(in, v)
	}
	r := reader{bufs: in, left: in.Len(), near: p.near}
	for r.more() {
		num, typ := r.tag()
		switch {
		case r.err == nil && num == fieldFrames && typ == protowire.BytesType:
			p.decodeFrame(&r)
		case r.err == nil && num == fieldReturned && typ == protowire.VarintType:
			r.returned(r.varint())
		default:
			r.skip(typ)
		}
		if r.err != nil {
			p.release()
			return r.err
		}
	}
	return nil
}

func (p *inPacket) decodeFrame(r *reader) {
	if len(p.frames) == maxFrames {
		r.fail(errTooLong)
	}
	n := r.length(maxHeader + MaxBody + MaxData)
	if r.err != nil {
		return
	}
	f := p.newFrame()
	p.frames = append(p.frames, f)
	behind := r.left - n
	r.left = n
	for r.more() {
		r.field(f)
	}
	r.left = behind
}

var (
	errTruncated = errors.New("rpc: a field goes beyond its message")
	errMalformed = errors.New("rpc: malformed field")
	errTooLong   = errors.New("rpc: over the limit")
)

// checkLimits tells whether f may be sent.
func (f *Frame) checkLimits() error {
	if n := f.Data.Len(); len(f.Body) > MaxBody || n > MaxData {
		return fmt.Errorf("%w: frame of %d bytes body and %d bytes data", errTooLong, len(f.Body), n)
	}
	return nil
}
