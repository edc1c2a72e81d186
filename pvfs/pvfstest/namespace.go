package pvfstest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

func isDir(a pvfs.Attr) bool { return a.Type == wire.TypeDirectory }

func ptr[T any](v T) *T { return &v }

func (s *suite) testServers(t *testing.T) {
	ctx := s.ctx(t)
	require.NotZero(t, s.c.FSID())
	require.NotEmpty(t, s.c.FSName())
	require.NotEmpty(t, s.c.Servers())
	for _, srv := range s.c.Servers() {
		require.NoError(t, s.c.Ping(ctx, srv.Alias))
		require.True(t, srv.Meta || srv.Data)
	}
	require.ErrorIs(t, s.c.Ping(ctx, "no such server"), syscall.ENOENT)
	st, err := s.c.StatFS(ctx)
	require.NoError(t, err)
	require.Positive(t, st.Total)
	require.LessOrEqual(t, st.Free, st.Total)
	a, err := s.c.GetAttr(ctx, s.c.Root())
	require.NoError(t, err)
	require.True(t, isDir(a))
}

func (s *suite) testNames(t *testing.T) {
	ctx := s.ctx(t)
	for _, x := range []struct {
		name string
		want syscall.Errno
	}{
		{"", syscall.EINVAL}, {".", syscall.EINVAL}, {"..", syscall.EINVAL}, {"a/b", syscall.EINVAL},
		{"nul\x00", syscall.EINVAL}, {strings.Repeat("x", 256), syscall.ENAMETOOLONG},
	} {
		_, err := s.c.Lookup(ctx, s.dir, x.name)
		require.ErrorIs(t, err, x.want, "%q", x.name)
		_, err = s.c.Create(ctx, s.dir, x.name, pvfs.CreateOptions{})
		require.ErrorIs(t, err, x.want, "%q", x.name)
	}
	for _, name := range []string{strings.Repeat("y", 255), "blank and \t\n", "ünïcode ✓", "-", "...", "\xff\xfe"} {
		a, err := s.c.Create(ctx, s.dir, name, pvfs.CreateOptions{Mode: 0o644})
		require.NoError(t, err, "%q", name)
		h, err := s.c.Lookup(ctx, s.dir, name)
		require.NoError(t, err)
		require.Equal(t, a.Handle, h)
		require.NoError(t, s.c.Remove(ctx, s.dir, name))
	}
	_, err := s.c.Lookup(ctx, s.dir, "absent")
	require.ErrorIs(t, err, syscall.ENOENT)
}

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

func (s *suite) testSymlink(t *testing.T) {
	ctx := s.ctx(t)
	for _, target := range []string{"x", "../a/b", strings.Repeat("long/", 819)} {
		name := s.name("l")
		a, err := s.c.Symlink(ctx, s.dir, name, target, 3, 4)
		require.NoError(t, err)
		h, err := s.c.Lookup(ctx, s.dir, name)
		require.NoError(t, err)
		require.Equal(t, a.Handle, h, "lookup does not follow")
		got, err := s.c.GetAttr(ctx, h)
		require.NoError(t, err)
		require.Equal(t, wire.TypeSymlink, got.Type)
		require.Equal(t, target, got.Target)
		require.Equal(t, int64(len(target)), got.Size)
		require.Equal(t, []uint32{3, 4}, []uint32{got.UID, got.GID})
	}
	_, err := s.c.Symlink(ctx, s.dir, "l", strings.Repeat("x", 4096), 0, 0)
	require.ErrorIs(t, err, syscall.ENAMETOOLONG)
	_, err = s.c.Symlink(ctx, s.dir, "l", "", 0, 0)
	require.ErrorIs(t, err, syscall.EINVAL)
}

func (s *suite) testLinkUnlinkRelink(t *testing.T) {
	ctx := s.ctx(t)
	name, a := s.create(t, pvfs.CreateOptions{})
	_, b := s.create(t, pvfs.CreateOptions{})
	second := s.name("link")
	require.NoError(t, s.c.Link(ctx, s.dir, second, a.Handle))
	require.ErrorIs(t, s.c.Link(ctx, s.dir, second, b.Handle), syscall.EEXIST)
	h, err := s.c.Unlink(ctx, s.dir, name)
	require.NoError(t, err)
	require.Equal(t, a.Handle, h)
	_, err = s.c.Unlink(ctx, s.dir, name)
	require.ErrorIs(t, err, syscall.ENOENT)
	_, err = s.c.GetAttr(ctx, a.Handle)
	require.NoError(t, err, "the object stays")
	old, err := s.c.Relink(ctx, s.dir, second, b.Handle)
	require.NoError(t, err)
	require.Equal(t, a.Handle, old)
	h, err = s.c.Lookup(ctx, s.dir, second)
	require.NoError(t, err)
	require.Equal(t, b.Handle, h)
	_, err = s.c.Relink(ctx, s.dir, name, a.Handle)
	require.ErrorIs(t, err, syscall.ENOENT)
	require.NoError(t, s.c.Destroy(ctx, a.Handle))
	_, err = s.c.GetAttr(ctx, a.Handle)
	require.ErrorIs(t, err, syscall.ENOENT)
	require.ErrorIs(t, s.c.Destroy(ctx, a.Handle), syscall.ENOENT)
	_, err = s.c.Unlink(ctx, s.dir, second)
	require.NoError(t, err)
}

func (s *suite) testRemove(t *testing.T) {
	ctx := s.ctx(t)
	name, a := s.create(t, pvfs.CreateOptions{})
	f := s.c.File(a)
	_, err := f.WriteAt(ctx, [][]byte{make([]byte, 300000)}, 0)
	require.NoError(t, err)
	require.ErrorIs(t, s.c.Rmdir(ctx, s.dir, name), syscall.ENOTDIR)
	require.NoError(t, s.c.Remove(ctx, s.dir, name))
	require.ErrorIs(t, s.c.Remove(ctx, s.dir, name), syscall.ENOENT)
	_, err = s.c.GetAttr(ctx, a.Handle)
	require.ErrorIs(t, err, syscall.ENOENT)
	_, err = f.ReadAt(ctx, [][]byte{make([]byte, 10)}, 100000)
	require.ErrorIs(t, err, syscall.ENOENT, "datafiles are gone as well")

	dn := s.name("d")
	d, err := s.c.Mkdir(ctx, s.dir, dn, pvfs.CreateOptions{})
	require.NoError(t, err)
	_, err = s.c.Create(ctx, d.Handle, "x", pvfs.CreateOptions{})
	require.NoError(t, err)
	require.ErrorIs(t, s.c.Remove(ctx, s.dir, dn), syscall.EISDIR)
	require.ErrorIs(t, s.c.Rmdir(ctx, s.dir, dn), syscall.ENOTEMPTY)
	require.ErrorIs(t, s.c.Destroy(ctx, d.Handle), syscall.ENOTEMPTY)
	h, err := s.c.Lookup(ctx, s.dir, dn)
	require.NoError(t, err)
	require.Equal(t, d.Handle, h)
	require.NoError(t, s.c.Remove(ctx, d.Handle, "x"))
	require.NoError(t, s.c.Rmdir(ctx, s.dir, dn))
	_, err = s.c.Lookup(ctx, s.dir, dn)
	require.ErrorIs(t, err, syscall.ENOENT)
	_, err = s.c.Create(ctx, d.Handle, "y", pvfs.CreateOptions{})
	require.ErrorIs(t, err, syscall.ENOENT, "in a directory that is gone")

	dangling := s.name("dangling")
	require.NoError(t, s.c.Link(ctx, s.dir, dangling, d.Handle))
	require.NoError(t, s.c.Remove(ctx, s.dir, dangling), "an entry that names nothing")
}

func (s *suite) testRename(t *testing.T) {
	ctx := s.ctx(t)
	d1, d2 := s.mkdir(t), s.mkdir(t)
	mk := func(dir pvfs.Handle, name string) pvfs.Handle {
		a, err := s.c.Create(ctx, dir, name, pvfs.CreateOptions{})
		require.NoError(t, err)
		return a.Handle
	}
	mkd := func(dir pvfs.Handle, name string) pvfs.Handle {
		a, err := s.c.Mkdir(ctx, dir, name, pvfs.CreateOptions{})
		require.NoError(t, err)
		return a.Handle
	}
	is := func(dir pvfs.Handle, name string, want pvfs.Handle) {
		t.Helper()
		h, err := s.c.Lookup(ctx, dir, name)
		if want == 0 {
			require.ErrorIs(t, err, syscall.ENOENT)
			return
		}
		require.NoError(t, err)
		require.Equal(t, want, h)
	}
	a := mk(d1, "a")
	require.NoError(t, s.c.Rename(ctx, d1, "a", d1, "b"))
	is(d1, "a", 0)
	is(d1, "b", a)
	require.NoError(t, s.c.Rename(ctx, d1, "b", d2, "c"))
	is(d1, "b", 0)
	is(d2, "c", a)
	require.ErrorIs(t, s.c.Rename(ctx, d1, "absent", d2, "z"), syscall.ENOENT)
	require.NoError(t, s.c.Rename(ctx, d2, "c", d2, "c"))
	is(d2, "c", a)

	over := mk(d1, "over")
	require.NoError(t, s.c.Rename(ctx, d2, "c", d1, "over"))
	is(d1, "over", a)
	is(d2, "c", 0)
	_, err := s.c.GetAttr(ctx, over)
	require.ErrorIs(t, err, syscall.ENOENT, "the old target is removed")

	sub, full := mkd(d1, "sub"), mkd(d2, "full")
	inner := mk(full, "inner")
	require.ErrorIs(t, s.c.Rename(ctx, d1, "over", d1, "sub"), syscall.EISDIR)
	require.ErrorIs(t, s.c.Rename(ctx, d1, "sub", d1, "over"), syscall.ENOTDIR)
	require.ErrorIs(t, s.c.Rename(ctx, d1, "sub", d2, "full"), syscall.ENOTEMPTY)
	is(d1, "sub", sub)
	is(d2, "full", full)
	require.NoError(t, s.c.Rename(ctx, d2, "full", d1, "sub"))
	is(d1, "sub", full)
	is(full, "inner", inner)
	_, err = s.c.GetAttr(ctx, sub)
	require.ErrorIs(t, err, syscall.ENOENT)
}

func (s *suite) testReadDir(t *testing.T) {
	ctx := s.ctx(t)
	d := s.mkdir(t)
	require.Empty(t, s.list(t, d, 10))
	ents, _, eof, err := s.c.ReadDir(ctx, d, 0, 1)
	require.NoError(t, err)
	require.True(t, eof)
	require.Empty(t, ents)
	want := map[string]pvfs.Handle{}
	for i := range 37 {
		name := fmt.Sprintf("entry-%d", i)
		a, err := s.c.Create(ctx, d, name, pvfs.CreateOptions{})
		require.NoError(t, err)
		want[name] = a.Handle
	}
	for _, max := range []int{1, 2, 7, 36, 37, 38, 512, 10000} {
		require.Equal(t, want, s.list(t, d, max), "%d at a time", max)
	}
	_, _, _, err = s.c.ReadDir(ctx, d, 0, 0)
	require.ErrorIs(t, err, syscall.EINVAL)
	_, f := s.create(t, pvfs.CreateOptions{})
	_, _, _, err = s.c.ReadDir(ctx, f.Handle, 0, 10)
	require.ErrorIs(t, err, syscall.ENOTDIR)

	// Entries that are removed while they are read do not hide others.
	ents, next, eof, err := s.c.ReadDir(ctx, d, 0, 10)
	require.NoError(t, err)
	require.False(t, eof)
	for _, e := range ents {
		require.NoError(t, s.c.Remove(ctx, d, e.Name))
		delete(want, e.Name)
	}
	rest := map[string]pvfs.Handle{}
	for !eof {
		ents, next, eof, err = s.c.ReadDir(ctx, d, next, 5)
		require.NoError(t, err)
		for _, e := range ents {
			rest[e.Name] = e.Handle
		}
	}
	require.Equal(t, want, rest)
}

func (s *suite) testLargeDirectory(t *testing.T) {
	n := 5000
	if testing.Short() {
		n = 700
	}
	ctx := s.ctx(t)
	d := s.mkdir(t)
	var mu sync.Mutex
	want := map[string]pvfs.Handle{}
	s.parallel(t, 16, n, func(i int) error {
		name := fmt.Sprintf("file-%05d", i)
		a, err := s.c.Create(ctx, d, name, pvfs.CreateOptions{Mode: 0o644})
		mu.Lock()
		defer mu.Unlock()
		want[name] = a.Handle
		return err
	})
	require.Equal(t, want, s.list(t, d, 500))
	a, err := s.c.GetAttr(ctx, d)
	require.NoError(t, err)
	require.Equal(t, int64(n), a.Entries)
	s.parallel(t, 16, n, func(i int) error {
		name := fmt.Sprintf("file-%05d", i)
		if i%2 == 0 {
			return s.c.Remove(ctx, d, name)
		}
		h, err := s.c.Lookup(ctx, d, name)
		if err == nil && h != want[name] {
			err = errors.New("another handle")
		}
		return err
	})
	require.Len(t, s.list(t, d, 500), n/2)
	s.parallel(t, 16, n, func(i int) error {
		if i%2 == 0 {
			return nil
		}
		return s.c.Remove(ctx, d, fmt.Sprintf("file-%05d", i))
	})
	require.Empty(t, s.list(t, d, 500))
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
	attrs, errs, err = s.c.ListAttr(ctx, []pvfs.Handle{hs[0], gone.Handle, hs[1], 0}, true)
	require.NoError(t, err)
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[1], syscall.ENOENT)
	require.NoError(t, errs[2])
	require.Error(t, errs[3])
	require.Equal(t, want[hs[1]], attrs[2])
	ents, _, eof, err := s.c.ReadDirPlus(ctx, d, 0, 100)
	require.NoError(t, err)
	require.True(t, eof)
	require.Len(t, ents, 70)
	for _, e := range ents {
		require.NoError(t, e.Err)
		require.Equal(t, want[e.Handle], e.Attr)
	}
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
		require.NoError(t, s.c.SetXattr(ctx, d, key, append([]byte(v), 0), 0))
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
}

// parallel runs f(0) to f(n-1) from a number of goroutines.
func (s *suite) parallel(t testing.TB, workers, n int, f func(i int) error) {
	t.Helper()
	next := make(chan int)
	errs := make(chan error, workers)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					select {
					case errs <- fmt.Errorf("%d: %w", i, err):
					default:
					}
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	close(errs)
	require.NoError(t, <-errs)
}
