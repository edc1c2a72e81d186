package pvfsd_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// A client that works here must not find at a real server that it asked for
// too much.
func TestLimitsOfRealServers(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	f := c.create(1, wire.LayoutRoundRobin)
	small := func(dir wire.IOType, n int, gap int64) error {
		var exts []extent.Extent
		for i := range n {
			exts = append(exts, extent.Extent{Off: int64(i) * (1 + gap), Len: 1})
		}
		typ, err := wire.HIndexed(exts)
		require.NoError(t, err)
		req := &wire.SmallIOReq{Handle: f.Attr.DFiles[0], FSID: c.fsid, Dir: dir, ServerCt: 1,
			Dist: wire.NewSimpleStripe(65536), Type: typ, Aggregate: int64(n)}
		if dir == wire.IOWrite {
			req.Data, req.Total = make([]byte, n), int64(n)
		}
		var resp wire.SmallIOResp
		err = c.try(c.all(f.Handle), f.Handle, req, &resp)
		if err == nil {
			require.Equal(t, int64(n), resp.Result)
		}
		return err
	}
	require.NoError(t, c.writeSmall(f.Handle, f.Attr.DFiles[0], 0, make([]byte, 1000)))
	for _, dir := range []wire.IOType{wire.IOWrite, wire.IORead} {
		require.NoError(t, small(dir, 64, 1))
		require.ErrorIs(t, small(dir, 65, 1), syscall.EINVAL)
		require.NoError(t, small(dir, 90, 0), "extents that touch are one")
	}

	keys := &wire.ListEattrReq{Handle: f.Handle, FSID: c.fsid, Token: wire.TokenStart, Rooms: make([]int64, 17)}
	for i := range keys.Rooms {
		keys.Rooms[i] = 256
	}
	c.refuse(syscall.EINVAL, nil, 0, keys)
	keys.Rooms = keys.Rooms[:16]
	c.call(nil, 0, keys, &wire.ListEattrResp{})

	list := &wire.ListAttrReq{FSID: c.fsid, Mask: wire.AttrCommon, Handles: []wire.Handle{4711, 4712}}
	c.refuse(syscall.ENOENT, nil, 0, list)
	list.Handles = append(list.Handles, f.Handle)
	var resp wire.ListAttrResp
	c.call(nil, 0, list, &resp)
	require.Equal(t, []bool{false, false, true}, []bool{resp.Statuses[0] == 0, resp.Statuses[1] == 0, resp.Statuses[2] == 0})

	c.refuse(syscall.EINVAL, nil, 0, &wire.FlushReq{Handle: root, FSID: c.fsid})
	c.call(nil, 0, &wire.FlushReq{Handle: f.Handle, FSID: c.fsid}, nil)
}
