package cache

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// TestSetAgainstBits: a set does what an array of bits does.
func TestSetAgainstBits(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var s set
	var bits [64]bool
	count := func(e extent.Extent, want bool) (n int64) {
		for i := e.Off; i < e.End(); i++ {
			if bits[i] == want {
				n++
			}
		}
		return n
	}
	list := func(want bool, in func(i int64) bool) (out []extent.Extent) {
		for i := range int64(len(bits)) {
			if bits[i] == want && in(i) {
				out = link(out, extent.Extent{Off: i, Len: 1})
			}
		}
		return out
	}
	for range 50000 {
		e := extent.Extent{Off: r.Int64N(60), Len: r.Int64N(5)}
		inside := func(i int64) bool { return i >= e.Off && i < e.End() }
		outside := func(i int64) bool { return !inside(i) }
		require.Equal(t, list(true, inside), s.within(nil, e))
		require.Equal(t, list(false, inside), s.gaps(nil, e))
		require.Equal(t, list(true, outside), s.without(nil, e))
		require.Equal(t, count(e, true) > 0, s.overlaps(e))
		require.Equal(t, count(e, false) == 0, s.contains(e))
		if r.IntN(2) == 0 {
			require.Equal(t, count(e, false), s.add(e))
			for i := e.Off; i < e.End(); i++ {
				bits[i] = true
			}
		} else {
			require.Equal(t, count(e, true), s.remove(e))
			for i := e.Off; i < e.End(); i++ {
				bits[i] = false
			}
		}
		all := list(true, func(int64) bool { return true })
		require.Equal(t, all, append([]extent.Extent(nil), s...))
		if len(all) > 0 {
			require.Equal(t, all[len(all)-1].End(), s.end())
		}
	}
}
