package fs

import (
	"bytes"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestCopyFileRange(t *testing.T) {
	r := newRig(t, 2)
	want := bytes.Repeat([]byte("copy_file_range "), 5<<20/16)
	require.NoError(t, os.WriteFile(r.path(0, "a"), want, 0o644))
	in, err := os.Open(r.path(0, "a"))
	require.NoError(t, err)
	defer in.Close()
	out, err := os.Create(r.path(0, "b"))
	require.NoError(t, err)
	defer out.Close()

	// What another node wrote meanwhile is copied, not an old page.
	require.NoError(t, os.WriteFile(r.path(1, "a"), bytes.ToUpper(want), 0o644))
	want = bytes.ToUpper(want)
	var offIn, offOut int64 = 0, 7
	for {
		n, err := unix.CopyFileRange(int(in.Fd()), &offIn, int(out.Fd()), &offOut, 1<<30, 0)
		require.NoError(t, err)
		if n == 0 {
			break
		}
	}
	require.EqualValues(t, len(want), offIn)
	got, err := os.ReadFile(r.path(1, "b"))
	require.NoError(t, err)
	require.Equal(t, want, got[7:])
	_, err = unix.CopyFileRange(int(in.Fd()), new(int64), int(out.Fd()), new(int64), 1, 1)
	require.Equal(t, syscall.EINVAL, err)
}
