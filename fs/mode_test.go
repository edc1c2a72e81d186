package fs

import (
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

func here(t testing.TB, path string) (h consistency.Here) {
	t.Helper()
	b := make([]byte, 1024)
	n, err := unix.Getxattr(path, consistency.HereXattr, b)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b[:n], &h))
	return h
}

// TestConsistencyModes chooses modes on one mount and looks what is in force on it and on
// another, which has another default.
func TestConsistencyModes(t *testing.T) {
	r := newRig(t, 1)
	weak := r.mount(t, mountArgs{Consistency: consistency.Session})
	r.dirs = append(r.dirs, filepath.Join(weak.Mountpoint(), filepath.Base(r.dirs[0])))
	set := func(path, mode string) {
		t.Helper()
		require.NoError(t, unix.Setxattr(path, consistency.Xattr, []byte(mode), 0))
	}
	open := func(path string) *os.File {
		t.Helper()
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		require.NoError(t, err)
		t.Cleanup(func() { f.Close() })
		return f
	}
	type modes = map[consistency.Mode]int

	f, g := open(r.path(0, "f")), open(r.path(1, "f"))
	require.Equal(t, consistency.Here{Mode: consistency.Strong, From: consistency.FromMount, Open: modes{consistency.Strong: 1}}, here(t, r.path(0, "f")))
	require.Equal(t, consistency.Here{Mode: consistency.Session, From: consistency.FromMount, Open: modes{consistency.Session: 1}}, here(t, r.path(1, "f")))
	set(r.path(0, "f"), "commit")
	second := open(r.path(1, "f"))
	require.Equal(t, consistency.Here{
		Mode: consistency.Commit, From: consistency.FromAttribute, Open: modes{consistency.Session: 1, consistency.Commit: 1},
	}, here(t, r.path(1, "f")), "opens that follow")
	require.NoError(t, f.Close())
	require.NoError(t, g.Close())
	require.NoError(t, second.Close())
	require.Eventually(t, func() bool { return len(here(t, r.path(1, "f")).Open) == 0 }, 10*time.Second, time.Millisecond, "released later")

	require.Equal(t, syscall.EINVAL, unix.Setxattr(r.path(1, "f"), consistency.Xattr, []byte("weak"), 0))
	require.NoError(t, unix.Removexattr(r.path(1, "f"), consistency.Xattr))
	require.Equal(t, syscall.ENODATA, unix.Removexattr(r.path(1, "f"), consistency.Xattr))
	require.Equal(t, consistency.FromMount, here(t, r.path(0, "f")).From)

	require.NoError(t, os.Mkdir(r.path(0, "d"), 0o755))
	set(r.path(0, "d"), "eventual")
	require.NoError(t, os.Mkdir(r.path(1, "d/sub"), 0o755))
	open(r.path(1, "d/sub/new"))
	require.Equal(t, consistency.Here{Mode: consistency.Eventual, From: consistency.FromAttribute}, here(t, r.path(0, "d/sub")))
	require.Equal(t, consistency.Here{Mode: consistency.Eventual, From: consistency.FromAttribute, Open: modes{consistency.Eventual: 1}},
		here(t, r.path(1, "d/sub/new")), "known to who made it without another request")

	open(r.path(1, "d/.out.shfp.1.2"))
	require.Equal(t, consistency.Here{Mode: consistency.Strong, From: consistency.FromName, Open: modes{consistency.Strong: 1}},
		here(t, r.path(1, "d/.out.shfp.1.2")))

	require.Equal(t, []string{consistency.Xattr}, listXattrs(t, r.path(0, "d")), "only what is stored is listed")
	require.Equal(t, syscall.EPERM, unix.Setxattr(r.path(0, "d"), consistency.HereXattr, []byte("x"), 0))
	require.Equal(t, syscall.EPERM, unix.Removexattr(r.path(0, "d"), consistency.HereXattr))
	var status Status
	weak.get(t, statusXattr, &status)
	require.Equal(t, "session", status.Consistency)
}

func TestOptionsOfModes(t *testing.T) {
	for _, x := range []struct {
		o    Options
		want string
	}{
		{Options{Consistency: 99}, "there is no consistency mode Mode(99)"},
		{Options{Visibility: time.Millisecond}, "visibility 1ms is not between 100ms and 1h0m0s"},
		{Options{Visibility: 2 * time.Hour}, "visibility 2h0m0s is not between 100ms and 1h0m0s"},
		{Options{Visibility: -1}, "visibility -1ns is not between"},
		{Options{CacheBytes: 1 << 20}, "cache of 1048576 bytes is less than 16777216"},
		{Options{CacheBytes: -1}, "cache of -1 bytes"},
	} {
		x.o.Mountpoint, x.o.Client = "/zfs", new(ionclient.Client)
		require.ErrorContains(t, x.o.Validate(), x.want)
	}
	o := Options{}.withDefaults()
	require.Equal(t, consistency.Strong, o.Consistency)
	require.Equal(t, DefaultVisibility, o.Visibility)
	require.EqualValues(t, DefaultCache, o.CacheBytes)
}
