package ionserver

import (
	"bytes"
	"math"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7) ^ byte(i>>8) ^ seed
	}
	return p
}

// TestFileOverTwoNodes: what one mount did, the other sees, whichever node
// carried it out.
func TestFileOverTwoNodes(t *testing.T) {
	s := startSystem(t, 2, 3, nil)
	a, b := s.mount(t), s.mount(t)
	dir := a.mkdir(a.root, "dir")
	h := a.file(dir, "file")
	want := pattern(3<<20, 1)
	require.NoError(t, a.write(h, 100, want, 0))
	at, err := b.stat(h)
	require.NoError(t, err)
	require.EqualValues(t, len(want)+100, at.Size)
	require.Equal(t, ionpb.ObjType_FILE, at.Type)
	got, err := b.read(h, 0, len(want)+1000)
	require.NoError(t, err)
	require.True(t, bytes.Equal(append(make([]byte, 100), want...), got))

	require.NoError(t, b.truncate(h, 1000))
	require.NoError(t, a.write(h, 2<<20, []byte("far"), 0))
	got, err = b.read(h, 500, 1000)
	require.NoError(t, err)
	require.Equal(t, append(append([]byte(nil), want[400:900]...), make([]byte, 500)...), got, "what was cut off reads as zeros")

	off, err := b.append(h, []byte("end"))
	require.NoError(t, err)
	require.EqualValues(t, 2<<20+3, off)

	found, err := b.lookup(dir, "file")
	require.NoError(t, err)
	require.Equal(t, h, found)
}

func TestBadInput(t *testing.T) {
	s := startSystem(t, 2, 1, nil)
	m := s.mount(t)
	h := m.file(m.root, "f")
	m.mkdir(m.root, "d")
	home := m.place.Home(h)
	other := 1 - home
	rootHome := m.place.Home(m.root)
	long := strings.Repeat("x", 256)
	name := func(n string) *ionpb.NameReq { return &ionpb.NameReq{Name: []byte(n)} }
	orphans := s.nodes[0].orphanDir
	negative, tooMuch := int64(-1), uint32(1<<16)
	for _, c := range []struct {
		name string
		at   int
		f    rpc.Frame
		req  proto.Message
		want syscall.Errno
		flag ionpb.Flag
	}{
		{"unknown operation", home, rpc.Frame{Op: 9999, Handle: h}, nil, syscall.EOPNOTSUPP, 0},
		{"peer's operation", home, rpc.Frame{Op: ionpb.Op_FENCE, Handle: h, Len: 1}, nil, syscall.EOPNOTSUPP, 0},
		{"no handle", home, rpc.Frame{Op: ionpb.Op_GETATTR}, nil, syscall.ESTALE, 0},
		{"handle of nothing", m.place.Home(h + 1000), rpc.Frame{Op: ionpb.Op_GETATTR, Handle: h + 1000}, nil, syscall.ESTALE, 0},
		{"directory of orphans", m.place.Home(orphans), rpc.Frame{Op: ionpb.Op_READDIR, Handle: orphans}, &ionpb.ReadDirReq{}, syscall.ESTALE, 0},
		{"not the home", other, rpc.Frame{Op: ionpb.Op_GETATTR, Handle: h}, nil, syscall.ESTALE, ionpb.Flag_STALE_VIEW},
		{"not the owner", other, rpc.Frame{Op: ionpb.Op_READ, Handle: h, Len: 1}, nil, syscall.ESTALE, ionpb.Flag_STALE_VIEW},
		{"negative offset", home, rpc.Frame{Op: ionpb.Op_READ, Handle: h, Off: -1, Len: 1}, nil, syscall.EINVAL, 0},
		{"negative length", home, rpc.Frame{Op: ionpb.Op_READ, Handle: h, Len: -1}, nil, syscall.EINVAL, 0},
		{"long read", home, rpc.Frame{Op: ionpb.Op_READ, Handle: h, Len: rpc.MaxData + 1}, nil, syscall.EINVAL, 0},
		{"crosses a domain", home, rpc.Frame{Op: ionpb.Op_READ, Handle: h, Off: 1, Len: s.domain}, nil, syscall.EINVAL, 0},
		{"end beyond the largest offset", home, rpc.Frame{Op: ionpb.Op_READ, Handle: h, Off: math.MaxInt64, Len: 2}, nil, syscall.EFBIG, 0},
		{"long name", rootHome, rpc.Frame{Op: ionpb.Op_LOOKUP, Handle: m.root}, name(long), syscall.ENAMETOOLONG, 0},
		{"empty name", rootHome, rpc.Frame{Op: ionpb.Op_LOOKUP, Handle: m.root}, name(""), syscall.EINVAL, 0},
		{"dot", rootHome, rpc.Frame{Op: ionpb.Op_UNLINK, Handle: m.root}, name("."), syscall.EINVAL, 0},
		{"dot dot", rootHome, rpc.Frame{Op: ionpb.Op_RMDIR, Handle: m.root}, name(".."), syscall.EINVAL, 0},
		{"slash", rootHome, rpc.Frame{Op: ionpb.Op_LOOKUP, Handle: m.root}, name("a/b"), syscall.EINVAL, 0},
		{"NUL", rootHome, rpc.Frame{Op: ionpb.Op_LOOKUP, Handle: m.root}, name("a\x00"), syscall.EINVAL, 0},
		{"hidden directory", rootHome, rpc.Frame{Op: ionpb.Op_LOOKUP, Handle: m.root}, name(orphanDirName), syscall.ENOENT, 0},
		{"removing the hidden directory", rootHome, rpc.Frame{Op: ionpb.Op_RMDIR, Handle: m.root}, name(orphanDirName), syscall.EPERM, 0},
		{"renaming the hidden directory", rootHome, rpc.Frame{Op: ionpb.Op_RENAME, Handle: m.root},
			&ionpb.RenameReq{OldDir: m.root, OldName: []byte(orphanDirName), NewName: []byte("x")}, syscall.EPERM, 0},
		{"unknown rename flag", rootHome, rpc.Frame{Op: ionpb.Op_RENAME, Handle: m.root},
			&ionpb.RenameReq{OldDir: m.root, OldName: []byte("f"), NewName: []byte("x"), Flags: 8}, syscall.EINVAL, 0},
		{"name below a file", home, rpc.Frame{Op: ionpb.Op_CREATE, Handle: h}, &ionpb.CreateReq{Name: []byte("x")}, syscall.ENOTDIR, 0},
		{"unlink of a directory", rootHome, rpc.Frame{Op: ionpb.Op_UNLINK, Handle: m.root}, name("d"), syscall.EISDIR, 0},
		{"rmdir of a file", rootHome, rpc.Frame{Op: ionpb.Op_RMDIR, Handle: m.root}, name("f"), syscall.ENOTDIR, 0},
		{"readlink of a file", home, rpc.Frame{Op: ionpb.Op_READLINK, Handle: h}, nil, syscall.EINVAL, 0},
		{"read of a directory", rootHome, rpc.Frame{Op: ionpb.Op_READ, Handle: m.root, Len: 1}, nil, syscall.EISDIR, 0},
		{"append to a directory", rootHome, rpc.Frame{Op: ionpb.Op_APPEND, Handle: m.root, Data: rpc.Static([]byte("x"))}, nil, syscall.EISDIR, 0},
		{"negative size", home, rpc.Frame{Op: ionpb.Op_SETATTR, Handle: h}, &ionpb.SetAttrReq{Size: &negative}, syscall.EINVAL, 0},
		{"mode with type bits", home, rpc.Frame{Op: ionpb.Op_SETATTR, Handle: h}, &ionpb.SetAttrReq{Mode: &tooMuch}, syscall.EINVAL, 0},
		{"token of another making", rootHome, rpc.Frame{Op: ionpb.Op_READDIR, Handle: m.root}, &ionpb.ReadDirReq{Token: []byte("abc")}, syscall.EINVAL, 0},
		{"lock turned round", home, rpc.Frame{Op: ionpb.Op_LOCK, Handle: h}, &ionpb.LockReq{Start: 2, End: 1, Type: 1}, syscall.EINVAL, 0},
		{"lock of unknown type", home, rpc.Frame{Op: ionpb.Op_LOCK, Handle: h}, &ionpb.LockReq{Type: 7}, syscall.EINVAL, 0},
		{"internal attribute", rootHome, rpc.Frame{Op: ionpb.Op_GETXATTR, Handle: m.root}, name(viewXattr), syscall.EOPNOTSUPP, 0},
		{"missing attribute", home, rpc.Frame{Op: ionpb.Op_GETXATTR, Handle: h}, name("user.x"), syscall.ENODATA, 0},
		{"symbolic link to nothing", rootHome, rpc.Frame{Op: ionpb.Op_SYMLINK, Handle: m.root}, &ionpb.SymlinkReq{Name: []byte("l")}, syscall.ENOENT, 0},
		{"body of another message", rootHome, rpc.Frame{Op: ionpb.Op_LOOKUP, Handle: m.root, Body: []byte{0xff}}, nil, syscall.EBADMSG, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := m.call(t.Context(), c.at, c.f, c.req, nil)
			require.Equal(t, c.want, errno.Of(err), "%v", err)
			require.Equal(t, uint32(c.flag), r.Flags)
		})
	}
	_, err := m.stat(h)
	require.NoError(t, err, "the session goes on")
}

// TestStrangeFirstFrame: a stream that does not begin with HELLO gets nothing.
func TestStrangeFirstFrame(t *testing.T) {
	s := startSystem(t, 1, 1, nil)
	c, err := rpc.Dial(t.Context(), s.addrs[0], rpc.Options{})
	require.NoError(t, err)
	defer c.Close()
	for _, op := range []ionpb.Op{ionpb.Op_PING, ionpb.Op_GETATTR, ionpb.Op_COLLECT} {
		r, err := c.Call(t.Context(), &rpc.Frame{Op: op, Handle: 1, Epoch: 1})
		require.NoError(t, err)
		require.Equal(t, syscall.ESTALE, r.Errno)
		require.EqualValues(t, ionpb.Flag_STALE_SESSION, r.Flags)
	}
	for name, m := range map[string]*ionpb.HelloReq{
		"version": {Version: 2}, "file system": {Version: 1, Fsid: s.nodes[0].fsid() + 1}, "attach to nothing": {Version: 1, Session: 5, Attach: true},
	} {
		f := &rpc.Frame{Op: ionpb.Op_HELLO}
		f.Encode(m)
		r, err := c.Call(t.Context(), f)
		require.NoError(t, err)
		require.Error(t, r.Err(), name)
	}
}

// TestModificationTime: a stat after a write shows its time and the next one
// the same; utimensat after writes wins, whichever owner wrote.
func TestModificationTime(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	a, b := s.mount(t), s.mount(t)
	h := a.file(a.root, "f")
	_, err := a.open(h, 0)
	require.NoError(t, err)
	past := int64(1000)
	for _, off := range []int64{0, 5 * s.domain, 6 * s.domain, 9 * s.domain} { // several owners
		at, err := b.setAttr(h, &ionpb.SetAttrReq{Mtime: &past})
		require.NoError(t, err)
		require.Equal(t, past, at.Mtime)
		before := time.Now().Unix()
		require.NoError(t, a.write(h, off, []byte("x"), 0))
		at, err = b.stat(h)
		require.NoError(t, err)
		require.GreaterOrEqual(t, at.Mtime, before)
		require.LessOrEqual(t, at.Mtime, time.Now().Unix())
		again, err := a.stat(h)
		require.NoError(t, err)
		require.Equal(t, at.Mtime, again.Mtime)
		_, err = a.setAttr(h, &ionpb.SetAttrReq{Mtime: &past})
		require.NoError(t, err)
		for range 2 {
			at, err = b.stat(h)
			require.NoError(t, err)
			require.Equal(t, past, at.Mtime, "an explicit time after the write")
		}
		require.NoError(t, a.atHome(ionpb.Op_FSYNC, h, &ionpb.FsyncReq{}, nil))
		at, err = b.stat(h)
		require.NoError(t, err)
		require.Equal(t, past, at.Mtime, "nothing was written since")
	}
	require.NoError(t, a.write(h, 5*s.domain, []byte("x"), 0))
	a.closeFile(h)
	until(t, "it is saved by and by", func() bool {
		at, err := s.nodes[0].pvfs.GetAttr(t.Context(), pvfs.Handle(h))
		return err == nil && at.Mtime > past
	})
}

// TestKillPriv: a write that is to take setuid away does, also after chmod has
// set it again.
func TestKillPriv(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	a, b := s.mount(t), s.mount(t)
	h := a.file(a.root, "f")
	mode := uint32(0o6755)
	for _, off := range []int64{0, 5 * s.domain, 6 * s.domain, 0} {
		_, err := b.setAttr(h, &ionpb.SetAttrReq{Mode: &mode})
		require.NoError(t, err)
		require.NoError(t, a.write(h, off, []byte("root writes"), 0))
		at, err := b.stat(h)
		require.NoError(t, err)
		require.Equal(t, mode, at.Mode)
		require.NoError(t, a.write(h, off, []byte("others write"), uint32(ionpb.Flag_KILL_PRIV)))
		at, err = b.stat(h)
		require.NoError(t, err)
		require.EqualValues(t, 0o755, at.Mode)
	}
	noExec := uint32(0o2644)
	_, err := b.setAttr(h, &ionpb.SetAttrReq{Mode: &noExec})
	require.NoError(t, err)
	require.NoError(t, a.write(h, 0, []byte("x"), uint32(ionpb.Flag_KILL_PRIV)))
	at, err := b.stat(h)
	require.NoError(t, err)
	require.Equal(t, noExec, at.Mode, "setgid without group execute means something else")
	uid := uint32(7)
	_, err = b.setAttr(h, &ionpb.SetAttrReq{Mode: &mode})
	require.NoError(t, err)
	at, err = b.setAttr(h, &ionpb.SetAttrReq{Uid: &uid, KillSuid: true})
	require.NoError(t, err)
	require.EqualValues(t, 0o755, at.Mode)
	require.Equal(t, uid, at.Uid)
}
