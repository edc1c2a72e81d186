package fs

import (
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
	"github.com/stretchr/testify/require"
)

// TestPosix runs go-fuse's suite.
func TestPosix(t *testing.T) {
	notHere := map[string]string{
		"Link":              "PVFS2 has no hard links",
		"LinkUnlinkRename":  "PVFS2 has no hard links",
		"Fallocate":         "PVFS2 cannot reserve space",
		"FallocateKeepSize": "PVFS2 cannot reserve space",
		// A name that is replaced between LOOKUP and OPEN makes us answer ESTALE;
		// the kernel tries once more, and meets the same again in this test.
		"OpenSymlinkRace":     "replaces a name faster than it can be opened",
		"FcntlFlockLocksFile": "the test is wrong: locks of one process never conflict",
	}
	r := newRig(t, 1)
	const fds = "FdLeak" // counts the files of the servers too, which keep more and more of them open
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(posixtest.All)), func(n string) bool { return n == fds })
	for _, name := range append([]string{fds}, names...) {
		t.Run(name, func(t *testing.T) {
			if why := notHere[name]; why != "" {
				t.Skip(why)
			}
			dir := r.path(0, name)
			require.NoError(t, os.Mkdir(dir, 0o777))
			posixtest.All[name](t, dir)
		})
	}
}
