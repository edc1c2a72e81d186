// Package pvfstest is the conformance suite of a PVFS2 file system as seen
// through package pvfs. Run works against the embedded server and against
// OrangeFS alike; it makes a directory of its own and removes it again.
package pvfstest

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs"
)

// opTimeout is how long one step of a test may take.
const opTimeout = 2 * time.Minute

// suite is one client and a directory that the tests may fill.
type suite struct {
	url string
	c   *pvfs.Client
	dir pvfs.Handle
	seq atomic.Int64
}

// Run tests every operation on the file system at url.
func Run(t *testing.T, url string) {
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	c, err := pvfs.Dial(ctx, url, pvfs.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	name := fmt.Sprintf("pvfstest-%d", time.Now().UnixNano())
	a, err := c.Mkdir(ctx, c.Root(), name, pvfs.CreateOptions{Mode: 0o777})
	require.NoError(t, err)
	s := &suite{url: url, c: c, dir: a.Handle}
	defer func() {
		s.empty(t, s.dir)
		require.NoError(t, c.Rmdir(context.Background(), c.Root(), name))
	}()
	for _, x := range []struct {
		name string
		f    func(*suite, *testing.T)
	}{
		{"Servers", (*suite).testServers},
		{"Names", (*suite).testNames},
		{"CreateAttr", (*suite).testCreateAttr},
		{"SetAttr", (*suite).testSetAttr},
		{"SetMtimes", (*suite).testSetMtimes},
		{"Symlink", (*suite).testSymlink},
		{"LinkUnlinkRelink", (*suite).testLinkUnlinkRelink},
		{"Remove", (*suite).testRemove},
		{"Flush", (*suite).testFlush},
		{"Rename", (*suite).testRename},
		{"ReadDir", (*suite).testReadDir},
		{"LargeDirectory", (*suite).testLargeDirectory},
		{"NoSplits", (*suite).testNoSplits},
		{"Splitting", (*suite).testSplitting},
		{"ListAttr", (*suite).testListAttr},
		{"Xattr", (*suite).testXattr},
		{"CreateXattr", (*suite).testCreateXattr},
		{"Xattrs", (*suite).testXattrs},
		{"DirectoryWishes", (*suite).testDirectoryWishes},
		{"SmallFile", (*suite).testSmallFile},
		{"Sparse", (*suite).testSparse},
		{"EndOfFile", (*suite).testEndOfFile},
		{"StaleStuffed", (*suite).testStaleStuffed},
		{"Extents", (*suite).testExtents},
		{"ExtentErrors", (*suite).testExtentErrors},
		{"Noncontiguous", (*suite).testNoncontiguous},
		{"SmallOrFlow", (*suite).testSmallOrFlow},
		{"Truncate", (*suite).testTruncate},
		{"Model", (*suite).testModel},
		{"Concurrent", (*suite).testConcurrent},
		{"ConcurrentCreate", (*suite).testConcurrentCreate},
		{"RequestCounts", (*suite).testRequestCounts},
	} {
		t.Run(x.name, func(t *testing.T) { x.f(s, t) })
	}
}

// ctx ends with the test.
func (s *suite) ctx(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	t.Cleanup(cancel)
	return ctx
}

// name is one that no other test uses.
func (s *suite) name(prefix string) string { return fmt.Sprintf("%s-%d", prefix, s.seq.Add(1)) }

// create makes a file that is removed at the end.
func (s *suite) create(t testing.TB, o pvfs.CreateOptions) (string, pvfs.Attr) {
	name := s.name("f")
	a, err := s.c.Create(s.ctx(t), s.dir, name, o)
	require.NoError(t, err)
	return name, a
}

// mkdir makes a directory.
func (s *suite) mkdir(t testing.TB) pvfs.Handle {
	a, err := s.c.Mkdir(s.ctx(t), s.dir, s.name("d"), pvfs.CreateOptions{Mode: 0o755})
	require.NoError(t, err)
	return a.Handle
}

// list returns all entries of dir, each name once.
func (s *suite) list(t testing.TB, dir pvfs.Handle, max int) map[string]pvfs.Handle {
	out := map[string]pvfs.Handle{}
	var token pvfs.DirToken
	for {
		ents, next, eof, err := s.c.ReadDir(s.ctx(t), dir, token, max)
		require.NoError(t, err)
		require.LessOrEqual(t, len(ents), max)
		for _, e := range ents {
			if _, twice := out[e.Name]; twice { // NotContains compares with every name
				require.Fail(t, "entry twice", e.Name)
			}
			out[e.Name] = e.Handle
		}
		if eof {
			return out
		}
		require.NotEmpty(t, ents)
		token = next
	}
}

// empty removes all that is in dir.
func (s *suite) empty(t testing.TB, dir pvfs.Handle) {
	ctx := context.Background()
	for name, h := range s.list(t, dir, 500) {
		a, err := s.c.GetAttr(ctx, h)
		require.NoError(t, err)
		if isDir(a) {
			s.empty(t, h)
			require.NoError(t, s.c.Rmdir(ctx, dir, name))
		} else {
			require.NoError(t, s.c.Remove(ctx, dir, name))
		}
	}
}
