package sim

import (
	"time"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/extent"
)

// key is what calls must have in common to be carried out together.
type key struct {
	op     op
	object uint64
	domain int64
}

// part is a call, or the part of one that lies in one domain, on its way.
type part struct {
	exts []extent.Extent
	n    int    // names, of opCreate
	done func() // it has been answered
}

type round = collective.Round[key, *part]

// group carries out what collective.Rounds decides, as internal/round does,
// in simulated time.
type group struct {
	clock  *clock
	rounds *collective.Rounds[key, *part]
	run    func(r *round, done func()) // done is called when it has been carried out
	tally  *Tally
}

func newGroup(c *clock, opts collective.RoundOptions, tally *Tally, run func(*round, func())) *group {
	rounds, err := collective.NewRounds[key, *part](opts)
	if err != nil {
		panic(err) // Validate has seen them
	}
	return &group{clock: c, rounds: rounds, run: run, tally: tally}
}

func (g *group) arrive(k key, m collective.Member, p *part) {
	now := g.clock.time()
	g.act(k, g.rounds.Arrive(now, k, collective.Call[*part]{Token: p, Member: m, Bytes: extent.Total(p.exts)}))
	if g.rounds.Holding() {
		for _, r := range g.rounds.Elsewhere(now, m) {
			g.start(r)
		}
	}
}

func (g *group) act(k key, d collective.Decision[key, *part]) {
	if !d.Wake.IsZero() {
		at := time.Duration(d.Wake.UnixNano())
		g.clock.at(at, func() { g.act(k, g.rounds.Tick(g.clock.time(), k)) })
	}
	if d.Start != nil {
		g.start(d.Start)
	}
}

func (g *group) start(r *round) {
	g.tally.add(len(r.Calls), r.Held, r.Why)
	began, k := g.clock.now, r.Key
	g.run(r, func() {
		parts := make([]*part, len(r.Calls))
		for i, c := range r.Calls {
			parts[i] = c.Token
		}
		d := g.rounds.Finished(g.clock.time(), r, max(1, g.clock.now-began))
		for _, p := range parts {
			p.done()
		}
		g.act(k, d)
	})
}

// Tally sums up rounds.
type Tally struct {
	Rounds  int           `json:"rounds"`
	Calls   int           `json:"calls"`
	Largest int           `json:"largest"`     // calls of a round
	Held    int           `json:"held"`        // rounds of which the start was put off
	Vain    int           `json:"vain"`        // of these, for members that did not come
	HeldFor time.Duration `json:"held_for_ns"` // in all
}

func (t *Tally) add(calls int, held time.Duration, why collective.Why) {
	t.Rounds++
	t.Calls += calls
	t.Largest = max(t.Largest, calls)
	if held > 0 {
		t.Held++
		t.HeldFor += held
		if why == collective.Expired {
			t.Vain++
		}
	}
}
