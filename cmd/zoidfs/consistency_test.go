package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

func TestConsistencyErrorsAreOneClearLine(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	const modes = `there are strong, commit, session, eventual, laminated; the MODE comes last`
	for _, x := range [][2]string{
		{"consistency frob", `zoidfs consistency: "frob" is neither get nor set`},
		{"consistency get", `zoidfs consistency get: which PATH?`},
		{"consistency get " + dir + "/none", `zoidfs consistency get: stat ` + dir + `/none: no such file or directory`},
		{"consistency get " + file, `zoidfs consistency get: ` + file + ` is no file or directory of a zoidfs mount`},
		{"consistency get -R " + dir, `zoidfs consistency get: ` + dir + ` is no file or directory of a zoidfs mount`},
		{"consistency set", `zoidfs consistency set: which PATH?`},
		{"consistency set commit", `zoidfs consistency set: which PATH?`},
		{"consistency set --remove", `zoidfs consistency set: which PATH?`},
		{"consistency set " + file, `zoidfs consistency set: unknown consistency mode "` + file + `": ` + modes},
		{"consistency set commit " + file, `zoidfs consistency set: unknown consistency mode "` + file + `": ` + modes},
		{"consistency set " + file + " weak", `zoidfs consistency set: unknown consistency mode "weak": ` + modes},
		{"consistency set " + file + " commit", `zoidfs consistency set: ` + file + ` is no file or directory of a zoidfs mount`},
		{"consistency set " + file + " default", `zoidfs consistency set: ` + file + ` is no file or directory of a zoidfs mount`},
		{"consistency set --remove " + file, `zoidfs consistency set: ` + file + ` is no file or directory of a zoidfs mount`},
	} {
		r := shell{}.zoidfs(t, strings.Fields(x[0])...)
		require.Equal(t, 1, r.code, x[0])
		require.Equal(t, x[1]+"\n", r.errOut, x[0])
		require.Empty(t, r.out, x[0])
	}
}

func TestConsistencyOutput(t *testing.T) {
	for _, x := range []struct {
		h         consistency.Here
		dir, open bool
		want      string
	}{
		{h: consistency.Here{Mode: consistency.Strong, From: consistency.FromMount}, want: "/p: strong (default of the mount)"},
		{h: consistency.Here{Mode: consistency.Commit, From: consistency.FromAttribute, Open: map[consistency.Mode]int{consistency.Strong: 1}},
			want: "/p: commit (set on this file)"},
		{h: consistency.Here{Mode: consistency.Strong, From: consistency.FromName, Open: map[consistency.Mode]int{consistency.Strong: 2}}, open: true,
			want: "/p: strong (by its name: an MPI library synchronises by it); open here: 2 in strong"},
		{h: consistency.Here{Mode: consistency.Session, From: consistency.FromAttribute,
			Open: map[consistency.Mode]int{consistency.Session: 3, consistency.Commit: 1}}, open: true,
			want: "/p: session (set on this file); open here: 1 in commit, 3 in session"},
		{h: consistency.Here{Mode: consistency.Session, From: consistency.FromMount}, open: true, want: "/p: session (default of the mount); not open here"},
		{h: consistency.Here{Mode: consistency.Session, From: consistency.FromAttribute}, dir: true, open: true,
			want: "/p: session for what is made in it (set on this directory)"},
		{h: consistency.Here{Mode: consistency.Strong, From: consistency.FromMount}, dir: true, want: "/p: strong for what is made in it (default of the mount)"},
	} {
		var b strings.Builder
		require.NoError(t, printMode(&b, "/p", x.h, x.dir, x.open))
		require.Equal(t, x.want+"\n", b.String())
	}
	var b strings.Builder
	h := consistency.Here{Mode: consistency.Commit, From: consistency.FromAttribute, Open: map[consistency.Mode]int{consistency.Strong: 1}}
	require.NoError(t, printModeJSON(&b, "/p", h, false))
	require.NoError(t, printModeJSON(&b, "/p", h, true))
	require.Equal(t, `{"path":"/p","mode":"commit","from":"attribute"}`+"\n"+`{"path":"/p","mode":"commit","from":"attribute","open":{"strong":1}}`+"\n", b.String())
}

// testConsistency sets modes on one node and looks at them on the other.
func testConsistency(t *testing.T, s *system) {
	run := func(args ...string) []string {
		t.Helper()
		r := s.zoidfs(t, append([]string{"consistency"}, args...)...)
		require.Zero(t, r.code, r.errOut)
		return strings.Split(strings.TrimSuffix(r.out, "\n"), "\n")
	}
	require.NoError(t, os.MkdirAll(s.path(0, "modes/sub"), 0o755))
	s.write(0, "modes/old", "x")
	require.NoError(t, os.Symlink("/etc/passwd", s.path(0, "modes/link")))
	d, there := s.path(0, "modes"), s.path(1, "modes")
	require.Equal(t, []string{d + "/old: strong (default of the mount)"}, run("get", d+"/old"))

	require.Equal(t, []string{""}, run("set", d, "session"))
	s.write(1, "modes/new", "x")
	s.write(1, "modes/sub/new", "x")
	require.Equal(t, []string{
		there + ": session for what is made in it (set on this directory)",
		there + "/new: session (set on this file)",
		there + "/old: strong (default of the mount)",
		there + "/sub: strong for what is made in it (default of the mount)",
		there + "/sub/new: strong (default of the mount)",
	}, run("get", "-R", there))

	f, err := os.Open(s.path(0, "modes/new"))
	require.NoError(t, err)
	run("set", "-R", d, "commit")
	require.Equal(t, []string{d + "/new: commit (set on this file); open here: 1 in session"}, run("get", "--open", d+"/new"))
	require.Equal(t, []string{there + "/new: commit (set on this file); not open here"}, run("get", "--open", there+"/new"))
	require.NoError(t, f.Close())
	for _, line := range run("get", "-R", there) {
		require.Contains(t, line, ": commit")
	}
	run("set", "--remove", d+"/old", d+"/new")
	run("set", d+"/old", "default")
	require.Equal(t, []string{there + "/old: strong (default of the mount)", there + "/new: strong (default of the mount)"},
		run("get", there+"/old", there+"/new"))

	out := shell{}.run(t, "getfattr", "--only-values", "-n", consistency.Xattr, d)
	require.Equal(t, "commit", out.out)
	require.NotZero(t, shell{}.run(t, "setfattr", "-n", consistency.Xattr, "-v", "weak", d).code)
	require.NoError(t, os.RemoveAll(d))
}
