package pvfstest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

func isDir(a pvfs.Attr) bool { return a.Type == wire.TypeDirectory }

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

func (s *suite) testSymlink(t *testing.T) {
	ctx := s.ctx(t)
	for _, target := range []string{"x", "../a/b", strings.Repeat("x", 255), strings.Repeat("long/", 819)} {
		name := s.name("l")
		a, err := s.c.Symlink(ctx, s.dir, name, target, 3, 4)
		if len(target) > 255 && errors.Is(err, syscall.ENAMETOOLONG) {
			_, err = s.c.Lookup(ctx, s.dir, name)
			require.ErrorIs(t, err, syscall.ENOENT, "servers may refuse it, but altogether")
			continue
		}
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

	dangling, a := s.create(t, pvfs.CreateOptions{})
	require.NoError(t, s.c.Destroy(ctx, a.Handle))
	require.NoError(t, s.c.Remove(ctx, s.dir, dangling), "an entry that names nothing")

	for _, size := range []int{1, 300000} { // on one server, and on all
		name, a := s.create(t, pvfs.CreateOptions{})
		f := s.c.File(a)
		_, err := f.WriteAt(ctx, [][]byte{make([]byte, size)}, 0)
		require.NoError(t, err)
		_, err = s.c.Unlink(ctx, s.dir, name)
		require.NoError(t, err)
		require.NoError(t, f.Destroy(ctx))
		for _, h := range append(f.Layout().DFiles, a.Handle) {
			_, err := s.c.GetAttr(ctx, h)
			require.ErrorIs(t, err, syscall.ENOENT)
		}
		require.NoError(t, f.Destroy(ctx), "again")
	}
	s.testRemoveGrowing(t)
}

// testRemoveGrowing: a file that is not known to stay small goes with all datafiles
// that anybody could have given it before.
func (s *suite) testRemoveGrowing(t *testing.T) {
	ctx := s.ctx(t)
	for _, size := range []int{1, 300000} {
		name, a := s.create(t, pvfs.CreateOptions{})
		f := s.c.File(a)
		_, err := f.WriteAt(ctx, [][]byte{make([]byte, size)}, 0)
		require.NoError(t, err)
		_, err = s.c.Unlink(ctx, s.dir, name)
		require.NoError(t, err)
		require.NoError(t, s.c.DestroyGrowing(ctx, a.Handle))
		for _, h := range append(f.Layout().DFiles, a.Handle) {
			_, err := s.c.GetAttr(ctx, h)
			require.ErrorIs(t, err, syscall.ENOENT)
		}
		_, err = s.c.File(a).WriteAt(ctx, [][]byte{make([]byte, 300000)}, 0)
		require.ErrorIs(t, err, syscall.ENOENT, "it cannot grow any more")
		require.ErrorIs(t, s.c.DestroyGrowing(ctx, a.Handle), syscall.ENOENT)
	}
}

// testFlush flushes what servers know of objects of every type, which must all
// be good for use afterwards.
func (s *suite) testFlush(t *testing.T) {
	ctx := s.ctx(t)
	d := s.mkdir(t)
	f, err := s.c.Create(ctx, d, "f", pvfs.CreateOptions{})
	require.NoError(t, err)
	l, err := s.c.Symlink(ctx, d, "l", "f", 0, 0)
	require.NoError(t, err)
	for _, h := range []pvfs.Handle{d, f.Handle, l.Handle} {
		require.NoError(t, s.c.Flush(ctx, h))
		_, err := s.c.GetAttr(ctx, h)
		require.NoError(t, err)
	}
	require.NoError(t, s.c.File(f).Flush(ctx))
	require.Len(t, s.list(t, d, 10), 2)
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

	// Long names make replies that fit into no small buffer.
	long := s.mkdir(t)
	s.parallel(t, 8, 300, func(i int) error {
		_, err := s.c.Create(ctx, long, fmt.Sprintf("%s%03d", strings.Repeat("n", 250), i), pvfs.CreateOptions{})
		return err
	})
	require.Len(t, s.list(t, long, 512), 300)

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

// testLargeDirectory has more entries than any answer holds, and than handles are
// made beforehand at a time.
func (s *suite) testLargeDirectory(t *testing.T) {
	n := 2000
	if testing.Short() {
		n = 300
	}
	d := s.mkdir(t)
	var mu sync.Mutex
	want := map[string]pvfs.Handle{}
	s.parallel(t, 16, n, func(i int) error {
		name := fmt.Sprintf("file-%05d", i)
		a, err := s.c.Create(s.ctx(t), d, name, pvfs.CreateOptions{Mode: 0o644})
		mu.Lock()
		defer mu.Unlock()
		want[name] = a.Handle
		return err
	})
	require.Equal(t, want, s.list(t, d, 500))
	a, err := s.c.GetAttr(s.ctx(t), d)
	require.NoError(t, err)
	require.Equal(t, int64(n), a.Entries)
	s.parallel(t, 16, n, func(i int) error {
		name := fmt.Sprintf("file-%05d", i)
		if i%2 == 0 {
			return s.c.Remove(s.ctx(t), d, name)
		}
		h, err := s.c.Lookup(s.ctx(t), d, name)
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
		return s.c.Remove(s.ctx(t), d, fmt.Sprintf("file-%05d", i))
	})
	require.Empty(t, s.list(t, d, 500))
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
