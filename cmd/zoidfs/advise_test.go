package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/advise"
	"github.com/zoidfs/zoidfs/internal/consistency"
)

// TestAdvise watches programs of two ranks on two nodes whose needs are known.
// They wait for each other by files outside of the file system.
func TestAdvise(t *testing.T) {
	s := newSystem(t)
	s.do("up", "--nodes", "2", "--ions", "1", "--servers", "1")
	for name, tt := range map[string]struct {
		rank0, rank1 string // shell; $F is the file
		want         consistency.Mode
	}{
		"close and open": {`echo hello > $F; done_with 1`, `wait_for 1; cat $F`, consistency.Session},
		"an open file":   {`exec 3> $F; done_with 1; wait_for 2; echo hello >&3; sync $F; done_with 3`, `wait_for 1; exec 4< $F; done_with 2; wait_for 3; cat <&4`, consistency.Commit},
		"no sync":        {`exec 3> $F; /bin/echo hello >&3 & wait; done_with 1; wait_for 2`, `wait_for 1; cat $F; done_with 2`, consistency.Session},
	} {
		t.Run(name, func(t *testing.T) {
			dir, traces := t.TempDir(), t.TempDir()
			script := `F=/zfs/f; done_with() { : > ` + dir + `/$1; }; wait_for() { until [ -e ` + dir + `/$1 ]; do sleep 0.01; done; }
				if [ $ZOIDFS_RANK = 0 ]; then ` + tt.rank0 + `; else ` + tt.rank1 + `; fi > /dev/null`
			out := s.do("advise", "-n", "2", "-o", traces, "--file", "f", "--json", "--", "sh", "-c", script)
			var r advise.Report
			require.NoError(t, json.Unmarshal([]byte(out), &r), out)
			require.Len(t, r.Files, 1, out)
			require.Equal(t, tt.want, r.Files[0].Advice, out)
			require.Equal(t, []string{"rank 0"}, r.Files[0].Writers)
			require.Equal(t, []string{"rank 1"}, r.Files[0].Readers)
			text := ok(t, "advise", "--trace", traces, "--file", "f")
			require.Contains(t, text, "\nf: "+tt.want.String()+"\n")
			require.Contains(t, text, "zoidfs consistency set "+s.path(0, "")+" "+tt.want.String())
		})
	}
	adviseJob(t, s)
	r := zoidfs(t, "advise", "--trace", t.TempDir())
	require.Equal(t, 1, r.code)
	traces := t.TempDir()
	s.do("trace", "record", "-o", traces, "--", "true")
	require.NoError(t, os.Remove(filepath.Join(traces, "node1.ztrace")))
	r = zoidfs(t, "advise", "--trace", traces, "--job", "none")
	require.Equal(t, "zoidfs advise: no call of job \"none\" was seen, nor of any other\n", r.errOut)
	require.Contains(t, ok(t, "advise", "--trace", traces), "no file was read or written")
}

// adviseJob watches a job that begins later until it has ended.
func adviseJob(t *testing.T, s *system) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Getenv(binEnv), "advise", "--dir", s.dir, "-o", t.TempDir(), "--job", "nightly")
	var out bytes.Buffer
	cmd.Stdout = &out
	pipe, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewReader(pipe)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, `waiting for job "nightly" to begin`)
	s.do("launch", "--job", "nightly", "-n", "2", "--", "sh", "-c", "echo mine > /zfs/of$ZOIDFS_RANK")
	rest, err := io.ReadAll(lines)
	require.NoError(t, err)
	require.NoError(t, cmd.Wait(), string(rest))
	require.Contains(t, out.String(), "\nof0: session\n")
	require.Contains(t, out.String(), "\nof1: session\n")
	require.Contains(t, out.String(), "written by rank 1; read by nobody")
	r := zoidfs(t, "advise", "--dir", s.dir, "-o", t.TempDir(), "--job", "nightly")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.errOut, "it has to be watched while it runs")
}
