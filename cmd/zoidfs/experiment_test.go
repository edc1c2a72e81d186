package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/experiment"
)

const tinyExperiment = `
title: Two modes
repetitions: 1
warmup: 0
matrix:
  mode: [strong, session]
  workload: [ckpt, mail, own]
  ranks: 2
  ions: 1
  servers: 1
  transfer: 16KiB
workloads:
  ckpt: {kind: checkpoint, size: 64KiB}
  mail: {kind: exchange, count: 5, interval: 1ms}
  own:
    kind: command
    command: until [ -e GO ]; do sleep 0.05; done; echo {mode} > {dir}/$ZOIDFS_RANK && cat {dir}/$ZOIDFS_RANK && echo rate 12.5
    each: true
    parse: 'rate (?P<rate>[0-9.]+)'
    figure: rate
exclude:
  - {workload: own, mode: session}
`

// TestExperiment makes a small experiment on real systems, interrupts it, goes
// on with it, and makes the page.
func TestExperiment(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	file, out := filepath.Join(dir, "two.yaml"), filepath.Join(dir, "out")
	goFile := filepath.Join(dir, "go") // until this is there the command does not end
	require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(tinyExperiment, "GO", goFile)), 0o644))

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Getenv(binEnv), "experiment", "run", file, "--out", out)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	pipe, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewReader(pipe)
	first, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, first, "1 of 5")
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	rest, err := io.ReadAll(lines)
	require.NoError(t, err)
	require.Error(t, cmd.Wait(), "it was interrupted")
	require.Contains(t, string(rest), "interrupted")
	require.Contains(t, string(rest), "go on with: zoidfs experiment run "+file)
	nothingMounted(t, dir)
	before, err := os.ReadFile(filepath.Join(out, "runs.jsonl"))
	require.NoError(t, err)
	require.Less(t, bytes.Count(before, []byte("\n")), 5)

	require.NoError(t, os.WriteFile(goFile, nil, 0o644))
	r := zoidfs(t, "experiment", "run", file, "--out", out)
	require.Zero(t, r.code, r.out+r.errOut)
	require.Contains(t, r.out, "5 runs are in "+out)
	require.NoError(t, os.WriteFile(file, []byte(tinyExperiment), 0o644))
	r = zoidfs(t, "experiment", "run", file, "--out", out)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.errOut, "has results of another version of this file ("+filepath.Join(out, "experiment.yaml")+"); choose another --out\n")
	require.NoDirExists(t, filepath.Join(out, "system"))
	after, err := os.ReadFile(filepath.Join(out, "runs.jsonl"))
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(after, before), "what was made is not made again")
	require.Equal(t, 5, bytes.Count(after, []byte("\n")))

	res, err := experiment.Open(out)
	require.NoError(t, err)
	for _, run := range res.Runs {
		require.True(t, run.Check.Clean(), run.ID)
		switch run.Cell.Workload {
		case "ckpt":
			require.EqualValues(t, 128<<10, run.Check.Bytes)
			require.EqualValues(t, 8, run.Phases[0].Requests.Calls["write"])
			require.FileExists(t, filepath.Join(out, "histories", run.ID+".jsonl.gz"))
			require.Contains(t, ok(t, "litmus", "check", filepath.Join(out, "histories", run.ID+".jsonl.gz")), "no promise was broken")
		case "mail":
			require.Len(t, run.Staleness, 5)
		case "own":
			require.Equal(t, 12.5, run.Phases[0].Figure)
			require.Positive(t, run.Phases[0].Requests.Calls["write"])
		}
	}
	figures := filepath.Join(dir, "figures")
	require.Contains(t, ok(t, "experiment", "report", out, "--svg", figures, "--png"), "report.html")
	page, err := os.ReadFile(filepath.Join(out, "report.html"))
	require.NoError(t, err)
	require.Contains(t, string(page), "<title>Two modes</title>")
	pictures, err := filepath.Glob(filepath.Join(figures, "*.png"))
	require.NoError(t, err)
	require.NotEmpty(t, pictures)
	document := filepath.Join(dir, "two.md")
	require.Equal(t, document+"\n", ok(t, "experiment", "report", out, "--markdown", document))
	text, err := os.ReadFile(document)
	require.NoError(t, err)
	require.Contains(t, string(text), "# Two modes\n")
	require.Contains(t, string(text), ok(t, "experiment", "report", out, "--markdown", "-"))
	showInBrowser(t, filepath.Join(out, "report.html"))
}

// showInBrowser requires that a browser, if there is one, shows the page, with
// its plots.
func showInBrowser(t *testing.T, page string) {
	t.Helper()
	browser, err := exec.LookPath("chromium")
	if err != nil {
		return // the tests of the page itself do without
	}
	cmd := exec.Command(browser, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(), "--dump-dom", "file://"+page)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	dom, err := cmd.Output()
	require.NoError(t, err)
	require.Greater(t, strings.Count(string(dom), "<svg "), 3)
}

func TestExperimentErrors(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	require.NoError(t, os.WriteFile(bad, []byte("title: x\nmatrix:\n  mode: [strng]\n  workload: log\n"), 0o644))
	good := filepath.Join(dir, "good.yaml")
	require.NoError(t, os.WriteFile(good, []byte(tinyExperiment), 0o644))
	for _, tt := range []struct{ args, err string }{
		{"run", "want one FILE"},
		{"run /nonexistent", "no such file"},
		{"run " + bad, "bad.yaml:3: \"strng\" is none of strong, commit, session, eventual, laminated"},
		{"run " + good + " --dir " + dir + " --out " + dir + "/o", "no system in"},
		{"report", "want one DIR"},
		{"report " + dir, "has no results of an experiment; make them with: zoidfs experiment run"},
		{"report " + dir + " --png", "give --svg DIR as well"},
		{"worker /nonexistent", "not a rank of a job"},
	} {
		var out, errOut strings.Builder
		code := run(context.Background(), append([]string{"zoidfs", "experiment"}, strings.Fields(tt.args)...), &out, &errOut)
		require.Equal(t, 1, code, tt.args)
		require.Contains(t, errOut.String(), tt.err, tt.args)
		require.Equal(t, 1, strings.Count(errOut.String(), "\n"), errOut.String())
	}
	require.Equal(t, 5, strings.Count(ok(t, "experiment", "run", good, "--list"), "\n"))
}
