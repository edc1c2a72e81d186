package experiment

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const good = `
title: Modes
about: |
  What they cost.
seed: 7
repetitions: 3
warmup: 0
visibility: 500ms
matrix:
  mode: [strong, session]
  workload: [ckpt, input, own, metadata]
  ranks: 4
  transfer: [4KiB, 64K, 1048576]
  fault: [none, ion-dies]
workloads:
  ckpt: {kind: checkpoint, pattern: nested, size: 2MiB, sync: fsync}
  input:
    kind: input
    transfer: 8KiB
  own:
    kind: command
    command: ior -t {transfer}
    parse: 'write +(?P<write>[0-9.]+)'
    figure: write
    unit: MiB/s
    better: higher
faults:
  ion-dies: {kill: ion, index: 1, at: 30%, restart: 2s}
exclude:
  - {workload: own, fault: ion-dies}
  - {transfer: 1MiB, workload: [own]}
`

func TestParse(t *testing.T) {
	s, err := Parse("x/modes.yaml", []byte(good))
	require.NoError(t, err)
	require.Equal(t, "modes", s.Name)
	require.Equal(t, "Modes", s.Title)
	require.EqualValues(t, 7, s.Seed)
	require.Zero(t, s.Warmup)
	require.Equal(t, 500*time.Millisecond, s.Visibility)
	require.Equal(t, []int64{4 << 10, 64 << 10, 1 << 20}, s.Matrix.Transfer)
	require.Equal(t, []int{2}, s.Matrix.Nodes, "a default")
	ckpt := s.Workload("ckpt")
	require.Equal(t, Workload{Name: "ckpt", Kind: Checkpoint, Pattern: Nested, Size: 2 << 20, Sync: SyncFsync}, ckpt)
	require.Equal(t, Metadata, s.Workload("metadata").Kind, "a kind is a workload with its defaults")
	require.Equal(t, &Fault{Name: "ion-dies", Target: TargetION, Index: 1, Fraction: 0.3, Restart: 2 * time.Second}, s.Fault("ion-dies"))
	require.Nil(t, s.Fault(NoFault))

	// 2 modes of: ckpt 3 sizes x 2 faults, input 1 x 2, own 2 x 1, metadata 1 x 2.
	require.Len(t, s.Cells(), 2*(6+2+2+2))
}

// TestParseErrors requires that each mistake is named with its line and with
// what would be right.
func TestParseErrors(t *testing.T) {
	for _, tt := range []struct{ name, from, to, want string }{
		{"unknown key", "seed: 7", "sede: 7", `m.yaml:5: an experiment has no "sede"; there are about, exclude,`},
		{"unknown mode", "[strong, session]", "[strong, sesion]", `m.yaml:10: "sesion" is none of strong, commit, session, eventual, laminated`},
		{"mode twice", "[strong, session]", "[strong, strong]", `m.yaml:10: "strong" is there twice`},
		{"size", "64K,", "64Q,", `m.yaml:13: "64Q" is not a size from 1B to 64MiB`},
		{"number", "ranks: 4", "ranks: 0", `m.yaml:12: "0" is not a number from 1 to 512`},
		{"unknown workload", "input, own", "inputs, own", `m.yaml:11: there is no workload "inputs"; described are ckpt, input, own; kinds are checkpoint,`},
		{"unknown fault", "[none, ion-dies]", "[ion]", `m.yaml:14: there is no fault "ion"; there are none, ion-dies`},
		{"unknown kind", "kind: input", "kind: inputs", `m.yaml:18: "inputs" is none of checkpoint, restart,`},
		{"no kind", "kind: input", "size: 1MiB", `m.yaml:17: workload input has no kind; there are checkpoint`},
		{"parameter of another kind", "transfer: 8KiB", "pattern: strided", `m.yaml:19: workload input of kind input has no "pattern"; there are about, count, files, kind, reopen, size, transfer`},
		{"size and transfer", "transfer: 8KiB", "size: 1023", `m.yaml:17: workload input: size 1023B is no multiple of the transfer size 4KiB`},
		{"expression", "(?P<write>[0-9.]+)", "(?P<write>", `m.yaml:20: workload own: parse: error parsing regexp`},
		{"figure", "figure: write", "figure: wrote", `figure "wrote" is none of seconds, write`},
		{"moment", "at: 30%", "at: half", `m.yaml:28: "half" is neither a time such as 500ms nor a share such as 50%`},
		{"target", "kill: ion", "kill: disk", `m.yaml:28: "disk" is none of ion, server, node`},
		{"index", "index: 1", "index: 2", `m.yaml:28: fault ion-dies: there is no ion with this index where there are 2, from 0`},
		{"node", "kill: ion", "kill: node", `only a checkpoint can go on without the ranks of a node`},
		{"exclude", "fault: ion-dies}", "fault: ion}", `m.yaml:30: excludes nothing`},
		{"factor", "transfer: 1MiB, workload", "size: 1MiB, workload", `m.yaml:31: "size" is no factor; there are mode, workload`},
		{"not YAML", "seed: 7", "seed: [7", `m.yaml:5: did not find expected ',' or ']'`},
		{"not a mapping", "{kind: checkpoint, pattern: nested, size: 2MiB, sync: fsync}", "checkpoint", `m.yaml:16: a workload must be a mapping`},
		{"given twice", "seed: 7", "title: x", `m.yaml:5: "title" is given twice`},
		{"empty list", "[none, ion-dies]", "[]", `m.yaml:14: an empty list leaves nothing to run`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(good, tt.from, tt.to, 1)
			require.NotEqual(t, good, text)
			_, err := Parse("m.yaml", []byte(text))
			require.ErrorContains(t, err, tt.want)
		})
	}
	for text, want := range map[string]string{
		"":                                       "is empty",
		"title: x":                               "no workload: name some",
		"matrix: {workload: exchange, ranks: 3}": "even number of ranks",
		"matrix: {workload: command}":            "there is no workload \"command\"",
		"matrix: {workload: log, transfer: 16}":  "at least 32B, not 16B",
		"matrix: {workload: log}\nexclude: {workload: log}": "no combination",
	} {
		_, err := Parse("m.yaml", []byte(text))
		require.ErrorContains(t, err, want, text)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"1": 1, "512B": 512, "4KiB": 4096, "4k": 4096, "4 KiB": 4096, "1M": 1 << 20, "2GiB": 2 << 30} {
		got, ok := parseSize(text)
		require.True(t, ok, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "KiB", "4KB", "-1", "1.5M", "9999999999G", "4KiBB"} {
		_, ok := parseSize(text)
		require.False(t, ok, text)
	}
	require.Equal(t, "4KiB", FormatSize(4096))
	require.Equal(t, "4097B", FormatSize(4097))
}

// TestPlan: each repetition has each cell once, starts each system once, has an
// order of its own, and the seed decides.
func TestPlan(t *testing.T) {
	text := strings.Replace(good, "ranks: 4", "ranks: 4\n  ions: [1, 2]\n  collective: [on, off]", 1)
	text = strings.Replace(text, "index: 1", "index: 0", 1)
	s, err := Parse("m.yaml", []byte(text))
	require.NoError(t, err)
	cells, plan := s.Cells(), s.Plan()
	require.Len(t, plan, 3*len(cells))
	ids, starts := map[string]bool{}, map[int]int{}
	var orders [3][]Cell
	for i, p := range plan {
		ids[p.ID()] = true
		orders[p.Repetition] = append(orders[p.Repetition], p.Cell)
		require.Equal(t, i/len(cells), p.Repetition)
		if i%len(cells) == 0 || plan[i-1].Shape != p.Shape {
			starts[p.Repetition]++
		}
	}
	require.Len(t, ids, len(plan), "the names of all trials differ")
	require.Equal(t, map[int]int{0: 4, 1: 4, 2: 4}, starts)
	for _, o := range orders {
		require.ElementsMatch(t, cells, o)
	}
	require.NotEqual(t, orders[0], orders[1])
	require.Equal(t, plan, s.Plan())
	s.Seed++
	require.NotEqual(t, plan, s.Plan())

	s.Warmup = 5
	require.Len(t, s.Warmups(cells[0].Shape), 5)
	for _, c := range s.Warmups(cells[0].Shape) {
		require.Equal(t, cells[0].Shape, c.Shape)
		require.Equal(t, NoFault, c.Fault)
	}
}
