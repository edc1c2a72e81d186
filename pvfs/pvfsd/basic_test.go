package pvfsd_test

import (
	"bytes"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

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
