package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

func TestParse(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-size", "0"}, {"-only", "("}, {"extra"}, {"-alone", "-1"}} {
		_, err := parse(args)
		require.Error(t, err, args)
	}
}

// TestRatios: what a variant is compared with.
func TestRatios(t *testing.T) {
	var out bytes.Buffer
	posix := func(client string, mode consistency.Mode, rates ...float64) *variant {
		return &variant{client: client, mode: mode, how: "posix", write: rates, read: rates}
	}
	require.NoError(t, printRates([]*variant{
		posix(on, consistency.Commit, 90, 30, 60), posix(off, consistency.Commit, 20), posix(off, consistency.Session, 1), posix(fuse, 0, 5),
	}, &out))
	lines := strings.Split(out.String(), "\n")
	require.Equal(t, "zoidfs commit POSIX 60.0 30.0 90.0 12.00 3.00 60.0 30.0 90.0 12.00 3.00", strings.Join(strings.Fields(lines[1]), " "))
	require.Equal(t, "pvfs2fuse - POSIX 5.0 5.0 5.0 - - 5.0 5.0 5.0 - -", strings.Join(strings.Fields(lines[4]), " "))
}

// TestAlone: the workloads of one process.
func TestAlone(t *testing.T) {
	var out bytes.Buffer
	x := &systems{mounts: map[string][]string{on: {t.TempDir()}, off: {t.TempDir()}}}
	require.NoError(t, (&config{alone: 2, size: 4 << 20}).measureAlone(x, &out))
	require.Len(t, strings.Split(strings.TrimSpace(out.String()), "\n"), 2+len(workloads))
}
