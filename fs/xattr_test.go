package fs

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestXattrErrno(t *testing.T) {
	for name, want := range map[string]syscall.Errno{
		"user.a": 0, "trusted.a": 0, "security.selinux": 0,
		viewXattr: syscall.ENODATA, "system.pvfs2.mh": syscall.ENODATA,
		"system.posix_acl_access": syscall.EOPNOTSUPP, "nonsense": syscall.EOPNOTSUPP,
	} {
		require.Equal(t, want, xattrErrno(name), name)
	}
}

func listXattrs(t *testing.T, path string) []string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Listxattr(path, buf)
	require.NoError(t, err)
	return strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
}

func TestXattrs(t *testing.T) {
	r := newRig(t, 2)
	f, g := r.path(0, "f"), r.path(1, "f") // one file
	require.NoError(t, os.WriteFile(f, nil, 0o644))
	require.Empty(t, listXattrs(t, f))
	require.Equal(t, syscall.ENODATA, unix.Setxattr(f, "user.a", []byte("1"), unix.XATTR_REPLACE))
	require.NoError(t, unix.Setxattr(f, "user.a", []byte("12345"), unix.XATTR_CREATE))
	require.Equal(t, syscall.EEXIST, unix.Setxattr(g, "user.a", []byte("1"), unix.XATTR_CREATE))
	buf := make([]byte, 100)
	n, err := unix.Getxattr(g, "user.a", buf)
	require.NoError(t, err)
	require.Equal(t, "12345", string(buf[:n]))
	n, err = unix.Getxattr(g, "user.a", nil)
	require.NoError(t, err)
	require.Equal(t, 5, n)
	_, err = unix.Getxattr(g, "user.a", buf[:4])
	require.Equal(t, syscall.ERANGE, err)
	_, err = unix.Listxattr(g, buf[:3])
	require.Equal(t, syscall.ERANGE, err)
	n, err = unix.Listxattr(g, nil)
	require.NoError(t, err)
	require.Equal(t, len("user.a")+1, n)

	require.NoError(t, unix.Setxattr(g, "user.empty", nil, 0))
	n, err = unix.Getxattr(f, "user.empty", buf)
	require.NoError(t, err)
	require.Zero(t, n)
	require.NoError(t, unix.Setxattr(g, "trusted.t", []byte("x"), 0))
	require.ElementsMatch(t, []string{"user.a", "user.empty", "trusted.t"}, listXattrs(t, f))
	_, err = unix.Getxattr(g, "system.posix_acl_access", buf)
	require.Equal(t, syscall.EOPNOTSUPP, err)
	require.Equal(t, syscall.EOPNOTSUPP, unix.Setxattr(g, "nonsense", []byte("x"), 0))
	require.NoError(t, unix.Removexattr(f, "user.a"))
	require.Equal(t, syscall.ENODATA, unix.Removexattr(g, "user.a"))
	_, err = unix.Getxattr(f, "user.a", buf)
	require.Equal(t, syscall.ENODATA, err)
}

func TestControlAttributes(t *testing.T) {
	r := newRig(t, 1)
	root := r.nodes[0].Mountpoint()
	stats := func() (s Snapshot) {
		t.Helper()
		r.nodes[0].get(t, statsXattr, &s)
		return s
	}
	f := r.path(0, "f")
	before := stats()
	require.NoError(t, os.WriteFile(f, make([]byte, 3000), 0o644))
	_, err := os.ReadFile(f)
	require.NoError(t, err)
	after := stats()
	require.EqualValues(t, 1, after.App.Calls["create"]-before.App.Calls["create"])
	require.EqualValues(t, 1, after.App.Calls["write"]-before.App.Calls["write"])
	require.EqualValues(t, 3000, after.App.BytesWritten-before.App.BytesWritten)
	require.EqualValues(t, 3000, after.App.BytesRead-before.App.BytesRead)
	require.Len(t, after.App.Calls, int(numOps), "all kinds are there")
	require.GreaterOrEqual(t, after.RPC.Requests["write"], uint64(1))
	require.GreaterOrEqual(t, after.RPC.BytesSent, uint64(3000))

	require.NoError(t, unix.Chmod(root, 0o777))
	w := startWorkerAs(t, &syscall.Credential{Uid: 1234, Gid: 1234})
	require.Equal(t, syscall.EPERM, w.try(request{Op: "setxattr", Path: root, To: resetXattr, Data: []byte("1")}).Errno, "others look at it, too")
	require.NotZero(t, stats().App.BytesRead)
	require.NoError(t, unix.Setxattr(root, resetXattr, []byte("1"), 0))
	zero := stats()
	require.Zero(t, zero.App.Calls["create"])
	require.Zero(t, zero.App.BytesRead)
	require.Zero(t, zero.RPC.Requests["write"])

	var status Status
	r.nodes[0].get(t, statusXattr, &status)
	require.Equal(t, r.nodes[0].cmd.Process.Pid, status.PID)
	require.Equal(t, root, status.Mountpoint)
	require.Equal(t, "test", status.Version)
	require.Equal(t, "strong", status.Consistency)
	require.NotZero(t, status.View.Root)
	require.NotEmpty(t, status.IONs)
	require.True(t, status.IONs[0].Up)

	for _, name := range listXattrs(t, root) {
		require.False(t, strings.HasPrefix(name, "user.zoidfs."), name)
		require.False(t, strings.HasPrefix(name, "system."), name)
	}
	_, err = unix.Getxattr(root, viewXattr, nil)
	require.Equal(t, syscall.ENODATA, err)
	require.Equal(t, syscall.EPERM, unix.Setxattr(root, viewXattr, []byte("x"), 0))
	require.Equal(t, syscall.EPERM, unix.Removexattr(root, viewXattr))
	require.Equal(t, syscall.EPERM, unix.Setxattr(root, statsXattr, []byte("x"), 0))
	_, err = unix.Getxattr(f, statsXattr, nil)
	require.Equal(t, syscall.ENODATA, err, "on the root only")
}
