package chart

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWriteSVG(t *testing.T) {
	c := Chart{Title: "a < b", X: "ranks", Y: "requests", Lines: []Line{
		{"plain", []float64{10, 100, 1000}, []float64{20, 200, 2000}},
		{"none", []float64{10}, []float64{0}},
		{"far", []float64{1e6}, []float64{1e-3}},
	}}
	var one, two strings.Builder
	require.NoError(t, c.WriteSVG(&one))
	require.NoError(t, c.WriteSVG(&two))
	require.Equal(t, one.String(), two.String())
	require.Equal(t, 4, strings.Count(one.String(), "<circle"))
	require.NotContains(t, one.String(), "NaN")
	require.Contains(t, one.String(), "a &lt; b")
	for d := xml.NewDecoder(strings.NewReader(one.String())); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
	}
	require.NoError(t, Chart{}.WriteSVG(io.Discard))
}

// TestAPowerOfTenIsOnItsLine: values lie where the grid says.
func TestAPowerOfTenIsOnItsLine(t *testing.T) {
	s := fit([]Line{{X: []float64{3, 500}}}, func(l Line) []float64 { return l.X }, 0, 300)
	require.Equal(t, 0.0, s.low)
	require.Equal(t, 3.0, s.high)
	require.InDelta(t, 100, s.at(10), 1e-9)
}
