package wire

import "encoding/binary"

// layout is what every body has: one walk through its fields that a codec
// follows in either direction. layout must not change m when encoding.
type layout interface{ layout(c *codec) }

// Request is the body of a request: a pointer to one of the XxxReq types.
type Request interface {
	Op() Op
	layout
}

// Response is the body of a response: a pointer to one of the XxxResp types.
type Response interface{ layout }

// RequestHeader is what all requests have before the body.
//
//	 0  i32 version, i32 encoding
//	 8  i32 op, pad4
//	16  capability, hints, body
type RequestHeader struct {
	Op    Op
	Cap   Capability
	Hints []Hint
}

// Object is the handle of the HintHandle hint, the object that the whole call
// is about. ok is false if there is none.
func (h *RequestHeader) Object() (obj Handle, ok bool) {
	for i := range h.Hints {
		if h.Hints[i].Type == HintHandle {
			return Handle(h.Hints[i].Value), true
		}
	}
	return 0, false
}

// AppendRequest appends the payload of a request to dst. A nil cap is the null
// capability. The caller keeps body, and must see to it that the payload meets
// CheckRequestSize.
func AppendRequest(dst []byte, cap *Capability, hints []Hint, body Request) []byte {
	c := codec{b: dst, base: len(dst), enc: true}
	c.preamble(body.Op())
	c.pad4()
	if cap == nil {
		const null = 40
		c.b = append(c.b, make([]byte, null)...)
	} else {
		cap.layout(&c)
	}
	if len(hints) == 0 {
		c.pad4()
	} else {
		layoutHints(&c, &hints)
	}
	body.layout(&c)
	return c.b
}

// DecodeRequest decodes the payload of a request. If the op is unknown or the
// body malformed, the header holds what was understood and err is EPROTO. Only
// SmallIOReq.Data aliases b.
func DecodeRequest(b []byte) (RequestHeader, Request, error) {
	var h RequestHeader
	c := decoder(b)
	version := c.preambleOf(&h.Op)
	if c.err == nil && version != Version {
		c.fail("protocol version %d, not %d", version, Version)
	}
	c.pad4()
	h.Cap.layout(c)
	layoutHints(c, &h.Hints)
	if c.err != nil {
		return h, nil, c.err
	}
	body := newRequest(h.Op)
	if body == nil {
		c.fail("request with op %d", int32(h.Op))
		return h, nil, c.err
	}
	body.layout(c)
	if err := c.end(); err != nil {
		return h, nil, err
	}
	return h, body, nil
}

// AppendResponse appends the payload of a response to dst. The body goes out
// only with status 0; nil is right for ops whose response is empty.
func AppendResponse(dst []byte, op Op, status Status, body Response) []byte {
	c := codec{b: dst, base: len(dst), enc: true}
	c.preamble(op)
	n32(&c, &status)
	if status == 0 && body != nil {
		body.layout(&c)
	}
	return c.b
}

// DecodeResponse decodes the payload of a response. The body is nil if status
// is not 0 or the op's response is empty. Only SmallIOResp.Data aliases b.
func DecodeResponse(b []byte) (Op, Status, Response, error) {
	c := decoder(b)
	op, status := c.responseHead()
	if c.err != nil {
		return op, status, nil, c.err
	}
	body, known := newResponse(op)
	if !known {
		c.fail("response with op %d", int32(op))
	}
	if status != 0 || body == nil {
		return op, status, nil, c.end()
	}
	body.layout(c)
	if err := c.end(); err != nil {
		return op, status, nil, err
	}
	return op, status, body, nil
}

// DecodeResponseInto decodes the response to a request of the given op into
// body, nil if that op's response is empty. body is untouched if the status is
// not 0. A response with another op is EPROTO, but for PROTO_ERROR, whose status
// is returned and never 0. Only SmallIOResp.Data aliases b. A body may be
// decoded into again if it has no Attr; one with an Attr must be zero, as what
// the mask leaves out is not touched.
func DecodeResponseInto(b []byte, op Op, body Response) (Status, error) {
	c := codec{b: b}
	got, status := c.responseHead()
	if c.err == nil && got == OpProtoError {
		if status == 0 {
			c.fail("PROTO_ERROR with status 0")
		}
		return status, c.end()
	}
	if c.err == nil && got != op {
		c.fail("response with op %v to %v", got, op)
	}
	if c.err != nil {
		return status, c.err
	}
	if status == 0 && body != nil {
		body.layout(&c)
	}
	return status, c.end()
}

func (c *codec) responseHead() (op Op, status Status) {
	version := c.preambleOf(&op)
	if c.err == nil && (version < Version || version/1000 != Version/1000) {
		c.fail("protocol version %d, not %d", version, Version)
	}
	n32(c, &status)
	return op, status
}

// preamble encodes what requests and responses begin with.
func (c *codec) preamble(op Op) {
	c.b = binary.LittleEndian.AppendUint32(c.b, Version)
	c.b = binary.LittleEndian.AppendUint32(c.b, encodingLE)
	c.b = binary.LittleEndian.AppendUint32(c.b, uint32(op))
}

// preambleOf decodes what requests and responses begin with.
func (c *codec) preambleOf(op *Op) (version int32) {
	var encoding int32
	n32(c, &version)
	n32(c, &encoding)
	if c.err == nil && encoding != encodingLE {
		c.fail("encoding %d, not %d", encoding, encodingLE)
	}
	n32(c, op)
	return version
}
