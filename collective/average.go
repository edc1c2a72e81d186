package collective

import "time"

// average is the exponentially weighted mean of durations, of which the last
// eight or so count.
type average struct {
	mean float64 // nanoseconds
	n    int
}

const averageOver = 8

func (a *average) add(d time.Duration) {
	a.n = min(a.n+1, averageOver)
	a.mean += (float64(d) - a.mean) / float64(a.n)
}
