package pvfsd_test

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

func (c *client) as(uid uint32, gids ...uint32) *client {
	d := *c
	d.cred = rootCred()
	d.cred.UID, d.cred.Groups = uid, gids
	return &d
}

func TestRights(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	f, dir := c.create(1, wire.LayoutRoundRobin).Handle, c.mkdir()
	for h, perms := range map[wire.Handle]uint32{f: 0o640, dir: 0o750} {
		c.call(c.all(h), 0, &wire.SetAttrReq{Handle: h, FSID: c.fsid, Cred: c.cred,
			Attr: wire.Attr{UID: 10, GID: 20, Perms: perms, Mask: wire.AttrUID | wire.AttrGID | wire.AttrPerm}}, nil)
	}
	const read, write, exec, set = wire.MayRead, wire.MayWrite, wire.MayExec, wire.MaySetAttr
	tests := []struct {
		name      string
		uid       uint32
		gids      []uint32
		file, dir wire.OpMask
	}{
		{"root", 0, []uint32{0}, 0xffffffaf, 0xffffffff},
		{"owner", 10, []uint32{1}, read | write | set, read | write | exec | set | wire.MayCreate | wire.MayRemove},
		{"group", 11, []uint32{1, 20}, read, read | exec},
		{"other", 11, []uint32{1}, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := c.as(tt.uid, tt.gids...)
			c.tag += 1000
			require.Equal(t, tt.file, c.getattr(f, wire.AttrAll).Cap.Ops)
			require.Equal(t, tt.dir, c.getattr(dir, wire.AttrAll).Cap.Ops)
		})
	}
	nobody := c.as(1)
	nobody.refuse(syscall.EINVAL, nil, 0, &wire.GetAttrReq{Handle: f, FSID: c.fsid, Cred: nobody.cred})
}

// Every operation that needs rights is refused without them and without the
// object among the capability's handles.
func TestCapabilitiesAreEnforced(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	dd := c.dirdata(root)
	f := c.create(1, wire.LayoutRoundRobin)
	df := f.Attr.DFiles[0]
	small := func(dir wire.IOType) wire.Request {
		return &wire.SmallIOReq{Handle: df, FSID: c.fsid, Dir: dir, ServerCt: 1, Dist: wire.NewSimpleStripe(65536), Type: wire.Contiguous(1), Aggregate: 1}
	}
	perm := wire.Attr{Perms: 0o600, Mask: wire.AttrPerm}
	tests := []struct {
		name string
		need wire.OpMask
		obj  wire.Handle // must be in the capability
		hint bool        // and is named by the hint
		req  wire.Request
	}{
		{"lookup", wire.MayExec, root, false, &wire.LookupPathReq{Path: "x", FSID: c.fsid, Start: root, Cred: c.cred}},
		{"readdir", wire.MayRead, dd, false, &wire.ReadDirReq{Dirdata: dd, FSID: c.fsid, Count: 1}},
		{"crdirent", wire.MayWrite | wire.MayExec, dd, false, &wire.CrDirentReq{Cred: c.cred, Name: "n", Handle: f.Handle, Parent: root, Dirdata: dd, FSID: c.fsid}},
		{"rmdirent", wire.MayWrite | wire.MayExec, dd, false, &wire.RmDirentReq{Name: "n", Dirdata: dd, FSID: c.fsid}},
		{"chdirent", wire.MayWrite | wire.MayExec, dd, false, &wire.ChDirentReq{Name: "n", Handle: 5, Dirdata: dd, FSID: c.fsid}},
		{"create", wire.MayCreate, 0, false, &wire.CreateReq{FSID: c.fsid, Cred: c.cred, Attr: fileAttr()}},
		{"mkdir", wire.MayCreate, 0, false, &wire.MkdirReq{FSID: c.fsid, Cred: c.cred, Attr: wire.Attr{Type: wire.TypeDirectory}}},
		{"remove", wire.MayRemove, root, true, &wire.RemoveReq{Handle: c.create(1, wire.LayoutRoundRobin).Handle, FSID: c.fsid, Cred: c.cred}},
		{"small read", wire.MayRead, f.Handle, true, small(wire.IORead)},
		{"small write", wire.MayWrite, f.Handle, true, small(wire.IOWrite)},
		{"truncate", wire.MayWrite, df, false, &wire.TruncateReq{Handle: df, FSID: c.fsid}},
		{"unstuff", wire.MayWrite, f.Handle, false, &wire.UnstuffReq{Handle: f.Handle, FSID: c.fsid, Cred: c.cred}},
		{"setattr", wire.MaySetAttr, f.Handle, false, &wire.SetAttrReq{Handle: f.Handle, FSID: c.fsid, Attr: perm, Cred: c.cred}},
		{"seteattr", wire.MaySetAttr, f.Handle, false, &wire.SetEattrReq{Handle: f.Handle, FSID: c.fsid, Keys: [][]byte{[]byte("user.a")}, Values: [][]byte{{1}}}},
		{"deleattr", wire.MaySetAttr, f.Handle, false, &wire.DelEattrReq{Handle: f.Handle, FSID: c.fsid, Key: []byte("user.a")}},
		{"batch create", wire.MayBatchCreate, 0, false, &wire.BatchCreateReq{FSID: c.fsid, Type: wire.TypeSymlink, Count: 2}},
		{"batch remove", wire.MayBatchRemove, 0, false, &wire.BatchRemoveReq{FSID: c.fsid, Handles: []wire.Handle{5, 6}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			hint := wire.Handle(0)
			if tt.hint {
				hint = tt.obj
				c.refuse(syscall.EINVAL, c.all(tt.obj), 0, tt.req)
			}
			c.refuse(syscall.EACCES, nil, hint, tt.req)
			lame := c.all(tt.obj)
			lame.Ops &^= tt.need
			c.refuse(syscall.EACCES, lame, hint, tt.req)
			if tt.obj != 0 {
				c.refuse(syscall.EACCES, c.all(tt.obj+1), hint, tt.req)
			}
			require.NotErrorIs(t, c.try(c.all(tt.obj), hint, tt.req, nil), syscall.EACCES)
		})
	}
}

func TestExpiry(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{Edit: func(s string) string {
		return strings.Replace(s, "TurnOffTimeouts yes", "TurnOffTimeouts no", 1)
	}})
	c := dial(t, cl.Addr(0), cl.Config())
	mkdir := &wire.MkdirReq{FSID: c.fsid, Cred: c.cred, Attr: wire.Attr{Type: wire.TypeDirectory}}
	c.call(c.all(root), 0, mkdir, &wire.MkdirResp{})
	old := c.all(root)
	old.Timeout = time.Now().Unix() - 10
	c.refuse(syscall.EACCES, old, 0, mkdir)
	mkdir.Cred.Timeout = old.Timeout
	c.refuse(syscall.EACCES, c.all(root), 0, mkdir)
}

func TestSetAttr(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	f, dir := c.create(1, wire.LayoutRoundRobin).Handle, c.mkdir()
	set := func(h wire.Handle, a wire.Attr) {
		t.Helper()
		c.call(c.all(h), 0, &wire.SetAttrReq{Handle: h, FSID: c.fsid, Attr: a, Cred: c.cred}, nil)
	}
	now := time.Now().Unix()
	for _, h := range []wire.Handle{f, dir} {
		set(h, wire.Attr{Mtime: 1000, Atime: 2000, Mask: wire.AttrMtime | wire.AttrMtimeSet | wire.AttrAtime | wire.AttrAtimeSet})
		a := c.getattr(h, wire.AttrAll)
		require.EqualValues(t, 1000, a.Mtime, "an mtime in the past holds for directories too")
		require.EqualValues(t, 2000, a.Atime)
		require.GreaterOrEqual(t, a.Ctime, now)
		set(h, wire.Attr{Perms: 0o7711, Mask: wire.AttrPerm})
		a = c.getattr(h, wire.AttrAll)
		require.EqualValues(t, 0o7711, a.Perms)
		require.EqualValues(t, 1000, a.Mtime, "chmod is no modification")
		set(h, wire.Attr{Mask: wire.AttrMtime})
		require.GreaterOrEqual(t, c.getattr(h, wire.AttrAll).Mtime, now)
	}
	set(dir, wire.Attr{Mtime: 1000, Mask: wire.AttrMtime | wire.AttrMtimeSet})
	require.NoError(t, c.link(dir, c.dirdata(dir), "n", f))
	require.EqualValues(t, 1000, c.getattr(dir, wire.AttrAll).Mtime)
	require.GreaterOrEqual(t, c.getattr(c.dirdata(dir), wire.AttrAll).Mtime, now, "a new entry is a modification, of the dirdata")

	owner := c.as(10, 20, 21)
	set(f, wire.Attr{UID: 10, GID: 20, Mask: wire.AttrUID | wire.AttrGID})
	cap := owner.getattr(f, wire.AttrAll).Cap
	cap.Ops |= wire.MaySetAttr
	owner.call(&cap, 0, &wire.SetAttrReq{Handle: f, FSID: c.fsid, Attr: wire.Attr{GID: 21, Mask: wire.AttrGID}, Cred: owner.cred}, nil)
	owner.refuse(syscall.EPERM, &cap, 0, &wire.SetAttrReq{Handle: f, FSID: c.fsid, Attr: wire.Attr{GID: 22, Mask: wire.AttrGID}, Cred: owner.cred})
	owner.refuse(syscall.EPERM, &cap, 0, &wire.SetAttrReq{Handle: f, FSID: c.fsid, Attr: wire.Attr{UID: 11, Mask: wire.AttrUID}, Cred: owner.cred})
	owner.refuse(syscall.EPERM, &cap, 0, &wire.SetAttrReq{Handle: f, FSID: c.fsid, Attr: wire.Attr{UID: 11, Mask: wire.AttrUID}, Cred: c.as(11, 1).cred})
}

func key(s string) []byte { return append([]byte(s), 0) }

func TestEattrs(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	f := c.create(1, wire.LayoutRoundRobin).Handle
	set := func(name string, value []byte, flags int32) error {
		return c.try(c.all(f), 0, &wire.SetEattrReq{Handle: f, FSID: c.fsid, Flags: flags, Keys: [][]byte{key(name)}, Values: [][]byte{value}}, nil)
	}
	get := func(room int64, names ...string) (wire.GetEattrResp, error) {
		req := &wire.GetEattrReq{Handle: f, FSID: c.fsid}
		for _, n := range names {
			req.Keys, req.Rooms = append(req.Keys, key(n)), append(req.Rooms, room)
		}
		var resp wire.GetEattrResp
		err := c.try(nil, 0, req, &resp)
		return resp, err
	}
	big := bytes.Repeat([]byte{7}, wire.MaxEattrValue)
	require.NoError(t, set("user.big", big, 0))
	require.NoError(t, set("user.empty", nil, 0))
	require.ErrorIs(t, set("user.big", big, wire.EattrCreate), syscall.EEXIST)
	require.ErrorIs(t, set("user.no", big, wire.EattrReplace), syscall.ENOENT)
	require.ErrorIs(t, set("nothing.no", nil, 0), syscall.EOPNOTSUPP)
	require.ErrorIs(t, set("system.pvfs2.dh", nil, 0), syscall.EPERM)

	got, err := get(wire.MaxEattrValue, "user.big")
	require.NoError(t, err)
	require.Equal(t, big, got.Values[0])
	_, err = get(100, "user.big")
	require.ErrorIs(t, err, syscall.EMSGSIZE)
	_, err = get(100, "user.none")
	require.ErrorIs(t, err, syscall.ENOENT)
	got, err = get(wire.MaxEattrValue, "user.none", "user.big", "user.empty")
	require.NoError(t, err)
	require.Equal(t, []wire.Status{-1073742082, 0, 0}, got.Statuses)
	require.Empty(t, got.Values[2])

	list := func(token uint64, n int) wire.ListEattrResp {
		req := &wire.ListEattrReq{Handle: f, FSID: c.fsid, Token: token, Rooms: make([]int64, n)}
		for i := range req.Rooms {
			req.Rooms[i] = 256
		}
		var resp wire.ListEattrResp
		c.call(nil, 0, req, &resp)
		return resp
	}
	var names string
	for token := wire.TokenStart; token != wire.TokenEnd; {
		resp := list(token, 2)
		for _, k := range resp.Keys {
			names += " " + strings.TrimRight(string(k), "\x00")
		}
		token = resp.Token
	}
	require.Equal(t, " system.pvfs2.dh system.pvfs2.md system.pvfs2.nd user.big user.empty", names)

	del := &wire.DelEattrReq{Handle: f, FSID: c.fsid, Key: key("user.big")}
	c.call(c.all(f), 0, del, nil)
	c.refuse(syscall.ENOENT, c.all(f), 0, del)
	for i := 0; ; i++ {
		if err = set(fmt.Sprintf("user.%d", i), []byte{1}, 0); err != nil {
			break
		}
		require.Less(t, i, 2000)
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	c.call(c.all(root), root, &wire.RemoveReq{Handle: f, FSID: c.fsid, Cred: c.cred}, nil)
	_, err = get(10, "user.1")
	require.ErrorIs(t, err, syscall.ENOENT)
}

func TestDirectoryHints(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	dir := c.mkdir()
	c.call(c.all(dir), 0, &wire.SetEattrReq{Handle: dir, FSID: c.fsid,
		Keys:   [][]byte{key("user.pvfs2.num_dfiles"), key("user.pvfs2.dist_name"), key("user.pvfs2.dist_params")},
		Values: [][]byte{key("3"), key("simple_stripe"), key("strip_size:4096")}}, nil)
	hint := c.getattr(dir, wire.AttrAll).DirHint
	require.Equal(t, wire.DirHint{DistName: "simple_stripe", DistParams: "strip_size:4096", DFiles: 3}, hint)

	var child wire.MkdirResp // a client hands the hints on to a new directory
	c.call(c.all(root), 0, &wire.MkdirReq{FSID: c.fsid, Cred: c.cred,
		Attr: wire.Attr{Perms: 0o755, Type: wire.TypeDirectory, Mask: wire.AttrCommon | wire.AttrDirHint, DirHint: hint}}, &child)
	require.Equal(t, hint, c.getattr(child.Handle, wire.AttrAll).DirHint)
}

// Repair tools compare the handles that are not available with those listed.
func TestHandlesInUse(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	check := func() int {
		t.Helper()
		var st wire.StatFSResp
		c.call(nil, 0, &wire.StatFSReq{FSID: c.fsid}, &st)
		var resp wire.IterateHandlesResp
		c.call(nil, 0, &wire.IterateHandlesReq{FSID: c.fsid, Count: 1000, Position: wire.TokenStart}, &resp)
		require.EqualValues(t, len(resp.Handles), st.HandlesTotal-st.HandlesAvailable)
		return len(resp.Handles)
	}
	require.Equal(t, 4, check(), "the root, lost+found and their dirdata")
	d, f := c.mkdir(), c.create(1, wire.LayoutRoundRobin)
	require.Equal(t, 8, check())
	c.call(c.all(root), root, &wire.RemoveReq{Handle: d, FSID: c.fsid, Cred: c.cred}, nil)
	c.call(c.all(root), root, &wire.RemoveReq{Handle: f.Handle, FSID: c.fsid, Cred: c.cred}, nil)
	c.refuse(syscall.ENOENT, c.all(root), root, &wire.RemoveReq{Handle: d, FSID: c.fsid, Cred: c.cred})
	require.Equal(t, 5, check(), "a datafile is left")
}

func TestManagement(t *testing.T) {
	cl := pvfsdtest.Start(t, 2, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	other := dial(t, cl.Addr(1), cl.Config())
	check := func(p wire.Param, v uint64) *wire.SetParamReq {
		return &wire.SetParamReq{FSID: c.fsid, Param: p, Value: v}
	}
	c.call(nil, 0, check(wire.ParamFSIDCheck, uint64(c.fsid)), nil)
	c.refuse(syscall.ENOENT, nil, 0, check(wire.ParamFSIDCheck, uint64(c.fsid)+1))
	c.call(nil, 0, check(wire.ParamRootCheck, uint64(root)), nil)
	other.refuse(syscall.ENOENT, nil, 0, check(wire.ParamRootCheck, uint64(root)))

	var st wire.StatFSResp
	c.call(nil, 0, &wire.StatFSReq{FSID: c.fsid}, &st)
	require.Positive(t, st.Available)
	require.GreaterOrEqual(t, st.Total, st.Available)
	require.Less(t, st.HandlesAvailable, st.HandlesTotal)
	require.Positive(t, st.RAMTotal)
	c.refuse(syscall.ENOENT, nil, 0, &wire.StatFSReq{FSID: c.fsid + 1})

	f := c.create(1, wire.LayoutLocal)
	require.NoError(t, c.writeSmall(f.Handle, f.Attr.DFiles[0], 0, make([]byte, 77)))
	var infos wire.DspaceInfoListResp
	c.call(nil, 0, &wire.DspaceInfoListReq{FSID: c.fsid, Handles: []wire.Handle{root, f.Attr.DFiles[0], 3}}, &infos)
	require.Equal(t, c.dirdata(root), infos.Infos[0].Dirdata)
	require.EqualValues(t, 77, infos.Infos[1].Size)

	seen := make(map[wire.Handle]bool)
	for pos := wire.TokenStart; pos != wire.TokenEnd; {
		var resp wire.IterateHandlesResp
		c.call(nil, 0, &wire.IterateHandlesReq{FSID: c.fsid, Count: 100, Position: pos}, &resp)
		for _, h := range resp.Handles {
			require.False(t, seen[h])
			seen[h] = true
		}
		pos = resp.Position
	}
	require.True(t, seen[root] && seen[f.Handle] && seen[f.Attr.DFiles[0]])

	var perf wire.PerfMonResp
	c.call(nil, 0, &wire.PerfMonReq{KeyCount: 23, Count: 10}, &perf)
	require.Len(t, perf.Values, 250)

	dd := c.dirdata(root)
	require.NoError(t, c.link(root, dd, "n", f.Handle))
	var ent wire.GetDirentResp
	c.call(nil, 0, &wire.GetDirentReq{Dirdata: dd, FSID: c.fsid, Name: "n"}, &ent)
	require.Equal(t, wire.GetDirentResp{Handle: f.Handle}, ent)
	c.call(nil, 0, &wire.GetDirentReq{Dirdata: dd, FSID: c.fsid, Name: "m"}, &ent)
	require.Equal(t, syscall.ENOENT, ent.Status.Errno())
	c.call(nil, 0, &wire.RemoveDirentReq{Dirdata: root, FSID: c.fsid, Name: "n"}, nil)
	c.call(nil, 0, &wire.RemoveObjectReq{Handle: f.Handle, FSID: c.fsid}, nil)
	c.refuse(syscall.ENOENT, nil, 0, &wire.GetAttrReq{Handle: f.Handle, FSID: c.fsid, Cred: c.cred})
}

func TestExports(t *testing.T) {
	with := func(options string) pvfsdtest.Options {
		return pvfsdtest.Options{Edit: func(s string) string {
			return strings.Replace(s, "</FileSystem>", "<ExportOptions>\n"+options+"\n</ExportOptions>\n</FileSystem>", 1)
		}}
	}
	mkdir := func(c *client) wire.Request {
		return &wire.MkdirReq{FSID: c.fsid, Cred: c.cred, Attr: wire.Attr{Type: wire.TypeDirectory, Mask: wire.AttrCommon}}
	}
	t.Run("read only", func(t *testing.T) {
		cl := pvfsdtest.Start(t, 1, with("ReadOnly tcp://127.0.0.0@8"))
		c := dial(t, cl.Addr(0), cl.Config())
		c.refuse(syscall.EROFS, c.all(root), 0, mkdir(c))
		c.dirdata(root)
	})
	t.Run("root squash", func(t *testing.T) {
		cl := pvfsdtest.Start(t, 1, with("RootSquash tcp://127.0.0.1\nAnonUID 65534\nAnonGID 65533"))
		c := dial(t, cl.Addr(0), cl.Config())
		var resp wire.MkdirResp
		c.call(c.all(root), 0, mkdir(c), &resp)
		a := c.getattr(resp.Handle, wire.AttrAll)
		require.Equal(t, []uint32{65534, 65533}, []uint32{a.UID, a.GID})
		require.Equal(t, wire.MaySetAttr, a.Cap.Ops&wire.MaySetAttr)
		require.Zero(t, a.Cap.Ops&wire.MayAdmin)
	})
	t.Run("exception", func(t *testing.T) {
		cl := pvfsdtest.Start(t, 1, with("RootSquash tcp://127.0.0.0@8\nRootSquashExceptions tcp://127.0.0.1\nAnonUID 65534"))
		c := dial(t, cl.Addr(0), cl.Config())
		require.Equal(t, wire.MayAll, c.getattr(root, wire.AttrAll).Cap.Ops)
	})
}
