package report

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/zoidfs/zoidfs/internal/experiment"
)

// Lines of a document between which stands what Markdown prints.
const (
	markBegin = "<!-- results: made by zoidfs experiment report --markdown -->"
	markEnd   = "<!-- end of results -->"
)

// Markdown returns results as text and tables: what they come to, all groups,
// staleness, faults, and how they were measured.
func Markdown(r *experiment.Results) []byte {
	var b bytes.Buffer
	for _, f := range findings(r) {
		fmt.Fprintf(&b, "- %s\n", f.Text)
	}
	for _, f := range failed(r) {
		fmt.Fprintf(&b, "- No result: %s\n", f.Text)
	}
	for _, t := range []table{groupTable(r), staleTable(r)} {
		t.markdown(&b)
	}
	for _, t := range faults(r).Tables {
		t.markdown(&b)
	}
	fmt.Fprintf(&b, "\n%s\n\n%s\n", totals(r), origin(r))
	return b.Bytes()
}

// markdown writes a table, if it has rows.
func (t table) markdown(b *bytes.Buffer) {
	if len(t.Rows) == 0 {
		return
	}
	fmt.Fprintf(b, "\n| %s |\n|%s\n", strings.Join(t.Head, " | "), strings.Repeat(" --- |", len(t.Head)))
	for _, row := range t.Rows {
		for _, c := range row {
			fmt.Fprintf(b, "| %s ", strings.ReplaceAll(c.Text, "|", `\|`))
		}
		b.WriteString("|\n")
	}
}

// tableOf has a row for each group that f has cells for, behind its workload and
// the factors that vary.
func tableOf(r *experiment.Results, head []string, f func(g *experiment.Group) []string) table {
	groups := slices.Clone(r.Groups)
	place := func(g experiment.Group) int { return slices.Index(r.Spec.Matrix.Workload, g.Cell.Workload) }
	slices.SortStableFunc(groups, func(a, b experiment.Group) int { return place(a) - place(b) })
	factors := slices.DeleteFunc(experiment.Factors(), func(factor string) bool {
		return factor == experiment.FactorWorkload || factor == experiment.FactorMode || len(values(groups, factor)) < 2
	})
	factors = append(factors, experiment.FactorMode)
	t := table{Head: []string{"workload"}}
	for _, factor := range factors {
		t.Head = append(t.Head, axisName(factor))
	}
	t.Head = append(t.Head, head...)
	for i := range groups {
		g := &groups[i]
		cells := f(g)
		if cells == nil {
			continue
		}
		row := []cell{{Text: titleOf(g.Cell.Workload, g.Phase)}}
		for _, factor := range factors {
			row = append(row, cell{Text: valueOf(g.Cell, factor)})
		}
		for _, text := range cells {
			row = append(row, cell{Text: text})
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// valueOf is the value of a factor in a column of its own.
func valueOf(c experiment.Cell, factor string) string {
	if factor == experiment.FactorTransfer && c.Transfer == 0 {
		return "–"
	}
	return pretty(c.Value(factor))
}

// titleOf names a phase of a workload.
func titleOf(workload, phase string) string {
	if phase == workload || phase == experiment.Command {
		return workload
	}
	return workload + ": " + phase
}

// figureOf writes the result of a group with its unit.
func figureOf(g *experiment.Group) string {
	if g.Unit == experiment.UnitSecond {
		return interval(g.Figure, seconds)
	}
	return interval(g.Figure, func(v float64) string { return number(v) + " " + g.Unit })
}

func groupTable(r *experiment.Results) table {
	head := []string{"median [interval]", "speed-up over strong", "calls", "to I/O nodes", "to servers"}
	return tableOf(r, head, func(g *experiment.Group) []string {
		return []string{figureOf(g), interval(g.Ratio, times), number(g.Calls.Median), number(g.RPC.Median), number(g.PVFS.Median)}
	})
}

func staleTable(r *experiment.Results) table {
	return tableOf(r, []string{"writes", "seen after, median", "90 %", "99 %", "longest"}, func(g *experiment.Group) []string {
		if len(g.Staleness) == 0 {
			return nil
		}
		row := []string{fmt.Sprint(len(g.Staleness))}
		for _, q := range []float64{0.5, 0.9, 0.99, 1} {
			row = append(row, seconds(experiment.Quantile(g.Staleness, q)))
		}
		return row
	})
}

// totals says how much was measured and looked at.
func totals(r *experiment.Results) string {
	failed, events, broken := 0, 0, 0
	var read, wrong int64
	for i := range r.Runs {
		c := &r.Runs[i].Check
		read, wrong, events, broken = read+c.Bytes, wrong+c.Wrong, events+c.Events, broken+len(c.Violations)
		if !r.Runs[i].Done() {
			failed++
		}
	}
	text := fmt.Sprintf("Of %d runs, %d had no result. %s were read back and compared, %s were wrong; %d recorded calls were judged, %d promises were broken.",
		len(r.Runs), failed, size(read), size(wrong), events, broken)
	if len(r.Groups) == 0 {
		return text
	}
	least := slices.MinFunc(r.Groups, func(a, b experiment.Group) int { return a.Figure.N - b.Figure.N }).Figure
	return fmt.Sprintf("Medians of %d runs or more, in brackets the interval that covers the median with at least %.0f %%. Requests are those during the phase. %s",
		least.N, 100*least.Coverage, text)
}

// origin says on what was measured.
func origin(r *experiment.Results) string {
	e := &r.Environment
	return fmt.Sprintf("Measured %s with zoidfs %s on %d processors (%s), %s of memory, Linux %s; the servers' data on %s; seed %d.",
		e.Started.Format("2006-01-02"), e.Version, e.CPUs, e.CPU, size(e.Memory), e.Kernel, e.Storage, r.Spec.Seed)
}

// NewDocument is a document about an experiment, for results to be put in.
func NewDocument(r *experiment.Results) []byte {
	return fmt.Appendf(nil, "# %s\n\n%s\n\n    zoidfs experiment run %s\n\n%s\n%s\n", r.Spec.Title, r.Spec.About, r.Environment.File, markBegin, markEnd)
}

// PutInto returns a document in which the results stand between the two lines
// that are there for them.
func PutInto(document []byte, r *experiment.Results) ([]byte, error) {
	before, rest, ok := bytes.Cut(document, []byte(markBegin+"\n"))
	_, after, ended := bytes.Cut(rest, []byte(markEnd))
	if !ok || !ended {
		return nil, fmt.Errorf("where to? the results go between two lines, %s and %s", markBegin, markEnd)
	}
	return slices.Concat(before, []byte(markBegin+"\n"), Markdown(r), []byte(markEnd), after), nil
}

// picture is a picture in a document.
var picture = regexp.MustCompile(`!\[[^\]]*\]\(([^)\s]+)\)`)

// Pictures returns those figures of which a document has a picture, by the path
// that it is there with: NAME-FIGURE.svg in any directory, NAME being that of
// the experiment.
func Pictures(document []byte, r *experiment.Results) (map[string][]byte, error) {
	figures, err := Export(r, false)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, m := range picture.FindAllSubmatch(document, -1) {
		for _, f := range figures {
			path := string(m[1])
			if file := path[strings.LastIndexByte(path, '/')+1:]; file == r.Spec.Name+"-"+f.Name+".svg" {
				out[path] = f.SVG
			}
		}
	}
	return out, nil
}
