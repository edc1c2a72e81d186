package errno

import (
	"errors"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSome(t *testing.T) {
	a, b := errors.New("a"), New("b", syscall.ENOSPC)
	require.NoError(t, Some(nil))
	require.NoError(t, Some([]error{nil, nil}))
	require.EqualError(t, Some([]error{nil, a, nil}), "a")
	err := Some([]error{a, nil, b, a, a, a})
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, "a\nb: no space left on device\na\nand 2 more", err.Error())
}
