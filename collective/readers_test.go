package collective

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// TestSweep: however far apart readers of one file are, what they have read ahead
// between them is each part of it once, in order, and soon enough.
func TestSweep(t *testing.T) {
	const mib, chunks, limit = 1 << 20, 256, 8 << 20
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		for _, start := range []int64{0, 1 << 40} {
			var s Readers
			known := make([]bool, chunks+2*limit/mib)
			at := make([]int, 16) // chunks that each reader has read
			missed, requests := 0, 0
			for done := 0; done < len(at); {
				i := rnd.IntN(len(at))
				if at[i] == chunks {
					continue
				}
				n := at[i]
				if at[i]++; at[i] == chunks {
					done++
				}
				chunk := extent.Extent{Off: start + int64(n)*mib, Len: mib}
				next := s.sweep(chunk, known[n], limit)
				if !known[n] {
					known[n] = true
					missed++
				}
				for _, e := range next {
					requests++
					for k := (e.Off - start) / mib; k < (e.End()-start)/mib; k++ {
						require.False(t, known[k], "seed %d: chunk %d is asked for again", seed, k)
						known[k] = true
					}
					require.Zero(t, e.End()%AheadRead)
					require.LessOrEqual(t, e.End()-chunk.End(), limit+AheadRead)
				}
			}
			require.Equal(t, 1, missed, "seed %d", seed)
			require.LessOrEqual(t, requests, chunks/int(limit/mib)*2, "seed %d", seed)
		}
	}
}

// TestLeap: of readers that take pieces of one place after another, each place is asked
// for about once, before they are there, and nothing between the places is.
func TestLeap(t *testing.T) {
	const piece, ranks, places, apart = 32 << 10, 64, 30, 1 << 31
	for seed := range uint64(10) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var r Readers
		asked := map[int64]bool{}  // pieces
		at := make([]int64, ranks) // places that each has read
		requests, late := 0, 0
		ask := func(exts ...extent.Extent) {
			before := len(asked)
			for _, e := range exts {
				for i := e.Off / piece; i <= (e.End()-1)/piece; i++ {
					asked[i] = true
				}
			}
			if len(asked) > before {
				requests++
			}
		}
		for done := 0; done < ranks; {
			rank := rnd.IntN(ranks)
			if at[rank] == places || at[rank] > slices.Min(at)+1 { // they are not far apart
				continue
			}
			if at[rank]++; at[rank] == places {
				done++
			}
			e := ext((at[rank]-1)*apart+int64(rank)*piece, piece)
			part := func(x extent.Extent) extent.Extent { return ext(x.Off/AheadRead*AheadRead, AheadRead) }
			known := asked[e.Off/piece]
			dense, next := r.Add(uint64(rank), e, ext(e.Off/RegionSize*RegionSize, RegionSize), known, 8<<20)
			switch {
			case known:
			case dense:
				ask(part(e))
				late++
			default:
				ask(e)
				late++
			}
			for _, x := range next {
				for ; !x.Empty(); x = (extent.Extent{Off: part(x).End(), Len: max(0, x.End()-part(x).End())}) {
					ask(r.With(part(x), []extent.Extent{x.Intersect(part(x))})...)
				}
			}
		}
		require.LessOrEqual(t, len(asked), (places+1)*ranks, "seed %d", seed)
		require.LessOrEqual(t, requests, 60+places, "seed %d", seed)
		require.LessOrEqual(t, late, 75, "seed %d", seed)
	}
}

// TestSweepAgain: a file that is read again, and is not known any more, is read
// ahead again; one that is known is not.
func TestSweepAgain(t *testing.T) {
	const mib, limit = int64(1 << 20), int64(4 << 20)
	var s Readers
	for n := range int64(64) {
		s.sweep(extent.Extent{Off: n * mib, Len: mib}, true, limit)
	}
	first := extent.Extent{Len: mib}
	require.Empty(t, s.sweep(first, true, limit))
	require.Equal(t, []extent.Extent{{Off: mib, Len: 5 * mib}}, s.sweep(first, false, limit))
	last := extent.Extent{Off: math.MaxInt64 - mib, Len: mib}
	require.Empty(t, s.sweep(last, false, limit))
	require.Equal(t, []extent.Extent{{Off: mib, Len: mib / 2}}, new(Readers).sweep(first, false, mib/2), "a small cache")
}
