package wire

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func benchRequest(b *testing.B, m Request) {
	cap := goldenCap("S:s0", 1795327289, MayAll, 1, 2, 3, 4, 5)
	hints := []Hint{ObjectHint(1)}
	buf := AppendRequest(nil, cap, hints, m)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(buf)))
		var dst []byte
		for b.Loop() {
			dst = AppendRequest(dst[:0], cap, hints, m)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			if _, _, err := DecodeRequest(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchResponse(b *testing.B, op Op, m Response, fresh func() Response) {
	buf := AppendResponse(nil, op, 0, m)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(buf)))
		var dst []byte
		for b.Loop() {
			dst = AppendResponse(dst[:0], op, 0, m)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			if _, err := DecodeResponseInto(buf, op, fresh()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkIORequest(b *testing.B) {
	benchRequest(b, &IOReq{Handle: 1, FSID: 2, Dir: IOWrite, ServerCt: 4, Dist: NewSimpleStripe(65536),
		Type: Contiguous(1 << 20), Offset: 1 << 30, Aggregate: 1 << 20})
}

func BenchmarkIOResponse(b *testing.B) {
	var r IOResp
	benchResponse(b, OpIO, &IOResp{5}, func() Response { return &r })
}

func BenchmarkSmallIORequest(b *testing.B)        { benchRequest(b, smallWrite(4096, true)) }
func BenchmarkSmallIORequestOutside(b *testing.B) { benchEncodeOnly(b, smallWrite(4096, false)) }

func benchEncodeOnly(b *testing.B, m Request) {
	b.ReportAllocs()
	var dst []byte
	for b.Loop() {
		dst, _ = AppendRequestFrame(dst[:0], 1, nil, nil, m)
	}
}

func BenchmarkSmallIOResponse(b *testing.B) {
	var r SmallIOResp
	benchResponse(b, OpSmallIO, &SmallIOResp{Dir: IORead, Result: 4096, Data: make([]byte, 4096)},
		func() Response { return &r })
}

func BenchmarkGetAttrRequest(b *testing.B) {
	benchRequest(b, &GetAttrReq{Handle: 1, FSID: 2, Mask: AttrAll, Cred: goldenCred()})
}

func BenchmarkGetAttrResponse(b *testing.B) {
	benchResponse(b, OpGetAttr, &GetAttrResp{Attr{
		Mask: AttrCommon | AttrDist | AttrDFiles | AttrCapability, Type: TypeMetafile, Dist: NewSimpleStripe(65536),
		Cap:    *goldenCap("S:s0", 1795327289, MayAll, 1, 2, 3, 4, 5),
		DFiles: []Handle{2, 3, 4, 5},
	}}, func() Response { return new(GetAttrResp) })
}

func BenchmarkCursorContiguous(b *testing.B) {
	d := Contiguous(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		c, _ := d.Cursor(1<<30, 1<<20)
		c.Next()
	}
}

func BenchmarkCursorVector(b *testing.B) {
	const n = 1000
	d := must(HVector(n, 10, 100))
	b.ReportAllocs()
	b.SetBytes(n * 10)
	for b.Loop() {
		c, _ := d.Cursor(0, n*10)
		for _, ok := c.Next(); ok; _, ok = c.Next() {
		}
	}
}

// TestHotPathAllocs keeps the messages of every transfer cheap.
func TestHotPathAllocs(t *testing.T) {
	dst := make([]byte, 0, 8192)
	cap := goldenCap("S:s0", 1, MayAll, 1, 2)
	hints := []Hint{ObjectHint(1)}
	req, resp := smallWrite(4096, true), &SmallIOResp{Dir: IOWrite, Result: 4096}
	buf := AppendResponse(nil, OpSmallIO, 0, resp)
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { AppendRequest(dst, cap, hints, req) }), 1.0)
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { AppendResponse(dst, OpSmallIO, 0, resp) }), 1.0)
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _, _ = DecodeResponseInto(buf, OpSmallIO, resp) }), 1.0)
}
