package pvfs_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
)

func dial(t testing.TB, url string, opt pvfs.Options) *pvfs.Client {
	t.Helper()
	c, err := pvfs.Dial(t.Context(), url, opt)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// TestServersAreKilledInTheMiddle lets workers write, read, create, rename and
// remove while servers go down and come back. Nobody may see an error or a
// wrong byte.
func TestServersAreKilledInTheMiddle(t *testing.T) {
	fs := pvfsdtest.Start(t, 3, pvfsdtest.Options{Gen: func(o *fsconf.GenOptions) { o.SyncMeta = true }})
	c := dial(t, fs.URL(), pvfs.Options{})
	ctx := t.Context()
	var stop atomic.Bool
	var rounds atomic.Int64
	var g errgroup.Group
	for w := range 6 {
		g.Go(func() error {
			r := rand.New(rand.NewPCG(uint64(w), 0))
			for n := 0; !stop.Load(); n++ {
				if err := lifeOfAFile(ctx, c, r, fmt.Sprintf("w%d-%d", w, n)); err != nil {
					return fmt.Errorf("worker %d, round %d: %w", w, n, err)
				}
				rounds.Add(1)
			}
			return nil
		})
	}
	kills := 5
	if testing.Short() {
		kills = 2
	}
	for i := range kills {
		time.Sleep(100 * time.Millisecond)
		fs.Kill(i % 3)
		time.Sleep(time.Duration(i*40) * time.Millisecond)
		fs.Restart(i % 3)
	}
	time.Sleep(50 * time.Millisecond)
	stop.Store(true)
	require.NoError(t, g.Wait())
	s := c.Stats()
	t.Logf("%d rounds, %d retries, %d connections", rounds.Load(), s.Retries, s.Connects)
	require.Greater(t, s.Connects, int64(4))
	ents, _, eof, err := c.ReadDir(ctx, c.Root(), 0, 100)
	require.NoError(t, err)
	require.True(t, eof)
	for _, e := range ents {
		require.Equal(t, "lost+found", e.Name, "everything was removed")
	}
}

// lifeOfAFile makes, writes, reads, renames and removes a file.
func lifeOfAFile(ctx context.Context, c *pvfs.Client, r *rand.Rand, name string) error {
	a, err := c.Create(ctx, c.Root(), name, pvfs.CreateOptions{Mode: 0o644, StripSize: 4096})
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	f := c.File(a)
	data := make([]byte, 1+r.IntN(600000))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	half := r.IntN(len(data))
	for _, part := range [][2]int{{half, len(data)}, {0, half}} {
		if _, err := f.WriteAt(ctx, [][]byte{data[part[0]:part[1]]}, int64(part[0])); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	got := make([]byte, len(data)+10)
	n, err := f.ReadAt(ctx, [][]byte{got}, 0)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if !bytes.Equal(data, got[:n]) {
		return fmt.Errorf("%d bytes read are not the %d that were written", n, len(data))
	}
	if err := c.Rename(ctx, c.Root(), name, c.Root(), name+"-new"); err != nil {
		return fmt.Errorf("rename: %w", err)
	}
	if a, err = c.GetAttr(ctx, a.Handle); err != nil || a.Size != int64(len(data)) {
		return fmt.Errorf("size %d of %d: %w", a.Size, len(data), err)
	}
	if err := c.Remove(ctx, c.Root(), name+"-new"); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}

func TestDeadServerIsNamed(t *testing.T) {
	fs := pvfsdtest.Start(t, 2, pvfsdtest.Options{})
	c, hasty := dial(t, fs.URL(), pvfs.Options{}), dial(t, fs.URL(), pvfs.Options{Timeout: time.Second})
	a, err := c.Create(t.Context(), c.Root(), "f", pvfs.CreateOptions{})
	require.NoError(t, err)
	f := c.File(a)
	_, err = f.WriteAt(t.Context(), [][]byte{make([]byte, 1<<20)}, 0)
	require.NoError(t, err)
	fs.Kill(1)
	_, err = hasty.File(a).WriteAt(t.Context(), [][]byte{make([]byte, 1<<20)}, 0)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorContains(t, err, "s1")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = f.ReadAt(ctx, [][]byte{make([]byte, 1<<20)}, 0)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	fs.Restart(1)
	n, err := f.ReadAt(t.Context(), [][]byte{make([]byte, 2<<20)}, 0)
	require.NoError(t, err)
	require.Equal(t, 1<<20, n)
}

// striped makes a file over all servers with 1 MiB in it.
func striped(t testing.TB, c *pvfs.Client) (*pvfs.File, []byte) {
	a, err := c.Create(t.Context(), c.Root(), fmt.Sprintf("f%d", rand.Int()), pvfs.CreateOptions{})
	require.NoError(t, err)
	buf := make([]byte, 1<<20)
	f := c.File(a)
	_, err = f.WriteAt(t.Context(), [][]byte{buf}, 0)
	require.NoError(t, err)
	return f, buf
}

// TestIODoesNotAllocateMuch bounds what 1 MiB over four servers costs. The
// embedded servers are in the same process, so it counts theirs as well.
func TestIODoesNotAllocateMuch(t *testing.T) {
	c := dial(t, pvfsdtest.Start(t, 4, pvfsdtest.Options{}).URL(), pvfs.Options{})
	f, buf := striped(t, c)
	bufs := [][]byte{buf}
	ctx := t.Context()
	for name, op := range map[string]func() error{
		"write": func() error { _, err := f.WriteAt(ctx, bufs, 0); return err },
		"read":  func() error { _, err := f.ReadAt(ctx, bufs, 0); return err },
	} {
		n := testing.AllocsPerRun(50, func() { require.NoError(t, op()) })
		t.Logf("%s: %v allocations, servers included", name, n)
		require.Less(t, n, 400.0, name)
	}
}

func BenchmarkIO(b *testing.B) {
	for _, size := range []int{4096, 1 << 20, 4 << 20} {
		for _, dir := range []string{"write", "read"} {
			b.Run(fmt.Sprintf("%s %dKiB", dir, size>>10), func(b *testing.B) {
				c := dial(b, pvfsdtest.Start(b, 4, pvfsdtest.Options{}).URL(), pvfs.Options{})
				f, _ := striped(b, c)
				bufs := [][]byte{make([]byte, size)}
				_, err := f.WriteAt(b.Context(), bufs, 0)
				require.NoError(b, err)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if dir == "write" {
						_, err = f.WriteAt(b.Context(), bufs, 0)
					} else {
						_, err = f.ReadAt(b.Context(), bufs, 0)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
