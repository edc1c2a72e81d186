package collective

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// TestDense: whether a region is worth fetching for a piece of it, soon after
// readers have begun.
func TestDense(t *testing.T) {
	const k = 1 << 10
	for _, c := range []struct {
		name   string
		ranks  int
		access func(rank, i int) extent.Extent
		dense  bool
	}{
		{"half of what eight interleave", 4, func(r, i int) extent.Extent { return ext(int64(i)*32*k+int64(r)*4*k, 4*k) }, true},
		{"a sixteenth of it", 4, func(r, i int) extent.Extent { return ext(int64(i)*256*k+int64(r)*4*k, 4*k) }, false},
		{"rows of a plane", 4, func(r, i int) extent.Extent { return ext(int64(i/32)<<20+int64(i%32)*8*k+int64(r)*2*k, 2*k) }, true},
		{"one small strided reader", 1, func(_, i int) extent.Extent { return ext(int64(i)*64*k, 4*k) }, false},
		{"one sequential reader", 1, func(_, i int) extent.Extent { return ext(int64(i)*8*k, 8*k) }, true},
		{"one with large pieces", 1, func(_, i int) extent.Extent { return ext(int64(i)<<20, 512*k) }, false},
		{"one page by all", 8, func(_, i int) extent.Extent { return ext(64*k, 4*k) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p Pattern
			var e extent.Extent
			for i := range 12 {
				for r := range c.ranks {
					e = c.access(r, i)
					p.Add(uint64(r), e)
				}
			}
			require.Equal(t, c.dense, p.Dense(e))
		})
	}
}

// TestRandomIsNotDense: not even pages of several reads each.
func TestRandomIsNotDense(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var p Pattern
	for range 3000 {
		at := r.Int64N(256) << 20 / 4
		for i := range int64(2) {
			e := ext(at+i*4096, 4096)
			p.Add(uint64(r.IntN(4)), e)
			require.False(t, p.Dense(e))
		}
	}
}

// TestThorough: where readers have left nothing out of the places that they read, the
// next place is dense at once, wherever it lies; who reads here and there afterwards
// soon ends that.
func TestThorough(t *testing.T) {
	const piece, ranks, apart = 32 << 10, 64, 1 << 31
	r := rand.New(rand.NewPCG(7, 8))
	var p Pattern
	place := func(n int64, at int64) bool {
		first := true
		dense := false
		for _, rank := range r.Perm(ranks) {
			e := ext(n*apart+at+int64(rank)*piece, piece)
			p.Add(uint64(rank), e)
			if first {
				dense = p.Dense(e)
			}
			first = false
		}
		return dense
	}
	require.False(t, place(0, 0), "nothing is known yet")
	for n := range int64(20) {
		require.True(t, place(n+1, r.Int64N(100)*RegionSize), n) // at no constant distance
	}
	wrong := 0
	for range 1000 {
		e := ext(r.Int64N(1<<40)/4096*4096, 4096)
		p.Add(0, e)
		if p.Dense(e) {
			wrong++
		}
	}
	require.LessOrEqual(t, wrong, 4*ranks*piece*2/int(RegionSize)+3)
}

// TestAhead: what several will read, each in its way, until they are gone.
func TestAhead(t *testing.T) {
	var p Pattern
	for i := range int64(4) {
		p.Add(1, ext(i*100, 10))
		p.Add(2, ext(i*100+50, 10))
		p.Add(3, ext(1000+10*i, 10))
	}
	require.Equal(t, []extent.Extent{ext(400, 10), ext(450, 10), ext(500, 10), ext(550, 10)}, p.Ahead(ext(300, 300)))
	p.Forget(2)
	require.Equal(t, []extent.Extent{ext(400, 10), ext(500, 10)}, p.Ahead(ext(300, 300)))
	require.Equal(t, []extent.Extent{ext(1045, 162)}, p.Ahead(ext(1045, 162)))
}
