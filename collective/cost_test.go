package collective

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// measured returns costs after requests that took latency and perByte, with
// some noise.
func measured(latency, perByte float64, sizes ...int64) *Costs {
	r := rand.New(rand.NewPCG(1, 2))
	var c Costs
	for i := range 500 {
		n := sizes[i%len(sizes)]
		noise := 0.9 + 0.2*r.Float64()
		c.Observe(1, n, time.Duration((latency+perByte*float64(n))*noise))
	}
	return &c
}

func TestCostsAreFitted(t *testing.T) {
	c := measured(1e6, 2, 4096, 1<<16, 1<<20, 4<<20)
	latency, perByte := c.fit()
	require.InEpsilon(t, 1e6, latency, 0.2)
	require.InEpsilon(t, 2, perByte, 0.1)
	require.InEpsilon(t, 2*1e6+2*float64(3<<20), float64(c.Estimate(2, 2, 3<<20)), 0.15)
}

// TestCostsOfOneSize: nothing can be told apart, but the sum is right, and
// neither is less than nothing.
func TestCostsOfOneSize(t *testing.T) {
	for _, size := range []int64{0, 1, 4096, 4 << 20} {
		c := measured(1e6, 1, size)
		latency, perByte := c.fit()
		require.Positive(t, latency)
		require.GreaterOrEqual(t, perByte, 0.0)
		require.InEpsilon(t, 1e6+float64(size), float64(c.Estimate(1, 1, size)), 0.1)
	}
}

// TestCostsForget: what a server took long ago does not matter.
func TestCostsForget(t *testing.T) {
	c := measured(10e6, 5, 4096, 1<<20)
	for i := range 500 {
		n := int64(4096 << (i % 9))
		c.Observe(1, n, time.Duration(1e5+0.5*float64(n)))
	}
	latency, perByte := c.fit()
	require.InEpsilon(t, 1e5, latency, 0.1)
	require.InEpsilon(t, 0.5, perByte, 0.1)
}
