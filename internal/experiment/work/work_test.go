package work

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/experiment"
	"github.com/zoidfs/zoidfs/internal/history"
)

// The environment of a process that is a rank.
const (
	socketEnv = "ZOIDFS_WORK_TEST_SOCKET"
	rankEnv   = "ZOIDFS_WORK_TEST_RANK"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(socketEnv); socket != "" {
		rank, err := strconv.Atoi(os.Getenv(rankEnv))
		if err == nil {
			_ = Serve(socket, rank) // cut off if another rank fails
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// perform runs a workload on a local directory. Its ranks are processes, as
// locks are between processes.
func perform(t *testing.T, c Config, hooks Hooks) ([]*Report, error) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var g errgroup.Group
	for rank := range c.Size {
		c.Nodes = append(c.Nodes, rank*2/c.Size)
		g.Go(func() error {
			cmd := exec.CommandContext(ctx, os.Args[0])
			cmd.Env = append(os.Environ(), socketEnv+"="+socket, rankEnv+"="+strconv.Itoa(rank))
			return cmd.Run()
		})
	}
	reports, err := Coordinate(ctx, l, c, hooks)
	require.NoError(t, g.Wait())
	return reports, err
}

func config(t *testing.T, text, workload string) Config {
	t.Helper()
	s, err := experiment.Parse("x.yaml", []byte(text))
	require.NoError(t, err)
	return Config{Workload: s.Workload(workload), Mode: history.Strong, Transfer: 4096, Seed: 5, Dir: t.TempDir(), LostNode: -1, Size: 4}
}

const workloads = `
workloads:
  segmented: {kind: checkpoint, pattern: segmented, size: 64KiB}
  strided: {kind: checkpoint, pattern: strided, size: 64KiB, sync: fsync}
  nested: {kind: checkpoint, pattern: nested, size: 44KiB}
  own: {kind: checkpoint, pattern: file-per-process, size: 64KiB}
  restart: {kind: restart, size: 64KiB}
  polled: {kind: exchange, count: 10, interval: 1ms, sync: close}
  told: {kind: exchange, count: 10, interval: 0s, notify: message, sync: fsync}
  input: {kind: input, count: 20, size: 64KiB}
  reopened: {kind: input, count: 20, size: 64KiB, reopen: true}
  log: {kind: log, count: 20}
  long: {kind: log, count: 100}
  metadata: {kind: metadata, count: 20}
  apart: {kind: metadata, count: 20, shared: false}
  load: {kind: load, files: 5, size: 20000}
  update: {kind: update, count: 20, records: 2}
matrix: {transfer: 4KiB}
`

// TestWorkloads runs each kind on a local file system, which keeps all promises,
// and then looks whether what should have been measured was.
func TestWorkloads(t *testing.T) {
	for name, want := range map[string]struct {
		ops      []int64
		verified int64
		files    int // that have a history
	}{
		"segmented": {[]int64{64}, 4 * 64 << 10, 1},
		"strided":   {[]int64{64}, 4 * 64 << 10, 1},
		"nested":    {[]int64{44}, 4 * 44 << 10, 1},
		"own":       {[]int64{64}, 4 * 64 << 10, 4},
		"restart":   {[]int64{64}, 4 * 64 << 10, 1},
		"polled":    {[]int64{40}, 0, 2},
		"told":      {[]int64{40}, 0, 2},
		"input":     {[]int64{80}, 80 * 4096, 8},
		"reopened":  {[]int64{80}, 80 * 4096, 8},
		"log":       {[]int64{80}, 4 * 80 * 4096, 1},
		"long":      {[]int64{400}, 4 * 400 * 4096, 0},
		"metadata":  {[]int64{80, 80, 80, 320, 80}, 0, 0},
		"apart":     {[]int64{80, 80, 80, 80, 80}, 0, 0},
		"load":      {[]int64{20}, 4 * 5 * (20000 + 832), 0},
		"update":    {[]int64{80}, 4 * 2 * 4096, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config(t, workloads, name)
			var mu sync.Mutex
			var calls []string
			call := func(what string) func(string) error {
				return func(phase string) error {
					mu.Lock()
					defer mu.Unlock()
					calls = append(calls, what+phase)
					return nil
				}
			}
			marked := make(chan struct{}, 1)
			c.Mark = 0.5
			reports, err := perform(t, c, Hooks{Begin: call("<"), End: call(">"), Mark: func() { marked <- struct{}{} }})
			require.NoError(t, err)
			require.Len(t, marked, 1)
			phases := Phases(c.Workload, reports)
			kind, ok := experiment.KindOf(c.Workload.Kind)
			require.True(t, ok)
			var wantCalls []string
			for i, p := range phases {
				require.Equal(t, kind.Phases[i], p.Name)
				require.Equal(t, want.ops[i], p.Ops, p.Name)
				require.Positive(t, p.Figure, p.Name)
				require.NotEmpty(t, p.Latency, p.Name)
				wantCalls = append(wantCalls, "<"+p.Name, ">"+p.Name)
			}
			require.Equal(t, wantCalls, calls)
			histories := Histories(c, "note", 3, reports)
			require.Len(t, histories, want.files)
			check := Judge(reports, histories)
			require.True(t, check.Clean(), "%+v", check)
			require.Equal(t, want.verified, check.Bytes)
			if want.files > 0 {
				require.Greater(t, check.Events, 10)
			}
			if c.Workload.Kind == experiment.Exchange {
				stale := slices.Concat(reports[2].Staleness, reports[3].Staleness)
				require.Len(t, stale, 20)
				require.GreaterOrEqual(t, slices.Min(stale), 0.0)
				require.Zero(t, reports[2].Unseen, "who is told finds it at once")
			}
		})
	}
}

// TestEveryKindRuns: what can be declared can be run.
func TestEveryKindRuns(t *testing.T) {
	for _, k := range experiment.Kinds() {
		if k.Name != experiment.Command {
			require.NotNil(t, kinds[k.Name], k.Name)
		}
	}
}

// TestLayout: in every pattern the transfers of all ranks fill the files without
// a hole and none lies on another.
func TestLayout(t *testing.T) {
	for _, pattern := range []string{experiment.Segmented, experiment.Strided, experiment.Nested, experiment.FilePerProcess} {
		for _, units := range []int{1, 7, 8, 19} {
			l := Layout{Pattern: pattern, Ranks: 3, Units: units, Transfer: 10}
			places := map[string][]int64{}
			for rank := range l.Ranks {
				for i := range units {
					places[l.File(rank)] = append(places[l.File(rank)], l.Offset(rank, i))
				}
			}
			for name, offs := range places {
				slices.Sort(offs)
				for i, off := range offs {
					require.Equal(t, int64(i)*10, off, "%s %s, %d units", pattern, name, units)
				}
			}
		}
	}
	require.Equal(t, int64(70), Layout{Pattern: experiment.Nested, Ranks: 2, Units: 8, Transfer: 10}.Offset(0, 0), "in reverse")
}

func TestCode(t *testing.T) {
	c := NewCode(1, "a")
	buf := make([]byte, 3*period+100)
	c.Fill(buf, 12345, 7)
	require.NotContains(t, buf, byte(0))
	require.Zero(t, c.Wrong(buf, 12345, 7))
	require.Equal(t, []history.Run{{Len: int64(len(buf)), Value: 7}}, c.Decode(buf, 12345))

	c.Fill(buf[1000:1100], 12345+1000, 255)
	require.EqualValues(t, 100, c.Wrong(buf, 12345, 7))
	require.Equal(t, []history.Run{{Len: 1000, Value: 7}, {Len: 100, Value: 255}, {Len: int64(len(buf)) - 1100, Value: 7}}, c.Decode(buf, 12345))

	// Bytes at a wrong place, of another file or another run are nobody's.
	block := make([]byte, 4096)
	c.Fill(block, 0, 1)
	require.Greater(t, c.Wrong(block, 4096, 1), int64(3900))
	require.Greater(t, NewCode(1, "b").Wrong(block, 0, 1), int64(3900))
	require.Greater(t, NewCode(2, "a").Wrong(block, 0, 1), int64(3900))
}

// TestMistakes: a file system that loses what it was given is found out, by
// content and by history.
func TestMistakes(t *testing.T) {
	c := config(t, workloads, "restart")
	reports, err := perform(t, c, Hooks{Begin: func(string) error {
		f, err := os.OpenFile(filepath.Join(c.Dir, "checkpoint"), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err = f.WriteAt(make([]byte, 100), 5*4096); err != nil {
			return err
		}
		return f.Truncate(4*64<<10 - 4096)
	}})
	require.NoError(t, err)
	check := Judge(reports, Histories(c, "", 0, reports))
	require.EqualValues(t, 100+4096, check.Wrong)
	require.Len(t, check.Mistakes, 2)
	require.NotEmpty(t, check.Violations)
	require.Equal(t, history.Stale, check.Violations[0].Reason)

	c = config(t, workloads, "update")
	reports, err = perform(t, c, Hooks{End: func(string) error {
		b := make([]byte, c.Transfer)
		putRecord(b, 0, 0)
		return os.WriteFile(filepath.Join(c.Dir, updateFile), append(b, b...), 0o644)
	}})
	require.NoError(t, err)
	check = Judge(reports, nil)
	require.Contains(t, check.Mistakes[0], "0 of 80 counts")
}

// TestLost: the ranks of a node that is lost are not waited for.
func TestLost(t *testing.T) {
	c := config(t, workloads, "own")
	c.LostNode = 1
	reports, err := perform(t, c, Hooks{Begin: func(string) error {
		return os.Symlink("nowhere/file", filepath.Join(c.Dir, "checkpoint.3")) // rank 3 cannot make that
	}})
	require.NoError(t, err)
	require.True(t, reports[3].Lost)
	require.False(t, reports[2].Lost)

	c = config(t, workloads, "own")
	_, err = perform(t, c, Hooks{Begin: func(string) error { return os.Symlink("nowhere/file", filepath.Join(c.Dir, "checkpoint.3")) }})
	require.ErrorContains(t, err, "rank 3: write: open")
}

// TestHoles: a hole that a lost rank has left is no event of a sample, which does
// not have the writes behind it; nobody else's hole is passed over.
func TestHoles(t *testing.T) {
	for lost, want := range map[int]int{-1: 2, 1: 1} {
		f := &file{rank: &rank{Config: Config{LostNode: lost}, sample: sample{unit: 10, part: 1 << 32}}, name: "a", code: NewCode(1, "a")}
		buf := make([]byte, 20)
		f.code.Fill(buf[:10], 0, 1)
		f.pieces(buf, 0, history.Event{Op: history.Read, Len: 20})
		require.Len(t, f.report.Events["a"], want)
		require.Equal(t, []history.Run{{Len: 10, Value: 1}}, f.report.Events["a"][0].Seen)
	}
}

func TestCoordinateErrors(t *testing.T) {
	c := config(t, workloads, "own")
	_, err := perform(t, c, Hooks{Begin: func(string) error { return fmt.Errorf("no statistics") }})
	require.ErrorContains(t, err, "no statistics")

	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fmt.Errorf("the job ended"))
	_, err = Coordinate(ctx, l, c, Hooks{})
	require.ErrorContains(t, err, "the job ended")
}
