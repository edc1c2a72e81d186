package collective

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

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
	for buffer, want := range map[int64]int64{0: 16, -1: 16, 1: 4, 4: 4, 7: 4, 8: 8, 100: 100, math.MaxInt64: math.MaxInt64 / 4 * 4} {
		require.Equal(t, want, Hints{CBBufferSize: buffer}.Round(16, 4), "%d", buffer)
	}
}
