package ionserver

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

func hullOf(exts []extent.Extent) extent.Extent {
	last := exts[len(exts)-1]
	return extent.Extent{Off: exts[0].Off, Len: last.End() - exts[0].Off}
}

// writePieces writes p to exts, which lie in one domain, and returns the reply.
func (m *mount) writePieces(h uint64, exts []extent.Extent, p []byte, flags uint32) *rpc.Frame {
	m.t.Helper()
	hull := hullOf(exts)
	f := rpc.Frame{Op: ionpb.Op_WRITE, Handle: h, Off: hull.Off, Len: hull.Len, Flags: flags, Data: rpc.Static(p)}
	r, err := m.call(context.Background(), m.place.Owner(h, hull.Off), f, ionpb.PiecesOf(exts), nil)
	require.NoError(m.t, err)
	require.EqualValues(m.t, len(p), r.Len)
	return r
}

func (m *mount) readPieces(h uint64, exts []extent.Extent) []byte {
	m.t.Helper()
	hull := hullOf(exts)
	f := rpc.Frame{Op: ionpb.Op_READ, Handle: h, Off: hull.Off, Len: hull.Len}
	r, err := m.call(context.Background(), m.place.Owner(h, hull.Off), f, ionpb.PiecesOf(exts), nil)
	require.NoError(m.t, err)
	defer r.Data.Release()
	return bytes.Join(r.Data.Append(nil), nil)
}

// randomPieces is two or more extents within e.
func randomPieces(rng *rand.Rand, e extent.Extent) (out []extent.Extent) {
	step := 1 + rng.Int64N(e.Len/3)
	for off := e.Off + rng.Int64N(step); ; {
		n := 1 + rng.Int64N(step)
		if off+n > e.End() {
			break
		}
		out = append(out, extent.Extent{Off: off, Len: n})
		off += n + 1 + rng.Int64N(step)
	}
	if len(out) < 2 {
		return []extent.Extent{{Off: e.Off, Len: 1}, {Off: e.Off + 2, Len: 1}}
	}
	return out
}

// TestPieces: two mounts write and read at many places of a domain with one
// request, and find what a file of plain memory would hold.
func TestPieces(t *testing.T) {
	s := startSystem(t, 2, 3, nil)
	mounts := []*mount{s.mount(t), s.mount(t)}
	h := mounts[0].file(mounts[0].root, "f")
	rng := rand.New(rand.NewPCG(1, 2))
	var want []byte
	size := func(n int64) {
		if n < int64(len(want)) {
			want = want[:n:n]
		}
		want = append(want, make([]byte, n-int64(len(want)))...)
	}
	for i := range 300 {
		m := mounts[rng.IntN(2)]
		domain := extent.Extent{Off: rng.Int64N(4) * s.domain, Len: s.domain}
		exts := randomPieces(rng, domain)
		switch k := rng.IntN(20); {
		case k == 0:
			n := rng.Int64N(4 * s.domain)
			require.NoError(t, m.truncate(h, n))
			size(n)
		case k < 10:
			var flags uint32
			if k == 1 {
				flags = uint32(ionpb.Flag_SYNC)
			}
			p := pattern(int(extent.Total(exts)), byte(i))
			r := m.writePieces(h, exts, p, flags)
			require.Positive(t, r.Off, "a stamp")
			require.Equal(t, k == 1, r.Flags&uint32(ionpb.Flag_STABLE_WRITE) != 0)
			size(max(int64(len(want)), hullOf(exts).End()))
			for _, e := range exts {
				p = p[copy(want[e.Off:e.End()], p):]
			}
		default:
			var expect []byte
			for _, e := range exts {
				expect = append(expect, want[min(e.Off, int64(len(want))):min(e.End(), int64(len(want)))]...)
			}
			require.True(t, bytes.Equal(expect, m.readPieces(h, exts)), "read %d of %v, size %d", i, exts, len(want))
		}
	}
	got, err := mounts[1].read(h, 0, len(want)+1)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
}

// TestColdPiecesAreOneFetch: what is read at many places costs each server that
// has some of it one request.
func TestColdPiecesAreOneFetch(t *testing.T) {
	s := startSystem(t, 1, 2, nil)
	m := s.mount(t)
	h := m.file(m.root, "f")
	want := pattern(int(s.domain), 3)
	require.NoError(t, m.write(h, 0, want, uint32(ionpb.Flag_SYNC)))
	s.nodes[0].owner.get(h).data.Drop(extent.ToEnd(0))
	var exts []extent.Extent
	var expect []byte
	for off := int64(0); off < s.domain; off += 8 << 10 {
		exts = append(exts, extent.Extent{Off: off, Len: 1 << 10})
		expect = append(expect, want[off:off+1<<10]...)
	}
	requests := func() int64 {
		n := s.nodes[0].pvfs.Stats().Requests
		return n["io"] + n["small_io"]
	}
	before := requests()
	require.True(t, bytes.Equal(expect, m.readPieces(h, exts)))

	require.LessOrEqual(t, requests()-before, int64(2))
}

func TestBadPieces(t *testing.T) {
	s := startSystem(t, 1, 1, nil)
	m := s.mount(t)
	h := m.file(m.root, "f")
	many := make([]int64, ionpb.MaxPieces+1)
	ones := make([]int64, len(many))
	for i := range many {
		many[i], ones[i] = 2*int64(i), 1
	}
	for _, c := range []struct {
		name   string
		off, n []int64
		hull   extent.Extent
		data   int
	}{
		{"none", nil, nil, extent.Extent{}, 0},
		{"fewer lengths", []int64{0, 9}, []int64{2}, extent.Extent{Len: 10}, 3},
		{"more lengths", []int64{0}, []int64{2, 2}, extent.Extent{Len: 4}, 4},
		{"empty piece", []int64{0, 9}, []int64{0, 2}, extent.Extent{Len: 11}, 2},
		{"negative length", []int64{0, 9}, []int64{2, -2}, extent.Extent{Len: 7}, 2},
		{"negative offset", []int64{-4, 9}, []int64{2, 2}, extent.Extent{Len: 11}, 4},
		{"not sorted", []int64{9, 0}, []int64{2, 2}, extent.Extent{Len: 11}, 4},
		{"overlap", []int64{0, 1}, []int64{2, 2}, extent.Extent{Len: 3}, 4},
		{"touch", []int64{0, 2}, []int64{2, 2}, extent.Extent{Len: 4}, 4},
		{"end beyond the largest offset", []int64{0, math.MaxInt64}, []int64{2, 2}, extent.Extent{Len: 9}, 4},
		{"another offset", []int64{1, 9}, []int64{2, 2}, extent.Extent{Len: 11}, 4},
		{"another length", []int64{0, 9}, []int64{2, 2}, extent.Extent{Len: 12}, 4},
		{"crosses a domain", []int64{0, s.domain}, []int64{2, 2}, extent.Extent{Len: s.domain + 2}, 4},
		{"too many", many, ones, extent.Extent{Len: 2*int64(len(many)) - 1}, len(many)},
	} {
		t.Run(c.name, func(t *testing.T) {
			body, err := proto.Marshal(&ionpb.Pieces{Off: c.off, Len: c.n})
			require.NoError(t, err)
			if c.off == nil {
				body = []byte{0x1a, 0} // of an unknown field
			}
			f := rpc.Frame{Op: ionpb.Op_READ, Handle: h, Off: c.hull.Off, Len: c.hull.Len, Body: body}
			_, err = m.call(t.Context(), 0, f, nil, nil)
			require.Equal(t, syscall.EINVAL, errno.Of(err), "read: %v", err)
			f.Op, f.Data = ionpb.Op_WRITE, rpc.Static(make([]byte, c.data))
			_, err = m.call(t.Context(), 0, f, nil, nil)
			require.Equal(t, syscall.EINVAL, errno.Of(err), "write: %v", err)
		})
	}
	t.Run("garbage", func(t *testing.T) {
		_, err := m.call(t.Context(), 0, rpc.Frame{Op: ionpb.Op_READ, Handle: h, Len: 9, Body: []byte{0xff}}, nil, nil)
		require.Equal(t, syscall.EINVAL, errno.Of(err))
	})
	for _, n := range []int{3, 5} {
		f := rpc.Frame{Op: ionpb.Op_WRITE, Handle: h, Len: 11, Data: rpc.Static(make([]byte, n))}
		_, err := m.call(t.Context(), 0, f, ionpb.PiecesOf([]extent.Extent{{Len: 2}, {Off: 9, Len: 2}}), nil)
		require.Equal(t, syscall.EINVAL, errno.Of(err), "%d bytes for 4", n)
	}
	got, err := m.read(h, 0, 100)
	require.NoError(t, err)
	require.Empty(t, got, "nothing was written")
}

// FuzzPieces: whatever the body of a READ or WRITE is, it is refused with
// EINVAL, or names bytes within off and len.
func FuzzPieces(f *testing.F) {
	for _, exts := range [][]extent.Extent{{{Len: 2}, {Off: 9, Len: 2}}, {{Off: 5, Len: 1}, {Off: 7, Len: 3}, {Off: 70000, Len: 4096}}} {
		body, err := proto.Marshal(ionpb.PiecesOf(exts))
		require.NoError(f, err)
		f.Add(body, hullOf(exts).Off, hullOf(exts).Len)
	}
	f.Add([]byte{0xff}, int64(0), int64(1))
	f.Fuzz(func(t *testing.T, body []byte, off, n int64) {
		c := &call{Request: &rpc.Request{Frame: &rpc.Frame{Op: ionpb.Op_READ, Handle: 1, Off: off, Len: n, Body: body}}, srv: &Server{}}
		if c.checkFrame() != nil {
			return
		}
		p, err := c.pieces()
		var s spread
		if err == nil {
			s, err = c.spread(p, c.Len)
		}
		if err != nil {
			require.Contains(t, []syscall.Errno{syscall.EINVAL, syscall.EFBIG}, errno.Of(err))
			return
		}
		require.Equal(t, extent.Extent{Off: off, Len: n}, s.hull)
		require.Equal(t, s.bytes, extent.Total(s.exts))
		if !s.hull.Empty() {
			require.Equal(t, extent.Normalize(s.exts), s.exts)
			require.Equal(t, s.hull, hullOf(s.exts))
		}
	})
}
