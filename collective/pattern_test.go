package collective

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// TestPattern: what ranks do together, each seen as it comes.
func TestPattern(t *testing.T) {
	const k = 1 << 10
	for _, c := range []struct {
		name   string
		ranks  int
		access func(rank, i int) extent.Extent
		shape  string
	}{
		{"one reader", 1, func(_, i int) extent.Extent { return ext(int64(i)*k, k) },
			"sequential by 1, pieces of 1 KiB, 100% used"},
		{"one strided reader", 1, func(_, i int) extent.Extent { return ext(int64(i)*10*k, k) },
			"strided by 1, pieces of 1 KiB every 10 KiB, 10% used"},
		{"segments", 8, func(r, i int) extent.Extent { return ext(int64(r)<<30+int64(i)*k, k) },
			"segmented by 8, pieces of 1 KiB, 100% used"},
		{"interleaved", 8, func(r, i int) extent.Extent { return ext(int64(i)*8*k+int64(r)*k, k) },
			"interleaved by 8, pieces of 1 KiB every 8 KiB, 100% used"},
		{"interleaved with holes", 8, func(r, i int) extent.Extent { return ext(int64(i)*64*k+int64(r)*k, k) },
			"sparse by 8, pieces of 1 KiB every 64 KiB, 12% used"},
		{"block-cyclic", 4, func(r, i int) extent.Extent { return ext(int64(i/3)*12*k+int64(r)*3*k+int64(i%3)*k, k) },
			"interleaved by 4, pieces of 3 KiB every 12 KiB, 100% used"},
		{"nested strided", 2, func(r, i int) extent.Extent { return ext(int64(i/5)<<20+int64(i%5)*2*k+int64(r)*k, k) },
			"interleaved by 2, pieces of 1 KiB every 2 KiB, 100% used"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p Pattern
			for i := range 60 {
				for r := range c.ranks {
					p.Add(uint64(r), c.access(r, i))
				}
			}
			require.Equal(t, c.shape, p.Shape().String())
		})
	}
}

// TestUseIsLearned: of readers that follow no form it is known how much they
// used of what they are done with.
func TestUseIsLearned(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var dense, sparse Pattern
	for part := range int64(20) {
		for _, i := range r.Perm(int(RegionSize / 4096)) { // all of a part, in any order
			dense.Add(1, ext(part*RegionSize+int64(i)*4096, 4096))
		}
	}
	for range 5000 {
		sparse.Add(1, ext(r.Int64N(1<<40)/512*512, 512))
	}
	require.Equal(t, Random, dense.Shape().Form)
	require.InDelta(t, 1, dense.Use(), 0.01)
	require.Less(t, sparse.Use(), 0.01)
	require.LessOrEqual(t, sparse.regions.order.Len(), maxRegions)
}

// TestManyReadOneHeader: a few bytes that all read are not a dense file.
func TestManyReadOneHeader(t *testing.T) {
	var p Pattern
	for i := range 5000 {
		p.Add(uint64(i), ext(64<<10, 4096))
		p.Add(uint64(i), ext(int64(i)*100*RegionSize, 4096))
	}
	require.Less(t, p.Use(), 0.1)
}

func TestPatternTakesAnything(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var p Pattern
	for range 3000 {
		off := r.Int64() >> r.IntN(63)
		n := min(r.Int64()>>r.IntN(63), math.MaxInt64-off)
		p.Add(r.Uint64N(400), ext(off, n))
		require.LessOrEqual(t, p.Use(), 1.0)
		require.LessOrEqual(t, p.regions.order.Len(), maxRegions)
		require.LessOrEqual(t, p.sequences.order.Len(), maxSequences)
		p.Shape()
	}
}
