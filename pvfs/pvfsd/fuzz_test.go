package pvfsd_test

import (
	"errors"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// FuzzServer sends a request of any payload, flow data behind it and a request
// that must be answered, to servers that have all there is. They answer the
// latter or hang up, and serve on.
func FuzzServer(f *testing.F) {
	cl := pvfsdtest.Start(f, 2, pvfsdtest.Options{Gen: func(o *fsconf.GenOptions) {
		o.DistrDirServersInitial, o.DistrDirServersMax, o.DistrDirSplitSize = 1, 2, 3
	}})
	addr, conf := cl.Addr(0), cl.Config()
	c := dial(f, addr, conf)
	file := c.create(2, wire.LayoutRoundRobin)
	for _, req := range everyRequest(c, file) {
		_, frame := c.request(c.all(file.Handle, root), []wire.Hint{wire.ObjectHint(file.Handle)}, req)
		f.Add(frame[wire.HeaderSize:], []byte("data"))
	}
	f.Fuzz(func(t *testing.T, payload, data []byte) {
		if len(payload) > wire.MaxRequest {
			return
		}
		c.t = t
		p := dial(t, addr, conf)
		require.NoError(t, p.nc.(*net.TCPConn).SetLinger(0)) // thousands a second
		msg := append(wire.Header{Mode: wire.Unexpected, Tag: 1 << 20, Size: int64(len(payload))}.Append(nil), payload...)
		if len(data) > 0 {
			msg = wire.Header{Mode: wire.ModeFor(len(data)), Tag: 1 << 20, Size: int64(len(data))}.Append(msg)
			msg = append(msg, data...)
		}
		last, noop := p.request(nil, nil, &wire.NoopReq{})
		_, _ = p.nc.Write(append(msg, noop...))
		for {
			h, _, err := p.tryRecv()
			var timeout net.Error
			if errors.As(err, &timeout) {
				require.False(t, timeout.Timeout(), "neither answer nor end")
			}
			if err != nil || h.Tag == last {
				break
			}
		}
		require.NoError(t, c.try(nil, 0, &wire.NoopReq{}, nil), "alive")
	})
}

// everyRequest is one request of each kind that makes sense for a new file in
// the root.
func everyRequest(c *client, file wire.CreateResp) []wire.Request {
	h, df, dd := file.Handle, file.Attr.DFiles[0], c.dirdata(root)
	id, cred, key := c.fsid, c.cred, [][]byte{[]byte("user.a\x00")}
	return []wire.Request{
		&wire.CreateReq{FSID: id, Cred: cred, Attr: fileAttr(), NumDFiles: 2, Layout: wire.Layout{Type: wire.LayoutRoundRobin}},
		&wire.RemoveReq{Handle: h, FSID: id, Cred: cred},
		&wire.IOReq{Handle: df, FSID: id, Dir: wire.IOWrite, ServerCt: 1, Dist: wire.NewSimpleStripe(65536), Type: wire.Contiguous(4), Aggregate: 4},
		&wire.IOReq{Handle: df, FSID: id, Dir: wire.IORead, ServerCt: 2, Dist: wire.NewSimpleStripe(7), Type: wire.Contiguous(100), Offset: 5, Aggregate: 100},
		&wire.SmallIOReq{Handle: df, FSID: id, Dir: wire.IOWrite, ServerCt: 1, Dist: wire.NewSimpleStripe(65536), Type: wire.Contiguous(4), Aggregate: 4, Total: 4, Data: []byte("data")},
		&wire.SmallIOReq{Handle: df, FSID: id, Dir: wire.IORead, ServerCt: 1, Dist: wire.NewSimpleStripe(65536), Type: wire.Contiguous(4), Aggregate: 4},
		&wire.GetAttrReq{Handle: h, FSID: id, Mask: wire.AttrAll, Cred: cred},
		&wire.SetAttrReq{Handle: h, FSID: id, Attr: wire.Attr{Perms: 0o600, Mask: wire.AttrPerm | wire.AttrType}, Cred: cred},
		&wire.LookupPathReq{Path: "a/b", FSID: id, Start: root, Mask: wire.AttrAll, Cred: cred},
		&wire.CrDirentReq{Cred: cred, Name: "a", Handle: h, Parent: root, Dirdata: dd, FSID: id},
		&wire.RmDirentReq{Name: "a", Dirdata: dd, FSID: id},
		&wire.ChDirentReq{Name: "a", Handle: h, Dirdata: dd, FSID: id},
		&wire.TruncateReq{Handle: df, FSID: id, Size: 77},
		&wire.MkdirReq{FSID: id, Cred: cred, Attr: wire.Attr{Perms: 0o755, Type: wire.TypeDirectory, Mask: wire.AttrCommon}},
		&wire.ReadDirReq{Dirdata: dd, FSID: id, Count: 10, Token: wire.TokenStart},
		&wire.GetConfigReq{}, &wire.NoopReq{}, &wire.StatFSReq{FSID: id}, &wire.FlushReq{Handle: df, FSID: id},
		&wire.IterateHandlesReq{FSID: id, Count: 10, Position: wire.TokenStart},
		&wire.RemoveObjectReq{Handle: h, FSID: id}, &wire.GetDirdataHandleReq{Handle: root, FSID: id},
		&wire.GetEattrReq{Handle: h, FSID: id, Keys: key, Rooms: []int64{100}},
		&wire.SetEattrReq{Handle: h, FSID: id, Keys: key, Values: [][]byte{[]byte("v")}}, &wire.DelEattrReq{Handle: h, FSID: id, Key: key[0]},
		&wire.SetEattrReq{Handle: root, FSID: id, Keys: [][]byte{[]byte("user.pvfs2.dist_name\x00")}, Values: [][]byte{[]byte("twod_stripe\x00")}},
		&wire.ListEattrReq{Handle: h, FSID: id, Token: wire.TokenStart, Rooms: []int64{100}},
		&wire.AtomicEattrReq{Handle: h, FSID: id, Keys: key, Values: [][]byte{[]byte("v")}, Rooms: []int64{100}},
		&wire.TreeSetAttrReq{FSID: id, Cred: cred, Type: wire.TypeMetafile, Attr: wire.Attr{Perms: 0o600, Mask: wire.AttrPerm}, Handles: []wire.Handle{h}},
		&wire.SplitDirentReq{FSID: id, Dirdata: dd, Dist: wire.Dist{Name: wire.BasicDist}, Handles: []wire.Handle{h}, Names: []string{"a"}},
		&wire.ListAttrReq{FSID: id, Mask: wire.AttrAll, Handles: []wire.Handle{h, root, df}},
		&wire.BatchCreateReq{FSID: id, Type: wire.TypeDatafile, Count: 3},
		&wire.BatchRemoveReq{FSID: id, Handles: []wire.Handle{df}},
		&wire.UnstuffReq{Handle: h, FSID: id, Mask: wire.AttrAll, Cred: cred},
		&wire.TreeRemoveReq{FSID: id, Cred: cred, Handles: file.Attr.DFiles},
		&wire.TreeGetFileSizeReq{FSID: id, Cred: cred, Handles: file.Attr.DFiles},
		&wire.TreeGetAttrReq{FSID: id, Cred: cred, Mask: wire.AttrAll, Handles: []wire.Handle{h, df}},
		&wire.GetDirentReq{Dirdata: dd, FSID: id, Name: "a"},
	}
}
