package experiment

import (
	"maps"
	"math"
	"slices"
)

// Estimate is a median with a confidence interval.
type Estimate struct {
	N        int     `json:"n"`
	Median   float64 `json:"median"`
	Low      float64 `json:"low"`
	High     float64 `json:"high"`
	Coverage float64 `json:"coverage"` // of the interval, for the median of what was sampled
}

// confidence is the coverage that intervals have where there are enough values.
const confidence = 0.95

// Median returns the median of values with the nonparametric confidence interval
// between two of them that are the same number of places from either end: the
// narrowest that covers at least 95 %, or, of fewer than six values, the whole
// range, whose coverage is less and is told. It assumes nothing about how the
// values are distributed. Without values everything is 0.
func Median(values []float64) Estimate {
	n := len(values)
	if n == 0 {
		return Estimate{}
	}
	v := slices.Sorted(slices.Values(values))
	k := 0 // the interval is [v[k], v[n-1-k]]
	for k+1 < n-1-(k+1) && coverage(n, k+1) >= confidence {
		k++
	}
	return Estimate{N: n, Median: (v[(n-1)/2] + v[n/2]) / 2, Low: v[k], High: v[n-1-k], Coverage: coverage(n, k)}
}

// coverage is the probability that the median lies between the (k+1)-th smallest
// and the (k+1)-th largest of n values: 1 - 2 P(B <= k), where B is binomial with
// n trials of probability 1/2.
func coverage(n, k int) float64 {
	sum := 0.0
	for i := 0; i <= k; i++ {
		sum += math.Exp(logChoose(n, i) - float64(n)*math.Ln2)
	}
	return max(0, 1-2*sum)
}

func logChoose(n, k int) float64 {
	lg := func(x int) float64 {
		v, _ := math.Lgamma(float64(x + 1))
		return v
	}
	return lg(n) - lg(k) - lg(n-k)
}

// Quantile returns the q-quantile of sorted values, interpolated; 0 without
// values.
func Quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// histOctave is the number of buckets between a time and its double.
const histOctave = 16

// Histogram counts times in buckets whose width is 4.4 % of them. The zero value
// is empty. Two are added by adding their counts.
type Histogram struct {
	Buckets map[int]int64 `json:"buckets,omitempty"` // b counts times of about 2^(b/16) ns
	Count   int64         `json:"count"`
	Max     int64         `json:"max"` // in nanoseconds, exact
}

// Add counts a time in nanoseconds.
func (h *Histogram) Add(ns int64) {
	if h.Buckets == nil {
		h.Buckets = map[int]int64{}
	}
	h.Buckets[int(math.Round(histOctave*math.Log2(float64(max(1, ns)))))]++
	h.Count++
	h.Max = max(h.Max, ns)
}

// Merge adds what o has counted.
func (h *Histogram) Merge(o Histogram) {
	if h.Buckets == nil {
		h.Buckets = map[int]int64{}
	}
	for b, n := range o.Buckets {
		h.Buckets[b] += n
	}
	h.Count += o.Count
	h.Max = max(h.Max, o.Max)
}

// Quantile returns about the q-quantile in nanoseconds; 0 if it is empty.
func (h *Histogram) Quantile(q float64) float64 {
	if h.Count == 0 {
		return 0
	}
	want := int64(math.Ceil(q * float64(h.Count)))
	for _, b := range slices.Sorted(maps.Keys(h.Buckets)) {
		if want -= h.Buckets[b]; want <= 0 {
			return min(float64(h.Max), math.Exp2(float64(b)/histOctave))
		}
	}
	return float64(h.Max)
}
