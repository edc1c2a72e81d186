package pvfstest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/striping"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

func ptr[T any](v T) *T { return &v }

func (s *suite) testCreateAttr(t *testing.T) {
	ctx := s.ctx(t)
	before := time.Now().Unix() - 2
	name, a := s.create(t, pvfs.CreateOptions{UID: 1001, GID: 1002, Mode: 0o6755})
	got, err := s.c.GetAttr(ctx, a.Handle)
	require.NoError(t, err)
	for _, x := range []pvfs.Attr{a, got} {
		require.Equal(t, wire.TypeMetafile, x.Type)
		require.Equal(t, []uint32{1001, 1002, 0o6755}, []uint32{x.UID, x.GID, x.Mode})
		require.Zero(t, x.Size)
		require.NotNil(t, x.Layout)
		require.Equal(t, int64(65536), x.Layout.Dist.StripSize)
		require.GreaterOrEqual(t, x.Mtime, before)
		require.GreaterOrEqual(t, x.Ctime, before)
	}
	require.Equal(t, a.Layout, got.Layout)
	_, err = s.c.Create(ctx, s.dir, name, pvfs.CreateOptions{})
	require.ErrorIs(t, err, syscall.EEXIST)
	_, err = s.c.Mkdir(ctx, s.dir, name, pvfs.CreateOptions{})
	require.ErrorIs(t, err, syscall.EEXIST)
	_, err = s.c.Symlink(ctx, s.dir, name, "x", 0, 0)
	require.ErrorIs(t, err, syscall.EEXIST)
	h, err := s.c.Lookup(ctx, s.dir, name)
	require.NoError(t, err)
	require.Equal(t, a.Handle, h, "the losers left the entry alone")
	_, err = s.c.Create(ctx, a.Handle, "x", pvfs.CreateOptions{})
	require.ErrorIs(t, err, syscall.ENOTDIR)

	d, err := s.c.Mkdir(ctx, s.dir, s.name("d"), pvfs.CreateOptions{UID: 5, GID: 6, Mode: 0o2750})
	require.NoError(t, err)
	got, err = s.c.GetAttr(ctx, d.Handle)
	require.NoError(t, err)
	require.True(t, isDir(got))
	require.Equal(t, []uint32{5, 6, 0o2750}, []uint32{got.UID, got.GID, got.Mode})
	require.Zero(t, got.Entries)
	_, err = s.c.Create(ctx, d.Handle, "one", pvfs.CreateOptions{})
	require.NoError(t, err)
	got, err = s.c.GetAttr(ctx, d.Handle)
	require.NoError(t, err)
	require.Equal(t, int64(1), got.Entries)
}

func (s *suite) testSetAttr(t *testing.T) {
	ctx := s.ctx(t)
	_, f := s.create(t, pvfs.CreateOptions{Mode: 0o600})
	require.NoError(t, s.c.SetAttr(ctx, f.Handle, pvfs.SetAttr{}))
	require.NoError(t, s.c.SetAttr(ctx, f.Handle, pvfs.SetAttr{Mode: ptr[uint32](0o4711), UID: ptr[uint32](7)}))
	require.NoError(t, s.c.SetAttr(ctx, f.Handle, pvfs.SetAttr{GID: ptr[uint32](8), Atime: ptr[int64](1000), Mtime: ptr[int64](2000)}))
	a, err := s.c.GetAttr(ctx, f.Handle)
	require.NoError(t, err)
	require.Equal(t, []uint32{7, 8, 0o4711}, []uint32{a.UID, a.GID, a.Mode})
	require.Equal(t, []int64{1000, 2000}, []int64{a.Atime, a.Mtime})
	require.NoError(t, s.c.SetAttr(ctx, f.Handle, pvfs.SetAttr{MtimeNow: true}))
	a, err = s.c.GetAttr(ctx, f.Handle)
	require.NoError(t, err)
	require.Greater(t, a.Mtime, int64(1e9))
	require.Equal(t, int64(1000), a.Atime, "not asked for")
	require.NotNil(t, a.Layout, "the layout is untouched")

	d := s.mkdir(t)
	_, err = s.c.Create(ctx, d, "x", pvfs.CreateOptions{})
	require.NoError(t, err)
	require.NoError(t, s.c.SetAttr(ctx, d, pvfs.SetAttr{Mtime: ptr[int64](3000), Atime: ptr[int64](4000)}))
	a, err = s.c.GetAttr(ctx, d)
	require.NoError(t, err)
	require.Equal(t, []int64{3000, 4000}, []int64{a.Mtime, a.Atime}, "of a directory that had changed")
	err = s.c.SetAttr(ctx, f.Handle+1e6, pvfs.SetAttr{Mode: ptr[uint32](0)})
	require.Error(t, err)
}

// testSetMtimes: files of all servers get one time, whatever else is wrong with one
// of them.
func (s *suite) testSetMtimes(t *testing.T) {
	ctx := s.ctx(t)
	const files, gone = 24, 7
	d := s.mkdir(t)
	var hs []pvfs.Handle
	for i := range files {
		a, err := s.c.Create(ctx, d, fmt.Sprint("f", i), pvfs.CreateOptions{Mode: 0o640, UID: uint32(i)})
		require.NoError(t, err)
		hs = append(hs, a.Handle)
	}
	require.NoError(t, s.c.Remove(ctx, d, fmt.Sprint("f", gone)))
	before, sent := time.Now().Unix(), s.c.Stats().Requests
	var mu sync.Mutex
	told := make(map[int]error)
	s.c.SetMtimes(ctx, hs, 2000, func(i int, err error) {
		mu.Lock()
		defer mu.Unlock()
		require.NotContains(t, told, i)
		told[i] = err
	})
	require.Len(t, told, files)
	now := s.c.Stats().Requests
	require.LessOrEqual(t, now["tree_setattr"]-sent["tree_setattr"]+now["setattr"]-sent["setattr"]+now["listattr"]-sent["listattr"], int64(4*len(s.c.Servers())))
	for i, h := range hs {
		if i == gone {
			require.ErrorIs(t, told[i], syscall.ENOENT)
			continue
		}
		require.NoError(t, told[i])
		a, err := s.c.GetAttr(ctx, h)
		require.NoError(t, err)
		require.Equal(t, int64(2000), a.Mtime)
		require.GreaterOrEqual(t, a.Ctime, before-1)
		require.Equal(t, []uint32{0o640, uint32(i)}, []uint32{a.Mode, a.UID})
		require.NotNil(t, a.Layout, "the layout is untouched")
	}
}

func (s *suite) testListAttr(t *testing.T) {
	ctx := s.ctx(t)
	d := s.mkdir(t)
	want := map[pvfs.Handle]pvfs.Attr{}
	var hs []pvfs.Handle
	for i := range 70 {
		name := fmt.Sprintf("n%d", i)
		var a pvfs.Attr
		var err error
		switch i % 4 {
		case 0:
			a, err = s.c.Mkdir(ctx, d, name, pvfs.CreateOptions{Mode: 0o700})
		case 1:
			a, err = s.c.Symlink(ctx, d, name, "target"+name, 1, 2)
		default:
			a, err = s.c.Create(ctx, d, name, pvfs.CreateOptions{Mode: 0o640})
		}
		require.NoError(t, err)
		if i%4 > 1 {
			_, err = s.c.File(a).WriteAt(ctx, [][]byte{make([]byte, 1+i*3001)}, 0)
			require.NoError(t, err)
		}
		a, err = s.c.GetAttr(ctx, a.Handle)
		require.NoError(t, err)
		want[a.Handle] = a
		hs = append(hs, a.Handle)
	}
	attrs, errs, err := s.c.ListAttr(ctx, hs, true)
	require.NoError(t, err)
	for i := range hs {
		require.NoError(t, errs[i])
		require.Equal(t, want[hs[i]], attrs[i])
	}
	_, gone := s.create(t, pvfs.CreateOptions{})
	require.NoError(t, s.c.Remove(ctx, s.dir, fmt.Sprintf("f-%d", s.seq.Load())))
	attrs, errs, err = s.c.ListAttr(ctx, []pvfs.Handle{hs[0], gone.Handle, hs[1], 0, hs[0], gone.Handle, hs[2], hs[2]}, true)
	require.NoError(t, err)
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[1], syscall.ENOENT)
	require.NoError(t, errs[2])
	require.Error(t, errs[3])
	require.Equal(t, want[hs[1]], attrs[2])
	require.Equal(t, want[hs[0]], attrs[4], "for the second time")
	require.ErrorIs(t, errs[5], syscall.ENOENT)
	require.Equal(t, []pvfs.Attr{want[hs[2]], want[hs[2]]}, attrs[6:])
	for _, n := range []int{1, 2, 5} {
		_, errs, err = s.c.ListAttr(ctx, slices.Repeat([]pvfs.Handle{gone.Handle}, n), true)
		require.NoError(t, err, "of objects that are all gone")
		require.Len(t, errs, n)
		for _, err := range errs {
			require.ErrorIs(t, err, syscall.ENOENT)
		}
	}
	ents, _, eof, err := s.c.ReadDirPlus(ctx, d, 0, 100)
	require.NoError(t, err)
	require.True(t, eof)
	require.Len(t, ents, 70)
	for _, e := range ents {
		require.NoError(t, e.Err)
		require.Equal(t, want[e.Handle], e.Attr)
	}
}

// testCreateXattr makes objects that have attributes from the start.
func (s *suite) testCreateXattr(t *testing.T) {
	ctx := s.ctx(t)
	want := []pvfs.Xattr{{Name: "user.a", Value: []byte("one")}, {Name: "user.b", Value: []byte("two")}}
	name, a := s.create(t, pvfs.CreateOptions{Mode: 0o644, Xattrs: want})
	d, err := s.c.Mkdir(ctx, s.dir, s.name("d"), pvfs.CreateOptions{Mode: 0o755, Xattrs: want})
	require.NoError(t, err)
	for _, h := range []wire.Handle{a.Handle, d.Handle} {
		for _, x := range want {
			got, err := s.c.GetXattr(ctx, h, x.Name)
			require.NoError(t, err)
			require.Equal(t, x.Value, got)
		}
	}
	_, err = s.c.Create(ctx, s.dir, name, pvfs.CreateOptions{Xattrs: want})
	require.ErrorIs(t, err, syscall.EEXIST)
	for _, x := range []struct {
		pvfs.Xattr
		want error
	}{
		{pvfs.Xattr{Name: "nope"}, syscall.EOPNOTSUPP},
		{pvfs.Xattr{Name: "user.big", Value: make([]byte, 9000)}, syscall.ENOSPC},
	} {
		bad := s.name("bad")
		_, err := s.c.Create(ctx, s.dir, bad, pvfs.CreateOptions{Xattrs: append(want, x.Xattr)})
		require.ErrorIs(t, err, x.want)
		_, err = s.c.Lookup(ctx, s.dir, bad)
		require.ErrorIs(t, err, syscall.ENOENT, "it was not made")
	}
	_, err = s.c.Mkdir(ctx, s.dir, s.name("many"), pvfs.CreateOptions{Xattrs: slices.Repeat(want, wire.MaxEattrs)})
	require.ErrorIs(t, err, syscall.EINVAL)
}

// testXattrs asks for several attributes at once, of which all, some or none are
// there, and of an object that is not.
func (s *suite) testXattrs(t *testing.T) {
	ctx := s.ctx(t)
	_, a := s.create(t, pvfs.CreateOptions{Xattrs: []pvfs.Xattr{{Name: "user.a", Value: []byte("one")}, {Name: "user.b", Value: []byte("two")}}})
	name, gone := s.create(t, pvfs.CreateOptions{})
	require.NoError(t, s.c.Remove(ctx, s.dir, name))
	for _, x := range []struct {
		h     pvfs.Handle
		names []string
		want  [][]byte
	}{
		{a.Handle, []string{"user.a", "user.b"}, [][]byte{[]byte("one"), []byte("two")}},
		{a.Handle, []string{"user.c", "user.b", "user.a"}, [][]byte{nil, []byte("two"), []byte("one")}},
		{a.Handle, []string{"user.c", "user.d"}, [][]byte{nil, nil}},
		{a.Handle, []string{"user.c"}, [][]byte{nil}},
		{gone.Handle, []string{"user.a", "user.b"}, [][]byte{nil, nil}},
	} {
		got, err := s.c.GetXattrs(ctx, x.h, x.names...)
		require.NoError(t, err, x.names)
		require.Equal(t, x.want, got, x.names)
	}
	_, err := s.c.GetXattrs(ctx, a.Handle, "user.a", "nope")
	require.ErrorIs(t, err, syscall.EOPNOTSUPP)
}

func (s *suite) testXattr(t *testing.T) {
	ctx := s.ctx(t)
	_, f := s.create(t, pvfs.CreateOptions{})
	d := s.mkdir(t)
	for _, h := range []pvfs.Handle{f.Handle, d} {
		names, err := s.c.ListXattr(ctx, h)
		require.NoError(t, err)
		require.Empty(t, names)
		_, err = s.c.GetXattr(ctx, h, "user.a")
		require.ErrorIs(t, err, syscall.ENODATA)
		require.ErrorIs(t, s.c.RemoveXattr(ctx, h, "user.a"), syscall.ENODATA)
		require.ErrorIs(t, s.c.SetXattr(ctx, h, "user.a", []byte("x"), pvfs.XattrReplace), syscall.ENODATA)
		values := map[string][]byte{"user.a": []byte("one"), "user.b": {0, 1, 0}, "trusted.c": make([]byte, 8000)}
		for name, v := range values {
			require.NoError(t, s.c.SetXattr(ctx, h, name, v, pvfs.XattrCreate))
		}
		require.ErrorIs(t, s.c.SetXattr(ctx, h, "user.a", []byte("x"), pvfs.XattrCreate), syscall.EEXIST)
		require.NoError(t, s.c.SetXattr(ctx, h, "user.a", []byte("two"), pvfs.XattrReplace))
		values["user.a"] = []byte("two")
		for name, v := range values {
			got, err := s.c.GetXattr(ctx, h, name)
			require.NoError(t, err)
			require.Equal(t, v, got)
		}
		names, err = s.c.ListXattr(ctx, h)
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"user.a", "user.b", "trusted.c"}, names)
		require.NoError(t, s.c.RemoveXattr(ctx, h, "user.b"))
		_, err = s.c.GetXattr(ctx, h, "user.b")
		require.ErrorIs(t, err, syscall.ENODATA)
	}
	require.ErrorIs(t, s.c.SetXattr(ctx, d, "nope", nil, 0), syscall.EOPNOTSUPP)
	require.ErrorIs(t, s.c.SetXattr(ctx, d, "other.x", nil, 0), syscall.EOPNOTSUPP)
	require.ErrorIs(t, s.c.SetXattr(ctx, d, "user."+strings.Repeat("k", 300), nil, 0), syscall.ERANGE)
	require.ErrorIs(t, s.c.SetXattr(ctx, d, "user.big", make([]byte, 9000), 0), syscall.ENOSPC)
	for i := range 100 {
		require.NoError(t, s.c.SetXattr(ctx, d, fmt.Sprintf("user.many-%d", i), []byte{byte(i)}, 0))
	}
	names, err := s.c.ListXattr(ctx, d)
	require.NoError(t, err)
	require.Len(t, names, 102)
}

func (s *suite) testDirectoryWishes(t *testing.T) {
	ctx := s.ctx(t)
	d := s.mkdir(t)
	set := func(key, v string) {
		t.Helper()
		require.NoError(t, s.c.SetXattr(ctx, d, key, []byte(v), 0))
		got, err := s.c.GetXattr(ctx, d, key)
		require.NoError(t, err)
		require.Equal(t, v, string(got))
	}
	set("user.pvfs2.dist_name", "simple_stripe")
	set("user.pvfs2.dist_params", "strip_size:4096")
	set("user.pvfs2.num_dfiles", "1")
	a, err := s.c.Create(ctx, d, "f", pvfs.CreateOptions{})
	require.NoError(t, err)
	require.Equal(t, int64(4096), a.Layout.Dist.StripSize)
	require.Len(t, a.Layout.DFiles, 1)
	require.False(t, a.Layout.Stuffed)
	a, err = s.c.Create(ctx, d, "g", pvfs.CreateOptions{StripSize: 8192})
	require.NoError(t, err)
	require.Equal(t, int64(8192), a.Layout.Dist.StripSize, "who creates has the last word")

	n := min(2, s.dataServers())
	w := striping.Wish{Dist: "twod_stripe", Params: "num_groups:2,strip_size:4096,group_strip_factor:3", Servers: n}
	require.NoError(t, s.c.SetWish(ctx, d, w))
	sub, err := s.c.Mkdir(ctx, d, "sub", pvfs.CreateOptions{Mode: 0o755})
	require.NoError(t, err)
	i, err := s.c.Striping(ctx, sub.Handle)
	require.NoError(t, err)
	require.Equal(t, &w, i.Wish, "handed down")
	a, err = s.c.Create(ctx, sub.Handle, "f", pvfs.CreateOptions{})
	require.NoError(t, err)
	for range 2 { // stuffed where servers do that, then not
		i, err = s.c.Striping(ctx, a.Handle)
		require.NoError(t, err)
		require.Equal(t, w.Params, i.Params)
		require.Equal(t, n, i.NumServers)
		_, err = s.c.File(a).WriteAt(ctx, [][]byte{make([]byte, 10000)}, 0)
		require.NoError(t, err)
	}
	require.Len(t, i.Servers, n)
	require.NoError(t, s.c.SetWish(ctx, d, striping.Wish{}))
	names, err := s.c.ListXattr(ctx, d)
	require.NoError(t, err)
	require.Empty(t, names)
}

// dataServers is how many servers hold data.
func (s *suite) dataServers() int {
	n := 0
	for _, x := range s.c.Servers() {
		if x.Data {
			n++
		}
	}
	return n
}
