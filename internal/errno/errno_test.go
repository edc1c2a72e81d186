package errno

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOf(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want syscall.Errno
	}{
		{"nil", nil, 0},
		{"bare errno", syscall.ENOENT, syscall.ENOENT},
		{"wrapped twice", fmt.Errorf("open: %w", New("pvfs.Lookup", syscall.ENOTDIR)), syscall.ENOTDIR},
		{"outermost wins", Wrap("fs.Open", syscall.EIO, New("pvfs.Lookup", syscall.ENOENT)), syscall.EIO},
		{"cancelled", fmt.Errorf("x: %w", context.Canceled), syscall.EINTR},
		{"deadline", context.DeadlineExceeded, syscall.ETIMEDOUT},
		{"socket deadline", os.ErrDeadlineExceeded, syscall.ETIMEDOUT},
		{"unknown", errors.New("x"), syscall.EIO},
		{"errno zero is no success", syscall.Errno(0), syscall.EIO},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, Of(c.err)) })
	}
}

func TestIsSeesErrnoAndCause(t *testing.T) {
	err := fmt.Errorf("ctx: %w", Wrap("pvfs.Write", syscall.EIO, os.ErrClosed))
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorIs(t, err, os.ErrClosed)
	require.NotErrorIs(t, err, syscall.EPERM)
	require.Equal(t, "ctx: pvfs.Write: input/output error: file already closed", err.Error())
}

func TestDeadMount(t *testing.T) {
	for _, e := range []error{syscall.ENOTCONN, &os.PathError{Err: syscall.ECONNABORTED}} {
		require.True(t, DeadMount(e), e)
	}
	for _, e := range []error{nil, syscall.EIO, syscall.ECANCELED, os.ErrNotExist, context.Canceled} {
		require.False(t, DeadMount(e), e)
	}
}

func TestAskMount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		require.ErrorIs(t, AskMount(func() error {
			if asked++; asked < 4 {
				return syscall.ECANCELED
			}
			return syscall.ENOTCONN
		}), syscall.ENOTCONN)
		require.Equal(t, 4, asked)
		begin := time.Now()
		require.ErrorIs(t, AskMount(func() error { return syscall.ECANCELED }), syscall.ECANCELED, "it means it")
		require.Less(t, time.Since(begin), 2*time.Second)
	})
}
