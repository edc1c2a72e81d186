package systest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/history"
)

// TestFullKeepsPromises fills a small file system in modes that keep written
// bytes: nothing that a write or an fsync has promised may be lost.
func TestFullKeepsPromises(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole system")
	}
	t.Parallel()
	if os.Getenv("ZOIDFS_SYSTEST_DIRS") != "" {
		t.Skip("needs a zoidfs system")
	}
	needRoot(t, "mounts a tmpfs")
	disk := filepath.Join(shortTempDir(t), "disk")
	require.NoError(t, os.Mkdir(disk, 0o755))
	command{}.run(t, "mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", disk)
	t.Cleanup(func() { _, _ = command{}.try("umount", disk) })
	c := newCluster(t, filepath.Join(disk, "sys"))
	c.up(t)
	for _, mode := range []history.Mode{history.Strong, history.Commit} {
		t.Run(mode.String(), func(t *testing.T) { fillUp(t, c, disk, mode) })
	}
	t.Run("down", func(t *testing.T) { downWhenFull(t, c, disk) })
	c.noPanics(t)
}

// downWhenFull: down says that something could not be flushed, and why.
func downWhenFull(t *testing.T, c *cluster, disk string) {
	name := filepath.Join(c.rig().dirs[0], "late")
	require.NoError(t, os.WriteFile(name, fill(9, 8*mebi), 0o644))
	var st unix.Stat_t
	require.NoError(t, unix.Stat(name, &st))
	filler, err := os.Create(filepath.Join(disk, "filler"))
	require.NoError(t, err)
	for p := fill(1, mebi); err == nil; {
		_, err = filler.Write(p)
	}
	require.ErrorIs(t, err, unix.ENOSPC)
	require.NoError(t, filler.Close())
	out, err := c.try("down", "--dir", c.dir)
	require.Error(t, err)
	require.Contains(t, out, fmt.Sprintf("file %d", st.Ino))
	require.Contains(t, out, "no space left on device")
	require.NoError(t, os.Remove(filler.Name()))
}

const mebi = 1 << 20

// fillUp writes more than there is room for, makes room, and looks for what was
// written.
func fillUp(t *testing.T, c *cluster, disk string, mode history.Mode) {
	r := c.rig().subdir(t)
	require.NoError(t, unix.Setxattr(r.dirs[0], consistency.Xattr, []byte(mode.String()), 0))
	room := newFile(t, r.dirs[0], "room", 40*mebi)
	small, other := newFile(t, r.dirs[0], "small", mebi), newFile(t, r.dirs[0], "other", mebi)
	name := filepath.Join(r.dirs[0], "f")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	require.NoError(t, err)
	defer f.Close()
	second, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	defer second.Close()

	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(disk, &st))
	var want []byte
	refused := 0
	for end := int64(st.Bavail)*st.Bsize/mebi + 15; int64(len(want)/mebi+refused) < end; {
		p := fill(uint64(len(want)/mebi+1)<<8|uint64(mode), mebi)
		if _, err := f.WriteAt(p, int64(len(want))); err != nil {
			require.ErrorIs(t, err, unix.ENOSPC)
			refused++
			continue
		}
		want = append(want, p...)
	}
	t.Logf("%d MiB written, %d refused", len(want)/mebi, refused)
	err = f.Sync()
	if refused == 0 {
		require.ErrorIs(t, err, unix.ENOSPC, "fsync promises what there is no room for")
	} else if err != nil {
		require.ErrorIs(t, err, unix.ENOSPC)
	}
	requireBytes(t, f, want)

	require.NoError(t, unix.Truncate(small, 10), "a file can become shorter")
	require.NoError(t, unix.Unlink(other), "a file can be removed")
	require.NoError(t, unix.Unlink(room))
	require.Eventually(t, func() bool {
		err := f.Sync()
		if err != nil {
			require.ErrorIs(t, err, unix.ENOSPC)
		}
		return err == nil
	}, 30*time.Second, 200*time.Millisecond, "it is written once there is room")
	if err := second.Sync(); err != nil { // of what was kept back on the node it need not hear: nothing is lost
		require.ErrorIs(t, err, unix.ENOSPC, "each handle is told")
	}
	require.NoError(t, second.Sync(), "once")
	require.NoError(t, second.Close())
	require.NoError(t, f.Close())
	got, err := os.ReadFile(filepath.Join(r.dirs[1], "f"))
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "what was written is not there")
	kept, err := os.Stat(small)
	require.NoError(t, err)
	require.EqualValues(t, 10, kept.Size())
	c.down(t)
	c.up(t)
	got, err = os.ReadFile(name)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "it is not there after a restart")
	require.NoError(t, unix.Unlink(name))
}

// newFile makes a durable file of n bytes.
func newFile(t *testing.T, dir, name string, n int64) string {
	t.Helper()
	name = filepath.Join(dir, name)
	f, err := os.Create(name)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.Write(fill(7, n))
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	return name
}

func requireBytes(t *testing.T, f *os.File, want []byte) {
	t.Helper()
	got := make([]byte, len(want)+1)
	n, _ := f.ReadAt(got, 0)
	require.Equal(t, len(want), n)
	require.True(t, bytes.Equal(want, got[:n]), "what was written cannot be read")
}
