package fs

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

func TestOptionsValidate(t *testing.T) {
	for name, opt := range map[string]Options{
		"mount point": {Client: new(ionclient.Client)},
		"client":      {Mountpoint: "/x"},
		"comma":       {Client: new(ionclient.Client), Mountpoint: "/x", FSName: "a,b"},
	} {
		require.ErrorContains(t, opt.Validate(), name)
	}
	require.NoError(t, Options{Client: new(ionclient.Client), Mountpoint: "/x"}.Validate())
}

func TestMountpointErrors(t *testing.T) {
	r := newRig(t, 1)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for point, want := range map[string]string{
		filepath.Join(t.TempDir(), "none"): "does not exist",
		file:                               "is not a directory",
		r.nodes[0].Mountpoint():            "is in use",
	} {
		_, err := Mount(context.Background(), Options{Mountpoint: point, Client: new(ionclient.Client)})
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "\n")
	}
}

// mountLine is the line of /proc/self/mounts for a mount point.
func mountLine(t *testing.T, point string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	for line := range strings.Lines(string(b)) {
		if strings.Fields(line)[1] == point {
			return line
		}
	}
	return ""
}

func TestMountIsShown(t *testing.T) {
	r := newRig(t, 1)
	line := mountLine(t, r.nodes[0].Mountpoint())
	require.True(t, strings.HasPrefix(line, "zoidfs "), line)
	require.Contains(t, line, " fuse.zoidfs rw,nosuid,nodev,")
	require.Contains(t, line, "default_permissions")
}

func TestMountOptions(t *testing.T) {
	r := newRig(t, 1)
	require.NoError(t, os.WriteFile(r.path(0, "f"), []byte("x"), 0o644))
	s := r.mount(t, mountArgs{ReadOnly: true, FSName: "tcp://host/name"})
	require.True(t, strings.HasPrefix(mountLine(t, s.Mountpoint()), "tcp://host/name "))
	dir := filepath.Join(s.Mountpoint(), filepath.Base(r.dirs[0]))
	b, err := os.ReadFile(filepath.Join(dir, "f"))
	require.NoError(t, err)
	require.Equal(t, "x", string(b))
	require.ErrorIs(t, os.WriteFile(filepath.Join(dir, "g"), nil, 0o644), syscall.EROFS)
}

func TestUnmountFromOutside(t *testing.T) {
	r := newRig(t, 1)
	point := r.nodes[0].Mountpoint()
	eventually(t, func() bool { return unix.Unmount(point, 0) == nil }, "unmount")
	// The cleanup of the rig finds that the process ended well.
}

// TestRunEndsWhileInUse ends a mount that a process has a file, a mapping and
// a working directory in.
func TestRunEndsWhileInUse(t *testing.T) {
	r := newRig(t, 2)
	s := r.startMount(t, mountArgs{})
	w := startWorker(t)
	name := filepath.Join(filepath.Base(r.dirs[0]), "f")
	fd := w.open(filepath.Join(s.Mountpoint(), name), unix.O_RDWR|unix.O_CREAT)
	w.write(fd, 0, "0123456789")
	w.do(request{Op: "mmap", FD: fd, Len: 10, Flags: unix.MAP_SHARED})
	w.do(request{Op: "mset", FD: fd, Off: 2, Data: []byte("mapped")})
	require.NoError(t, s.stop())
	require.Empty(t, mountLine(t, s.Mountpoint()))
	b, err := os.ReadFile(r.path(1, "f"))
	require.NoError(t, err)
	require.Equal(t, "01mapped89", string(b), "mapped pages were written back")
	require.Contains(t, []syscall.Errno{syscall.ENOTCONN, syscall.EIO}, w.try(request{Op: "pread", FD: fd, Len: 1}).Errno)
}

func TestStaleMountIsReplaced(t *testing.T) {
	r := newRig(t, 1)
	point := mountpoint(t)
	m := r.startMount(t, mountArgs{Mountpoint: point})
	_, err := os.Stat(point)
	require.NoError(t, err)
	require.NoError(t, m.cmd.Process.Kill())
	require.Error(t, m.stop())
	requireDead(t, point)
	r.mount(t, mountArgs{Mountpoint: point})
	_, err = os.Stat(filepath.Join(point, filepath.Base(r.dirs[0])))
	require.NoError(t, err)
}

// requireDead has point be a mount that a crash has left.
func requireDead(t *testing.T, point string) {
	t.Helper()
	require.Eventually(t, func() bool { _, err := os.Stat(point); return errno.DeadMount(err) }, 10*time.Second, time.Millisecond)
}

// TestMountAsUser mounts by fusermount3.
func TestMountAsUser(t *testing.T) {
	r := newRig(t, 1)
	if os.Geteuid() != 0 {
		t.Skip("all mounts of this run are a user's")
	}
	user := &syscall.Credential{Uid: 65534, Gid: 65534} // nobody: fusermount3 wants a name
	point := mountpoint(t)
	require.NoError(t, os.Chown(point, 65534, 65534))
	out, err := exec.Command("fusermount3", "--version").CombinedOutput()
	if err != nil {
		t.Skipf("fusermount3: %v %s", err, out)
	}
	if fi, err := os.Stat("/dev/fuse"); err != nil || fi.Mode().Perm()&0o6 != 0o6 {
		t.Skip("/dev/fuse is not open to users")
	}
	m := r.startMount(t, mountArgs{Mountpoint: point, user: user})
	line := mountLine(t, point)
	require.True(t, strings.HasPrefix(line, "zoidfs "), line)
	require.Contains(t, line, " fuse.zoidfs ")
	require.Contains(t, line, "user_id=65534")
	w := startWorkerAs(t, user)
	name := filepath.Join(point, filepath.Base(r.dirs[0]), "f")
	fd := w.open(name, unix.O_RDWR|unix.O_CREAT)
	w.write(fd, 0, "by a user")
	b, err := os.ReadFile(r.path(0, "f"))
	require.NoError(t, err)
	require.Equal(t, "by a user", string(b))
	require.Error(t, m.stop(), "in use, and the user cannot end that")
	require.Empty(t, mountLine(t, point))
}
