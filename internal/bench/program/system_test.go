package program

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEnds: last things first, all of them, and once.
func TestEnds(t *testing.T) {
	var ends Ends
	var done []int
	bad := errors.New("bad")
	for i := range 3 {
		ends.Add(func() error {
			done = append(done, i)
			if i == 1 {
				return bad
			}
			return nil
		})
	}
	require.ErrorIs(t, ends.Run(), bad)
	require.Equal(t, []int{2, 1, 0}, done)
	require.NoError(t, ends.Run())
	require.Len(t, done, 3)
}

func TestCommand(t *testing.T) {
	out, err := Command(t.Context(), []string{"A=b"}, "sh", "-c", "echo $A; echo said >&2")
	require.NoError(t, err)
	require.Equal(t, "b\n", string(out))
	_, err = Command(t.Context(), nil, "sh", "-c", "echo why >&2; exit 3")
	require.ErrorContains(t, err, "why")
}

func TestAbsolute(t *testing.T) {
	rel, none := "x/../y", ""
	require.NoError(t, Absolute(&rel, &none))
	wd, err := os.Getwd()
	require.NoError(t, err)
	require.Equal(t, filepath.Join(wd, "y"), rel)
	require.Empty(t, none)
}

func TestShows(t *testing.T) {
	require.NoError(t, shows(t.Context(), t.TempDir()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, shows(ctx, filepath.Join(t.TempDir(), "none")), context.Canceled)
}
