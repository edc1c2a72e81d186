package extent

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEndSaturates(t *testing.T) {
	require.Equal(t, int64(math.MaxInt64), Extent{math.MaxInt64 - 1, 10}.End())
	require.Equal(t, int64(math.MaxInt64), ToEnd(7).End())
}

func TestIntersect(t *testing.T) {
	for _, c := range []struct {
		name       string
		a, b, want Extent
	}{
		{"touching share nothing", Extent{0, 4}, Extent{4, 4}, Extent{}},
		{"one byte", Extent{0, 5}, Extent{4, 4}, Extent{4, 1}},
		{"inside", Extent{0, 100}, Extent{10, 5}, Extent{10, 5}},
		{"empty", Extent{3, 0}, Extent{0, 9}, Extent{}},
		{"to the end", ToEnd(10), Extent{math.MaxInt64 - 2, 2}, Extent{math.MaxInt64 - 2, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, c.a.Intersect(c.b))
			require.Equal(t, c.want, c.b.Intersect(c.a))
			require.Equal(t, !c.want.Empty(), c.a.Overlaps(c.b))
		})
	}
}

// TestSubtractAgainstBytes compares with the dumbest correct model.
func TestSubtractAgainstBytes(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 2))
		some := func() (exts []Extent) {
			for range r.IntN(6) {
				exts = append(exts, Extent{int64(r.IntN(50)), int64(r.IntN(14))})
			}
			return Normalize(exts)
		}
		exts, others := some(), some()
		in := func(exts []Extent, at int64) bool {
			return slices.ContainsFunc(exts, func(e Extent) bool { return e.Contains(Extent{at, 1}) })
		}
		got := Subtract(exts, others)
		require.Equal(t, Normalize(got), append([]Extent{}, got...), "seed %d: sorted, none touch", seed)
		for at := range int64(64) {
			require.Equal(t, in(exts, at) && !in(others, at), in(got, at), "seed %d", seed)
		}
	}
}

// TestNormalizeAgainstBytes compares with the dumbest correct model.
func TestNormalizeAgainstBytes(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		var exts []Extent
		var want [64]bool
		for range r.IntN(8) {
			e := Extent{int64(r.IntN(50)), int64(r.IntN(14))}
			exts = append(exts, e)
			for i := e.Off; i < e.End(); i++ {
				want[i] = true
			}
		}
		var got [64]bool
		last := int64(-1)
		for _, e := range Normalize(exts) {
			require.False(t, e.Empty())
			require.Greater(t, e.Off, last, "seed %d: sorted, none touch", seed)
			last = e.End()
			for i := e.Off; i < e.End(); i++ {
				got[i] = true
			}
		}
		require.Equal(t, want, got, "seed %d", seed)
	}
}

func TestHull(t *testing.T) {
	require.Equal(t, Extent{3, 5}, Hull([]Extent{{3, 5}}))
	require.Equal(t, Extent{3, 17}, Hull([]Extent{{3, 5}, {10, 2}, {19, 1}}))
}

// TestMeetAgainstBytes compares with the dumbest correct model.
func TestMeetAgainstBytes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	some := func() (exts []Extent, bytes [40]bool) {
		for range rnd.IntN(4) {
			exts = append(exts, Extent{Off: rnd.Int64N(30), Len: rnd.Int64N(10)})
		}
		exts = Normalize(exts)
		for _, e := range exts {
			for i := e.Off; i < e.End(); i++ {
				bytes[i] = true
			}
		}
		return exts, bytes
	}
	for range 5000 {
		a, as := some()
		b, bs := some()
		want := false
		for i := range as {
			want = want || as[i] && bs[i]
		}
		require.Equal(t, want, Meet(a, b), "%v %v", a, b)
	}
}
