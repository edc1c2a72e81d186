package mounts

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const table = `21 28 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
99 28 0:50 / /tmp/a\040b/node0/zfs rw,nosuid,nodev - fuse.zoidfs 127.0.0.1:1 rw,user_id=0
`

func TestParse(t *testing.T) {
	got, err := parse(strings.NewReader(table))
	require.NoError(t, err)
	require.Equal(t, []Mount{
		{Point: "/sys", FSType: "sysfs", Source: "sysfs"},
		{Point: "/tmp/a b/node0/zfs", FSType: "fuse.zoidfs", Source: "127.0.0.1:1"},
	}, got)
	_, err = parse(strings.NewReader("nonsense\n"))
	require.Error(t, err)
}

func TestAt(t *testing.T) {
	m, found, err := At("/proc")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "proc", m.FSType)
	_, found, err = At(t.TempDir())
	require.NoError(t, err)
	require.False(t, found)
}

func TestResolveDoesNotFollowThePointItself(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(dir+"/real", 0o755))
	require.NoError(t, os.Symlink("real", dir+"/link"))
	got, err := Resolve(dir + "/link/point")
	require.NoError(t, err)
	require.Equal(t, dir+"/real/point", got)
	_, err = Resolve(dir + "/missing/point")
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Resolve("")
	require.Error(t, err, "no name is not the working directory")
}

func TestClearStaleLeavesOthersAlone(t *testing.T) {
	cleared, err := ClearStale(context.Background(), t.TempDir())
	require.NoError(t, err)
	require.False(t, cleared)
	_, err = ClearStale(context.Background(), "/proc")
	require.ErrorIs(t, err, syscall.EBUSY)
	require.ErrorContains(t, err, "/proc is a mount point of type proc")
}

func TestDoDoesNotWaitForWhatHangs(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	hang := make(chan struct{})
	defer close(hang)
	err := Do(ctx, func() error { <-hang; return nil })
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestRestrictAddsToWhatIsThere(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts a tmpfs")
	}
	point := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", point, "tmpfs", unix.MS_NODEV, "size=1m"))
	defer unix.Unmount(point, unix.MNT_DETACH)
	require.NoError(t, Restrict(point, unix.MS_NOSUID|unix.MS_NOEXEC))
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(point, &st))
	for _, f := range []int64{unix.ST_NODEV, unix.ST_NOSUID, unix.ST_NOEXEC} {
		require.NotZero(t, st.Flags&f)
	}
	require.Zero(t, st.Flags&unix.ST_RDONLY)
	require.NoError(t, os.WriteFile(point+"/x", nil, 0o644))
}
