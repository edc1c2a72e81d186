package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/fsck"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
)

// damaged is a file system with an entry that leads nowhere and a symlink
// without a name.
func damaged(t *testing.T) *pvfsdtest.Cluster {
	cl := pvfsdtest.Start(t, 2, pvfsdtest.Options{})
	c, err := pvfs.Dial(t.Context(), cl.URL(), pvfs.Options{})
	require.NoError(t, err)
	defer c.Close()
	for _, name := range []string{"gone", "x"} {
		a, err := c.Symlink(t.Context(), c.Root(), name, "target", 0, 0)
		require.NoError(t, err)
		if name == "gone" {
			require.NoError(t, c.RemoveObject(t.Context(), a.Handle))
			continue
		}
		_, err = c.Unlink(t.Context(), c.Root(), name)
		require.NoError(t, err)
	}
	return cl
}

func TestFsck(t *testing.T) {
	sh := shell{}
	cl := damaged(t)
	sh.stdin = strings.NewReader("y\n")
	r := sh.zoidfs(t, "fsck", "--repair", cl.URL())
	require.Equal(t, 1, r.code, r.errOut)
	require.Contains(t, r.out, `path "/gone": the object does not exist`)
	require.Contains(t, r.out, "symlink server s")
	require.Contains(t, r.out, "drop 1 entries that lead nowhere? [y/N]")
	require.Contains(t, r.out, "1 orphans are younger than 10m0s and were left\n2 findings, 1 left\n")

	r = sh.zoidfs(t, "fsck", "--json", cl.URL())
	require.Equal(t, 1, r.code)
	var rep fsck.Report
	require.NoError(t, json.Unmarshal([]byte(r.out), &rep))
	require.Len(t, rep.Findings, 1)
	require.Equal(t, fsck.Orphan, rep.Findings[0].Kind)

	r = sh.zoidfs(t, "fsck", "--repair", "--yes", "--force", cl.URL())
	require.Equal(t, 0, r.code, r.out+r.errOut)
	require.True(t, strings.HasSuffix(r.out, "1 findings, 0 left\n"), r.out)
	r = sh.zoidfs(t, "fsck", cl.URL())
	require.Equal(t, 0, r.code)
	require.True(t, strings.HasSuffix(r.out, "0 findings, 0 left\n"), r.out)

	cl.Kill(1)
	r = sh.zoidfs(t, "fsck", "--timeout", "200ms", cl.URL())
	require.Equal(t, 2, r.code)
	require.Contains(t, r.errOut, "zoidfs fsck: ")
}

func TestFsckRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"":                                "want one file system, tcp://HOST:PORT/FSNAME",
		"a b":                             "want one file system, tcp://HOST:PORT/FSNAME",
		"--frob":                          "unknown flag: --frob",
		"/zfs":                            `"/zfs" is not tcp://HOST:PORT/FSNAME`,
		"--yes tcp://a:1/fs":              "--yes and --force are for --repair",
		"--force tcp://a:1/fs":            "--yes and --force are for --repair",
		"--json --repair tcp://a:1/fs":    "--json --repair needs --yes",
		"--repair --grace 0 tcp://a:1/fs": "--grace must be positive; --force is for none",
		"--max-findings -1 tcp://a:1/fs":  "--max-findings -1 is negative",
		"--timeout -1s tcp://a:1/fs":      "--timeout -1s is not positive",
	} {
		var out, errOut bytes.Buffer
		require.Equal(t, 2, run(t.Context(), append([]string{"zoidfs", "fsck"}, strings.Fields(args)...), &out, &errOut), args)
		require.Equal(t, "zoidfs fsck: "+want+"\n", errOut.String(), args)
		require.Empty(t, out.String(), args)
	}
}

// The answer to a question is about what was found.
func TestFsckAsks(t *testing.T) {
	old := time.Now().Add(-time.Hour).Unix()
	rep := &fsck.Report{Findings: []fsck.Finding{{Kind: fsck.Dangling}, {Kind: fsck.Orphan, Ctime: old}, {Kind: fsck.Shared}}}
	for in, want := range map[string][2]bool{"": {}, "y\n": {true, false}, "n\nyes\n": {false, true}, "Y\ny\n": {true, true}, "x\nx\n": {}} {
		var out bytes.Buffer
		f := fsckFlags{}
		(&app{out: &out}).ask(strings.NewReader(in), rep, &f)
		require.Equal(t, want, [2]bool{f.rep.Entries, f.rep.Orphans}, in)
		require.Equal(t, "drop 1 entries that lead nowhere? [y/N] remove 1 orphans? [y/N] ", out.String())
	}
}
