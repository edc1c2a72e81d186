package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/zoidfs/zoidfs/internal/experiment"
)

// figure is a plot with its table.
type figure struct {
	ID    string // becomes part of file names
	Plot  plot
	Table table
	Note  string
}

// section is a part of the page.
type section struct {
	ID, Title, About string
	Figures          []figure
	Tables           []table
}

// sections are all parts that the results have something for.
func sections(r *experiment.Results) (out []section) {
	ps := panels(r)
	for _, s := range []section{results(ps), speedups(ps), latencies(ps), requests(ps), staleness(ps), faults(r), conformance(r)} {
		if len(s.Figures)+len(s.Tables) > 0 {
			out = append(out, s)
		}
	}
	return out
}

func slug(parts ...string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		}
		return '-'
	}, strings.ToLower(strings.Join(parts, "-")))
}

func results(ps []panel) section {
	s := section{ID: "results", Title: "Results", About: "What each workload got done, or how long it took. The mark is the median of all repetitions, the line its confidence interval."}
	for i := range ps {
		p := &ps[i]
		g := p.first()
		unit := g.Unit
		if g.Better == experiment.Lower {
			unit += ", less is better"
		}
		format := number
		if g.Unit == experiment.UnitSecond {
			unit, format = "seconds until others see a write, less is better", seconds
			if p.phase == "command" {
				unit = "seconds, less is better"
			}
		}
		s.Figures = append(s.Figures, figure{
			ID:   slug("result", p.title),
			Plot: p.draw(p.title, unit, format, func(g *experiment.Group) experiment.Estimate { return g.Figure }),
			Table: p.table([]string{"median [interval], " + g.Unit, "runs"}, func(g *experiment.Group) []string {
				return []string{interval(g.Figure, format), fmt.Sprint(g.Figure.N)}
			}),
		})
	}
	return s
}

// first is any group of a panel.
func (p *panel) first() *experiment.Group {
	for _, row := range p.groups {
		for _, g := range row {
			if g != nil {
				return g
			}
		}
	}
	return nil // there is no panel without a group
}

func speedups(ps []panel) section {
	s := section{
		ID: "speed-up", Title: "Speed-up over strong",
		About: "How many times better than the same run in strong, repetition by repetition. Right of the line is better than strong; an interval that crosses the line shows no difference.",
	}
	ratio := func(g *experiment.Group) experiment.Estimate { return g.Ratio }
	for i := range ps {
		p := &ps[i]
		pl := p.rows(p.title, "times the result in strong", times, ratio)
		if pl == nil {
			continue
		}
		pl.log, pl.reference = true, 1
		s.Figures = append(s.Figures, figure{
			ID: slug("speedup", p.title), Plot: pl,
			Table: p.only(ratio).table([]string{"speed-up [interval]"}, func(g *experiment.Group) []string { return []string{interval(g.Ratio, times)} }),
		})
	}
	return s
}

// rows draws of as rows, a group of rows for each step; nil if there is nothing.
func (p *panel) rows(title, unit string, format func(float64) string, of func(*experiment.Group) experiment.Estimate) *rows {
	pl := &rows{title: title, unit: unit, series: p.series, format: format}
	any := false
	for i := range p.steps {
		row := make([]value, len(p.series))
		for s := range p.series {
			if row[s] = none; p.groups[s][i] != nil {
				row[s] = estimate(strings.TrimSpace(p.series[s].name+" "+p.stepName(i)), of(p.groups[s][i]), format)
				any = any || row[s].ok()
			}
		}
		pl.groups = append(pl.groups, p.stepName(i))
		pl.values = append(pl.values, row)
	}
	if !any {
		return nil
	}
	return pl
}

// only returns the panel without the groups for which of has nothing.
func (p *panel) only(of func(*experiment.Group) experiment.Estimate) *panel {
	out := *p
	out.groups = nil
	for _, row := range p.groups {
		row = slices.Clone(row)
		for i, g := range row {
			if g != nil && of(g).N == 0 {
				row[i] = nil
			}
		}
		out.groups = append(out.groups, row)
	}
	return &out
}

// busiest is the call of a phase whose time matters: that for which the phase is
// named, or the one of which there were most.
func busiest(p *panel) string {
	g := p.first()
	for _, name := range []string{p.phase, "write", "read", "lock", "open"} {
		if _, ok := g.Latency[name]; ok {
			return name
		}
	}
	return ""
}

func latencies(ps []panel) section {
	s := section{
		ID: "latency", Title: "Latency",
		About: "How long one call took, as its process saw it. The mark is the median call, its line the confidence interval; the thin line goes on to the call that 99 of 100 are faster than.",
	}
	for i := range ps {
		p := &ps[i]
		call := busiest(p)
		if call == "" {
			continue
		}
		at := func(g *experiment.Group) experiment.Estimate { return g.Latency[call].P50 }
		pl := p.rows(p.title, "time of one "+call, seconds, at)
		if pl == nil {
			continue
		}
		pl.log = true
		for i := range p.steps {
			tails := make([]float64, len(p.series))
			for s := range p.series {
				if g := p.groups[s][i]; g != nil {
					tails[s] = g.Latency[call].P99.Median
				}
			}
			pl.tails = append(pl.tails, tails)
		}
		s.Figures = append(s.Figures, figure{
			ID: slug("latency", p.title), Plot: pl,
			Table: p.table([]string{"median " + call + " [interval]", "95 %", "99 %", "longest"}, func(g *experiment.Group) []string {
				l := g.Latency[call]
				return []string{interval(l.P50, seconds), seconds(l.P95.Median), seconds(l.P99.Median), seconds(l.Max)}
			}),
		})
	}
	return s
}

func requests(ps []panel) section {
	s := section{
		ID: "requests", Title: "Requests at each level",
		About: "How many calls came from applications, what they became between mounts and I/O nodes, and at the PVFS2 servers, while the phase lasted. What is written back later is not counted here.",
	}
	for i := range ps {
		p := &ps[i]
		pl := &lines{title: p.title, unit: "requests" + p.at(), xLabel: "level", steps: []string{"calls", "to I/O nodes", "to servers"}, series: p.series, format: number, log: true}
		for s := range p.series {
			row := []value{none, none, none}
			if g := p.groups[s][0]; g != nil {
				for k, e := range []experiment.Estimate{g.Calls, g.RPC, g.PVFS} {
					// A logarithm has no zero: no request is drawn as half of one.
					e.Median, e.Low, e.High = max(e.Median, 0.5), max(e.Low, 0.5), max(e.High, 0.5)
					row[k] = estimate(p.series[s].name, e, number)
				}
			}
			pl.values = append(pl.values, row)
		}
		s.Figures = append(s.Figures, figure{
			ID: slug("requests", p.title), Plot: pl,
			Table: p.table([]string{"calls", "to I/O nodes", "to servers", "to servers for 100 calls"}, func(g *experiment.Group) []string {
				share := "–"
				if g.Calls.Median > 0 {
					share = digits(100 * g.PVFS.Median / g.Calls.Median)
				}
				return []string{number(g.Calls.Median), number(g.RPC.Median), number(g.PVFS.Median), share}
			}),
		})
	}
	return s
}

// at names the first step, which stands for all where a plot has no room.
func (p *panel) at() string {
	if p.x == "" {
		return ""
	}
	return " at " + p.stepName(0)
}

// resolution is the time between two looks of a reader that polls.
const resolution = 1e-5

func staleness(ps []panel) section {
	s := section{
		ID: "staleness", Title: "Staleness",
		About: "How long, from the return of a write, until a process on another node saw it. Who polls looks once in a millisecond; who is told looks at once.",
	}
	for i := range ps {
		p := &ps[i]
		pl := &shares{title: p.title, unit: "share of the writes that were seen within" + p.at(), floor: resolution, format: seconds}
		for k := range p.series {
			if g := p.groups[k][0]; g != nil && len(g.Staleness) > 0 {
				pl.series = append(pl.series, p.series[k])
				pl.sorted = append(pl.sorted, g.Staleness)
			}
		}
		if len(pl.series) == 0 {
			continue
		}
		s.Figures = append(s.Figures, figure{
			ID: slug("staleness", p.title), Plot: pl,
			Table: p.table([]string{"writes", "median", "90 %", "99 %", "longest"}, func(g *experiment.Group) []string {
				row := []string{fmt.Sprint(len(g.Staleness))}
				for _, q := range []float64{0.5, 0.9, 0.99, 1} {
					row = append(row, seconds(experiment.Quantile(g.Staleness, q)))
				}
				return row
			}),
		})
	}
	return s
}

func faults(r *experiment.Results) section {
	s := section{ID: "faults", Title: "Faults", About: "What was killed, how long it was away, and the longest that any call of the run then took."}
	t := table{Head: []string{"fault", "workload", "mode", "runs", "struck after", "away", "longest call", "ranks lost", "data"}}
	type key struct{ fault, workload, mode string }
	var keys []key
	runs := map[key][]experiment.Run{}
	for _, run := range r.Runs {
		if run.Strike == nil {
			continue
		}
		k := key{run.Cell.Fault, run.Cell.Workload, run.Cell.Mode}
		if runs[k] == nil {
			keys = append(keys, k)
		}
		runs[k] = append(runs[k], run)
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.fault, b.fault), cmp.Compare(a.workload, b.workload), colorIndex(experiment.FactorMode, a.mode, 0)-colorIndex(experiment.FactorMode, b.mode, 0))
	})
	for _, k := range keys {
		med := func(f func(*experiment.Strike) float64) experiment.Estimate {
			var v []float64
			for _, run := range runs[k] {
				v = append(v, f(run.Strike))
			}
			return experiment.Median(v)
		}
		lost, clean := 0, cell{"all as promised", "good"}
		for _, run := range runs[k] {
			lost = max(lost, run.Strike.Lost)
			if !run.Check.Clean() {
				clean = cell{"wrong", "bad"}
			}
		}
		t.Rows = append(t.Rows, []cell{
			{Text: k.fault}, {Text: k.workload}, {Text: k.mode}, {Text: fmt.Sprint(len(runs[k]))},
			{Text: interval(med(func(s *experiment.Strike) float64 { return s.After }), seconds)},
			{Text: interval(med(func(s *experiment.Strike) float64 { return s.Down }), seconds)},
			{Text: interval(med(func(s *experiment.Strike) float64 { return s.Longest }), seconds)},
			{Text: fmt.Sprint(lost)}, clean,
		})
	}
	if len(t.Rows) > 0 {
		s.Tables = append(s.Tables, t)
	}
	return s
}

func conformance(r *experiment.Results) section {
	s := section{
		ID: "conformance", Title: "Conformance",
		About: "Was every byte what had been written, and was every answer one that the mode allows? The first is found by content of all data, the second in a sample of the calls, recorded with their times and judged by the model of the mode.",
	}
	t := table{Head: []string{"workload", "mode", "runs", "verified", "wrong", "calls judged", "could be several writes", "promises broken", "verdict"}}
	for _, w := range r.Spec.Matrix.Workload {
		for _, m := range r.Spec.Matrix.Mode {
			if row := conformanceRow(r, w, m); row != nil {
				t.Rows = append(t.Rows, row)
			}
		}
	}
	s.Tables = append(s.Tables, t)
	return s
}

func conformanceRow(r *experiment.Results, workload, mode string) []cell {
	runs, failed, events, races, broken, mistakes := 0, 0, 0, 0, 0, 0
	var bytes, wrong int64
	for _, run := range r.Runs {
		if run.Cell.Workload != workload || run.Cell.Mode != mode {
			continue
		}
		runs++
		if !run.Done() {
			failed++
		}
		c := run.Check
		bytes, wrong, events, races = bytes+c.Bytes, wrong+c.Wrong, events+c.Events, races+c.Races
		broken, mistakes = broken+len(c.Violations), mistakes+len(c.Mistakes)
	}
	if runs == 0 {
		return nil
	}
	verdict := cell{"✓ kept", "good"}
	switch {
	case broken > 0:
		verdict = cell{"✗ promise broken", "bad"}
	case wrong > 0 || mistakes > 0:
		verdict = cell{"✗ wrong data", "bad"}
	case bytes == 0 && events == 0:
		verdict = cell{"✓ as expected", "good"}
	}
	if r.Spec.Workload(workload).Kind == experiment.Command {
		verdict = cell{"not looked at", ""}
	}
	if failed > 0 {
		verdict.Text += fmt.Sprintf(", %d without result", failed)
		verdict.Class = "bad"
	}
	return []cell{
		{Text: workload}, {Text: mode}, {Text: fmt.Sprint(runs)}, {Text: size(bytes)}, {Text: size(wrong)}, {Text: fmt.Sprint(events)},
		{Text: fmt.Sprint(races)}, {Text: fmt.Sprint(broken)}, verdict,
	}
}

// size writes a number of bytes for people.
func size(n int64) string {
	v, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if v < 1024 {
			break
		}
		v, unit = v/1024, u
	}
	return digits(v) + " " + unit
}
