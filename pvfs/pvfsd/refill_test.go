package pvfsd_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// smallPools makes pools of 16 that are refilled when 4 are left.
func smallPools(text string) string {
	return strings.NewReplacer("BatchSize 0,1024,1024", "BatchSize 0,1024,16", "LowThreshold 0,256,256", "LowThreshold 0,256,4").Replace(text)
}

// A batch that is asked for again is the same one, without what was removed
// meanwhile.
func TestBatchIsMadeOnce(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	ask := func(of string) []wire.Handle {
		hints := []wire.Hint{{Type: wire.HintUnknown, Name: "zoidfs.batch", Text: of}}
		_, frame := c.request(c.all(), hints, &wire.BatchCreateReq{FSID: c.fsid, Type: wire.TypeDatafile, Count: 5})
		c.send(frame)
		_, p := c.recv()
		var resp wire.BatchCreateResp
		status, err := wire.DecodeResponseInto(p, wire.OpBatchCreate, &resp)
		require.NoError(t, err)
		require.Zero(t, status)
		return resp.Handles
	}
	first := ask("s7/1000")
	require.Len(t, first, 5)
	require.Equal(t, first, ask("s7/1000"))
	other := ask("s8/1000")
	require.NotContains(t, other, first[0])
	cl.Restart(0)
	c = dial(t, cl.Addr(0), cl.Config())
	require.Equal(t, first, ask("s7/1000"), "after a restart")
	c.call(c.all(root), root, &wire.RemoveReq{Handle: first[2], FSID: c.fsid, Cred: c.cred}, nil)
	require.Equal(t, slices.Delete(slices.Clone(first), 2, 3), ask("s7/1000"))
	next := ask("s7/1001")
	require.Len(t, next, 5)
	require.NotContains(t, first, next[0])
	again := ask("s7/1000")
	require.NotEqual(t, first[0], again[0], "only the last one is remembered")
	for _, h := range first {
		_ = c.try(c.all(root), root, &wire.RemoveReq{Handle: h, FSID: c.fsid, Cred: c.cred}, nil)
	}
	require.Len(t, ask("s7/1000"), 5)
	require.NotEqual(t, ask("nonsense"), ask("nonsense"), "no batch")
}

// A server that is killed before a batch is in its pool gets the same batch
// when it is back: nothing is left over on the other server.
func TestKilledWhileRefilling(t *testing.T) {
	dir := t.TempDir()
	cl := pvfsdtest.Start(t, 2, pvfsdtest.Options{Dir: dir, Edit: smallPools, Gen: func(o *fsconf.GenOptions) { o.NoStuffing = true }})
	pooled := func() (hs []wire.Handle) {
		for _, h := range dial(t, cl.Addr(0), cl.Config()).iterate(1, 100) {
			if owner(t, cl, h) == 1 {
				hs = append(hs, h)
			}
		}
		return hs
	}
	// takeUntilRefilled makes files on s0 until its pool has more than before.
	takeUntilRefilled := func() (taken []wire.Handle) {
		for {
			before := pooled()
			f := dial(t, cl.Addr(0), cl.Config()).create(2, wire.LayoutRoundRobin)
			for _, h := range f.Attr.DFiles {
				if owner(t, cl, h) == 1 {
					taken = append(taken, h)
				}
			}
			for range 50 {
				now := pooled()
				if len(now) >= len(before) {
					return taken
				}
				if len(now) > 5 {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
	require.Eventually(t, func() bool { return len(pooled()) >= 16 }, 20*time.Second, 10*time.Millisecond)
	takeUntilRefilled()
	cl.Kill(0)
	state := keepDir(t, filepath.Join(dir, "s0"))
	cl.Restart(0)
	takeUntilRefilled()
	lost := pooled() // the newest batch among them
	cl.Kill(0)
	state.restore(t) // as if it had been killed before it stored the batch
	cl.Restart(0)
	taken := takeUntilRefilled()
	all := append(pooled(), taken...)
	require.Subset(t, all, lost, "they are in the pool after all")
	for _, h := range dial(t, cl.Addr(1), cl.Config()).iterate(0, 100) {
		if a := dial(t, cl.Addr(1), cl.Config()).getattr(h, wire.AttrCommon); a.Type == wire.TypeDatafile && !slices.Contains(all, h) {
			all = append(all, h) // of the files made before the state was kept
		}
	}
	require.Less(t, len(all), 16*3+1, "three batches have been asked for")
}

// kept is the files of a directory.
type kept map[string][]byte

func keepDir(t *testing.T, dir string) kept {
	k := kept{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			k[path], err = os.ReadFile(path)
		}
		return err
	}))
	require.NotEmpty(t, k)
	return k
}

func (k kept) restore(t *testing.T) {
	for path, b := range k {
		require.NoError(t, os.WriteFile(path, b, 0o600))
	}
}
