package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/litmus"
)

// TestLitmus runs the subcommand as a user does, on one directory twice.
func TestLitmus(t *testing.T) {
	dir, record := t.TempDir(), filepath.Join(t.TempDir(), "h.jsonl.gz")
	mounts := dir + "," + dir
	got := shell{}.zoidfs(t, "litmus", "--mounts", mounts, "--rounds", "3", "--random", "2", "--history", record)
	require.Zero(t, got.code, got.out+got.errOut)
	for _, part := range []string{"mode strong", "no promise of strong was broken", "needs --crash"} {
		require.Contains(t, got.out, part)
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)

	got = shell{}.zoidfs(t, "litmus", "check", record)
	require.Zero(t, got.code, got.errOut)
	require.Contains(t, got.out, "no promise was broken in")

	crash := "touch " + filepath.Join(dir, "killed-$ZOIDFS_LITMUS_NODE")
	got = shell{}.zoidfs(t, "litmus", "--mounts", mounts, "--tests", "L16", "--crash", crash)
	require.Zero(t, got.code, got.errOut)
	require.Contains(t, got.out, "1 ×3")
	killed, err := filepath.Glob(filepath.Join(dir, "killed-[01]"))
	require.NoError(t, err)
	require.NotEmpty(t, killed)

	got = shell{}.zoidfs(t, "litmus", "--mounts", mounts, "--rounds", "2", "--expect", "laminated", "--tests", "LA2,L1", "--json")
	require.Equal(t, 1, got.code, "a local file system seals nothing")
	require.Contains(t, got.errOut, "repeat with --seed")
	var res litmus.Result
	require.NoError(t, json.Unmarshal([]byte(got.out), &res))
	require.Equal(t, "LA2", res.Tests[0].Name)
	require.Equal(t, 2, res.Tests[0].Violated)
	require.Zero(t, res.Tests[1].Violated)
}

func TestLitmusErrors(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ args, err string }{
		{"", "two mounts"},
		{"--mounts " + dir, "two mounts"},
		{"--mounts " + dir + "," + dir + " --mode frob", `--mode: unknown consistency mode "frob"`},
		{"--mounts " + dir + "," + dir + " --tests L99", "there is no test L99"},
		{"--mounts " + dir + ",/nonexistent", "do not show the same files"},
		{"--mounts /proc,/proc --mode commit", "litmus"},
		{"check", "which FILE?"},
		{"check /nonexistent", "no such file"},
	} {
		var out, errOut strings.Builder
		code := run(context.Background(), append([]string{"zoidfs", "litmus"}, strings.Fields(tt.args)...), &out, &errOut)
		require.NotZero(t, code, tt.args)
		require.Contains(t, errOut.String(), tt.err, tt.args)
		require.Equal(t, 1, strings.Count(errOut.String(), "\n"), errOut.String())
	}
}
