package systest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/pvfstest"
)

// externalTimeout is how long each look at the servers may take.
const externalTimeout = 20 * time.Second

// TestExternal runs on a system of two nodes and two I/O nodes over the servers
// that PVFS2_TEST names, in a directory of its own that is removed in the end.
func TestExternal(t *testing.T) {
	url := os.Getenv("PVFS2_TEST")
	if url == "" {
		t.Skip("PVFS2_TEST=tcp://HOST:PORT/FSNAME is not set")
	}
	ctx, cancel := context.WithTimeout(context.Background(), externalTimeout)
	defer cancel()
	client, err := pvfs.Dial(ctx, url, pvfs.Options{Timeout: 5 * time.Second})
	require.NoErrorf(t, err, "PVFS2_TEST=%s: no such file system is running", url)
	defer func() { require.NoError(t, client.Close()) }()
	requireUnused(ctx, t, client)

	c := newCluster(t, shortTempDir(t))
	c.args = []string{"--nodes", "2", "--ions", "2", "--pvfs", url}
	c.up(t)
	name := fmt.Sprintf("zoidfs-test-%d", time.Now().UnixNano())
	r := c.rig().under(t, name)
	t.Cleanup(func() {
		out, err := command{timeout: 5 * time.Minute}.try("rm", "-rf", r.dirs[0])
		if err != nil {
			t.Errorf("the directory %s is left: %v: %s", name, err, out)
		}
	})
	runTests(t, r)
	t.Run("Layouts", func(t *testing.T) { testLayouts(t, r, client, name) })
	t.Run("Splitting", func(t *testing.T) { testSplitting(t, r, client, name) })
	c.noPanics(t)
}

// requireUnused fails if I/O nodes serve the file system: they would have to
// stop, as those that the test starts have another list of peers.
func requireUnused(ctx context.Context, t *testing.T, c *pvfs.Client) {
	t.Helper()
	dir, err := c.Lookup(ctx, c.Root(), ".zoidfs-orphans")
	if errors.Is(err, syscall.ENOENT) {
		return // no I/O node has ever been here
	}
	require.NoError(t, err)
	for token, eof := pvfs.DirToken(0), false; !eof; {
		var entries []pvfs.Dirent
		entries, token, eof, err = c.ReadDir(ctx, dir, token, 100)
		require.NoError(t, err)
		for _, e := range entries {
			addr, mark := strings.CutPrefix(e.Name, "serving.")
			if !mark {
				continue
			}
			if _, err := (command{timeout: 5 * time.Second}).try(zoidfsBinary(t), "stats", addr); err == nil {
				require.FailNowf(t, "in use", "the I/O node %s serves this file system and would have to stop: end it first", addr)
			}
		}
	}
}

// testLayouts writes, reads and truncates files of every distribution, as
// their directories wish, from both nodes, and looks what they became.
func testLayouts(t *testing.T, r *rig, c *pvfs.Client, top string) {
	servers := 0
	for _, s := range c.Servers() {
		if s.Data {
			servers++
		}
	}
	for _, x := range []struct{ name, dist, params, dfiles string }{
		{"simple_stripe", "simple_stripe", "strip_size:4096", ""},
		{"simple_stripe 1 MiB", "simple_stripe", "strip_size:1048576", ""},
		{"two datafiles", "simple_stripe", "strip_size:65536", "2"},
		{"basic_dist", "basic_dist", "", "1"},
		{"twod_stripe", "twod_stripe", "num_groups:2,strip_size:1000,group_strip_factor:3", ""},
		{"varstrip_dist", "varstrip_dist", "strips:0:1000;1:30k;0:500", "2"},
	} {
		t.Run(x.name, func(t *testing.T) {
			if servers < 2 && x.dist != "basic_dist" {
				t.Skip("there is one server")
			}
			sub := r.subdir(t)
			for key, v := range map[string]string{"dist_name": x.dist, "dist_params": x.params, "num_dfiles": x.dfiles} {
				if v != "" {
					require.NoError(t, unix.Setxattr(sub.dirs[0], "user.pvfs2."+key, []byte(v), 0), key)
				}
			}
			writeModel(t, sub, rand.New(rand.NewSource(seed(t))))
			a := lookupPath(t, c, top, filepath.Base(sub.dirs[0]), "x")
			require.NotNil(t, a.Layout)
			require.Equal(t, x.dist, a.Layout.Dist.Name)
			if x.dfiles != "" {
				require.Equal(t, x.dfiles, fmt.Sprint(len(a.Layout.DFiles)))
			}
		})
	}
}

// lookupPath asks the servers for the object at a path below the root.
func lookupPath(t *testing.T, c *pvfs.Client, path ...string) pvfs.Attr {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), externalTimeout)
	defer cancel()
	h := c.Root()
	for _, name := range path {
		var err error
		h, err = c.Lookup(ctx, h, name)
		require.NoError(t, err, name)
	}
	a, err := c.GetAttr(ctx, h)
	require.NoError(t, err)
	return a
}

// writeModel makes random calls on the file x from both nodes in turn and
// compares with a slice of bytes.
func writeModel(t *testing.T, r *rig, rng *rand.Rand) {
	t.Helper()
	p, q := pair(t, r)
	const limit = 900_000
	model := []byte{}
	grow := func(n int) {
		if n > len(model) {
			model = append(model, make([]byte, n-len(model))...)
		}
	}
	for i := range 80 {
		w := []*proc{p, q}[i%2]
		off := rng.Intn(limit)
		n := 1 + rng.Intn(min(limit-off, []int{100, 70_000, limit}[rng.Intn(3)]))
		switch rng.Intn(6) {
		case 0:
			w.ok(t, op{Do: "ftruncate", FD: 1, Len: int64(off)})
			grow(off)
			model = model[:off]
		case 1, 2, 3:
			w.ok(t, op{Do: "pwrite", FD: 1, Off: int64(off), Len: int64(n), Fill: uint64(i + 1)})
			grow(off + n)
			copy(model[off:], fill(uint64(i+1), int64(n)))
		default:
			got := w.ok(t, op{Do: "pread", FD: 1, Off: int64(off), Len: int64(n), Raw: true})
			want := model[min(off, len(model)):min(off+n, len(model))]
			require.True(t, bytes.Equal(want, got.Data), "call %d: read of %d at %d", i, n, off)
		}
	}
	for _, dir := range r.dirs {
		got, err := os.ReadFile(filepath.Join(dir, "x"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(model, got), "the file as a whole in %s", dir)
	}
}

// testSplitting lets both nodes change a directory while its entries move to
// more servers. It is made beside zoidfs, where no mount has looked.
func testSplitting(t *testing.T, r *rig, c *pvfs.Client, top string) {
	r = r.subdir(t)
	sub := &rig{cluster: r.cluster, dirs: []string{filepath.Join(r.dirs[0], "split"), filepath.Join(r.dirs[1], "split")}}
	ctx, cancel := context.WithTimeout(context.Background(), externalTimeout)
	defer cancel()
	dir, err := pvfstest.MakeSplitting(ctx, c, lookupPath(t, c, top, filepath.Base(r.dirs[0])).Handle, "split")
	require.NoError(t, err)
	for _, d := range sub.dirs {
		require.Eventually(t, func() bool { // the home may answer for 2 s from what it knew
			_, err := os.Stat(d)
			return err == nil
		}, externalTimeout, 50*time.Millisecond, d)
	}
	const procs, each = 6, 50
	var wg sync.WaitGroup
	errs := make([]error, procs)
	for p := range procs {
		wg.Go(func() { errs[p] = fillSplitting(sub.dirs[p%2], p, each) })
	}
	wg.Wait()
	want := []string{}
	for p := range procs {
		require.NoError(t, errs[p])
		for i := range each {
			switch i % 3 {
			case 1:
				want = append(want, fmt.Sprintf("moved-%d-%d", p, i))
			case 2:
				want = append(want, fmt.Sprintf("entry-%d-%d", p, i))
			}
		}
	}
	slices.Sort(want)
	for node := range sub.dirs {
		got := startProc(t, sub, node).ok(t, op{Do: "readdir"}).Names
		require.Equal(t, want, got, "entries on node %d", node)
	}
	active, all, err := pvfstest.Buckets(ctx, c, dir)
	require.NoError(t, err)
	t.Logf("%d of %d buckets", active, all)
	require.Equal(t, all, active)
}

// fillSplitting creates names and renames or removes two of three.
func fillSplitting(dir string, p, n int) error {
	for i := range n {
		name := filepath.Join(dir, fmt.Sprintf("entry-%d-%d", p, i))
		if err := os.WriteFile(name, []byte(name), 0o644); err != nil {
			return err
		}
		var err error
		switch i % 3 {
		case 0:
			err = os.Remove(name)
		case 1:
			err = os.Rename(name, filepath.Join(dir, fmt.Sprintf("moved-%d-%d", p, i)))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
