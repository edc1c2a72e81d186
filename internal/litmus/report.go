package litmus

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/zoidfs/zoidfs/internal/history"
)

// Result is the conformance table of a run.
type Result struct {
	Mode       history.Mode  `json:"mode"`
	Visibility time.Duration `json:"visibility_ns,omitempty"`
	Seed       int64         `json:"seed"`
	Mounts     []string      `json:"mounts"`
	Tests      []Row         `json:"tests"`
}

// Row is what one test promised and what was seen.
type Row struct {
	Name     string         `json:"name"`
	Title    string         `json:"title"`
	Promise  string         `json:"promise,omitempty"`
	Must     bool           `json:"must"` // the mode promises it
	Rounds   int            `json:"rounds"`
	NotRun   string         `json:"not_run,omitempty"` // why there are no rounds
	Seen     map[string]int `json:"seen"`              // outcomes and how often
	Violated int            `json:"violated"`          // rounds in which a promise was broken
	Findings []Finding      `json:"findings,omitempty"`
}

// Finding is a round in which a promise was broken.
type Finding struct {
	Round      int                 `json:"round"`
	Note       string              `json:"note,omitempty"`
	Violations []history.Violation `json:"violations"`
	Events     []string            `json:"events"` // what was done and seen
	Shrunk     bool                `json:"shrunk,omitempty"`
}

// maxFindings is how many rounds of a test are described.
const maxFindings = 3

// find records the violations of a round.
func (r *Row) find(h history.History, v []history.Violation, p Program) {
	if len(v) == 0 {
		return
	}
	r.Violated++
	if len(r.Findings) == maxFindings {
		return
	}
	r.Findings = append(r.Findings, Finding{Round: h.Round, Note: p.Note, Violations: v, Events: describe(h, p)})
}

// describe is a history as lines, in the order in which the calls were made.
func describe(h history.History, p Program) []string {
	order := make([]int, len(h.Events))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(h.Events[a].Call, h.Events[b].Call) })
	var out []string
	for _, i := range order {
		e := &h.Events[i]
		line := fmt.Sprintf("%8d..%-8d %3d  %s", (e.Call-h.Events[order[0]].Call)/1000, (e.Return-h.Events[order[0]].Call)/1000, i, e)
		if after := p.Steps[i].After; len(after) > 0 {
			line += "  after " + strings.Trim(fmt.Sprint(after), "[]")
		}
		out = append(out, line)
	}
	return out
}

func (res *Result) add(row Row, progress io.Writer) {
	res.Tests = append(res.Tests, row)
	if progress != nil {
		fmt.Fprintf(progress, "%-6s %s: %s\n", row.Name, row.verdict(), row.Title)
	}
}

// Conforms reports whether no promise was broken.
func (res *Result) Conforms() bool {
	return !slices.ContainsFunc(res.Tests, func(r Row) bool { return r.Violated > 0 })
}

func (r *Row) verdict() string {
	switch {
	case r.NotRun != "":
		return "not run"
	case r.Violated > 0:
		return fmt.Sprintf("VIOLATED %d of %d", r.Violated, r.Rounds)
	}
	return "ok"
}

func (r *Row) promise() string {
	switch {
	case r.Promise == "":
		return ""
	case r.Must:
		return "must " + r.Promise
	}
	return "may"
}

// seen are the outcomes, the most frequent first.
func (r *Row) seen() string {
	if r.NotRun != "" {
		return r.NotRun
	}
	keys := slices.SortedFunc(maps.Keys(r.Seen), func(a, b string) int {
		return cmp.Or(cmp.Compare(r.Seen[b], r.Seen[a]), cmp.Compare(a, b))
	})
	var parts []string
	for i, k := range keys {
		if i == 6 {
			parts = append(parts, fmt.Sprintf("and %d more", len(keys)-i))
			break
		}
		parts = append(parts, fmt.Sprintf("%s ×%d", k, r.Seen[k]))
	}
	return strings.Join(parts, "  ")
}

// Table prints the conformance table and after it what was wrong.
func (res *Result) Table(w io.Writer) error {
	fmt.Fprintf(w, "mode %s", res.Mode)
	if res.Visibility > 0 {
		fmt.Fprintf(w, ", visible after %v", res.Visibility)
	}
	fmt.Fprintf(w, ", seed %d, mounts %s\n\n", res.Seed, strings.Join(res.Mounts, " "))
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "TEST\tPROGRAM\tPROMISE\tVERDICT\tSEEN")
	for i := range res.Tests {
		r := &res.Tests[i]
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", r.Name, r.Title, r.promise(), r.verdict(), r.seen())
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, r := range res.Tests {
		for _, f := range r.Findings {
			f.print(w, r.Name)
		}
	}
	if res.Conforms() {
		_, err := fmt.Fprintf(w, "\nno promise of %s was broken\n", res.Mode)
		return err
	}
	return nil
}

func (f *Finding) print(w io.Writer, name string) {
	fmt.Fprintf(w, "\n%s, round %d", name, f.Round)
	if f.Note != "" {
		fmt.Fprintf(w, ", %s", f.Note)
	}
	if f.Shrunk {
		fmt.Fprint(w, ", shrunk")
	}
	fmt.Fprintln(w)
	for _, v := range f.Violations {
		fmt.Fprintf(w, "  %s: %s\n", v.Reason, v.Text)
	}
	for _, e := range f.Events {
		fmt.Fprintf(w, "    %s\n", e)
	}
}
