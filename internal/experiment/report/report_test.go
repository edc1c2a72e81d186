package report

import (
	"bytes"
	"fmt"
	"image/png"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"

	"github.com/zoidfs/zoidfs/internal/experiment"
	"github.com/zoidfs/zoidfs/internal/history"
)

const spec = `
title: Modes & <others>
repetitions: 5
matrix:
  mode: [strong, session, eventual]
  workload: [ckpt, exchange, own]
  transfer: [4KiB, 64KiB]
  fault: [none, dies]
workloads:
  ckpt: {kind: checkpoint}
  own: {kind: command, command: x, transfer: 4KiB}
faults:
  dies: {kill: ion}
exclude:
  - {workload: [exchange, own], fault: dies}
`

// sample makes results of which session is twice as good as strong.
func sample(t *testing.T) *experiment.Results {
	t.Helper()
	s, err := experiment.Parse("x.yaml", []byte(spec))
	require.NoError(t, err)
	r := &experiment.Results{Spec: *s, Text: spec}
	r.Environment.Command = []string{"zoidfs", "experiment", "run", "x.yaml"}
	for _, trial := range s.Plan() {
		w := s.Workload(trial.Workload)
		kind, _ := experiment.KindOf(w.Kind)
		run := experiment.Run{ID: trial.ID(), Cell: trial.Cell, Repetition: trial.Repetition}
		for _, name := range kind.Phases {
			var h experiment.Histogram
			h.Add(int64(1000 * (trial.Repetition + 1)))
			p := experiment.Phase{Name: name, Unit: kind.Unit, Better: experiment.Higher, Figure: float64(10 + trial.Repetition), Latency: map[string]experiment.Histogram{"write": h}}
			p.Requests.Calls = map[string]uint64{"write": 100}
			p.Requests.RPC = map[string]uint64{"write": 10}
			if trial.Mode == "session" {
				p.Figure *= 2
			}
			run.Phases = append(run.Phases, p)
		}
		if w.Kind == experiment.Exchange {
			run.Staleness = []float64{0, 0.001, 0.002}
		}
		if trial.Fault != experiment.NoFault {
			run.Strike = &experiment.Strike{Fault: trial.Fault, After: 0.1, Down: 1, Longest: 2}
		}
		run.Check.Events = 3
		r.Runs = append(r.Runs, run)
	}
	r.Groups = experiment.Summarize(r.Runs)
	return r
}

// text is all text below a node.
func text(n *html.Node) string {
	if n.Type == html.TextNode {
		return n.Data
	}
	var b strings.Builder
	for c := range n.ChildNodes() {
		b.WriteString(text(c))
	}
	return b.String()
}

func find(n *html.Node, tag string) (out []*html.Node) {
	for d := range n.Descendants() {
		if d.Type == html.ElementNode && d.Data == tag {
			out = append(out, d)
		}
	}
	return out
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// TestPage reads the page as a browser does: every plot has a table, nothing
// comes from elsewhere, all links lead somewhere, and what was measured is there.
func TestPage(t *testing.T) {
	r := sample(t)
	var b bytes.Buffer
	require.NoError(t, Page(&b, r))
	doc, err := html.Parse(bytes.NewReader(b.Bytes()))
	require.NoError(t, err)
	require.Equal(t, "Modes & <others>", text(find(doc, "title")[0]))
	figures := find(doc, "figure")
	// ckpt, exchange, own: a result and a speed-up each; latency of the first
	// two, whose calls are timed, and of own; requests; one of staleness.
	require.Len(t, figures, 3+3+3+3+1)
	ids := map[string]bool{}
	for _, f := range figures {
		require.Len(t, find(f, "svg"), 1)
		require.NotEmpty(t, attr(find(f, "svg")[0], "aria-label"))
		require.NotEmpty(t, find(f, "td"), "a plot without its table")
		require.NotContains(t, text(f), "NaN")
		for _, s := range find(f, "polygon") {
			require.NotContains(t, attr(s, "points"), "NaN")
		}
	}
	for _, s := range find(doc, "section") {
		ids["#"+attr(s, "id")] = true
	}
	for _, a := range find(doc, "a") {
		require.True(t, ids[attr(a, "href")], attr(a, "href"))
	}
	require.Empty(t, find(doc, "script"))
	require.Empty(t, find(doc, "link"))
	require.Empty(t, find(doc, "img"))
	require.NotContains(t, b.String(), "url(")
	page := text(doc)
	for _, part := range []string{
		"No promise of any mode was broken", "ckpt: write at 4 KiB: session, dies does 2× as well as strong.",
		"12 [10, 14]", "2 s", "dies", "zoidfs experiment run x.yaml", "✓ kept", "not looked at", "fault: [none, dies]",
	} {
		require.Contains(t, page, part)
	}
}

// TestBadNews: what went wrong is said first.
func TestBadNews(t *testing.T) {
	r := sample(t)
	r.Runs[0].Check.Violations = []history.Violation{{Reason: history.Stale}}
	r.Runs[1].Check.Wrong = 7
	r.Runs[2].Error = "did <not> end"
	var b bytes.Buffer
	require.NoError(t, Page(&b, r))
	doc, err := html.Parse(&b)
	require.NoError(t, err)
	items := find(doc, "li")
	require.Equal(t, "bad", attr(items[0], "class"))
	require.Contains(t, text(items[0]), fmt.Sprintf("In 1 of %d runs a promise of the mode was broken.", len(r.Runs)))
	require.Contains(t, text(doc), "did <not> end")
	require.NotContains(t, text(doc), "No promise of any mode was broken")

	r = sample(t)
	r.Spec.Repetitions = 3
	require.Contains(t, findings(r)[1].Text, "3 repetitions are too few")
	r.Runs, r.Groups = nil, nil
	require.NoError(t, Page(&b, r), "of nothing yet")
}

// TestExport: both kinds of pictures show something, and colours are written out.
func TestExport(t *testing.T) {
	figures, err := Export(sample(t), true)
	require.NoError(t, err)
	names := map[string]bool{}
	for _, f := range figures {
		names[f.Name] = true
		require.NotContains(t, string(f.SVG), "var(")
		require.Contains(t, string(f.SVG), `xmlns="http://www.w3.org/2000/svg"`)
		img, err := png.Decode(bytes.NewReader(f.PNG))
		require.NoError(t, err)
		colors := map[[3]uint32]int{}
		for x := 0; x < img.Bounds().Dx(); x += 2 {
			for y := 0; y < img.Bounds().Dy(); y += 2 {
				r, g, b, _ := img.At(x, y).RGBA()
				colors[[3]uint32{r >> 8, g >> 8, b >> 8}]++
			}
		}
		require.Positive(t, colors[[3]uint32{0x1a, 0x1a, 0x1a}], "text of %s", f.Name)
		require.Positive(t, colors[[3]uint32{0x00, 0x9e, 0x73}], "session in %s", f.Name)
	}
	require.Len(t, names, len(figures))
	require.True(t, names["result-ckpt--write"], "%v", names)
}

func TestTicks(t *testing.T) {
	require.Equal(t, []float64{0, 20, 40, 60, 80, 100}, linear(93).ticks(5))
	require.Equal(t, []float64{1, 10, 100, 1000}, scale{low: 0.8, high: 1500, log: true}.ticks(3))
	require.Equal(t, []float64{0.5, 1, 2}, scale{low: 0.4, high: 3, log: true}.ticks(3))
	require.LessOrEqual(t, len(scale{low: 1e-9, high: 1e9, log: true}.ticks(5)), 7)
	s := scale{low: 1, high: 100, log: true, from: 0, to: 10}
	require.InDelta(t, 5, s.at(10), 1e-9)
	require.InDelta(t, 0, s.at(0), 1e-9, "what a logarithm does not have lies at the end")
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.012345: "0.0123", 1: "1", 12.34: "12.3", 123.4: "123", 9999: "9999", 12345: "12.3k", 2.5e6: "2.5M"} {
		require.Equal(t, want, number(v))
	}
	for v, want := range map[float64]string{0: "0", 5e-9: "5 ns", 1.5e-5: "15 µs", 0.001: "1 ms", 0.25: "250 ms", 1: "1 s", 90: "90 s"} {
		require.Equal(t, want, seconds(v))
	}
	require.Equal(t, "4 KiB", size(4096))
}
