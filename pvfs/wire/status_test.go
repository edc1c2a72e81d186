package wire

import (
	"context"
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/errno"
)

// errnoNames is the protocol's table, in its order, as names; it is not made
// from the table under test.
var errnoNames = []struct {
	n int
	e syscall.Errno
}{
	{1, syscall.EPERM}, {2, syscall.ENOENT}, {3, syscall.EINTR}, {4, syscall.EIO}, {5, syscall.ENXIO}, {6, syscall.EBADF},
	{7, syscall.EAGAIN}, {8, syscall.ENOMEM}, {9, syscall.EFAULT}, {10, syscall.EBUSY}, {11, syscall.EEXIST}, {12, syscall.ENODEV},
	{13, syscall.ENOTDIR}, {14, syscall.EISDIR}, {15, syscall.EINVAL}, {16, syscall.EMFILE}, {17, syscall.EFBIG},
	{18, syscall.ENOSPC}, {19, syscall.EROFS}, {20, syscall.EMLINK}, {21, syscall.EPIPE}, {22, syscall.EDEADLK},
	{23, syscall.ENAMETOOLONG}, {24, syscall.ENOLCK}, {25, syscall.ENOSYS}, {26, syscall.ENOTEMPTY}, {27, syscall.ELOOP},
	{28, syscall.EWOULDBLOCK}, {29, syscall.ENOMSG}, {30, syscall.EUNATCH}, {31, syscall.EBADR}, {32, syscall.EDEADLOCK},
	{33, syscall.ENODATA}, {34, syscall.ETIME}, {35, syscall.ENONET}, {36, syscall.EREMOTE}, {37, syscall.ECOMM},
	{38, syscall.EPROTO}, {39, syscall.EBADMSG}, {40, syscall.EOVERFLOW}, {41, syscall.ERESTART}, {42, syscall.EMSGSIZE},
	{43, syscall.EPROTOTYPE}, {44, syscall.ENOPROTOOPT}, {45, syscall.EPROTONOSUPPORT}, {46, syscall.EOPNOTSUPP},
	{47, syscall.EADDRINUSE}, {48, syscall.EADDRNOTAVAIL}, {49, syscall.ENETDOWN}, {50, syscall.ENETUNREACH},
	{51, syscall.ENETRESET}, {52, syscall.ENOBUFS}, {53, syscall.ETIMEDOUT}, {54, syscall.ECONNREFUSED}, {55, syscall.EHOSTDOWN},
	{56, syscall.EHOSTUNREACH}, {57, syscall.EALREADY}, {58, syscall.EACCES}, {59, syscall.ECONNRESET}, {60, syscall.ERANGE},
}

func TestStatusAndErrno(t *testing.T) {
	require.Len(t, errnoNames, 60)
	for _, c := range errnoNames {
		s := Status(-(1<<30 | c.n))
		require.Equal(t, c.e, s.Errno(), "number %d", c.n)
		for class := range 8 {
			require.Equal(t, c.e, Status(-(1<<30 | class<<7 | c.n)).Errno(), "number %d of class %d", c.n, class)
		}
		require.Equal(t, c.e, StatusOf(c.e).Errno(), "back and forth")
		if c.n != 28 && c.n != 32 { // EWOULDBLOCK is EAGAIN, EDEADLOCK is EDEADLK
			require.Equal(t, s, StatusOf(c.e), "errno %v", c.e)
		}
		require.ErrorIs(t, s.Err("pvfs.Lookup"), c.e)
	}
}

func TestStatusWithoutErrno(t *testing.T) {
	for n, e := range []syscall.Errno{
		1: syscall.ECANCELED, 2: syscall.ENODEV, 3: syscall.EIO, 4: syscall.EHOSTUNREACH, 5: syscall.EADDRNOTAVAIL,
		6: syscall.ECONNREFUSED, 7: syscall.EAGAIN, 8: syscall.EINVAL, 9: syscall.EACCES,
	} {
		if n == 0 {
			continue
		}
		s := Status(-(1<<30 | 1<<29 | n))
		require.Equal(t, e, s.Errno(), "number %d", n)
		require.ErrorIs(t, s.Err("x"), e)
		require.ErrorContains(t, s.Err("x"), "pvfs2: ")
	}
	require.Equal(t, Status(-(1<<30 | 1<<29 | 1)), StatusOf(syscall.ECANCELED))
}

func TestStatusOddities(t *testing.T) {
	require.NoError(t, Status(0).Err("x"))
	for _, c := range []struct {
		name string
		s    Status
		want syscall.Errno
	}{
		{"success", 0, 0},
		{"captured ENOENT", -1073741826, syscall.ENOENT},
		{"captured EEXIST", -1073741835, syscall.EEXIST},
		{"captured ENOTEMPTY", -1073741850, syscall.ENOTEMPTY},
		{"captured EACCES", -1073741882, syscall.EACCES},
		{"captured ENOENT of class trove", -1073742082, syscall.ENOENT},
		{"captured EPROTO", -1073741862, syscall.EPROTO},
		{"Linux errno by mistake", -2, syscall.ENOENT},
		{"positive Linux errno by mistake", 13, syscall.EACCES},
		{"positive PVFS error", 1<<30 | 2, syscall.ENOENT},
		{"number 0", -(1 << 30), syscall.EIO},
		{"number 61", -(1<<30 | 61), syscall.EIO},
		{"non-errno 10", -(1<<30 | 1<<29 | 10), syscall.EIO},
		{"neither", -5000, syscall.EIO},
		{"smallest", -1 << 31, syscall.EIO},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, c.s.Errno())
			require.Equal(t, c.want, errno.Of(c.s.Err("x")))
			require.NotEmpty(t, c.s.String())
		})
	}
}

func TestStatusFor(t *testing.T) {
	require.Equal(t, Status(0), StatusFor(nil))
	require.Equal(t, StatusOf(syscall.ENOTDIR), StatusFor(fmt.Errorf("x: %w", errno.New("y", syscall.ENOTDIR))))
	require.Equal(t, StatusOf(syscall.EINTR), StatusFor(context.Canceled))
	require.Equal(t, StatusOf(syscall.EIO), StatusOf(syscall.EUCLEAN), "no PVFS number")
}
