package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
)

// codec walks a payload in one direction. Encoding, it appends to b, where the
// payload starts at base. Decoding, b is the payload and off the next byte;
// the first failure sticks, and every read after it gives zero.
type codec struct {
	b    []byte
	base int // encoding: index in b of the payload's first byte
	off  int // decoding: index in b of the next byte
	enc  bool
	err  error
}

func encoder(dst []byte) *codec { return &codec{b: dst, base: len(dst), enc: true} }
func decoder(b []byte) *codec   { return &codec{b: b} }

// fail keeps the first failure.
func (c *codec) fail(format string, args ...any) {
	if c.err == nil {
		c.err = errno.Wrap("wire.Decode", syscall.EPROTO,
			fmt.Errorf("byte %d of %d: %s", c.off, len(c.b), fmt.Sprintf(format, args...)))
	}
}

// end is the failure, or one for bytes left over.
func (c *codec) end() error {
	if c.err == nil && c.off != len(c.b) {
		c.fail("%d trailing bytes", len(c.b)-c.off)
	}
	return c.err
}

// left is the number of bytes not yet decoded, 0 after a failure.
func (c *codec) left() int {
	if c.err != nil {
		return 0
	}
	return len(c.b) - c.off
}

// take returns the next n bytes, or nil and a failure.
func (c *codec) take(n int) []byte {
	if n > c.left() {
		c.fail("%d bytes wanted, %d left", n, c.left())
		return nil
	}
	p := c.b[c.off : c.off+n : c.off+n]
	c.off += n
	return p
}

// pad appends n zero bytes or skips n bytes unseen.
func (c *codec) pad(n int) {
	const zeros = "\x00\x00\x00\x00\x00\x00\x00\x00"
	if c.enc {
		c.b = append(c.b, zeros[:n]...)
		return
	}
	c.take(n)
}

func (c *codec) pad4() { c.pad(4) }

// align8 pads to a multiple of 8 counted from the payload's first byte.
func (c *codec) align8() {
	at := c.off
	if c.enc {
		at = len(c.b) - c.base
	}
	c.pad(-at & 7)
}

// n32 is a four-byte integer.
func n32[T ~int32 | ~uint32](c *codec, p *T) {
	if c.enc {
		c.b = binary.LittleEndian.AppendUint32(c.b, uint32(*p))
		return
	}
	if c.err != nil || len(c.b)-c.off < 4 {
		c.take(4)
		*p = 0
		return
	}
	*p = T(binary.LittleEndian.Uint32(c.b[c.off:]))
	c.off += 4
}

// n64 is an eight-byte integer.
func n64[T ~int64 | ~uint64](c *codec, p *T) {
	if c.enc {
		c.b = binary.LittleEndian.AppendUint64(c.b, uint64(*p))
		return
	}
	if c.err != nil || len(c.b)-c.off < 8 {
		c.take(8)
		*p = 0
		return
	}
	*p = T(binary.LittleEndian.Uint64(c.b[c.off:]))
	c.off += 8
}

// count is a four-byte element count. It returns have when encoding, else what
// is there: at most limit, and at most what size bytes an element leave room for.
func (c *codec) count(have, limit, size int) int {
	n := uint32(have)
	n32(c, &n)
	if c.enc {
		return have
	}
	if int64(n) > int64(limit) {
		c.fail("count %d is over the limit of %d", n, limit)
	} else if int(n) > c.left()/size {
		c.fail("count %d, but %d bytes left", n, c.left())
	}
	if c.err != nil {
		return 0
	}
	return int(n)
}

// resize makes *p an array of n elements to decode into; nil if n is 0.
func resize[T any](c *codec, p *[]T, n int) {
	if c.enc {
		return
	}
	if n == 0 {
		*p = nil
		return
	}
	*p = make([]T, n)
}

// list32 is n four-byte integers; n comes from count.
func list32[T ~int32 | ~uint32](c *codec, p *[]T, n int) {
	if !c.enc && n > c.left()/4 {
		c.take(4 * n)
		n = 0
	}
	resize(c, p, n)
	for i := range *p {
		n32(c, &(*p)[i])
	}
}

// list64 is n eight-byte integers; n comes from count.
func list64[T ~int64 | ~uint64](c *codec, p *[]T, n int) {
	if !c.enc && n > c.left()/8 {
		c.take(8 * n)
		n = 0
	}
	resize(c, p, n)
	for i := range *p {
		n64(c, &(*p)[i])
	}
}

// handles is a count and that many handles.
func (c *codec) handles(p *[]Handle, limit int) {
	list64(c, p, c.count(len(*p), limit, 8))
}

// str is a string of at most limit bytes: u32 length without NUL, the bytes, a
// NUL, and zeros up to a multiple of 8 counted from the length; an empty string
// is the length and four bytes. NUL within the text is refused.
func (c *codec) str(p *string, limit int) {
	if c.enc {
		n := len(*p)
		c.b = binary.LittleEndian.AppendUint32(c.b, uint32(n))
		c.b = append(c.b, *p...)
		c.pad(strPad(n))
		return
	}
	if b := c.strBytes(limit); b != nil {
		*p = string(b)
		return
	}
	*p = ""
}

// strPad is the number of bytes behind a string's n bytes, NUL included.
func strPad(n int) int {
	if n == 0 {
		return 4
	}
	return 8 - (4+n)&7
}

// strBytes decodes a string and returns its bytes in place, nil if empty.
func (c *codec) strBytes(limit int) []byte {
	var n uint32
	n32(c, &n)
	if int64(n) > int64(limit) {
		c.fail("string of %d bytes is over the limit of %d", n, limit)
	}
	b := c.take(int(n) + strPad(int(n)))
	if c.err != nil || n == 0 {
		return nil
	}
	if i := bytes.IndexByte(b, 0); i != int(n) {
		c.fail("NUL at %d of a string of %d bytes", i, n)
		return nil
	}
	return b[:n]
}

// keyval is opaque bytes of at most limit: u32 length, the bytes, and zeros up
// to a multiple of 8 counted from the length. Decoding copies.
func (c *codec) keyval(p *[]byte, limit int) {
	n := uint32(len(*p))
	n32(c, &n)
	pad := int(-(4 + n) & 7)
	if c.enc {
		c.b = append(c.b, *p...)
		c.pad(pad)
		return
	}
	if int64(n) > int64(limit) {
		c.fail("value of %d bytes is over the limit of %d", n, limit)
	}
	b := c.take(int(n))
	c.take(pad)
	*p = nil
	if c.err == nil && n > 0 {
		*p = bytes.Clone(b)
	}
}

// keyvals is n keyvals; n comes from count.
func (c *codec) keyvals(p *[][]byte, n, limit int) {
	if !c.enc && n > c.left()/8 {
		c.take(8 * n)
		n = 0
	}
	resize(c, p, n)
	for i := range *p {
		c.keyval(&(*p)[i], limit)
	}
}

// blob is a u32 length and that many bytes. Decoding copies.
func (c *codec) blob(p *[]byte, limit int) {
	n := c.count(len(*p), limit, 1)
	if c.enc {
		c.b = append(c.b, *p...)
		return
	}
	*p = nil
	if b := c.take(n); n > 0 && b != nil {
		*p = bytes.Clone(b)
	}
}
