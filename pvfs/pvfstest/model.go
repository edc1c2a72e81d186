package pvfstest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// layouts is every distribution with several strip sizes.
func layouts(servers int) map[string]pvfs.CreateOptions {
	out := map[string]pvfs.CreateOptions{
		"default":       {},
		"one datafile":  {NumDFiles: 1},
		"two datafiles": {NumDFiles: 2},
		"basic":         {Dist: &wire.Dist{Name: wire.BasicDist}},
		"twod":          {Dist: &wire.Dist{Name: wire.TwodStripe, StripSize: 1000, NumGroups: 2, GroupStripFactor: 3}},
	}
	for _, strip := range []int64{1, 100, 4096, 65536, 262144, 1 << 20} {
		out[fmt.Sprintf("strip %d", strip)] = pvfs.CreateOptions{StripSize: strip}
	}
	switch {
	case servers >= 4:
		out["varstrip"] = pvfs.CreateOptions{Dist: &wire.Dist{Name: wire.VarstripDist, Strips: "0:1000;1:30k;2:500;3:64k;1:77"}}
	case servers >= 2:
		out["varstrip"] = pvfs.CreateOptions{Dist: &wire.Dist{Name: wire.VarstripDist, Strips: "1:700;0:30k"}}
	}
	return out
}

// testModel compares random operations with a slice of bytes.
func (s *suite) testModel(t *testing.T) {
	servers := 0
	for _, srv := range s.c.Servers() {
		if srv.Data {
			servers++
		}
	}
	for name, o := range layouts(servers) {
		t.Run(name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 0))
			limit := 900000
			if o.StripSize != 0 && o.StripSize < 100 {
				limit = 40000
			}
			m := &fileModel{s: s, t: t, r: r, limit: limit}
			_, a := s.create(t, o)
			m.h = a.Handle
			m.files = []*pvfs.File{s.c.File(a), s.c.File(a)}
			steps := 60
			if testing.Short() {
				steps = 25
			}
			for range steps {
				m.step()
			}
			m.check()
		})
	}
}

// fileModel is a file and what should be in it.
type fileModel struct {
	s     *suite
	t     *testing.T
	r     *rand.Rand
	h     pvfs.Handle
	files []*pvfs.File // several views of one file
	bytes []byte
	limit int
}

// place picks an extent, often at a border.
func (m *fileModel) place() (off, n int) {
	off = m.r.IntN(m.limit)
	switch m.r.IntN(4) {
	case 0:
		off = m.r.IntN(70000) % m.limit
	case 1:
		off -= off % 4096
	}
	n = 1 + m.r.IntN(m.limit-off)
	if m.r.IntN(2) == 0 {
		n = min(n, 1+m.r.IntN(20000))
	}
	return off, n
}

// extents picks a sorted list of extents.
func (m *fileModel) extents() (exts []extent.Extent, total int) {
	count, at := 1+m.r.IntN(150), m.r.IntN(m.limit/2)
	maxLen, maxGap := 1+m.r.IntN(m.limit/100), m.r.IntN(m.limit/50)
	evenly := m.r.IntN(3) == 0
	n, gap := 1+m.r.IntN(maxLen), m.r.IntN(maxGap+1)
	for range count {
		if !evenly {
			n, gap = 1+m.r.IntN(maxLen), m.r.IntN(maxGap+1)
		}
		if at+n > m.limit {
			break
		}
		exts = append(exts, extent.Extent{Off: int64(at), Len: int64(n)})
		at, total = at+n+gap, total+n
	}
	return exts, total
}

func (m *fileModel) put(off int, b []byte) {
	if n := off + len(b); n > len(m.bytes) {
		m.bytes = append(m.bytes, make([]byte, n-len(m.bytes))...)
	}
	copy(m.bytes[off:], b)
}

func (m *fileModel) step() {
	f := m.files[m.r.IntN(len(m.files))]
	ctx := m.s.ctx(m.t)
	switch m.r.IntN(9) {
	case 0, 1:
		off, n := m.place()
		b := fill(m.r.Uint64(), n)
		got, err := f.WriteAt(ctx, cut(m.r, b), int64(off))
		require.NoError(m.t, err)
		require.Equal(m.t, n, got)
		m.put(off, b)
	case 2, 3, 4:
		off, n := m.place()
		b := fill(1, n)
		got, err := f.ReadAt(ctx, cut(m.r, b), int64(off))
		require.NoError(m.t, err)
		want := m.bytes[min(off, len(m.bytes)):min(off+n, len(m.bytes))]
		require.Equal(m.t, len(want), got, "%d at %d of %d", n, off, len(m.bytes))
		require.True(m.t, bytes.Equal(want, b[:got]), "%d at %d of %d", n, off, len(m.bytes))
	case 5:
		exts, total := m.extents()
		b := fill(m.r.Uint64(), total)
		got, err := f.WriteExtents(ctx, exts, cut(m.r, b))
		require.NoError(m.t, err)
		require.Equal(m.t, int64(total), got)
		for _, e := range exts {
			m.put(int(e.Off), b[:e.Len])
			b = b[e.Len:]
		}
	case 6:
		exts, total := m.extents()
		b := fill(2, total)
		got, err := f.ReadExtents(ctx, exts, cut(m.r, b))
		require.NoError(m.t, err)
		var want []byte
		for _, e := range exts {
			want = append(want, m.bytes[min(int(e.Off), len(m.bytes)):min(int(e.End()), len(m.bytes))]...)
		}
		require.Equal(m.t, int64(len(want)), got)
		require.True(m.t, bytes.Equal(want, b[:got]))
	case 7:
		size := m.r.IntN(m.limit)
		if m.r.IntN(2) == 0 {
			size %= 70000
		}
		require.NoError(m.t, f.Truncate(ctx, int64(size)))
		if size > len(m.bytes) {
			m.bytes = append(m.bytes, make([]byte, size-len(m.bytes))...)
		}
		m.bytes = m.bytes[:size:size]
	case 8:
		size, err := f.Size(ctx)
		require.NoError(m.t, err)
		require.Equal(m.t, int64(len(m.bytes)), size)
	}
}

func (m *fileModel) check() {
	a, err := m.s.c.GetAttr(m.s.ctx(m.t), m.h)
	require.NoError(m.t, err)
	require.Equal(m.t, int64(len(m.bytes)), a.Size)
	for _, f := range append(m.files, m.s.c.File(a)) {
		require.True(m.t, bytes.Equal(m.bytes, m.s.mustRead(m.t, f, m.limit+100, 0)))
	}
}
