package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
)

// HeaderSize is the size in bytes of the header before every payload.
const HeaderSize = 24

const headerMagic = 0xCABF

// Mode is how a message travels.
type Mode uint32

// The modes that TCP uses.
const (
	Unexpected Mode = 2 // a request
	Eager      Mode = 4 // a response or flow data of at most MaxEager bytes
	Rend       Mode = 8 // a longer one
)

// ModeFor is the mode of a response or flow data of n bytes.
func ModeFor(n int) Mode {
	if n <= MaxEager {
		return Eager
	}
	return Rend
}

// Header goes before every payload.
//
//	 0  u32 magic 0xCABF
//	 4  u32 mode
//	 8  i64 tag, 1..2^31-1, the same in all messages of one operation
//	16  i64 size of the payload in bytes
type Header struct {
	Mode Mode
	Tag  int64
	Size int64
}

// Append appends the HeaderSize bytes of h to dst.
func (h Header) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, headerMagic)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.Mode))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.Tag))
	return binary.LittleEndian.AppendUint64(dst, uint64(h.Size))
}

// DecodeHeader decodes the first HeaderSize bytes of b. It refuses a bad magic,
// an unknown mode, a tag outside 1..2^31-1 and a size that the mode forbids,
// so that Size is a safe amount to read.
func DecodeHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, headerErr("%d bytes are no header", len(b))
	}
	h := Header{
		Mode: Mode(binary.LittleEndian.Uint32(b[4:])),
		Tag:  int64(binary.LittleEndian.Uint64(b[8:])),
		Size: int64(binary.LittleEndian.Uint64(b[16:])),
	}
	if m := binary.LittleEndian.Uint32(b); m != headerMagic {
		return Header{}, headerErr("magic %#x", m)
	}
	limit := int64(MaxEager)
	switch h.Mode {
	case Unexpected, Eager:
	case Rend:
		limit = MaxMessage
	default:
		return Header{}, headerErr("mode %d", h.Mode)
	}
	if h.Tag <= 0 || h.Tag > math.MaxInt32 {
		return Header{}, headerErr("tag %d", h.Tag)
	}
	if h.Size < 0 || h.Size > limit {
		return Header{}, headerErr("mode %d with %d bytes", h.Mode, h.Size)
	}
	return h, nil
}

func headerErr(format string, args ...any) error {
	return errno.Wrap("wire.DecodeHeader", syscall.EPROTO, fmt.Errorf(format, args...))
}

// CheckRequestSize is EMSGSIZE for a request payload of n bytes, data included,
// that does not fit into one message, else nil.
func CheckRequestSize(n int64) error {
	if n < 0 || n > MaxRequest {
		return errno.Wrap("wire.AppendRequest", syscall.EMSGSIZE, fmt.Errorf("request of %d bytes", n))
	}
	return nil
}

// AppendRequestFrame appends header and payload of a request. Data that body
// says it carries but does not hold (a SmallIOReq with Data nil) is counted in
// the header: the caller sends it right behind. dst is unchanged on error,
// which is EMSGSIZE.
func AppendRequestFrame(dst []byte, tag int64, cap *Capability, hints []Hint, body Request) ([]byte, error) {
	at := len(dst)
	b := AppendRequest(append(dst, make([]byte, HeaderSize)...), cap, hints, body)
	n := int64(len(b)-at-HeaderSize) + outside(body)
	if err := CheckRequestSize(n); err != nil {
		return dst, err
	}
	Header{Unexpected, tag, n}.Append(b[:at])
	return b, nil
}

// AppendResponseFrame appends header and payload of a response, see
// AppendResponse. Data that body says it carries but does not hold (a
// SmallIOResp with Data nil) is counted in the header: the caller sends it
// right behind.
func AppendResponseFrame(dst []byte, tag int64, op Op, status Status, body Response) []byte {
	at := len(dst)
	b := AppendResponse(append(dst, make([]byte, HeaderSize)...), op, status, body)
	n := int64(len(b) - at - HeaderSize)
	if status == 0 && body != nil {
		n += outside(body)
	}
	Header{ModeFor(int(n)), tag, n}.Append(b[:at])
	return b
}

// outside is the number of bytes that body announces but does not hold.
func outside(body any) int64 {
	if x, ok := body.(interface{ outside() int64 }); ok {
		return x.outside()
	}
	return 0
}
