package collective

import (
	"fmt"
	"time"
)

// Way is one of the ways to carry out a read that misses something.
type Way uint8

// The ways.
const (
	PassThrough Way = iota // what it asks for, in a noncontiguous request
	Gathered               // what several have asked for, in a noncontiguous request
	Aggregated             // whole domains, for all who read there
)

// Choice is a way and why it was chosen: by what the bytes that are wanted are
// estimated to take, a MiB of them.
type Choice struct {
	Way        Way
	Use        float64       // share of whole domains that is wanted; 0: they were not considered
	Whole, Not time.Duration // estimated for a wanted MiB in whole domains, and if they are asked for as they come
}

func (c Choice) String() string {
	switch {
	case c.Way == Gathered:
		return "what several asked for"
	case c.Use == 0:
		return "as asked for"
	}
	if c.Whole == 0 {
		return fmt.Sprintf("whole domains, of which %.0f%% is wanted", 100*c.Use)
	}
	whole := fmt.Sprintf("%s a MiB, as %.0f%% is wanted", Took(c.Whole), 100*c.Use)
	if c.Way == Aggregated {
		return fmt.Sprintf("whole domains (%s; as asked for %s)", whole, Took(c.Not))
	}
	return fmt.Sprintf("as asked for (%s a MiB; whole domains %s)", Took(c.Not), whole)
}

// choose says whether to fetch n bytes at once, of which so much is wanted, for readers
// that ask for piece bytes at a time. price estimates what a request takes; nil: the
// fewer the better.
func choose(use float64, n, piece int64, price func(extents int, bytes int64) time.Duration) Choice {
	c := Choice{Way: Aggregated, Use: use}
	if price == nil || use <= 0 || n <= 0 || piece <= 0 {
		return c
	}
	per := func(bytes int64, use float64) time.Duration {
		return time.Duration(float64(price(1, bytes)) * float64(1<<20) / (float64(bytes) * use))
	}
	if c.Whole, c.Not = per(n, use), per(piece, 1); c.Not < c.Whole {
		c.Way = PassThrough
	}
	return c
}
