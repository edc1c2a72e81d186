package systest

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// testHintsHonoured: what is made on one node in a directory that was given hints
// on the other obeys them.
func testHintsHonoured(t *testing.T, r *rig) {
	c := r.needCluster(t)
	sub := r.subdir(t)
	const mib = 32
	shell(t, sub.dirs[0], "mkdir small usual")
	c.zoidfs(t, "hints", "--set", "cb_buffer_size=4194304", "--set", "cb_nodes=3", sub.dirs[0]+"/small")
	requests := func(path string) int64 {
		before := c.stats(t, "--dir", c.dir).PVFS.Requests["io"]
		shell(t, sub.dirs[1], fmt.Sprintf("dd if=/dev/zero of=%s bs=1M count=%d conv=fsync status=none", path, mib))
		return c.stats(t, "--dir", c.dir).PVFS.Requests["io"] - before
	}
	usual, small := requests("usual/f"), requests("small/f")
	t.Logf("%d MiB are written with %d requests, with the hint of 4 MiB with %d", mib, usual, small)
	require.GreaterOrEqual(t, small, int64(mib/4*4), "from 4 servers, 4 MiB at a time")
	require.Less(t, usual, small)
	const says = "at most 4 MiB at a time, by the hint cb_buffer_size"
	require.Contains(t, c.zoidfs(t, "explain", sub.dirs[0]+"/small/f"), says)
	require.NotContains(t, c.zoidfs(t, "explain", sub.dirs[0]+"/usual/f"), says)
	text := c.zoidfs(t, "hints", sub.dirs[0]+"/small/f")
	require.Contains(t, text, "\ncb_buffer_size 4194304\n")
	require.Contains(t, text, "\ncb_nodes 3\n")

	text = c.zoidfs(t, "hints", "--set", "striping_unit=131072", "--set", "striping_factor=2", sub.dirs[0]+"/usual")
	require.Contains(t, text, "\nstriping_unit 131072\n")
	require.Contains(t, text, "\nstriping_factor 2\n")
	shell(t, sub.dirs[1], "dd if=/dev/zero of=usual/g bs=1M count=1 conv=fsync status=none")
	l := sub.layout(t, "usual/g")
	require.EqualValues(t, 131072, l.Dist.StripSize)
	require.Len(t, l.DFiles, 2)
	for set, why := range map[string]string{"striping_factor=2": "as it was made", "cb_buffer_size=4k": "want a number from 1 to", "cb_size=1": "there is no hint"} {
		out, err := c.try("hints", "--set", set, sub.dirs[0]+"/usual/f")
		require.Error(t, err, set)
		require.Contains(t, out, why)
	}
	out, err := c.try("hints", "--set", "striping_factor=5", sub.dirs[0]+"/usual")
	require.Error(t, err)
	require.Contains(t, out, "the file system has 4")
}

// testHints: ROMIO takes what `zoidfs hints` prints, and what is no hint cannot
// be set.
func testHints(t *testing.T, r *rig) {
	c := r.needCluster(t)
	sub := r.subdir(t)
	lib := mpiLibs()[0]
	need(t, lib.cc, lib.pkg)
	need(t, lib.launch[0], lib.pkg)
	lib.binDir = t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(sub.dirs[0], "f"), nil, 0o644))
	file := filepath.Join(t.TempDir(), "hints")
	text := c.zoidfs(t, "hints", "--set", "cb_nodes=2", "--set", "cb_buffer_size=8388608", filepath.Join(sub.dirs[1], "f"))
	require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	names := lib.build(t, "names", []string{lib.cc})
	out := command{dir: "/", env: []string{"ROMIO_HINTS=" + file, "ROMIO_PRINT_HINTS=1"}}.run(t,
		"mpirun.mpich", "-n", "2", names, filepath.Join(sub.dirs[0], "f"))
	require.Contains(t, text, "\ncb_nodes 2\n") // ROMIO takes one for each host, and here is one
	for _, want := range [][2]string{
		{"cb_buffer_size", "8388608"}, {"striping_unit", "65536"}, {"romio_ds_write", "disable"}, {"romio_synchronized_flush", "disable"},
	} {
		require.Regexp(t, `key = `+want[0]+`\s+value = `+want[1]+`\s`, out)
	}
	for _, bad := range []string{"0", "-1", "many", "4 "} {
		require.ErrorIs(t, unix.Setxattr(filepath.Join(sub.dirs[0], "f"), "user.zoidfs.cb_nodes", []byte(bad), 0), syscall.EINVAL)
	}
	out, err := c.try("hints", "--set", "cb_nodes=many", filepath.Join(sub.dirs[0], "f"))
	require.Error(t, err)
	require.Contains(t, out, "want a number from 1 to")
	c.zoidfs(t, "hints", "--set", "cb_nodes=default", filepath.Join(sub.dirs[0], "f"))
	_, err = unix.Getxattr(filepath.Join(sub.dirs[1], "f"), "user.zoidfs.cb_nodes", nil)
	require.ErrorIs(t, err, syscall.ENODATA)
}
