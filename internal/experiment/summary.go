package experiment

import (
	"cmp"
	"slices"
)

// Summarize returns the groups of the runs that were measured, ordered by
// workload, phase, factors and mode, strong first.
func Summarize(runs []Run) []Group {
	type key struct {
		cell  Cell
		phase string
	}
	var keys []key
	members := map[key][]Run{}
	order := map[key]int{} // of the phase
	for _, r := range Latest(runs) {
		if !r.Done() {
			continue
		}
		for i, p := range r.Phases {
			k := key{r.Cell, p.Name}
			if members[k] == nil {
				keys = append(keys, k)
			}
			order[k] = i
			members[k] = append(members[k], r)
		}
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.cell.Workload, b.cell.Workload), cmp.Compare(order[a], order[b]), compareCells(a.cell, b.cell))
	})
	var out []Group
	for _, k := range keys {
		base := k
		base.cell.Mode = baseline
		g := summarize(k.phase, members[k])
		if k.cell.Mode != baseline {
			g.Ratio = ratio(k.phase, members[k], members[base], g.Better)
		}
		out = append(out, g)
	}
	return out
}

// phase returns the phase called name, which must be there.
func (r *Run) phase(name string) *Phase {
	return &r.Phases[slices.IndexFunc(r.Phases, func(p Phase) bool { return p.Name == name })]
}

func summarize(name string, runs []Run) Group {
	first := runs[0].phase(name)
	g := Group{Cell: runs[0].Cell, Phase: name, Unit: first.Unit, Better: first.Better, Latency: map[string]Latency{}}
	of := func(f func(*Phase) float64) Estimate {
		var v []float64
		for i := range runs {
			v = append(v, f(runs[i].phase(name)))
		}
		return Median(v)
	}
	g.Figure = of(func(p *Phase) float64 { return p.Figure })
	g.Calls = of(func(p *Phase) float64 { return float64(Sum(p.Requests.Calls)) })
	g.RPC = of(func(p *Phase) float64 { return float64(Sum(p.Requests.RPC)) })
	g.PVFS = of(func(p *Phase) float64 { return float64(Sum(p.Requests.PVFS)) })
	for i := range runs {
		g.Staleness = append(g.Staleness, runs[i].Staleness...)
	}
	slices.Sort(g.Staleness)
	for call := range first.Latency {
		at := func(q float64) Estimate {
			return of(func(p *Phase) float64 {
				h := p.Latency[call]
				return h.Quantile(q) / 1e9
			})
		}
		l := Latency{P50: at(0.50), P95: at(0.95), P99: at(0.99)}
		for i := range runs {
			l.Max = max(l.Max, float64(runs[i].phase(name).Latency[call].Max)/1e9)
		}
		g.Latency[call] = l
	}
	return g
}

// ratio compares runs of one repetition with each other: what disturbed one of
// them disturbed the other as well.
func ratio(name string, runs, base []Run, better string) Estimate {
	var v []float64
	for i := range runs {
		at := slices.IndexFunc(base, func(b Run) bool { return b.Repetition == runs[i].Repetition })
		if at < 0 {
			continue
		}
		if s := speedup(runs[i].phase(name).Figure, base[at].phase(name).Figure, better); s > 0 {
			v = append(v, s)
		}
	}
	return Median(v)
}
