package pvfstest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/pvfs"
)

// fill makes n bytes that depend on seed.
func fill(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	_, _ = r.Read(b)
	return b
}

// cut divides b into random parts, some empty.
func cut(r *rand.Rand, b []byte) [][]byte {
	var out [][]byte
	for len(b) > 0 {
		n := r.IntN(len(b) + 1)
		if r.IntN(3) == 0 {
			n = min(n, 100)
		}
		if len(out) > 20 {
			n = len(b)
		}
		out = append(out, b[:n])
		b = b[n:]
	}
	return out
}

// mustWrite writes b at off.
func (s *suite) mustWrite(t testing.TB, f *pvfs.File, b []byte, off int64) {
	t.Helper()
	n, err := f.WriteAt(s.ctx(t), [][]byte{b}, off)
	require.NoError(t, err)
	require.Equal(t, len(b), n)
}

// mustRead reads n bytes at off, fewer at the end of the file.
func (s *suite) mustRead(t testing.TB, f *pvfs.File, n int, off int64) []byte {
	t.Helper()
	b := fill(99, n)
	m, err := f.ReadAt(s.ctx(t), [][]byte{b}, off)
	require.NoError(t, err)
	return b[:m]
}

func (s *suite) testSmallFile(t *testing.T) {
	ctx := s.ctx(t)
	_, a := s.create(t, pvfs.CreateOptions{})
	f := s.c.File(a)
	require.Empty(t, s.mustRead(t, f, 100, 0))
	data := fill(1, 5000)
	s.mustWrite(t, f, data, 0)
	require.Equal(t, data, s.mustRead(t, f, 9000, 0))
	require.Equal(t, data[10:20], s.mustRead(t, f, 10, 10))
	require.Empty(t, s.mustRead(t, f, 10, 5000))
	got, err := s.c.GetAttr(ctx, a.Handle)
	require.NoError(t, err)
	require.Equal(t, int64(5000), got.Size)
	require.NoError(t, f.Flush(ctx))
	n, err := f.WriteAt(ctx, nil, 0)
	require.NoError(t, err)
	require.Zero(t, n)
	_, err = f.ReadAt(ctx, [][]byte{make([]byte, 1)}, -1)
	require.ErrorIs(t, err, syscall.EINVAL)
	_, err = s.c.File(pvfs.Attr{Handle: s.dir}).ReadAt(ctx, [][]byte{make([]byte, 1)}, 0)
	require.ErrorIs(t, err, syscall.EINVAL)
	for _, n := range []int{1, 6668, 16000, 16343, 16344, 16345, 16384, 65535, 65536, 65537, 262144, 262145, 1 << 20, 1<<20 + 1} {
		_, a := s.create(t, pvfs.CreateOptions{})
		f := s.c.File(a)
		data := fill(uint64(n), n)
		s.mustWrite(t, f, data, 0)
		require.True(t, bytes.Equal(data, s.mustRead(t, f, n+10, 0)), "%d bytes", n)
		got, err := s.c.GetAttr(ctx, a.Handle)
		require.NoError(t, err)
		require.Equal(t, int64(n), got.Size)
		size, err := f.Size(ctx)
		require.NoError(t, err)
		require.Equal(t, int64(n), size)
	}
}

func (s *suite) testSparse(t *testing.T) {
	ctx := s.ctx(t)
	for _, off := range []int64{1, 65535, 65536, 70000, 262144 + 5, 1 << 20, 5<<30 + 17} {
		_, a := s.create(t, pvfs.CreateOptions{})
		f := s.c.File(a)
		s.mustWrite(t, f, []byte("end"), off)
		got, err := s.c.GetAttr(ctx, a.Handle)
		require.NoError(t, err)
		require.Equal(t, off+3, got.Size)
		from := max(0, off-200000)
		b := s.mustRead(t, f, int(off-from)+10, from)
		require.Len(t, b, int(off-from)+3)
		require.Equal(t, "end", string(b[off-from:]))
		require.True(t, bytes.Equal(make([]byte, off-from), b[:off-from]), "hole before %d", off)
		require.Equal(t, make([]byte, min(off, 10)), s.mustRead(t, f, int(min(off, 10)), 0), "all servers but one are empty")
	}
}

func (s *suite) testEndOfFile(t *testing.T) {
	for _, size := range []int{1, 100, 65535, 65536, 65537, 131072, 400000} {
		_, a := s.create(t, pvfs.CreateOptions{})
		f := s.c.File(a)
		data := fill(7, size)
		s.mustWrite(t, f, data, 0)
		for _, off := range []int{0, 1, size - 1, size, size + 1, size + 70000, size + 1<<20} {
			for _, n := range []int{1, 10, 70000, 300000} {
				want := data[min(off, size):min(off+n, size)]
				require.True(t, bytes.Equal(want, s.mustRead(t, f, n, int64(off))), "size %d, %d at %d", size, n, off)
			}
		}
	}
}

// testStaleStuffed has two Files of one object, one of which does not know that
// the other gave it more datafiles.
func (s *suite) testStaleStuffed(t *testing.T) {
	ctx := s.ctx(t)
	_, a := s.create(t, pvfs.CreateOptions{})
	f, g, h, k, l := s.c.File(a), s.c.File(a), s.c.File(a), s.c.File(a), s.c.File(a)
	s.mustWrite(t, f, []byte("begin"), 0)
	require.Equal(t, "begin", string(s.mustRead(t, g, 10, 0)))
	data := fill(3, 500000)
	s.mustWrite(t, f, data, 0)
	require.True(t, bytes.Equal(data, s.mustRead(t, g, 600000, 0)))
	size, err := h.Size(ctx)
	require.NoError(t, err)
	require.Equal(t, int64(500000), size)
	require.True(t, bytes.Equal(data[70000:71000], s.mustRead(t, l, 1000, 70000)), "where the first datafile has bytes as well")
	s.mustWrite(t, k, []byte("small"), 1)
	require.NoError(t, s.c.File(a).Truncate(ctx, 10))
	require.Equal(t, append(append(bytes.Clone(data[:1]), "small"...), data[6:10]...), s.mustRead(t, g, 100, 0))
}

func (s *suite) testExtents(t *testing.T) {
	ctx := s.ctx(t)
	for _, x := range []struct {
		name           string
		count          int
		len, gap, from int64
	}{
		{"evenly spaced", 2000, 100, 300, 5}, {"whole strips apart", 50, 4096, 65536, 0}, {"two", 2, 5, 200000, 10},
		{"large pieces", 10, 100000, 50000, 33}, {"one strip in two", 20, 65536, 65536, 65536},
		{"as many as small requests have", 63, 3, 5, 1}, {"one more", 64, 3, 5, 1}, {"many more", 200, 3, 5, 1},
	} {
		t.Run(x.name, func(t *testing.T) {
			_, a := s.create(t, pvfs.CreateOptions{})
			f := s.c.File(a)
			var exts []extent.Extent
			model := make([]byte, x.from+int64(x.count)*(x.len+x.gap)-x.gap)
			data := fill(4, int(x.len)*x.count)
			for i := range x.count {
				e := extent.Extent{Off: x.from + int64(i)*(x.len+x.gap), Len: x.len}
				exts = append(exts, e)
				copy(model[e.Off:e.End()], data[int64(i)*x.len:])
			}
			n, err := f.WriteExtents(ctx, exts, [][]byte{data})
			require.NoError(t, err)
			require.Equal(t, int64(len(data)), n)
			require.True(t, bytes.Equal(model, s.mustRead(t, f, len(model)+5, 0)))
			got := fill(5, len(data))
			n, err = f.ReadExtents(ctx, exts, [][]byte{got[:7], got[7:]})
			require.NoError(t, err)
			require.Equal(t, int64(len(data)), n)
			require.True(t, bytes.Equal(data, got))
		})
	}
}

func (s *suite) testTruncate(t *testing.T) {
	ctx := s.ctx(t)
	_, a := s.create(t, pvfs.CreateOptions{})
	f := s.c.File(a)
	require.ErrorIs(t, f.Truncate(ctx, -1), syscall.EINVAL)
	data := fill(6, 700000)
	var model []byte
	resize := func(n int) {
		if n < len(model) {
			model = model[:n]
		} else {
			model = append(model, make([]byte, n-len(model))...)
		}
	}
	for i, size := range []int{0, 10, 5, 65536, 3, 65537, 100000, 262144, 262145, 1, 0, 400000, 0} {
		require.NoError(t, f.Truncate(ctx, int64(size)))
		resize(size)
		got, err := s.c.GetAttr(ctx, a.Handle)
		require.NoError(t, err)
		require.Equal(t, int64(size), got.Size, "step %d", i)
		require.True(t, bytes.Equal(model, s.mustRead(t, f, size+10, 0)), "step %d, size %d", i, size)
		if i%2 == 1 {
			s.mustWrite(t, f, data[:size], 0)
			model = bytes.Clone(data[:size])
		}
	}
}

// testConcurrent has many goroutines in one file, each with its own bytes, and
// metadata operations in between.
func (s *suite) testConcurrent(t *testing.T) {
	ctx := s.ctx(t)
	_, a := s.create(t, pvfs.CreateOptions{StripSize: 8192})
	f := s.c.File(a)
	const workers, slot, rounds = 12, 150000, 6
	s.parallel(t, workers, workers, func(w int) error {
		r := rand.New(rand.NewPCG(uint64(w), 5))
		base := int64(w * slot)
		mine := make([]byte, slot)
		for round := range rounds {
			b := fill(uint64(w*100+round), 1+r.IntN(slot))
			at := r.IntN(slot - len(b) + 1)
			if _, err := f.WriteAt(ctx, cut(r, b), base+int64(at)); err != nil {
				return err
			}
			copy(mine[at:], b)
			got := make([]byte, len(b))
			n, err := f.ReadAt(ctx, cut(r, got), base+int64(at))
			if err != nil {
				return err
			}
			if n != len(b) || !bytes.Equal(b, got) {
				return fmt.Errorf("worker %d read something else: %d bytes of %d", w, n, len(b))
			}
			if _, err := s.c.GetAttr(ctx, a.Handle); err != nil {
				return err
			}
		}
		got := make([]byte, slot)
		n, err := f.ReadAt(ctx, [][]byte{got}, base)
		if err == nil && !bytes.Equal(mine[:n], got[:n]) {
			err = fmt.Errorf("worker %d: final bytes differ", w)
		}
		return err
	})
}

// testConcurrentCreate lets many create the same names: one of them wins.
func (s *suite) testConcurrentCreate(t *testing.T) {
	ctx := s.ctx(t)
	d := s.mkdir(t)
	var mu sync.Mutex
	won := map[string]pvfs.Handle{}
	s.parallel(t, 8, 80, func(i int) error {
		name := fmt.Sprintf("n%d", i%10)
		a, err := s.c.Create(ctx, d, name, pvfs.CreateOptions{})
		if err != nil {
			if errors.Is(err, syscall.EEXIST) {
				return nil
			}
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if _, twice := won[name]; twice {
			return fmt.Errorf("%s was made twice", name)
		}
		won[name] = a.Handle
		return nil
	})
	require.Equal(t, won, s.list(t, d, 100))
}

// count is the requests that f makes.
func (s *suite) count(f func()) map[string]int64 {
	before := s.c.Stats().Requests
	f()
	diff := map[string]int64{}
	for op, n := range s.c.Stats().Requests {
		if n -= before[op]; n > 0 {
			diff[op] = n
		}
	}
	return diff
}

// testRequestCounts checks what operations cost when directories are known.
func (s *suite) testRequestCounts(t *testing.T) {
	ctx := s.ctx(t)
	d := s.mkdir(t)
	_, err := s.c.Create(ctx, d, "warm", pvfs.CreateOptions{})
	require.NoError(t, err)
	var a pvfs.Attr
	require.Equal(t, map[string]int64{"create": 1, "crdirent": 1}, s.count(func() {
		a, err = s.c.Create(ctx, d, "x", pvfs.CreateOptions{})
		require.NoError(t, err)
	}))
	_, buckets, err := Buckets(ctx, s.c, d)
	require.NoError(t, err)
	lookup := map[string]int64{"lookup_path": 1}
	if buckets > 1 {
		lookup = map[string]int64{"mgmt_get_dirent": 1}
	}
	require.Equal(t, lookup, s.count(func() {
		_, err := s.c.Lookup(ctx, d, "x")
		require.NoError(t, err)
	}))
	require.Equal(t, map[string]int64{"mkdir": 1, "crdirent": 1}, s.count(func() {
		_, err := s.c.Mkdir(ctx, d, "y", pvfs.CreateOptions{})
		require.NoError(t, err)
	}))
	ofDir := map[string]int64{"getattr": 2}
	if buckets > 1 {
		ofDir = map[string]int64{"getattr": 1, "tree_getattr": 1}
	}
	require.Equal(t, ofDir, s.count(func() {
		_, err := s.c.GetAttr(ctx, d)
		require.NoError(t, err)
	}))
	if !a.Layout.Stuffed {
		return
	}
	require.Equal(t, map[string]int64{"getattr": 1}, s.count(func() {
		_, err := s.c.GetAttr(ctx, a.Handle)
		require.NoError(t, err)
	}))
	findAndRemove := map[string]int64{"getattr": 1, "rmdirent": 1, "tree_remove": 1}
	maps.Copy(findAndRemove, lookup)
	require.Equal(t, findAndRemove, s.count(func() { require.NoError(t, s.c.Remove(ctx, d, "warm")) }))
	f := s.c.File(a)
	require.Equal(t, map[string]int64{"small_io": 1}, s.count(func() { s.mustWrite(t, f, make([]byte, 4096), 0) }))
	require.Equal(t, map[string]int64{"small_io": 1}, s.count(func() { s.mustRead(t, f, 4096, 0) }))
	require.Equal(t, map[string]int64{"io": 1}, s.count(func() { s.mustWrite(t, f, make([]byte, 65536), 0) }))
	require.Equal(t, int64(1), s.count(func() { s.mustWrite(t, f, make([]byte, 1<<20), 0) })["unstuff"])
	servers := len(f.Layout().DFiles)
	for _, op := range []func(){
		func() { s.mustWrite(t, f, make([]byte, 1<<20), 0) }, func() { s.mustRead(t, f, 1<<20, 0) },
	} {
		require.Equal(t, map[string]int64{"io": int64(servers)}, s.count(op))
	}
	require.Equal(t, map[string]int64{"getattr": 1, "tree_get_file_size": 1}, s.count(func() {
		_, err := s.c.GetAttr(ctx, a.Handle)
		require.NoError(t, err)
	}))
	var exts []extent.Extent
	for i := range 1000 {
		exts = append(exts, extent.Extent{Off: int64(i * 1000), Len: 100})
	}
	got := s.count(func() {
		_, err := f.WriteExtents(ctx, exts, [][]byte{make([]byte, 100000)})
		require.NoError(t, err)
	})
	require.Equal(t, int64(servers), got["io"]+got["small_io"], "a thousand pieces: %v", got)
	exts[3].Len--
	got = s.count(func() {
		_, err := f.WriteExtents(ctx, exts, [][]byte{make([]byte, 99999)})
		require.NoError(t, err)
	})
	require.Equal(t, int64(servers), got["io"]+got["small_io"], "one of them shorter: %v", got)
}
