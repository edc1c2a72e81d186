package pvfsd_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// While a repair tool has the server in admin mode nothing changes but what the
// tool changes.
func TestAdminMode(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	f := c.create(1, wire.LayoutNone)
	df := f.Attr.DFiles[0]
	dd := c.emptyRoot()
	require.NoError(t, c.link(root, dd, "f", f.Handle))
	set := func(mode uint64) error {
		return c.try(nil, 0, &wire.SetParamReq{FSID: c.fsid, Param: wire.ParamMode, Value: mode}, nil)
	}
	require.ErrorIs(t, set(3), syscall.EINVAL)
	require.NoError(t, set(2))
	require.ErrorIs(t, c.link(root, dd, "g", f.Handle), syscall.EAGAIN)
	require.ErrorIs(t, c.writeSmall(f.Handle, df, 0, []byte("x")), syscall.EAGAIN)
	c.refuse(syscall.EAGAIN, c.all(f.Handle), f.Handle, &wire.IOReq{Handle: df, FSID: c.fsid, Dir: wire.IOWrite, ServerCt: 1,
		Dist: wire.NewSimpleStripe(65536), Type: wire.Contiguous(10), Aggregate: 10})
	_, err := c.readSmall(f.Handle, df, 0, 10)
	require.NoError(t, err)
	require.Len(t, c.list(dd, 10), 1)
	c.call(nil, 0, &wire.RemoveDirentReq{Dirdata: dd, FSID: c.fsid, Name: "f"}, nil)
	require.NoError(t, set(1))
	require.NoError(t, c.link(root, dd, "g", f.Handle))
	require.NoError(t, c.writeSmall(f.Handle, df, 0, []byte("x")))
}
