package report

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"

	"github.com/zoidfs/zoidfs/internal/experiment"
)

//go:embed page.html.tmpl
var pageText string

// finding is a sentence of the summary.
type finding struct{ Text, Class string }

// Page writes results as one HTML file.
func Page(w io.Writer, r *experiment.Results) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"svg":  func(p plot) template.HTML { return template.HTML(svg(p, variable)) }, // its texts are escaped
		"css":  func() template.CSS { return pageCSS },
		"join": strings.Join,
	}).Parse(pageText)
	if err != nil {
		return err
	}
	return t.Execute(w, map[string]any{
		"Spec": r.Spec, "Env": r.Environment, "Text": r.Text, "Memory": size(r.Environment.Memory),
		"Findings": findings(r), "Sections": sections(r), "Runs": len(r.Runs), "Planned": len(r.Spec.Plan()),
		"Command": strings.Join(r.Environment.Command, " "), "Failed": failed(r),
	})
}

// pageCSS defines the inks, of paper and, for those who want it, of a dark
// screen. What is printed is on paper.
var pageCSS = template.CSS(fmt.Sprintf(":root{%s}\n@media screen and (prefers-color-scheme: dark){:root{%s}}", variables(light), variables(dark)))

func variables(colors []string) string {
	var b strings.Builder
	for i, c := range colors[1:] {
		fmt.Fprintf(&b, "--i%d:%s;", i+1, c)
	}
	return b.String()
}

// failed are the runs that have no result, and why.
func failed(r *experiment.Results) (out []finding) {
	for _, run := range r.Runs {
		if !run.Done() {
			out = append(out, finding{run.ID + ": " + run.Error, "bad"})
		}
	}
	return out
}

// findings are what the results come to, in sentences. Nothing is said that the
// intervals do not bear out.
func findings(r *experiment.Results) (out []finding) {
	broken, wrong := 0, 0
	for _, run := range r.Runs {
		if len(run.Check.Violations) > 0 {
			broken++
		} else if !run.Check.Clean() {
			wrong++
		}
	}
	switch {
	case broken > 0:
		out = append(out, finding{fmt.Sprintf("In %d of %d runs a promise of the mode was broken.", broken, len(r.Runs)), "bad"})
	case wrong > 0:
		out = append(out, finding{fmt.Sprintf("In %d of %d runs data were wrong.", wrong, len(r.Runs)), "bad"})
	case len(r.Runs) > 0:
		out = append(out, finding{"No promise of any mode was broken, and all data that were read back were right.", "good"})
	}
	if r.Spec.Repetitions < minRuns {
		return append(out, finding{fmt.Sprintf("%d repetitions are too few to say which differences are real: their intervals cover too little.", r.Spec.Repetitions), ""})
	}
	for _, p := range panels(r) {
		if text := best(&p); text != "" {
			out = append(out, finding{text, ""})
		}
	}
	return out
}

// minRuns is how many runs an interval needs to cover more than nine times in
// ten.
const minRuns = 5

// best says which series gains most over strong in a panel, at the first step, if one is.
func best(p *panel) string {
	var top, low *experiment.Group
	var topName, lowName string
	compared := false
	for i, row := range p.groups {
		g := row[0]
		if g == nil || g.Ratio.N < minRuns {
			continue
		}
		compared = true
		if g.Ratio.Low > 1 && (top == nil || g.Ratio.Median > top.Ratio.Median) {
			top, topName = g, p.series[i].of(g)
		}
		if g.Ratio.High < 1 && (low == nil || g.Ratio.Median < low.Ratio.Median) {
			low, lowName = g, p.series[i].of(g)
		}
	}
	name := p.title + p.at()
	var parts []string
	if top != nil {
		parts = append(parts, fmt.Sprintf("%s does %s as well as strong", topName, interval(top.Ratio, times)))
	}
	if low != nil {
		parts = append(parts, fmt.Sprintf("%s only %s", lowName, interval(low.Ratio, times)))
	}
	switch {
	case len(parts) > 0:
		return name + ": " + strings.Join(parts, ", ") + "."
	case compared:
		return name + ": no mode differs from strong by more than the intervals."
	}
	return ""
}

// of names the series, and the mode of g where the series is not of one mode.
func (s series) of(g *experiment.Group) string {
	if s.name == "" || strings.Contains(s.name, g.Cell.Mode) {
		return cmp.Or(s.name, g.Cell.Mode)
	}
	return s.name + ", " + g.Cell.Mode
}

// Figure is a plot as files.
type Figure struct {
	Name  string // without ending
	Title string
	SVG   []byte
	PNG   []byte // nil unless asked for
}

// Export draws every plot for papers, each name once.
func Export(r *experiment.Results, png bool) (out []Figure, err error) {
	for _, s := range sections(r) {
		for _, f := range s.Figures {
			e := Figure{Name: f.ID, Title: f.Plot.name(), SVG: []byte(svg(f.Plot, literal))}
			for n := 2; slices.ContainsFunc(out, func(o Figure) bool { return o.Name == e.Name }); n++ {
				e.Name = fmt.Sprintf("%s-%d", f.ID, n)
			}
			if png {
				if e.PNG, err = pngOf(f.Plot); err != nil {
					return nil, err
				}
			}
			out = append(out, e)
		}
	}
	return out, nil
}
