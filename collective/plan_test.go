package collective

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// measured returns costs after requests that took latency and perByte, with
// some noise.
func measured(latency, perByte float64, sizes ...int64) *Costs {
	r := rand.New(rand.NewPCG(1, 2))
	var c Costs
	for i := range 500 {
		n := sizes[i%len(sizes)]
		noise := 0.9 + 0.2*r.Float64()
		c.Observe(1, n, time.Duration((latency+perByte*float64(n))*noise))
	}
	return &c
}

func TestCostsAreFitted(t *testing.T) {
	c := measured(1e6, 2, 4096, 1<<16, 1<<20, 4<<20)
	latency, perByte := c.fit()
	require.InEpsilon(t, 1e6, latency, 0.2)
	require.InEpsilon(t, 2, perByte, 0.1)
	require.InEpsilon(t, 2*1e6+2*float64(3<<20), float64(c.Estimate(2, 2, 3<<20)), 0.15)
}

// TestCostsOfOneSize: nothing can be told apart, but the sum is right, and
// neither is less than nothing.
func TestCostsOfOneSize(t *testing.T) {
	for _, size := range []int64{0, 1, 4096, 4 << 20} {
		c := measured(1e6, 1, size)
		latency, perByte := c.fit()
		require.Positive(t, latency)
		require.GreaterOrEqual(t, perByte, 0.0)
		require.InEpsilon(t, 1e6+float64(size), float64(c.Estimate(1, 1, size)), 0.1)
	}
}

// TestCostsForget: what a server took long ago does not matter.
func TestCostsForget(t *testing.T) {
	c := measured(10e6, 5, 4096, 1<<20)
	for i := range 500 {
		n := int64(4096 << (i % 9))
		c.Observe(1, n, time.Duration(1e5+0.5*float64(n)))
	}
	latency, perByte := c.fit()
	require.InEpsilon(t, 1e5, latency, 0.1)
	require.InEpsilon(t, 0.5, perByte, 0.1)
}

func TestFetch(t *testing.T) {
	slow := measured(1e6, 1, 4096, 1<<20) // a request costs as much as a million bytes
	fast := measured(1e3, 1, 4096, 1<<20)
	room := Room{Within: ext(4<<20, 4<<20), Chunk: 1 << 20, Most: 4 << 20, List: true}
	piece := ext(5<<20+5000, 1024)
	for _, c := range []struct {
		name  string
		want  []extent.Extent
		use   float64
		costs *Costs
		way   Way
	}{
		{"all around is used", []extent.Extent{piece}, 1, slow, Domain},
		{"nothing is known", []extent.Extent{piece}, 0, slow, Pieces},
		{"a tenth is used, and a request costs little", []extent.Extent{piece}, 0.01, fast, Pieces},
		{"a tenth is used, and a request costs much", []extent.Extent{piece}, 0.1, slow, Domain},
		{"nothing is used, for two", []extent.Extent{piece, ext(7<<20, 10)}, 0, slow, Pieces},
		{"all is asked for", []extent.Extent{room.Within}, 1, slow, Pieces},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Fetch(c.want, c.use, c.costs, room)
			require.Equal(t, c.way.String(), p.Way.String())
			for _, e := range p.Extents {
				require.True(t, room.Within.Contains(e))
			}
			for _, w := range c.want {
				require.Equal(t, w.Len, overlap(p.Extents, w))
			}
		})
	}
	require.Empty(t, Fetch(nil, 1, slow, room).Extents)
}

// TestFetchOfChunks: with a limit on what a request moves, more than that costs
// another request, so that the chunk is enough.
func TestFetchOfChunks(t *testing.T) {
	c := measured(1e6, 1, 4096, 1<<20)
	room := Room{Within: ext(0, 4<<20), Chunk: 1 << 20, Most: 1 << 20}
	p := Fetch([]extent.Extent{ext(1<<20+70, 10)}, 1, c, room)
	require.Equal(t, Chunk, p.Way)
	require.Equal(t, []extent.Extent{ext(1<<20, 1<<20)}, p.Extents)
	room.Within.Len = 1<<20 + 100 // the file ends there
	p = Fetch([]extent.Extent{ext(1<<20+70, 10)}, 1, c, room)
	require.LessOrEqual(t, p.Extents[len(p.Extents)-1].End(), room.Within.End())
}

func overlap(exts []extent.Extent, e extent.Extent) int64 {
	var n int64
	for _, x := range exts {
		n += x.Intersect(e).Len
	}
	return n
}

func TestStore(t *testing.T) {
	c := measured(1e6, 1, 4096, 1<<20)
	room := Room{Within: ext(0, 4<<20), Chunk: 1 << 20}
	dirty := []extent.Extent{ext(0, 100), ext(200, 100), ext(1<<20, 100)}
	p := Store(dirty, nil, c, room)
	require.Equal(t, OneByOne, p.Way)
	require.Equal(t, 3, p.Requests)
	room.List = true
	p = Store(dirty, nil, c, room)
	require.Equal(t, Pieces, p.Way)
	require.Equal(t, 1, p.Requests)
	require.Equal(t, dirty, p.Extents)

	p = Store(dirty, []extent.Extent{ext(50, 400)}, c, room) // the hole of 100 bytes costs less than an extent
	require.Equal(t, Stripes, p.Way)
	require.Equal(t, []extent.Extent{ext(0, 300), ext(1<<20, 100)}, p.Extents)
	p = Store(dirty, []extent.Extent{ext(0, 2<<20)}, c, room) // that of 1 MiB does not
	require.Equal(t, Pieces, p.Way)
	require.Equal(t, "the pieces", p.Outcome(dirty).Plan)
}

// TestFileDomains: they cover the hull once, each but for the ends in whole
// stripes, and no two differ by more than one.
func TestFileDomains(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		h := Hints{CBNodes: r.IntN(5), StripingUnit: int64(r.IntN(100)), StripingFactor: r.IntN(4)}
		hull := ext(r.Int64N(5000), r.Int64N(5000))
		n := r.IntN(9)
		got := h.FileDomains(hull, n)
		if hull.Empty() || n == 0 {
			require.Empty(t, got)
			continue
		}
		require.LessOrEqual(t, len(got), n)
		if h.CBNodes > 0 {
			require.LessOrEqual(t, len(got), h.CBNodes)
		}
		require.Equal(t, []extent.Extent{hull}, extent.Normalize(got))
		require.Equal(t, hull.Len, extent.Total(got))
		for _, e := range got[1:] {
			require.Zero(t, e.Off%h.stripe())
		}
	}
	require.Equal(t, 3, Hints{CBBufferSize: 10}.Turns(25))
	require.Equal(t, 1, Hints{}.Turns(25))
	for buffer, want := range map[int64]int64{0: 16, -1: 16, 1: 4, 4: 4, 7: 4, 8: 8, 100: 100, math.MaxInt64: math.MaxInt64 / 4 * 4} {
		require.Equal(t, want, Hints{CBBufferSize: buffer}.Round(16, 4), "%d", buffer)
	}
}
