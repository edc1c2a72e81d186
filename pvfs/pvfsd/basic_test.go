package pvfsd_test

import (
	"bytes"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

func TestChangeEntry(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	dd := c.emptyRoot()
	require.NoError(t, c.link(root, dd, "a", 100))
	require.NoError(t, c.link(root, dd, "b", 200))
	change := &wire.ChDirentReq{Name: "a", Handle: 300, Dirdata: dd, FSID: c.fsid}
	var resp wire.ChDirentResp
	c.call(c.all(dd), 0, change, &resp)
	require.EqualValues(t, 100, resp.Handle)
	require.Equal(t, []wire.Dirent{{Name: "a", Handle: 300}, {Name: "b", Handle: 200}}, c.list(dd, 10), "it keeps its place")
	change.Name = "c"
	c.refuse(syscall.ENOENT, c.all(dd), 0, change)
	for name, want := range map[string]syscall.Errno{"": syscall.EINVAL, "..": syscall.EINVAL, "x/y": syscall.EINVAL} {
		require.ErrorIs(t, c.link(root, dd, name, 5), want, name)
	}
	require.ErrorIs(t, c.link(root, root, "x", 5), syscall.ENOTDIR)
}

// A path of any depth is resolved, at most wire.MaxSegments names at a time.
func TestDeepPath(t *testing.T) {
	const depth = 100
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	dirs := []wire.Handle{root}
	for range depth {
		dir := c.mkdir()
		parent := dirs[len(dirs)-1]
		require.NoError(t, c.link(parent, c.dirdata(parent), "d", dir))
		dirs = append(dirs, dir)
	}
	at := root
	for left := depth; left > 0; {
		got, err := c.lookup(at, strings.Repeat("d/", left))
		require.NoError(t, err)
		require.Len(t, got.Handles, min(left, wire.MaxSegments))
		left -= len(got.Handles)
		at = got.Handles[len(got.Handles)-1]
	}
	require.Equal(t, dirs[depth], at)

	// Modes on the way count, that of the start is in the capability.
	c.call(c.all(dirs[1]), 0, &wire.SetAttrReq{Handle: dirs[1], FSID: c.fsid, Attr: wire.Attr{Perms: 0o700, Mask: wire.AttrPerm}, Cred: c.cred}, nil)
	c = c.as(10, 10)
	_, err := c.lookup(dirs[1], "d")
	require.NoError(t, err)
	_, err = c.lookup(root, "d/d")
	require.ErrorIs(t, err, syscall.EACCES)
}

func TestCreateLookupIO(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())

	var conf wire.GetConfigResp
	c.call(nil, 0, &wire.GetConfigReq{}, &conf)
	require.Equal(t, cl.Config().Text, conf.Config)

	dd := c.dirdata(root)
	f := c.create(1, wire.LayoutRoundRobin)
	require.Zero(t, f.Stuffed)
	require.Equal(t, wire.AttrCommon|wire.AttrDFiles|wire.AttrUnstuffed, f.Attr.Mask)
	require.Len(t, f.Attr.DFiles, 1)
	require.NoError(t, c.link(root, dd, "f", f.Handle))
	require.ErrorIs(t, c.link(root, dd, "f", f.Handle), syscall.EEXIST)

	got, err := c.lookup(root, "f")
	require.NoError(t, err)
	require.Equal(t, []wire.Handle{f.Handle}, got.Handles)
	require.Len(t, got.Attrs, 1)
	got, err = c.lookup(root, "f/x")
	require.NoError(t, err, "the client sees that f is no directory")
	require.Len(t, got.Handles, 1)
	_, err = c.lookup(f.Handle, "x")
	require.ErrorIs(t, err, syscall.ENOENT)

	data := bytes.Repeat([]byte("zoid"), 1000)
	require.NoError(t, c.writeSmall(f.Handle, f.Attr.DFiles[0], 100, data))
	back, err := c.readSmall(f.Handle, f.Attr.DFiles[0], 0, 8000)
	require.NoError(t, err)
	require.Equal(t, append(make([]byte, 100), data...), back)

	require.Equal(t, int64(4100), c.getattr(f.Attr.DFiles[0], wire.AttrSize).Size)
	old, err := c.unlink(dd, "f")
	require.NoError(t, err)
	require.Equal(t, f.Handle, old)
	_, err = c.unlink(dd, "f")
	require.ErrorIs(t, err, syscall.ENOENT)
}

// A new file system has the directory that repair tools look for.
func TestLostAndFound(t *testing.T) {
	cl := pvfsdtest.Start(t, 2, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	got, err := c.lookup(root, "lost+found")
	require.NoError(t, err)
	require.Len(t, got.Attrs, 1)
	require.Equal(t, []any{wire.TypeDirectory, uint32(0o777)}, []any{got.Attrs[0].Type, got.Attrs[0].Perms})
	cl.Restart(0)
	c = dial(t, cl.Addr(0), cl.Config())
	_, err = c.unlink(c.dirdata(root), "lost+found")
	require.NoError(t, err)
	cl.Restart(0)
	c = dial(t, cl.Addr(0), cl.Config())
	require.Empty(t, c.list(c.dirdata(root), 10), "it is made once")
}
