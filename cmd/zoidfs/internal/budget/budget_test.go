package budget

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestShare(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for name, c := range map[string]struct {
		limit int64
		part  int
		want  int64
	}{
		"small machine":     {2 * gib, 16, 256 * mib},
		"a share":           {24*gib + 12345, 16, 1536 * mib},
		"shared by four":    {24 * gib, 64, 384 * mib},
		"no mount, no fear": {24 * gib, 0, 4 * gib},
		"large machine":     {1024 * gib, 16, 4 * gib},
		"no limit":          {math.MaxInt64, 16, 4 * gib},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, share(c.limit, c.part, 256*mib, 4*gib)) })
	}
}

func TestGroupLimit(t *testing.T) {
	root := t.TempDir()
	set := func(dir, max string) {
		require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, dir, "memory.max"), []byte(max+"\n"), 0o644))
	}
	set("a", "3000")
	set("a/b", "max")
	set("a/c", "1000")
	require.EqualValues(t, 3000, groupLimit(root, "1:name=systemd:/a/c\n0::/a/b\n"), "the group above")
	require.EqualValues(t, 1000, groupLimit(root, "0::/a/c\n"))
	require.EqualValues(t, math.MaxInt64, groupLimit(root, "0::/\n"))
	require.EqualValues(t, math.MaxInt64, groupLimit(root, "4:memory:/a/c\n"))
}
