package experiment

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMedian compares with the table of nonparametric confidence intervals of
// the median in W. J. Conover, Practical Nonparametric Statistics, and with
// sums of binomial coefficients by hand.
func TestMedian(t *testing.T) {
	seq := func(n int) (v []float64) {
		for i := range n {
			v = append(v, float64(n-i))
		}
		return v
	}
	for _, tt := range []struct {
		n         int
		low, high float64
		coverage  float64
	}{
		{1, 1, 1, 0},
		{2, 1, 2, 0.5},
		{3, 1, 3, 0.75},
		{5, 1, 5, 0.9375},
		{6, 1, 6, 0.96875},
		{8, 1, 8, 0.9921875},
		{9, 2, 8, 1 - 2*10.0/512},
		{10, 2, 9, 1 - 2*11.0/1024},
		{20, 6, 15, 0.9586},
		{100, 40, 61, 0.9648},
	} {
		e := Median(seq(tt.n))
		require.Equal(t, tt.n, e.N)
		require.InDelta(t, float64(tt.n+1)/2, e.Median, 1e-9)
		require.Equal(t, []float64{tt.low, tt.high}, []float64{e.Low, e.High}, "n %d", tt.n)
		require.InDelta(t, tt.coverage, e.Coverage, 1e-4, "n %d", tt.n)
	}
	require.Zero(t, Median(nil))
}

// TestMedianCovers draws samples of a skewed distribution of which the median is
// known: the interval has it as often as it says.
func TestMedianCovers(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{5, 12} {
		hits, want := 0, 0.0
		const rounds = 20000
		for range rounds {
			v := make([]float64, n)
			for i := range v {
				v[i] = rng.ExpFloat64()
			}
			e := Median(v)
			want = e.Coverage
			if e.Low <= math.Ln2 && math.Ln2 <= e.High {
				hits++
			}
		}
		require.InDelta(t, want, float64(hits)/rounds, 0.01, "n %d", n)
	}
}

func TestHistogram(t *testing.T) {
	var h, a, b Histogram
	rng := rand.New(rand.NewPCG(3, 4))
	var v []float64
	for i := range 20000 {
		ns := int64(1e6 * math.Exp(3*rng.NormFloat64()))
		v = append(v, float64(ns))
		h.Add(ns)
		if i%3 == 0 {
			a.Add(ns)
		} else {
			b.Add(ns)
		}
	}
	a.Merge(b)
	require.Equal(t, h, a)
	slices.Sort(v)
	for _, q := range []float64{0.01, 0.5, 0.95, 0.99, 1} {
		require.InEpsilon(t, Quantile(v, q), h.Quantile(q), 0.05, "q %v", q)
	}
	require.Equal(t, v[len(v)-1], float64(h.Max))
	var none Histogram
	require.Zero(t, none.Quantile(0.5))
}

func TestQuantile(t *testing.T) {
	require.Zero(t, Quantile(nil, 0.5))
	require.Equal(t, 2.5, Quantile([]float64{1, 2, 3, 4}, 0.5))
	require.Equal(t, 4.0, Quantile([]float64{1, 2, 3, 4}, 1))
}

// TestSummarize: ratios are taken repetition by repetition, and for a figure of
// which less is better the other way round.
func TestSummarize(t *testing.T) {
	run := func(mode string, rep int, figure float64, better string) Run {
		c := Cell{Mode: mode, Workload: "w"}
		return Run{ID: Trial{c, rep}.ID(), Cell: c, Repetition: rep, Phases: []Phase{{Name: "p", Figure: figure, Better: better, Unit: "MiB/s"}}}
	}
	// Repetition 2 was disturbed, both modes alike.
	runs := []Run{
		run("commit", 0, 20, Higher), run("commit", 1, 22, Higher), run("commit", 2, 2, Higher),
		run("strong", 0, 10, Higher), run("strong", 1, 11, Higher), run("strong", 2, 1, Higher),
		{ID: "x", Error: "failed"},
	}
	g := Summarize(runs)
	require.Len(t, g, 2)
	require.Equal(t, "strong", g[0].Cell.Mode)
	require.Zero(t, g[0].Ratio.N)
	require.Equal(t, 20.0, g[1].Figure.Median)
	require.Equal(t, Estimate{N: 3, Median: 2, Low: 2, High: 2, Coverage: 0.75}, g[1].Ratio)

	again := run("strong", 2, 4, Higher)
	require.Equal(t, 0.5, Summarize(append(runs, again))[1].Ratio.Low, "the last run of an ID counts")

	less := Summarize([]Run{run("strong", 0, 10, Lower), run("session", 0, 5, Lower)})
	require.Equal(t, 2.0, less[1].Ratio.Median)
}
