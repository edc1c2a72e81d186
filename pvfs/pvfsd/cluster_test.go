package pvfsd_test

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// owner is the index of the server that owns h.
func owner(t *testing.T, cl *pvfsdtest.Cluster, h wire.Handle) int {
	t.Helper()
	alias, ok := cl.Config().FileSystems[0].Owner(uint64(h))
	require.True(t, ok)
	var i int
	_, err := fmt.Sscanf(alias, "s%d", &i)
	require.NoError(t, err)
	return i
}

func owners(t *testing.T, cl *pvfsdtest.Cluster, hs []wire.Handle) []int {
	t.Helper()
	var out []int
	for _, h := range hs {
		out = append(out, owner(t, cl, h))
	}
	return out
}

func TestStuffedThenUnstuffed(t *testing.T) {
	cl := pvfsdtest.Start(t, 4, pvfsdtest.Options{})
	c := dial(t, cl.Addr(2), cl.Config())
	f := c.create(4, wire.LayoutRoundRobin)
	require.Equal(t, uint32(1), f.Stuffed)
	require.Equal(t, wire.AttrCommon|wire.AttrDFiles, f.Attr.Mask)
	require.Equal(t, []int{2}, owners(t, cl, f.Attr.DFiles), "the datafile is local")
	require.NoError(t, c.writeSmall(f.Handle, f.Attr.DFiles[0], 0, make([]byte, 5000)))
	a := c.getattr(f.Handle, wire.AttrAll)
	require.Equal(t, int32(5000), a.StuffedSize)
	require.Equal(t, []wire.Handle{f.Handle, f.Attr.DFiles[0]}, a.Cap.Handles)
	require.Equal(t, wire.OpMask(0xffffffaf), a.Cap.Ops)
	require.Equal(t, "S:s2", a.Cap.Issuer)

	unstuff := &wire.UnstuffReq{Handle: f.Handle, FSID: c.fsid, Mask: 0x402c40, Cred: c.cred}
	c.refuse(syscall.EACCES, nil, 0, unstuff)
	var one, two wire.UnstuffResp
	c.call(&a.Cap, 0, unstuff, &one)
	require.Equal(t, wire.AttrMask(0x401c7f), one.Attr.Mask)
	require.Equal(t, []int{2, 3, 0, 1}, owners(t, cl, one.Attr.DFiles))
	require.Equal(t, f.Attr.DFiles[0], one.Attr.DFiles[0])
	require.Len(t, one.Attr.Cap.Handles, 5)
	c.call(&a.Cap, 0, unstuff, &two)
	require.Equal(t, one.Attr.DFiles, two.Attr.DFiles, "unstuffing again changes nothing")
}

func TestLayouts(t *testing.T) {
	cl := pvfsdtest.Start(t, 3, pvfsdtest.Options{Gen: func(o *fsconf.GenOptions) { o.NoStuffing = true }})
	c := dial(t, cl.Addr(1), cl.Config())
	require.Equal(t, []int{0, 1}, owners(t, cl, c.create(2, wire.LayoutNone).Attr.DFiles))
	require.Equal(t, []int{1, 1, 1}, owners(t, cl, c.create(3, wire.LayoutLocal).Attr.DFiles))
	for range 10 {
		o := owners(t, cl, c.create(3, wire.LayoutRoundRobin).Attr.DFiles)
		require.Equal(t, []int{o[0], (o[0] + 1) % 3, (o[0] + 2) % 3}, o)
		require.ElementsMatch(t, []int{0, 1, 2}, owners(t, cl, c.create(100, wire.LayoutRandom).Attr.DFiles))
	}
	list := func(addrs ...string) (wire.CreateResp, error) {
		var resp wire.CreateResp
		err := c.try(c.all(root), 0, &wire.CreateReq{FSID: c.fsid, Cred: c.cred, Attr: fileAttr(), NumDFiles: int32(len(addrs)),
			Layout: wire.Layout{Type: wire.LayoutList, Servers: addrs}}, &resp)
		return resp, err
	}
	f, err := list("tcp://"+cl.Addr(2), "tcp://"+cl.Addr(0))
	require.NoError(t, err)
	require.Equal(t, []int{2, 0}, owners(t, cl, f.Attr.DFiles))
	_, err = list("tcp://127.0.0.1:1")
	require.ErrorIs(t, err, syscall.EINVAL)
}

// No handle is ever given out twice, whoever asks and however often servers
// restart.
func TestHandlesAreNew(t *testing.T) {
	cl := pvfsdtest.Start(t, 2, pvfsdtest.Options{Gen: func(o *fsconf.GenOptions) { o.NoStuffing = true }})
	seen := make(map[wire.Handle]bool)
	for round := range 4 {
		for i := range 2 {
			c := dial(t, cl.Addr(i), cl.Config())
			for range 50 {
				f := c.create(2, wire.LayoutRoundRobin)
				for _, h := range append(f.Attr.DFiles, f.Handle) {
					require.False(t, seen[h], "handle %d twice", h)
					seen[h] = true
				}
				if round%2 == 0 {
					c.call(c.all(root), root, &wire.RemoveReq{Handle: f.Handle, FSID: c.fsid, Cred: c.cred}, nil)
				}
			}
		}
		cl.Restart(round % 2)
	}
}

func TestTreeOps(t *testing.T) {
	cl := pvfsdtest.Start(t, 4, pvfsdtest.Options{Gen: func(o *fsconf.GenOptions) { o.NoStuffing = true }})
	c := dial(t, cl.Addr(0), cl.Config())
	f := c.create(4, wire.LayoutNone)
	for i, df := range f.Attr.DFiles {
		require.NoError(t, dial(t, cl.Addr(i), cl.Config()).writeSmall(f.Handle, df, 0, make([]byte, 10+i)))
	}
	hs := append([]wire.Handle{f.Attr.DFiles[3], 1 << 63, f.Attr.DFiles[1]}, f.Attr.DFiles...)
	var size wire.TreeGetFileSizeResp
	c.call(nil, 0, &wire.TreeGetFileSizeReq{FSID: c.fsid, Index: 9, Cred: c.cred, Handles: hs}, &size)
	require.Equal(t, uint32(9), size.Index)
	require.Equal(t, []int64{13, 0, 11, 10, 11, 12, 13}, size.Sizes)
	require.Equal(t, syscall.EINVAL, size.Statuses[1].Errno())

	var attrs wire.TreeGetAttrResp
	c.call(nil, 0, &wire.TreeGetAttrReq{FSID: c.fsid, Cred: c.cred, Mask: wire.AttrSize, Handles: f.Attr.DFiles}, &attrs)
	require.Equal(t, int64(12), attrs.Attrs[2].Size)

	var status wire.TreeStatusResp
	remove := &wire.TreeRemoveReq{FSID: c.fsid, Cred: c.cred, Handles: append([]wire.Handle{5<<60 + 1<<30}, f.Attr.DFiles...)}
	c.refuse(syscall.EINVAL, c.all(root), 0, remove)
	c.refuse(syscall.EACCES, c.all(root+1), root, remove)
	c.call(c.all(root), root, remove, &status)
	require.Equal(t, syscall.ENOENT, status.Statuses[0].Errno())
	require.Equal(t, make([]wire.Status, 4), status.Statuses[1:])
	c.call(nil, 0, &wire.TreeGetFileSizeReq{FSID: c.fsid, Cred: c.cred, Handles: f.Attr.DFiles}, &size)
	for _, st := range size.Statuses {
		require.Equal(t, syscall.ENOENT, st.Errno())
	}
}

// A server that is down costs its own handles only, and is used again once it
// is back.
func TestPeerDown(t *testing.T) {
	cl := pvfsdtest.Start(t, 2, pvfsdtest.Options{Gen: func(o *fsconf.GenOptions) { o.NoStuffing = true }})
	c := dial(t, cl.Addr(0), cl.Config())
	f := c.create(2, wire.LayoutNone)
	cl.Kill(1)
	var size wire.TreeGetFileSizeResp
	get := &wire.TreeGetFileSizeReq{FSID: c.fsid, Cred: c.cred, Handles: f.Attr.DFiles}
	c.call(nil, 0, get, &size)
	require.Zero(t, size.Statuses[0])
	require.Equal(t, syscall.ECONNREFUSED, size.Statuses[1].Errno())
	require.Len(t, c.create(2, wire.LayoutNone).Attr.DFiles, 2, "from the pool")
	cl.Restart(1)
	c.call(nil, 0, get, &size)
	require.Equal(t, make([]wire.Status, 2), size.Statuses)
}

// A new entry marks the ctime of what it names, on another server too.
func TestEntryTouchesObject(t *testing.T) {
	cl := pvfsdtest.Start(t, 2, pvfsdtest.Options{})
	c0, c1 := dial(t, cl.Addr(0), cl.Config()), dial(t, cl.Addr(1), cl.Config())
	f := c1.create(1, wire.LayoutRoundRobin)
	require.NoError(t, c0.link(root, c0.dirdata(root), "f", f.Handle))
	require.EqualValues(t, 1, cl.Server(1).Snapshot().Requests["setattr"])
	got, err := c0.lookup(root, "f")
	require.NoError(t, err)
	require.Len(t, got.Handles, 1)
	require.Empty(t, got.Attrs, "the object lives elsewhere")
}
