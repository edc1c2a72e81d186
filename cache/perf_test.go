package cache

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// noFetch is for what must be cached.
func noFetch(context.Context, []extent.Extent, [][]byte) (int64, error) { panic("not cached") }

// writtenOut makes all of f clean.
func writtenOut(f *File) {
	for v := f.Take(extent.ToEnd(0), 1<<20); v != nil; v = f.Take(extent.ToEnd(0), 1<<20) {
		f.Done(v, true)
		v.Release()
	}
}

// hotPaths are what happens for each request.
var hotPaths = []struct {
	name   string
	size   int64
	allocs float64
	op     func(ctx context.Context, f *File, i int64, p [][]byte) error
}{
	{"WriteAppend", 4 << 10, 0, func(ctx context.Context, f *File, i int64, p [][]byte) error {
		if i%(4<<10) == 0 {
			f.Discard(extent.ToEnd(0))
		}
		return f.Write(ctx, i%(4<<10)*(4<<10), p)
	}},
	{"WriteAgain", 4 << 10, 0, func(ctx context.Context, f *File, i int64, p [][]byte) error {
		return f.Write(ctx, i%256*(4<<10), p)
	}},
	{"WriteAgain", 1 << 20, 0, func(ctx context.Context, f *File, i int64, p [][]byte) error {
		return f.Write(ctx, i%16*(1<<20), p)
	}},
	{"WriteUnaligned", 1 << 20, 0, func(ctx context.Context, f *File, i int64, p [][]byte) error {
		return f.Write(ctx, 1000+i%16*(1<<20), p)
	}},
	{"WriteTakeDone", 4 << 10, 1, func(ctx context.Context, f *File, i int64, p [][]byte) error {
		off := i % 1024 * (4 << 10)
		if err := f.Write(ctx, off, p); err != nil {
			return err
		}
		v := f.Take(extent.Extent{Off: off, Len: 4 << 10}, 1<<20)
		f.Done(v, true)
		v.Release()
		return nil
	}},
	{"WriteTakeDoneDrop", 1 << 20, 3, func(ctx context.Context, f *File, i int64, p [][]byte) error { // two of them rows
		e := extent.Extent{Off: i % 16 * (1 << 20), Len: 1 << 20}
		if err := f.Write(ctx, e.Off, p); err != nil {
			return err
		}
		v := f.Take(e, e.Len)
		f.Done(v, true)
		v.Release()
		f.Drop(e)
		return nil
	}},
	{"Read", 4 << 10, 1, func(ctx context.Context, f *File, i int64, p [][]byte) error {
		return readBack(ctx, f, i%256*(4<<10), 4<<10)
	}},
	{"ReadClean", 4 << 10, 1, func(ctx context.Context, f *File, i int64, p [][]byte) error {
		if i == 0 {
			writtenOut(f)
		}
		return readBack(ctx, f, i%256*(4<<10), 4<<10)
	}},
	{"ReadClean", 1 << 20, 1, func(ctx context.Context, f *File, i int64, p [][]byte) error {
		if i == 0 {
			writtenOut(f)
		}
		return readBack(ctx, f, i%16*(1<<20), 1<<20)
	}},
	{"Read", 1 << 20, 1, func(ctx context.Context, f *File, i int64, p [][]byte) error {
		return readBack(ctx, f, i%16*(1<<20), 1<<20)
	}},
}

func readBack(ctx context.Context, f *File, off, n int64) error {
	v, err := f.Read(ctx, []extent.Extent{{Off: off, Len: n}}, noFetch)
	if err == nil {
		v.Release()
	}
	return err
}

func hotFile(tb testing.TB) (f *File, done func()) {
	s, err := New(Options{Bytes: 256 << 20})
	require.NoError(tb, err)
	f = s.File()
	require.NoError(tb, f.Write(context.Background(), 0, [][]byte{make([]byte, 17<<20)}))
	return f, func() { f.Close(); s.Close() }
}

func TestHotPathsDoNotAllocate(t *testing.T) {
	if poisoned {
		t.Skip("the race detector allocates")
	}
	for _, c := range hotPaths {
		t.Run(c.name, func(t *testing.T) {
			f, done := hotFile(t)
			defer done()
			p, i := [][]byte{make([]byte, c.size)}, int64(0)
			n := testing.AllocsPerRun(2000, func() {
				require.NoError(t, c.op(t.Context(), f, i, p))
				i++
			})
			require.LessOrEqual(t, n, c.allocs)
		})
	}
}

func TestRangeLockAllocatesOnce(t *testing.T) {
	if poisoned {
		t.Skip("the race detector allocates")
	}
	var l RangeLock
	n := testing.AllocsPerRun(1000, func() {
		h, err := l.Lock(t.Context(), extent.Extent{Off: 1, Len: 2}, true)
		require.NoError(t, err)
		h.Release()
	})
	require.LessOrEqual(t, n, 1.0)
}

func BenchmarkHotPaths(b *testing.B) {
	for _, c := range hotPaths {
		b.Run(c.name+"/"+map[int64]string{4 << 10: "4KiB", 1 << 20: "1MiB"}[c.size], func(b *testing.B) {
			f, done := hotFile(b)
			defer done()
			p, i := [][]byte{make([]byte, c.size)}, int64(0)
			b.SetBytes(c.size)
			b.ReportAllocs()
			for b.Loop() {
				if err := c.op(b.Context(), f, i, p); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
	b.Run("Copy/1MiB", func(b *testing.B) { // what no cache can do without
		src, dst := make([]byte, 17<<20), make([]byte, 16<<20)
		b.SetBytes(1 << 20)
		for i := 0; b.Loop(); i++ {
			copy(dst[i%16<<20:][:1<<20], src[i%16<<20:])
		}
	})
}

// BenchmarkMiss reads a file that does not fit, of which fetch costs nothing.
func BenchmarkMiss(b *testing.B) {
	s, err := New(Options{Bytes: 256 << 20})
	require.NoError(b, err)
	defer s.Close()
	f := s.File()
	defer f.Close()
	fetch := func(_ context.Context, exts []extent.Extent, _ [][]byte) (int64, error) {
		return extent.Total(exts), nil
	}
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		v, err := f.Read(b.Context(), []extent.Extent{{Off: i % 1024 << 20, Len: 1 << 20}}, fetch)
		if err != nil {
			b.Fatal(err)
		}
		v.Release()
	}
	st := s.Snapshot()
	b.ReportMetric(float64(st.Uncached)/float64(st.Uncached+st.BytesFetched/s.size)*100, "%uncached")
}
