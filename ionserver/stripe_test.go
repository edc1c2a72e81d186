package ionserver

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/pvfs/striping"
)

func (m *mount) setXattr(h uint64, name, value string, flags uint32) error {
	return m.atHome(ionpb.Op_SETXATTR, h, &ionpb.SetXattrReq{Name: []byte(name), Value: []byte(value), Flags: flags}, nil)
}

func (m *mount) getXattr(h uint64, name string) (string, error) {
	var r ionpb.XattrResp
	err := m.atHome(ionpb.Op_GETXATTR, h, &ionpb.NameReq{Name: []byte(name)}, &r)
	return string(r.Value), err
}

func (m *mount) stripe(h uint64) (i striping.Info) {
	m.t.Helper()
	v, err := m.getXattr(h, striping.Xattr)
	require.NoError(m.t, err)
	require.NoError(m.t, json.Unmarshal([]byte(v), &i))
	return i
}

func TestStripe(t *testing.T) {
	s := startSystem(t, 2, 3, nil)
	m := s.mount(t)
	d := m.mkdir(m.root, "d")
	require.Equal(t, striping.FromFileSystem, m.stripe(d).DistFrom)

	require.NoError(t, m.setXattr(d, striping.Xattr, `{"dist": "simple_stripe", "params": "strip_size:8192", "servers": 2}`, unix.XATTR_REPLACE))
	for key, want := range map[string]string{striping.KeyServers: "2", striping.KeyDist: "simple_stripe", striping.KeyParams: "strip_size:8192"} {
		v, err := m.getXattr(d, key)
		require.NoError(t, err)
		require.Equal(t, want, v, "where OrangeFS looks for it")
	}
	f := m.file(m.mkdir(d, "sub"), "f")
	require.NoError(t, m.write(f, 0, make([]byte, 30000), 0))
	require.NoError(t, m.atHome(ionpb.Op_FSYNC, f, &ionpb.FsyncReq{}, nil))
	i := m.stripe(f)
	require.Equal(t, striping.TypeFile, i.Type)
	require.EqualValues(t, 30000, i.Size)
	require.Len(t, i.Servers, 2)
	require.EqualValues(t, 30000, i.Servers[0].Bytes+i.Servers[1].Bytes)
	a, err := m.stat(f)
	require.NoError(t, err)
	require.EqualValues(t, 2*8192, a.Blksize)

	var l ionpb.ListXattrResp
	require.NoError(t, m.atHome(ionpb.Op_LISTXATTR, d, nil, &l))
	require.Len(t, l.Names, 3, "it is not listed: programs that copy attributes would copy it")
	for _, x := range []struct {
		name, value string
		flags       uint32
		want        error
	}{
		{striping.Xattr, `{"servers": 4}`, 0, syscall.EINVAL},
		{striping.Xattr, `{"servers": 2, "size": 4}`, 0, syscall.EINVAL},
		{striping.Xattr, `{"servers": 2} x`, 0, syscall.EINVAL},
		{striping.Xattr, `{"servers": 2}{}`, 0, syscall.EINVAL},
		{striping.Xattr, ``, 0, syscall.EINVAL},
		{striping.Xattr, `{"dist": "` + strings.Repeat("x", maxWish) + `"}`, 0, syscall.EINVAL},
		{striping.Xattr, `{}`, unix.XATTR_CREATE, syscall.EEXIST},
		{striping.KeyServers, "4", 0, syscall.EINVAL},
		{striping.KeyServers, "0", 0, syscall.EINVAL},
		{striping.KeyDist, "raid5", 0, syscall.EINVAL},
		{striping.KeyParams, "strip_size:0", 0, syscall.EINVAL},
		{striping.KeyServers, "3", unix.XATTR_CREATE, syscall.EEXIST},
	} {
		require.ErrorIs(t, m.setXattr(d, x.name, x.value, x.flags), x.want, "%s=%s", x.name, x.value)
	}
	require.ErrorIs(t, m.setXattr(f, striping.KeyServers, "2", 0), syscall.EINVAL, "only directories wish")
	require.ErrorIs(t, m.setXattr(f, striping.Xattr, `{"servers": 2}`, 0), syscall.ENOTDIR)
	require.Equal(t, striping.Wish{Dist: "simple_stripe", Params: "strip_size:8192", Servers: 2}, *m.stripe(d).Wish, "nothing happened")

	require.NoError(t, m.setXattr(d, striping.KeyServers, "3", 0))
	require.Equal(t, 3, m.stripe(d).Wish.Servers)
	require.NoError(t, m.atHome(ionpb.Op_REMOVEXATTR, d, &ionpb.NameReq{Name: []byte(striping.Xattr)}, nil))
	require.Equal(t, striping.Wish{}, *m.stripe(d).Wish)
	_, err = m.getXattr(d, striping.KeyServers)
	require.ErrorIs(t, err, syscall.ENODATA)

	var link ionpb.EntryResp
	require.NoError(t, m.atHome(ionpb.Op_SYMLINK, d, &ionpb.SymlinkReq{Name: []byte("l"), Target: []byte("x")}, &link))
	_, err = m.getXattr(link.Handle, striping.Xattr)
	require.ErrorIs(t, err, syscall.ENODATA)
	_, err = m.unlink(d, "l")
	require.NoError(t, err)
}
