package collective

import (
	"fmt"
	"time"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// Plan is how accesses are carried out, chosen by what it is estimated to cost.
type Plan struct {
	Way      Way
	Extents  []extent.Extent // what to ask for; sorted, none empty, none touch
	Requests int             // that follow one another
	Estimate time.Duration
}

// Outcome begins what the journal keeps of the plan: asked are the extents
// that it was made for.
func (p Plan) Outcome(asked []extent.Extent) Outcome {
	return Outcome{
		Extents: len(asked), Runs: len(extent.Normalize(asked)), Requests: p.Requests,
		Moved: extent.Total(p.Extents), Plan: p.Way.String(), Estimate: p.Estimate,
	}
}

// Way is one of the ways to carry out accesses.
type Way uint8

// The ways, of which the first two are those of writing, too.
const (
	OneByOne Way = iota // a request for each extent
	Pieces              // a noncontiguous request for what is asked, and no more
	Chunk               // whole chunks around it
	Domain              // the whole file domain
	Stripes             // whole stripes, with bytes between that are known already
)

var ways = [...]string{"one by one", "the pieces", "whole chunks", "the whole domain", "whole stripes"}

func (w Way) String() string {
	if int(w) < len(ways) {
		return ways[w]
	}
	return fmt.Sprintf("way(%d)", uint8(w))
}

// Room is where a plan may reach.
type Room struct {
	Within extent.Extent // the file domain, up to the end of the file where that is known
	Chunk  int64         // bytes of a chunk, a power of two
	Most   int64         // bytes of one request; 0: any number
	List   bool          // a noncontiguous request is one request
}

// Fetch says what to fetch when want, which is sorted and in room.Within, is
// missing: that alone, or more, if so much of what lies around it will be used
// (see Pattern.Use) that it costs less in all. What is compared is the time for
// each byte that will be used.
func Fetch(want []extent.Extent, use float64, c *Costs, room Room) Plan {
	want = extent.Normalize(want)
	best := c.asked(want, room)
	if len(want) == 0 {
		return best
	}
	needed := extent.Total(want)
	bestPer := float64(best.Estimate) / float64(needed)
	for _, p := range []Plan{
		{Way: Chunk, Extents: chunks(want, room)},
		{Way: Domain, Extents: []extent.Extent{room.Within}},
	} {
		bytes := extent.Total(p.Extents)
		if bytes <= needed {
			continue
		}
		c.price(&p, room)
		useful := float64(needed) + use*float64(bytes-needed)
		if per := float64(p.Estimate) / useful; per < bestPer {
			best, bestPer = p, per
		}
	}
	return best
}

// Store says how to write dirty, which is sorted and in room.Within: run by
// run, in one noncontiguous request, or, where all between is known (sorted), in
// whole runs of that.
func Store(dirty, known []extent.Extent, c *Costs, room Room) Plan {
	dirty = extent.Normalize(dirty)
	best := c.asked(dirty, room)
	filled := fill(dirty, known)
	if len(filled) < len(dirty) {
		p := Plan{Way: Stripes, Extents: filled}
		c.price(&p, room)
		if p.Estimate < best.Estimate {
			return p
		}
	}
	return best
}

// asked is the cheaper one of the ways that move nothing but exts.
func (c *Costs) asked(exts []extent.Extent, room Room) Plan {
	p := Plan{Way: Pieces, Extents: exts}
	if len(exts) > 1 && !room.List {
		p.Way = OneByOne
	}
	c.price(&p, room)
	return p
}

// price sets what p takes.
func (c *Costs) price(p *Plan, room Room) {
	bytes := extent.Total(p.Extents)
	p.Requests = 0
	if room.List {
		p.Requests = requests(bytes, room.Most)
	} else {
		for _, e := range p.Extents {
			p.Requests += requests(e.Len, room.Most)
		}
	}
	p.Estimate = c.Estimate(p.Requests, len(p.Extents), bytes)
}

// requests is how many it takes to move so many bytes, of at most most each.
func requests(bytes, most int64) int {
	if most <= 0 {
		return int(min(1, bytes))
	}
	return int((bytes + most - 1) / most)
}

// chunks widens each of want to whole chunks of the room.
func chunks(want []extent.Extent, room Room) []extent.Extent {
	out := make([]extent.Extent, len(want))
	for i, e := range want {
		off := e.Off / room.Chunk * room.Chunk
		end := e.End()
		if rest := end % room.Chunk; rest != 0 {
			end += min(room.Chunk-rest, room.Within.End()-end)
		}
		out[i] = extent.Extent{Off: off, Len: end - off}.Intersect(room.Within)
	}
	return extent.Normalize(out)
}

// fill joins those of dirty, which is sorted, between which everything is in
// known.
func fill(dirty, known []extent.Extent) []extent.Extent {
	var out []extent.Extent
	k := 0
	for _, e := range dirty {
		if n := len(out) - 1; n >= 0 {
			gap := extent.Extent{Off: out[n].End(), Len: e.Off - out[n].End()}
			for k < len(known) && known[k].End() < gap.End() {
				k++
			}
			if k < len(known) && known[k].Contains(gap) {
				out[n].Len = e.End() - out[n].Off
				continue
			}
		}
		out = append(out, e)
	}
	return out
}
