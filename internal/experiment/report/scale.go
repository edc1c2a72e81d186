package report

import (
	"math"
	"strconv"
	"strings"
)

// scale maps values to places on an axis.
type scale struct {
	low, high float64 // values at the ends
	log       bool
	from, to  float64 // places of the ends
}

// at is the place of a value.
func (s scale) at(v float64) float64 {
	a, b := s.low, s.high
	if s.log {
		a, b, v = math.Log(a), math.Log(b), math.Log(max(v, s.low))
	}
	if a == b {
		return (s.from + s.to) / 2
	}
	return s.from + (s.to-s.from)*(v-a)/(b-a)
}

// ticks are the values at which an axis is labelled, between its ends: about as
// many as wanted.
func (s scale) ticks(want int) []float64 {
	if s.log {
		return s.logTicks(want)
	}
	step := niceStep((s.high - s.low) / float64(max(1, want)))
	var out []float64
	for i := math.Ceil(s.low/step - 1e-9); i*step <= s.high*(1+1e-9); i++ {
		out = append(out, i*step)
	}
	return out
}

// niceStep is the least of 1, 2 and 5 times a power of ten that is not less
// than v.
func niceStep(v float64) float64 {
	if v <= 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return 1
	}
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if m*p >= v*(1-1e-9) {
			return m * p
		}
	}
	return 10 * p
}

// logTicks are powers of ten, or with 3 or with 2 and 5 times those as long as
// there are not too many.
func (s scale) logTicks(want int) (best []float64) {
	for _, factors := range [][]float64{{1}, {1, 3}, {1, 2, 5}} {
		var out []float64
		for e := math.Floor(math.Log10(s.low)); e <= math.Log10(s.high)+1; e++ {
			for _, f := range factors {
				if v := f * math.Pow(10, e); v >= s.low*(1-1e-9) && v <= s.high*(1+1e-9) {
					out = append(out, v)
				}
			}
		}
		if best == nil || len(out) <= want+2 {
			best = out
		}
	}
	for len(best) > want+2 { // many decades: every second one
		var out []float64
		for i := 0; i < len(best); i += 2 {
			out = append(out, best[i])
		}
		best = out
	}
	return best
}

// linear returns a scale from 0 to beyond high.
func linear(high float64) scale {
	if high <= 0 {
		return scale{high: 1}
	}
	step := niceStep(high / 5)
	return scale{high: math.Ceil(high/step-1e-9) * step}
}

// logarithmic returns a scale that has some room around the values.
func logarithmic(low, high float64) scale {
	if low <= 0 || high < low {
		return scale{low: 0.1, high: 10, log: true}
	}
	room := max(math.Pow(high/low, 0.06), 1.15)
	return scale{low: low / room, high: high * room, log: true}
}

// number writes a value in as few digits as tell it from its neighbours.
func number(v float64) string {
	a := math.Abs(v)
	switch {
	case v == 0:
		return "0"
	case a >= 1e6:
		return digits(v/1e6) + "M"
	case a >= 1e4:
		return digits(v/1e3) + "k"
	}
	return digits(v)
}

// digits writes a value with three significant digits.
func digits(v float64) string {
	decimals := 0
	if a := math.Abs(v); a > 0 {
		decimals = max(0, 2-int(math.Floor(math.Log10(a)+1e-9)))
	}
	s := strconv.FormatFloat(v, 'f', decimals, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// seconds writes a time.
func seconds(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 1e-6:
		return digits(v*1e9) + " ns"
	case v < 1e-3*(1-1e-9):
		return digits(v*1e6) + " µs"
	case v < 1-1e-9:
		return digits(v*1e3) + " ms"
	}
	return digits(v) + " s"
}

// times writes a factor.
func times(v float64) string { return digits(v) + "×" }
