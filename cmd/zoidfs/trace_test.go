package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/replay"
	"github.com/zoidfs/zoidfs/internal/trace"
)

// TestTraceOnTwoMounts records what a command does on two mounts, looks at it
// and does it again.
func TestTraceOnTwoMounts(t *testing.T) {
	s := newSystem(t)
	s.do("up", "--nodes", "2", "--ions", "1", "--servers", "1")
	traces := t.TempDir()
	script := `echo hello > ` + s.path(0, "f") + `; cat ` + s.path(1, "f") + `; exit 3`
	r := s.zoidfs(t, "trace", "record", "--dir", s.dir, "-o", traces, "--", "sh", "-c", script)
	require.Equal(t, 3, r.code, r.errOut)
	require.Equal(t, "hello\n", r.out)
	require.Contains(t, r.errOut, s.path(1, "")+"  "+filepath.Join(traces, "node1.ztrace"))

	out := ok(t, "trace", "show", "--call", "create,write,open,read", traces)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.GreaterOrEqual(t, len(lines), 4, out)
	for i, want := range []string{"node0    sh[", "node0    sh[", "node1    cat[", "node1    cat["} {
		require.Contains(t, lines[i], want)
	}
	require.Contains(t, lines[0], "create f O_WRONLY|O_CREAT|O_TRUNC")
	require.Contains(t, lines[1], "write f [0,6)")
	require.Contains(t, ok(t, "trace", "show", "--summary", traces), "write  f")
	table := ok(t, "trace", "show", "--csv", "--file", "f", traces)
	require.Contains(t, table, ",write,f,,")

	again := t.TempDir()
	var res replay.Result
	require.NoError(t, json.Unmarshal([]byte(ok(t, "trace", "replay", "--json", "--to", again, traces)), &res))
	require.EqualValues(t, 6, res.Names["write"].Bytes)
	require.Zero(t, res.Names["open"].Differ)
	st, err := os.Stat(filepath.Join(again, "f"))
	require.NoError(t, err)
	require.EqualValues(t, 6, st.Size())

	require.NoError(t, os.WriteFile(filepath.Join(traces, "bad.ztrace"), []byte("zoidfs trace 1\nnonsense"), 0o644))
	r = zoidfs(t, "trace", "show", traces)
	require.Equal(t, 1, r.code)
	require.Equal(t, 1, strings.Count(r.errOut, "\n"), r.errOut)
	require.Contains(t, r.errOut, "bad.ztrace: ")
}

func TestTraceStartAndStop(t *testing.T) {
	s := newSystem(t)
	s.do("up", "--nodes", "1", "--ions", "1", "--servers", "1")
	traces, mount := t.TempDir(), s.path(0, "")
	ok(t, "trace", "start", "-o", traces, mount)
	r := zoidfs(t, "trace", "start", "-o", traces, mount)
	require.Equal(t, "zoidfs trace start: "+mount+" is being traced already, see: zoidfs trace stop\n", r.errOut)
	s.write(0, "f", "x")
	require.Contains(t, ok(t, "trace", "stop", mount), "calls")
	r = zoidfs(t, "trace", "stop", mount)
	require.Equal(t, "zoidfs trace stop: "+mount+" is not being traced\n", r.errOut)
	require.Contains(t, ok(t, "trace", "show", traces), "write f [0,1)")
	within := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(mount, within))
	for _, dir := range []string{mount, filepath.Join(mount, "new", "traces"), filepath.Join(within, "new")} {
		r = zoidfs(t, "trace", "start", "-o", dir, mount)
		require.Equal(t, 1, r.code)
		require.Contains(t, r.errOut, "it must lie outside of the mount")
	}
	require.NoDirExists(t, filepath.Join(mount, "new"))
}

func TestTraceFilter(t *testing.T) {
	tr := &trace.Trace{Procs: []trace.Process{{ID: 1, Job: "slurm 12.0", Rank: 3}, {ID: 2}}, Files: map[uint64]string{5: "a/b/c.h5"}}
	call := &trace.Call{Op: trace.Read, Proc: 1, File: 5}
	for _, tt := range []struct {
		f    traceFilter
		want bool
	}{
		{traceFilter{}, true},
		{traceFilter{file: "*.h5"}, true},
		{traceFilter{file: "a"}, true},
		{traceFilter{file: "a/b/*"}, true},
		{traceFilter{file: "b"}, false},
		{traceFilter{job: "12.0"}, true},
		{traceFilter{job: "slurm 12.0", ranks: []int{1, 3}}, true},
		{traceFilter{job: "12"}, false},
		{traceFilter{ranks: []int{2}}, false},
		{traceFilter{calls: []string{"write"}}, false},
	} {
		require.NoError(t, tt.f.check())
		require.Equal(t, tt.want, tt.f.keep(tr, call), "%+v", tt.f)
	}
	f := traceFilter{ranks: []int{0}}
	require.False(t, f.keep(tr, &trace.Call{Op: trace.Read, Proc: 2}), "of no rank")
	require.NoError(t, showCSV(new(bytes.Buffer), nil, nil))
}
