package systest

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

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
