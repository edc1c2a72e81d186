package fsck_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/fsck"
)

// churn does all that makes and moves objects, in a directory of its own and in
// the root, until ctx ends.
func churn(ctx context.Context, c *pvfs.Client, id int, seed uint64) error {
	r := rand.New(rand.NewPCG(seed, uint64(id)))
	dir, err := c.Mkdir(ctx, c.Root(), fmt.Sprintf("busy-%d", id), pvfs.CreateOptions{Mode: 0o755})
	if err != nil {
		return err
	}
	opt := pvfs.CreateOptions{Mode: 0o644}
	for i := 0; ctx.Err() == nil; i++ {
		a, err := c.Create(ctx, dir.Handle, "new", opt)
		if err != nil {
			return err
		}
		if _, err := c.File(a).WriteAt(ctx, [][]byte{make([]byte, 1+r.IntN(100_000))}, 0); err != nil {
			return err
		}
		// Replaced, moved to another directory and back, removed.
		if _, err := c.Create(ctx, dir.Handle, "old", opt); err != nil {
			return err
		}
		name := fmt.Sprintf("moved-%d", id)
		for _, step := range []func() error{
			func() error { return c.Rename(ctx, dir.Handle, "new", dir.Handle, "old") },
			func() error { return c.Rename(ctx, dir.Handle, "old", c.Root(), name) },
			func() error { return c.Rename(ctx, c.Root(), name, dir.Handle, "back") },
			func() error {
				_, err := c.Mkdir(ctx, dir.Handle, "sub", opt)
				return err
			},
			func() error { return c.Rename(ctx, dir.Handle, "sub", c.Root(), name) },
			func() error { return c.Rmdir(ctx, c.Root(), name) },
			func() error {
				_, err := c.Symlink(ctx, dir.Handle, "link", "to", 0, 0)
				return err
			},
			func() error { return c.Remove(ctx, dir.Handle, "link") },
			func() error { return c.Remove(ctx, dir.Handle, "back") },
		} {
			if err := step(); err != nil {
				return err
			}
		}
	}
	return nil
}

// While a file system is in use, nothing is wrong with it.
func TestBusy(t *testing.T) {
	r := newRig(t, spread)
	for i := range 300 { // so that a pass takes a while
		r.symlink(r.c.Root(), fmt.Sprintf("s-%d", i))
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	for id := range 6 {
		g.Go(func() error {
			if err := churn(ctx, r.c, id, seed); err != nil && ctx.Err() == nil {
				return err
			}
			return nil
		})
	}
	changing := 0
	for range 3 {
		rep, err := fsck.Check(t.Context(), r.c, fsck.Options{})
		require.NoError(t, err)
		require.Empty(t, lines(rep))
		changing += rep.Changing
	}
	stop()
	require.NoError(t, g.Wait())
	t.Logf("%d things were changing", changing)
}
