package pvfs_test

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/striping"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

func TestStriping(t *testing.T) {
	ctx := t.Context()
	s := pvfsdtest.Start(t, 4, pvfsdtest.Options{})
	c, err := pvfs.Dial(ctx, s.URL(), pvfs.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	mkdir := func(dir pvfs.Handle, name string) pvfs.Handle {
		t.Helper()
		a, err := c.Mkdir(ctx, dir, name, pvfs.CreateOptions{Mode: 0o755})
		require.NoError(t, err)
		return a.Handle
	}
	striped := func(h pvfs.Handle) striping.Info {
		t.Helper()
		i, err := c.Striping(ctx, h)
		require.NoError(t, err)
		return i
	}
	d := mkdir(c.Root(), "d")
	i := striped(d)
	require.Equal(t, striping.Info{
		Type: "directory", Dist: "simple_stripe", Params: "strip_size:65536", StripSize: 65536, StripeWidth: 4 * 65536, NumServers: 4,
		Wish: &striping.Wish{}, DistFrom: "file system", ServersFrom: "file system", DataServers: 4, DefaultServers: 4,
	}, i)

	w := striping.Wish{Dist: "simple_stripe", Params: "strip_size:4096", Servers: 2}
	require.NoError(t, c.SetWish(ctx, d, w))
	i = striped(d)
	require.Equal(t, &w, i.Wish)
	require.Equal(t, "directory", i.DistFrom)
	require.Equal(t, "directory", i.ServersFrom)
	require.EqualValues(t, 8192, i.StripeWidth)
	sub := mkdir(mkdir(d, "sub"), "sub")
	require.Equal(t, &w, striped(sub).Wish, "handed down")

	a, err := c.Create(ctx, sub, "f", pvfs.CreateOptions{Mode: 0o644})
	require.NoError(t, err)
	i = striped(a.Handle)
	require.True(t, i.Stuffed)
	require.Len(t, i.Servers, 1)
	require.Equal(t, 2, i.NumServers, "what it will have once it has grown")
	require.EqualValues(t, 4*4096, c.StripeWidth(&a), "its attributes do not tell, so as many as files have by default")
	_, err = c.File(a).WriteAt(ctx, [][]byte{make([]byte, 10000)}, 0)
	require.NoError(t, err)
	i = striped(a.Handle)
	require.False(t, i.Stuffed)
	require.EqualValues(t, 10000, i.Size)
	require.EqualValues(t, 8192, i.StripeWidth)
	require.Len(t, i.Servers, 2)
	require.EqualValues(t, 10000-4096, i.Servers[0].Bytes)
	require.EqualValues(t, 4096, i.Servers[1].Bytes)
	for _, x := range i.Servers {
		require.Equal(t, s.Addr(int(x.Alias[1]-'0')), x.Addr)
	}
	require.NotEqual(t, i.Servers[0].Alias, i.Servers[1].Alias)
	a, err = c.GetAttr(ctx, a.Handle)
	require.NoError(t, err)
	require.EqualValues(t, 8192, c.StripeWidth(&a))

	require.NoError(t, c.SetWish(ctx, d, striping.Wish{Servers: 3}), "what is not wished any more goes")
	names, err := c.ListXattr(ctx, d)
	require.NoError(t, err)
	require.Equal(t, []string{striping.KeyServers}, names)
	require.NoError(t, c.SetWish(ctx, d, striping.Wish{}))
	require.NoError(t, c.SetWish(ctx, d, striping.Wish{}), "there need not be any")
	names, err = c.ListXattr(ctx, d)
	require.NoError(t, err)
	require.Empty(t, names)
	require.Equal(t, &w, striped(sub).Wish, "each directory has its own")

	require.ErrorIs(t, c.SetWish(ctx, d, striping.Wish{Servers: 5}), syscall.EINVAL)
	require.ErrorIs(t, c.SetWish(ctx, a.Handle, striping.Wish{Servers: 2}), syscall.ENOTDIR)
	require.ErrorIs(t, c.CheckWish(ctx, a.Handle, striping.KeyServers, []byte("2")), syscall.EINVAL)
	require.ErrorIs(t, c.CheckWish(ctx, d, striping.KeyServers, []byte("5")), syscall.EINVAL)
	require.NoError(t, c.CheckWish(ctx, d, striping.KeyServers, []byte("4")))
	require.NoError(t, c.CheckWish(ctx, a.Handle, "user.other", nil))
	l, err := c.Symlink(ctx, d, "l", "x", 0, 0)
	require.NoError(t, err)
	_, err = c.Striping(ctx, l.Handle)
	require.ErrorIs(t, err, syscall.EINVAL)
	_, err = c.Striping(ctx, a.Handle+1000)
	require.ErrorIs(t, err, syscall.ENOENT)

	// Other clients may have set anything.
	require.NoError(t, c.SetXattr(ctx, d, striping.KeyDist, []byte("varstrip_dist"), 0))
	i = striped(d)
	require.Contains(t, i.Problem, "varstrip_dist")
	_, err = c.Create(ctx, d, "g", pvfs.CreateOptions{})
	require.ErrorIs(t, err, syscall.EINVAL)
	require.NoError(t, c.SetWish(ctx, d, striping.Wish{Dist: "basic_dist"}))
	a, err = c.Create(ctx, d, "g", pvfs.CreateOptions{})
	require.NoError(t, err)
	i = striped(a.Handle)
	require.Equal(t, "basic_dist", i.Dist)
	require.False(t, i.Stuffed, "on one server there is nothing to spread")
	require.Equal(t, fmt.Sprint(1, 1), fmt.Sprint(i.NumServers, len(i.Servers)))
}

// Servers count the strips of some distributions in 32 bits.
func TestTooManyStrips(t *testing.T) {
	ctx := t.Context()
	c := dial(t, pvfsdtest.Start(t, 2, pvfsdtest.Options{}).URL(), pvfs.Options{})
	a, err := c.Create(ctx, c.Root(), "f", pvfs.CreateOptions{Dist: &wire.Dist{Name: wire.TwodStripe, StripSize: 1, NumGroups: 2, GroupStripFactor: 1}})
	require.NoError(t, err)
	f := c.File(a)
	_, err = f.WriteAt(ctx, [][]byte{{1, 2}}, 1<<32-1)
	require.ErrorIs(t, err, syscall.EFBIG)
	_, err = f.WriteExtents(ctx, []extent.Extent{{Off: 0, Len: 1}, {Off: 1 << 33, Len: 1}}, [][]byte{{1, 2}})
	require.ErrorIs(t, err, syscall.EFBIG)
	require.ErrorIs(t, f.Truncate(ctx, 1<<32+1), syscall.EFBIG)
	_, err = f.WriteAt(ctx, [][]byte{{7}}, 1<<32-1)
	require.NoError(t, err)
	size, err := f.Size(ctx)
	require.NoError(t, err)
	require.Equal(t, int64(1<<32), size)
}
