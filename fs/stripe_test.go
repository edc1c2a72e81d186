package fs

import (
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/pvfs/striping"
)

// TestStripe asks for striping in one mount and sees it in the other.
func TestStripe(t *testing.T) {
	r := newRig(t, 2)
	stripe := func(path string) (i striping.Info) {
		t.Helper()
		n, err := unix.Getxattr(path, striping.Xattr, nil)
		require.NoError(t, err)
		b := make([]byte, n)
		n, err = unix.Getxattr(path, striping.Xattr, b)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b[:n], &i))
		return i
	}
	for _, x := range [][2]string{
		{striping.KeyServers, "2"}, {striping.KeyDist, "simple_stripe"}, {striping.KeyParams, "strip_size:4194304"},
	} {
		require.NoError(t, unix.Setxattr(r.dirs[0], x[0], []byte(x[1]), 0))
	}
	require.Equal(t, syscall.EINVAL, unix.Setxattr(r.dirs[0], striping.KeyServers, []byte("3"), 0), "there are two")
	require.NoError(t, os.Mkdir(r.path(1, "sub"), 0o755))
	f := filepath.Join("sub", "f")
	require.NoError(t, os.WriteFile(r.path(1, f), make([]byte, 5<<20), 0o644))
	i := stripe(r.path(0, f))
	require.EqualValues(t, 4<<20, i.StripSize)
	require.Len(t, i.Servers, 2)
	require.EqualValues(t, 4<<20, i.Servers[0].Bytes)
	require.EqualValues(t, 1<<20, i.Servers[1].Bytes)
	var st unix.Stat_t
	require.NoError(t, unix.Stat(r.path(0, f), &st))
	require.EqualValues(t, 8<<20, st.Blksize, "the stripe width")
	require.Equal(t, striping.FromDirectory, stripe(r.path(0, "sub")).DistFrom)
	require.ElementsMatch(t, []string{striping.KeyServers, striping.KeyDist, striping.KeyParams}, listXattrs(t, r.path(0, "sub")))
	require.NoError(t, unix.Removexattr(r.dirs[1], striping.Xattr))
	require.Empty(t, listXattrs(t, r.dirs[0]))
	require.NotEmpty(t, listXattrs(t, r.path(0, "sub")), "each directory has its own")
}
