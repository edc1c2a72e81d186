package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/experiment"
)

// panel is the groups that are drawn in one plot: those of one phase of one
// workload, along one factor, in series by one factor or two.
type panel struct {
	workload, phase string
	title           string
	x               string // factor; "" if none varies
	steps           []string
	series          []series
	groups          [][]*experiment.Group // by series and step; nil where there is none
}

// varying are the values of a factor in the order of the groups.
func values(groups []experiment.Group, factor string) (out []string) {
	for _, g := range groups {
		if v := g.Cell.Value(factor); !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// axes say which factor is drawn how.
type axes struct{ x, color, second string }

// choose returns the axes of the groups of one phase and the factors that are
// left and vary.
func choose(groups []experiment.Group, view experiment.View) (a axes, rest []string) {
	free := func(candidates ...string) string {
		for _, f := range candidates {
			if f != a.x && f != a.color && len(values(groups, f)) > 1 {
				return f
			}
		}
		return ""
	}
	a.color = view.Series
	if view.X != "" && len(values(groups, view.X)) > 1 {
		a.x = view.X
	} else {
		a.x = free(experiment.FactorTransfer, experiment.FactorRanks, experiment.FactorNodes, experiment.FactorIONs, experiment.FactorServers)
	}
	if a.color == "" {
		if a.color = free(experiment.FactorMode, experiment.FactorFault, experiment.FactorCollective); a.color == "" {
			a.color = experiment.FactorMode
		}
	}
	if second := free(experiment.FactorCollective, experiment.FactorFault, experiment.FactorMode); second != "" && len(values(groups, second)) == 2 {
		a.second = second
	}
	for _, f := range experiment.Factors() {
		if f != a.x && f != a.color && f != a.second && len(values(groups, f)) > 1 {
			rest = append(rest, f)
		}
	}
	return a, rest
}

// panels arranges groups.
func panels(r *experiment.Results) (out []panel) {
	type key struct{ workload, phase string }
	var keys []key
	of := map[key][]experiment.Group{}
	for _, g := range r.Groups {
		k := key{g.Cell.Workload, g.Phase}
		if of[k] == nil {
			keys = append(keys, k)
		}
		of[k] = append(of[k], g)
	}
	place := func(k key) int { return slices.Index(r.Spec.Matrix.Workload, k.workload) }
	slices.SortStableFunc(keys, func(a, b key) int { return place(a) - place(b) })
	for _, k := range keys {
		a, rest := choose(of[k], r.Spec.Report)
		for _, part := range split(of[k], rest) {
			p := newPanel(part, a)
			p.workload, p.phase = k.workload, k.phase
			p.title = titleOf(k.workload, k.phase)
			for _, f := range rest {
				p.title += ", " + label(f, part[0].Cell.Value(f))
			}
			out = append(out, p)
		}
	}
	return out
}

// split divides groups by the values of factors.
func split(groups []experiment.Group, factors []string) (out [][]experiment.Group) {
	at := map[string]int{}
	for _, g := range groups {
		var parts []string
		for _, f := range factors {
			parts = append(parts, g.Cell.Value(f))
		}
		k := strings.Join(parts, "\x00")
		if _, ok := at[k]; !ok {
			at[k] = len(out)
			out = append(out, nil)
		}
		out[at[k]] = append(out[at[k]], g)
	}
	return out
}

// label is the value of a factor as it is written without the factor beside it.
func label(factor, value string) string {
	switch factor {
	case experiment.FactorMode:
		return value
	case experiment.FactorTransfer:
		return pretty(value)
	case experiment.FactorFault:
		if value == experiment.NoFault {
			return "no fault"
		}
		return value
	case experiment.FactorCollective:
		return "collective " + value
	case experiment.FactorIONs:
		return value + " I/O nodes"
	}
	return value + " " + factor
}

// pretty writes a size with a space before its unit.
func pretty(size string) string {
	i := strings.IndexFunc(size, func(r rune) bool { return r < '0' || r > '9' })
	if i <= 0 {
		return size
	}
	return size[:i] + " " + size[i:]
}

func newPanel(groups []experiment.Group, a axes) panel {
	p := panel{x: a.x, steps: []string{""}}
	if a.x != "" {
		p.steps = values(groups, a.x)
	}
	colors, seconds := values(groups, a.color), []string{""}
	if a.second != "" {
		seconds = values(groups, a.second)
	}
	for i, c := range colors {
		for k, s := range seconds {
			st := styleOf(colorIndex(a.color, c, i), k > 0)
			name := label(a.color, c)
			if a.second != "" {
				name += ", " + label(a.second, s)
			}
			row := make([]*experiment.Group, len(p.steps))
			for n := range groups {
				g := &groups[n]
				if g.Cell.Value(a.color) != c || a.second != "" && g.Cell.Value(a.second) != s {
					continue
				}
				step := 0
				if a.x != "" {
					step = slices.Index(p.steps, g.Cell.Value(a.x))
				}
				row[step] = g
			}
			if slices.ContainsFunc(row, func(g *experiment.Group) bool { return g != nil }) {
				p.series = append(p.series, series{name, st})
				p.groups = append(p.groups, row)
			}
		}
	}
	return p
}

// colorIndex is the number of a colour: a mode has the same in every plot of
// every experiment.
func colorIndex(factor, value string, i int) int {
	if factor != experiment.FactorMode {
		return i + 5 // after those of the modes
	}
	m, err := consistency.Parse(value)
	if err != nil {
		return i
	}
	return slices.Index(consistency.All(), m)
}

// stepName is what is written under, or before, a step.
func (p *panel) stepName(i int) string {
	if p.x == "" {
		return ""
	}
	if p.x == experiment.FactorTransfer {
		return pretty(p.steps[i])
	}
	return label(p.x, p.steps[i])
}

// none is the absence of a value.
var none = value{at: math.NaN()}

// estimate is an estimate as it is drawn.
func estimate(name string, e experiment.Estimate, format func(float64) string) value {
	if e.N == 0 {
		return none
	}
	return value{e.Median, e.Low, e.High, name + ": " + interval(e, format)}
}

// interval writes an estimate.
func interval(e experiment.Estimate, format func(float64) string) string {
	if e.N == 0 {
		return "–"
	}
	if e.Low == e.High {
		return format(e.Median)
	}
	mid, unit, spaced := strings.Cut(format(e.Median), " ")
	low, lowUnit, _ := strings.Cut(format(e.Low), " ")
	high, highUnit, _ := strings.Cut(format(e.High), " ")
	if spaced && unit == lowUnit && unit == highUnit {
		return fmt.Sprintf("%s [%s, %s] %s", mid, low, high, unit)
	}
	return fmt.Sprintf("%s [%s, %s]", format(e.Median), format(e.Low), format(e.High))
}

// draw makes a plot of what of each group: along the steps if there are any,
// otherwise as rows.
func (p *panel) draw(title, unit string, format func(float64) string, of func(*experiment.Group) experiment.Estimate) plot {
	v := make([][]value, len(p.series))
	for s := range p.series {
		v[s] = make([]value, len(p.steps))
		for i, g := range p.groups[s] {
			if v[s][i] = none; g != nil {
				v[s][i] = estimate(strings.TrimSpace(p.series[s].name+" "+p.stepName(i)), of(g), format)
			}
		}
	}
	if p.x == "" {
		row := make([]value, len(p.series))
		for s := range v {
			row[s] = v[s][0]
		}
		return &rows{title: title, unit: unit, groups: []string{""}, series: p.series, values: [][]value{row}, format: format}
	}
	steps := make([]string, len(p.steps))
	for i := range p.steps {
		steps[i] = p.stepName(i)
	}
	return &lines{title: title, unit: unit, xLabel: axisName(p.x), steps: steps, series: p.series, values: v, format: format}
}

func axisName(factor string) string {
	switch factor {
	case experiment.FactorTransfer:
		return "transfer size"
	case experiment.FactorIONs:
		return "I/O nodes"
	}
	return factor
}

// table is the numbers of a plot.
type table struct {
	Head []string
	Rows [][]cell
}

// Classes are those of the columns, which those of the first row are.
func (t table) Classes() (out []cell) {
	for i, h := range t.Head {
		c := cell{Text: h}
		if len(t.Rows) > 0 && t.Rows[0][i].Class == "name" {
			c.Class = "name"
		}
		out = append(out, c)
	}
	return out
}

// cell is one of them. A class tells what it is: "bad", "good", "name" or
// nothing.
type cell struct{ Text, Class string }

// rowsOf calls f for each group, in the order of steps and series, and makes a
// row of what it returns behind the names of both.
func (p *panel) table(head []string, f func(g *experiment.Group) []string) table {
	t := table{Head: append([]string{"series"}, head...)}
	if p.x != "" {
		t.Head = append([]string{axisName(p.x)}, t.Head...)
	}
	for i := range p.steps {
		for s := range p.series {
			g := p.groups[s][i]
			if g == nil {
				continue
			}
			names := []string{p.series[s].name}
			if p.x != "" {
				names = append([]string{p.stepName(i)}, names...)
			}
			var row []cell
			for _, text := range names {
				row = append(row, cell{text, "name"})
			}
			for _, text := range f(g) {
				row = append(row, cell{Text: text})
			}
			t.Rows = append(t.Rows, row)
		}
	}
	return t
}
