package wire

import (
	"math"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHeader(t *testing.T) {
	for _, h := range []Header{{Unexpected, 1, MaxRequest}, {Eager, 7, 0}, {Rend, math.MaxInt32, MaxMessage}} {
		b := h.Append([]byte("x"))
		require.Len(t, b, 1+HeaderSize)
		got, err := DecodeHeader(b[1:])
		require.NoError(t, err)
		require.Equal(t, h, got)
	}
	require.Equal(t, []byte{
		0xbf, 0xca, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 232, 0, 0, 0, 0, 0, 0, 0,
	}, Header{Eager, 6, 232}.Append(nil))
	require.Equal(t, Eager, ModeFor(MaxEager))
	require.Equal(t, Rend, ModeFor(MaxEager+1))
}

func TestHeaderRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		b    []byte
	}{
		{"short", Header{Eager, 1, 1}.Append(nil)[:23]},
		{"magic", append([]byte{0}, Header{Eager, 1, 1}.Append(nil)[1:]...)},
		{"immediate mode", Header{1, 1, 1}.Append(nil)},
		{"no mode", Header{0, 1, 1}.Append(nil)},
		{"two modes", Header{6, 1, 1}.Append(nil)},
		{"tag 0", Header{Eager, 0, 1}.Append(nil)},
		{"tag below 0", Header{Eager, -1, 1}.Append(nil)},
		{"tag of 64 bits", Header{Eager, math.MaxInt32 + 1, 1}.Append(nil)},
		{"size below 0", Header{Eager, 1, -1}.Append(nil)},
		{"long request", Header{Unexpected, 1, MaxRequest + 1}.Append(nil)},
		{"long eager", Header{Eager, 1, MaxEager + 1}.Append(nil)},
		{"long rend", Header{Rend, 1, MaxMessage + 1}.Append(nil)},
		{"endless", Header{Rend, 1, math.MaxInt64}.Append(nil)},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := DecodeHeader(c.b)
			require.ErrorIs(t, err, syscall.EPROTO)
		})
	}
}

// smallWrite is a write of n bytes that are sent from where they are, or
// within the payload.
func smallWrite(n int, inside bool) *SmallIOReq {
	m := &SmallIOReq{Handle: 7, FSID: 9, Dir: IOWrite, ServerCt: 1, Dist: NewSimpleStripe(65536),
		Type: Contiguous(int64(n)), Aggregate: int64(n), Total: int64(n)}
	if inside {
		m.Data = make([]byte, n)
		for i := range m.Data {
			m.Data[i] = byte(i*131 + 7)
		}
	}
	return m
}

func TestRequestFrame(t *testing.T) {
	hints := []Hint{ObjectHint(5)}
	cap := &Capability{Issuer: "S:s0", Ops: MayAll, Handles: []Handle{5, 7}}
	in := smallWrite(1000, true)
	whole, err := AppendRequestFrame([]byte("abc"), 3, cap, hints, in)
	require.NoError(t, err)
	h, err := DecodeHeader(whole[3:])
	require.NoError(t, err)
	require.Equal(t, Header{Unexpected, 3, int64(len(whole) - 3 - HeaderSize)}, h)
	require.Equal(t, AppendRequest(nil, cap, hints, in), whole[3+HeaderSize:], "aligned from the payload's start")

	head, err := AppendRequestFrame([]byte("abc"), 3, cap, hints, smallWrite(1000, false))
	require.NoError(t, err)
	require.Equal(t, whole, append(head, in.Data...), "data outside make the same message")

	hd, body, err := DecodeRequest(whole[3+HeaderSize:])
	require.NoError(t, err)
	obj, ok := hd.Object()
	require.True(t, ok)
	require.Equal(t, Handle(5), obj)
	require.Equal(t, *cap, hd.Cap)
	require.Equal(t, in, body)
	require.Same(t, &whole[len(whole)-1000], &body.(*SmallIOReq).Data[0], "data alias the input")
}

func TestRequestFrameLimit(t *testing.T) {
	room := MaxRequest - len(AppendRequest(nil, nil, nil, smallWrite(1, false)))
	for _, inside := range []bool{true, false} {
		b, err := AppendRequestFrame(nil, 1, nil, nil, smallWrite(room, inside))
		require.NoError(t, err)
		_, err = DecodeHeader(b)
		require.NoError(t, err)
		b, err = AppendRequestFrame([]byte("abc"), 1, nil, nil, smallWrite(room+1, inside))
		require.ErrorIs(t, err, syscall.EMSGSIZE)
		require.Equal(t, []byte("abc"), b)
	}
	require.NoError(t, CheckRequestSize(MaxRequest))
	require.ErrorIs(t, CheckRequestSize(-1), syscall.EMSGSIZE)
}

func TestResponseFrame(t *testing.T) {
	data := make([]byte, MaxEager)
	r := &SmallIOResp{Dir: IORead, BstreamSize: 99, Result: 100, Data: data[:100]}
	whole := AppendResponseFrame(nil, 4, OpSmallIO, 0, r)
	head := AppendResponseFrame(nil, 4, OpSmallIO, 0, &SmallIOResp{Dir: IORead, BstreamSize: 99, Result: 100})
	require.Equal(t, whole, append(head, data[:100]...))
	h, err := DecodeHeader(whole)
	require.NoError(t, err)
	require.Equal(t, Header{Eager, 4, int64(len(whole) - HeaderSize)}, h)

	r = &SmallIOResp{Dir: IORead, Result: MaxEager}
	h, err = DecodeHeader(AppendResponseFrame(nil, 4, OpSmallIO, 0, r))
	require.NoError(t, err)
	require.Equal(t, Rend, h.Mode, "longer than an eager message")

	h, err = DecodeHeader(AppendResponseFrame(nil, 4, OpSmallIO, StatusOf(syscall.EIO), r))
	require.NoError(t, err)
	require.Equal(t, Header{Eager, 4, 16}, h, "a failure has no body")
}

func TestDecodeResponseInto(t *testing.T) {
	var r IOResp
	s, err := DecodeResponseInto(AppendResponse(nil, OpIO, 0, &IOResp{77}), OpIO, &r)
	require.NoError(t, err)
	require.Zero(t, s)
	require.Equal(t, int64(77), r.BstreamSize)

	s, err = DecodeResponseInto(AppendResponse(nil, OpIO, StatusOf(syscall.ENOENT), nil), OpIO, &r)
	require.NoError(t, err)
	require.Equal(t, syscall.ENOENT, s.Errno())
	require.Equal(t, int64(77), r.BstreamSize, "untouched")

	s, err = DecodeResponseInto(AppendResponse(nil, OpRemove, 0, nil), OpRemove, nil)
	require.NoError(t, err)
	require.Zero(t, s)

	s, err = DecodeResponseInto(AppendResponse(nil, OpProtoError, StatusOf(syscall.EPROTO), nil), OpIO, &r)
	require.NoError(t, err)
	require.Equal(t, syscall.EPROTO, s.Errno())

	for name, b := range map[string][]byte{
		"other op":          AppendResponse(nil, OpFlush, 0, nil),
		"no error":          AppendResponse(nil, OpProtoError, 0, nil),
		"trailing bytes":    append(AppendResponse(nil, OpIO, 0, &IOResp{77}), 0),
		"body on a failure": append(AppendResponse(nil, OpIO, StatusOf(syscall.EIO), nil), 1, 2, 3, 4),
		"short":             AppendResponse(nil, OpIO, 0, &IOResp{77})[:20],
		"empty":             nil,
		"older major":       append([]byte{0x70, 0x17, 0, 0}, AppendResponse(nil, OpIO, 0, &IOResp{77})[4:]...),
		"other encoding":    append([]byte{0x58, 0x1b, 0, 0, 1}, AppendResponse(nil, OpIO, 0, &IOResp{77})[5:]...),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := DecodeResponseInto(b, OpIO, &r)
			require.ErrorIs(t, err, syscall.EPROTO)
		})
	}
}
