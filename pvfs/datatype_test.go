package pvfs

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// array is the extents of rows of n bytes in an array: counts[i] of them, or of
// what the levels before make, strides[i] apart.
func array(off, n int64, counts []int, strides []int64) []extent.Extent {
	exts := []extent.Extent{{Off: off, Len: n}}
	for i, count := range counts {
		once := exts
		exts = nil
		for k := range count {
			for _, e := range once {
				exts = append(exts, extent.Extent{Off: e.Off + int64(k)*strides[i], Len: n})
			}
		}
	}
	return exts
}

// scattered is count extents of random lengths and distances.
func scattered(r *rand.Rand, count int, equal bool) []extent.Extent {
	var exts []extent.Extent
	n, at := 1+r.Int64N(50), r.Int64N(1000)
	for range count {
		if !equal {
			n = 1 + r.Int64N(1<<30)
		}
		exts = append(exts, extent.Extent{Off: at, Len: n})
		at += n + 1 + r.Int64N(1<<30)
	}
	return exts
}

// same checks that ds, one after the other, are exts.
func same(t *testing.T, exts []extent.Extent, ds []description) {
	t.Helper()
	for _, d := range ds {
		require.Positive(t, d.exts)
		recs := d.typ.Records
		require.LessOrEqual(t, len(recs), wire.MaxNested+1)
		require.Equal(t, []int32{int32(len(recs) - 1), -1}, []int32{recs[0].Nested, recs[0].Committed})
		require.Equal(t, extent.Extent{Off: exts[0].Off, Len: exts[d.exts-1].End() - exts[0].Off},
			extent.Extent{Off: recs[0].LB, Len: recs[0].UB - recs[0].LB})
		require.Equal(t, recs[0].Depth, depth(recs, 0))
		cur, err := d.typ.Cursor(0, extent.Total(exts[:d.exts]))
		require.NoError(t, err)
		for _, want := range exts[:d.exts] {
			got, ok := cur.NextMax(want.Len)
			require.True(t, ok)
			require.Equal(t, want, got)
		}
		_, ok := cur.Next()
		require.False(t, ok)
		exts = exts[d.exts:]
	}
	require.Empty(t, exts)
}

// depth is how many levels record i has; servers refuse more than it says.
func depth(recs []wire.TypeRecord, i int32) int32 {
	most := int32(0)
	for ; i >= 0; i = recs[i].Next {
		most = max(most, 1+depth(recs, recs[i].Elem))
	}
	return most
}

// TestDescribe counts the records, those of the datatypes one after the other.
func TestDescribe(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	plane := array(7, 10, []int{20, 5}, []int64{100, 10000})
	for _, x := range []struct {
		name string
		exts []extent.Extent
		want []int
	}{
		{"one", []extent.Extent{{Off: 9, Len: 1 << 30}}, []int{2}},
		{"two", []extent.Extent{{Off: 9, Len: 5}, {Off: 99, Len: 6}}, []int{3}},
		{"two of a length", []extent.Extent{{Off: 9, Len: 5}, {Off: 99, Len: 5}}, []int{2}},
		{"evenly spaced", array(5, 100, []int{100000}, []int64{400}), []int{2}},
		{"rows of two planes", array(5, 8, []int{30, 2}, []int64{100, 10000}), []int{3}},
		{"rows of three planes", array(5, 8, []int{30, 3}, []int64{100, 10000}), []int{3}},
		{"four dimensions", array(5, 8, []int{10, 11, 12}, []int64{100, 10000, 1000000}), []int{4}},
		{"six dimensions", array(5, 1, []int{3, 3, 3, 3, 3}, []int64{10, 100, 1000, 10000, 100000}), []int{6}},
		{"part of an array", plane[7:93], []int{5}},
		{"one cut shorter", func() []extent.Extent {
			exts := array(0, 100, []int{1000}, []int64{1000})
			exts[3].Len--
			return exts
		}(), []int{4}},
		{"two arrays of one shape", append(slices.Clone(plane), array(1<<40, 10, []int{20, 5}, []int64{100, 10000})...), []int{4}},
		{"no pattern, one length", scattered(r, 1000, true), []int{101, 101, 101, 101, 101}},
		{"no pattern at all", scattered(r, 250, false), []int{101, 101, 51}},
		{"touching", []extent.Extent{{Off: 5, Len: 10}, {Off: 15, Len: 10}, {Off: 25, Len: 10}}, []int{2}},
	} {
		t.Run(x.name, func(t *testing.T) {
			ds := describe(x.exts)
			same(t, x.exts, ds)
			var got []int
			for _, d := range ds {
				got = append(got, len(d.typ.Records))
			}
			require.Equal(t, x.want, got)
		})
	}
}

// TestDescribeAnything checks that random mixtures come out as they went in.
func TestDescribeAnything(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		var exts []extent.Extent
		for range 1 + r.IntN(6) {
			var more []extent.Extent
			switch n := 1 + r.Int64N(30); r.IntN(3) {
			case 0:
				more = scattered(r, 1+r.IntN(120), r.IntN(2) == 0)
			case 1:
				more = array(0, n, []int{1 + r.IntN(300)}, []int64{n + r.Int64N(9)})
			default:
				s := n + r.Int64N(5)
				more = array(0, n, []int{1 + r.IntN(6), 1 + r.IntN(6), 1 + r.IntN(6)}, []int64{s, 6*s + r.Int64N(9), 40*s + 60})
			}
			at := int64(0)
			if len(exts) > 0 {
				at = exts[len(exts)-1].End() + r.Int64N(100)
			}
			for _, e := range more[r.IntN(len(more)):] {
				exts = append(exts, extent.Extent{Off: at + e.Off, Len: e.Len})
			}
		}
		t.Logf("seed %d, %d extents", seed, len(exts))
		same(t, exts, describe(exts))
	}
}
