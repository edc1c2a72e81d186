package collective

import (
	"math"
	"time"
)

// Costs is what requests to the level below cost, as measured: a time for each
// request and a time for each byte, fitted to what the last requests took, of
// which the newer ones count more. The zero value knows nothing and estimates
// with 500 µs and 1 GiB/s. It is not safe for concurrent use.
//
// Source: the fit is weighted least squares; its sums decay by a constant factor
// with each observation.
type Costs struct {
	w, x, y, xx, xy float64 // sums of weights, bytes, nanoseconds, and products
}

const (
	decay          = 1 - 1.0/64
	guessedLatency = 500e3                // nanoseconds
	guessedPerByte = 1e9 / float64(1<<30) // nanoseconds
	perExtent      = 300                  // nanoseconds for each extent of a noncontiguous request after the first
)

// Observe takes note of requests that moved bytes and took so long, one after
// the other or side by side: took is divided by serial, the number of those that
// followed one another.
func (c *Costs) Observe(serial int, bytes int64, took time.Duration) {
	if serial < 1 || took <= 0 {
		return
	}
	n := float64(serial)
	x, y := float64(bytes)/n, float64(took)/n
	c.w = c.w*decay + 1
	c.x = c.x*decay + x
	c.y = c.y*decay + y
	c.xx = c.xx*decay + x*x
	c.xy = c.xy*decay + x*y
}

// fit is the time for a request and that for a byte, in nanoseconds.
func (c *Costs) fit() (latency, perByte float64) {
	if c.w < 1 {
		return guessedLatency, guessedPerByte
	}
	mx, my := c.x/c.w, c.y/c.w
	spread := c.xx/c.w - mx*mx
	if spread > mx*mx/64 { // requests of different sizes: both can be told
		perByte = max(0, (c.xy/c.w-mx*my)/spread)
	} else { // of one size: what is guessed of a byte, or half of what they take
		perByte = guessedPerByte
		if mx > 0 {
			perByte = min(perByte, my/2/mx)
		}
	}
	latency = my - perByte*mx
	if least := my / 64; latency < least { // bytes cannot take longer than all
		latency = least
		if mx > 0 {
			perByte = (my - latency) / mx
		}
	}
	return latency, perByte
}

// Estimate is what requests that follow one another would take, which have so
// many extents and move so many bytes in all.
func (c *Costs) Estimate(serial, extents int, bytes int64) time.Duration {
	latency, perByte := c.fit()
	ns := float64(serial)*latency + float64(max(0, extents-serial))*perExtent + float64(bytes)*perByte
	return time.Duration(min(ns, math.MaxInt64/2))
}
