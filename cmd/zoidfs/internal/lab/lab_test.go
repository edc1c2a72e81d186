package lab

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/counters"
	"github.com/zoidfs/zoidfs/internal/experiment"
	"github.com/zoidfs/zoidfs/internal/history"
)

func TestFigures(t *testing.T) {
	const out = "write 1.5 MiB/s, 10 ops\nwrite 2e3 MiB/s, 20 ops\n"
	got, err := figures([]string{`^write (?P<rate>\S+) MiB/s, (?P<ops>\d+)`, `(\d+) ops`}, out, 7)
	require.NoError(t, err)
	require.Equal(t, map[string]float64{"seconds": 7, "rate": 2000, "ops": 20}, got, "the last match counts")

	_, err = figures([]string{`read (?P<rate>\S+)`}, out, 7)
	require.ErrorContains(t, err, `nothing that matches "read`)
	require.ErrorContains(t, err, "but: write 2e3 MiB/s, 20 ops")
	_, err = figures([]string{`(?P<unit>MiB)`}, out, 7)
	require.ErrorContains(t, err, `unit is "MiB", which is no number`)
}

func TestBar(t *testing.T) {
	cell := experiment.Cell{Mode: "strong", Workload: "log", Transfer: 4096}
	run := experiment.Run{ID: "x", Cell: cell, Phases: []experiment.Phase{{Name: "append", Figure: 12.5, Unit: "op/s"}}}
	var plain bytes.Buffer
	b := newBar(&plain, false, 4, 1)
	b.next(experiment.Trial{Cell: cell})
	require.Empty(t, plain.String(), "a line for each run that has ended")
	b.started = time.Now().Add(-10 * time.Second)
	b.end(&run)
	require.Equal(t, "2 of 4, 20s left  x: append 12.5 op/s\n", plain.String())

	var terminal bytes.Buffer
	b = newBar(&terminal, true, 2, 1)
	b.next(experiment.Trial{Cell: cell})
	require.Contains(t, terminal.String(), "[############............] 1 of 2  strong log 4KiB")
	b.end(&run)
	require.Contains(t, terminal.String(), "2 of 2")
	require.Equal(t, byte('\n'), terminal.Bytes()[terminal.Len()-1])
}

func TestVerdict(t *testing.T) {
	for want, r := range map[string]experiment.Run{
		"no result: x":             {Error: "x"},
		"PROMISE BROKEN: stale: y": {Check: experiment.Check{Wrong: 1, Violations: []history.Violation{{Reason: history.Stale, Text: "y"}}}},
		"WRONG DATA: z":            {Check: experiment.Check{Wrong: 1, Mistakes: []string{"z"}}},
	} {
		require.Equal(t, want, verdict(&r))
	}
}

// TestCounts: who was started anew does not spoil what others have counted.
func TestCounts(t *testing.T) {
	count := func(n uint64) counters.Stats {
		s := counters.New()
		s.PVFS.Requests["io"] = n
		return s
	}
	before, after := counts{count(1000), count(500)}, counts{count(7), count(520)}
	require.EqualValues(t, 27, after.since(before).PVFS.Requests["io"])
}

func TestMachine(t *testing.T) {
	e := Machine("v1", t.TempDir()+"/not/there/yet")
	require.Equal(t, "v1", e.Version)
	require.NotEmpty(t, e.CPU)
	require.NotEmpty(t, e.Kernel)
	require.NotEmpty(t, e.Storage)
	require.Positive(t, e.Memory)
}
