package work

import (
	"cmp"
	"maps"
	"slices"

	"github.com/zoidfs/zoidfs/internal/experiment"
	"github.com/zoidfs/zoidfs/internal/history"
)

// Histories are what the ranks of a job saw of each file of which they recorded
// something, in the order of their names.
func Histories(c Config, note string, round int, reports []*Report) []history.History {
	byFile := map[string][]history.Event{}
	for _, r := range reports {
		for name, events := range r.Events {
			byFile[name] = append(byFile[name], events...)
		}
	}
	var out []history.History
	for _, name := range slices.Sorted(maps.Keys(byFile)) {
		h := history.History{Events: byFile[name]}
		h.Program, h.Note, h.Seed, h.Round, h.Mode = c.Workload.Kind, note, c.Seed, round, c.Mode
		h.Visibility = slack(c.Visibility)
		h.Crash = c.LostNode >= 0
		slices.SortStableFunc(h.Events, func(a, b history.Event) int { return cmp.Compare(a.Call, b.Call) })
		out = append(out, h)
	}
	return out
}

// maxViolations is how many violations of a run are kept.
const maxViolations = 20

// Judge sums up what the ranks found by content, and what package history finds
// in the histories.
func Judge(reports []*Report, histories []history.History) (c experiment.Check) {
	for _, r := range reports {
		c.Bytes += r.Verified
		c.Wrong += r.Wrong
		c.Mistakes = append(c.Mistakes, r.Mistakes...)
	}
	for _, h := range histories {
		found := history.Check(h)
		c.Events += len(h.Events)
		c.Races += found.Races
		c.Violations = append(c.Violations, found.Violations...)
	}
	c.Mistakes = c.Mistakes[:min(len(c.Mistakes), maxViolations)]
	c.Violations = c.Violations[:min(len(c.Violations), maxViolations)]
	return c
}

// Phases joins what the ranks measured. Requests are left to the caller.
func Phases(w experiment.Workload, reports []*Report) []experiment.Phase {
	kind, _ := experiment.KindOf(w.Kind)
	var out []experiment.Phase
	for i, name := range kind.Phases {
		p := experiment.Phase{Name: name, Unit: kind.Unit, Better: experiment.Higher, Latency: map[string]experiment.Histogram{}}
		var begin, end int64
		for _, r := range reports {
			if r.Lost || i >= len(r.Parts) {
				continue
			}
			part := r.Parts[i]
			if begin == 0 || part.Start < begin {
				begin = part.Start
			}
			end = max(end, part.End)
			p.Ops += part.Ops
			p.Bytes += part.Bytes
			for call, h := range part.Latency {
				sum := p.Latency[call]
				sum.Merge(h)
				p.Latency[call] = sum
			}
		}
		p.Seconds = float64(end-begin) / 1e9
		if p.Seconds > 0 {
			p.Figure = float64(p.Ops) / p.Seconds
			if kind.Unit == experiment.UnitMiB {
				p.Figure = float64(p.Bytes) / (1 << 20) / p.Seconds
			}
		}
		if w.Kind == experiment.Exchange {
			p.Figure, p.Better = staleness(reports), experiment.Lower
		}
		out = append(out, p)
	}
	return out
}

// staleness is the median of all ranks together, at least a nanosecond.
func staleness(reports []*Report) float64 {
	var all []float64
	for _, r := range reports {
		all = append(all, r.Staleness...)
	}
	slices.Sort(all)
	return max(1e-9, experiment.Quantile(all, 0.5))
}
