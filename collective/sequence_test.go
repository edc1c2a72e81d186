package collective

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

func ext(off, n int64) extent.Extent { return extent.Extent{Off: off, Len: n} }

// nestedAccesses are runs of so many accesses of n bytes, step apart, of which
// the runs are outer apart.
func nestedAccesses(runs, of int, n, step, outer int64) []extent.Extent {
	var out []extent.Extent
	for r := range runs {
		for i := range of {
			out = append(out, ext(int64(r)*outer+int64(i)*step, n))
		}
	}
	return out
}

func TestSequence(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []extent.Extent
		form Form
		next extent.Extent // empty: not known
	}{
		{"nothing", nil, Random, ext(0, 0)},
		{"one access", []extent.Extent{ext(5, 10)}, Random, ext(0, 0)},
		{"two that touch", []extent.Extent{ext(5, 10), ext(15, 10)}, Sequential, ext(25, 10)},
		{"two that do not", []extent.Extent{ext(5, 10), ext(50, 10)}, Random, ext(0, 0)},
		{"three at one distance", nestedAccesses(1, 3, 10, 40, 0), Strided, ext(120, 10)},
		{"backwards", []extent.Extent{ext(90, 10), ext(60, 10), ext(30, 10)}, Strided, ext(0, 10)},
		{"backwards to the beginning", []extent.Extent{ext(60, 10), ext(30, 10), ext(0, 10)}, Strided, ext(0, 0)},
		{"three at two distances", []extent.Extent{ext(0, 10), ext(40, 10), ext(90, 10)}, Random, ext(0, 0)},
		{"sequential of many lengths", []extent.Extent{ext(0, 10), ext(10, 7), ext(17, 90)}, Sequential, ext(107, 90)},
		{"nested", nestedAccesses(3, 4, 10, 20, 1000), Nested, ext(3000, 10)},
		{"nested, within a run", nestedAccesses(3, 4, 10, 20, 1000)[:10], Nested, ext(2040, 10)},
		{"block-cyclic", nestedAccesses(3, 4, 10, 10, 160), Blocks, ext(480, 10)},
		{"a run that goes on", append(nestedAccesses(3, 4, 10, 10, 160), ext(360, 10)), Sequential, ext(370, 10)},
		{"random", []extent.Extent{ext(0, 10), ext(700, 10), ext(30, 10), ext(9999, 10), ext(100, 10), ext(31, 10)}, Random, ext(0, 0)},
		{"at the largest offset", []extent.Extent{ext(math.MaxInt64-30, 10), ext(math.MaxInt64-20, 10), ext(math.MaxInt64-10, 10)}, Sequential, ext(0, 0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s sequence
			for _, e := range c.in {
				s.add(e)
			}
			require.Equal(t, c.form.String(), s.form().String())
			next := ahead(&s, 1)
			if c.next.Empty() {
				require.Empty(t, next)
			} else {
				require.Equal(t, []extent.Extent{c.next}, next)
			}
		})
	}
}

// TestAheadIsWhatComes: once a form is known, what is ahead is what comes,
// however far.
func TestAheadIsWhatComes(t *testing.T) {
	for _, all := range [][]extent.Extent{
		nestedAccesses(1, 40, 8, 8, 0), nestedAccesses(1, 40, 8, 100, 0),
		nestedAccesses(8, 5, 8, 24, 900), nestedAccesses(8, 5, 8, 8, 900),
	} {
		var s sequence
		for i, e := range all {
			s.add(e)
			if i >= 20 {
				require.Equal(t, all[i+1:], ahead(&s, len(all)-i-1), "after %d", i)
			}
		}
	}
}

func ahead(s *sequence, n int) []extent.Extent {
	out := []extent.Extent{}
	s.each(n, func(e extent.Extent) bool {
		out = append(out, e)
		return true
	})
	return out
}
