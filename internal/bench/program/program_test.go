package program

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMedian(t *testing.T) {
	require.Zero(t, Median(nil))
	v := []float64{9, 3, 1}
	require.InDelta(t, 3, Median(v), 0)
	require.InDelta(t, 2.5, Median([]float64{4, 1, 3, 2}), 0)
	require.Equal(t, []float64{9, 3, 1}, v, "left as it was")
}
