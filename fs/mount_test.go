package fs

import (
	"bufio"
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
	s := r.mount(t, Options{ReadOnly: true, FSName: "tcp://host/name"})
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
	// The cleanup of the rig finds that Run returned nil.
}

// TestRunEndsWhileInUse ends a mount that a process has a file, a mapping and
// a working directory in.
func TestRunEndsWhileInUse(t *testing.T) {
	r := newRig(t, 2)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client, err := ionclient.Dial(ctx, ionclient.Options{Addrs: r.ions.addrs})
	require.NoError(t, err)
	defer client.Close(ctx)
	s, err := Mount(ctx, Options{Mountpoint: mountpoint(t), Client: client})
	require.NoError(t, err)
	life, end := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Run(life) }()

	w := startWorker(t)
	name := filepath.Join(filepath.Base(r.dirs[0]), "f")
	fd := w.open(filepath.Join(s.Mountpoint(), name), unix.O_RDWR|unix.O_CREAT)
	w.write(fd, 0, "0123456789")
	w.do(request{Op: "mmap", FD: fd, Len: 10, Flags: unix.MAP_SHARED})
	w.do(request{Op: "mset", FD: fd, Off: 2, Data: []byte("mapped")})
	end()
	require.NoError(t, <-done)
	require.Empty(t, mountLine(t, s.Mountpoint()))
	b, err := os.ReadFile(r.path(1, "f"))
	require.NoError(t, err)
	require.Equal(t, "01mapped89", string(b), "mapped pages were written back")
	require.Contains(t, []syscall.Errno{syscall.ENOTCONN, syscall.EIO}, w.try(request{Op: "pread", FD: fd, Len: 1}).Errno)
}

// mountEnv makes the test binary a mount: MOUNTPOINT and the I/O nodes.
const mountEnv = "ZOIDFS_FS_TEST_MOUNT"

func mountMain(args string) int {
	point, addrs, _ := strings.Cut(args, " ")
	ctx := context.Background()
	client, err := ionclient.Dial(ctx, ionclient.Options{Addrs: strings.Split(addrs, ",")})
	if err != nil {
		return 1
	}
	s, err := Mount(ctx, Options{Mountpoint: point, Client: client})
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		return 1
	}
	os.Stdout.WriteString("mounted\n")
	if s.Run(ctx) != nil {
		return 1
	}
	return 0
}

func TestStaleMountIsReplaced(t *testing.T) {
	r := newRig(t, 1)
	point := mountpoint(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), mountEnv+"="+point+" "+strings.Join(r.ions.addrs, ","))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	_, err = os.Stat(point)
	require.NoError(t, err)
	cmd.Process.Kill()
	cmd.Wait()
	_, err = os.Stat(point)
	require.ErrorIs(t, err, syscall.ENOTCONN, "a crash leaves a dead mount")
	s := r.mount(t, Options{Mountpoint: point})
	_, err = os.Stat(filepath.Join(s.Mountpoint(), filepath.Base(r.dirs[0])))
	require.NoError(t, err)
}
