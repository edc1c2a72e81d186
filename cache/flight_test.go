package cache

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

func TestViewsDoNotChange(t *testing.T) {
	f := newFile(t, 32, 16)
	mustWrite(t, f, 0, 1, 600)
	v := f.Take(extent.ToEnd(0), 4096)
	copies := func() int64 { return f.store.Snapshot().Copies }
	mustWrite(t, f, 600, 2, 100) // an append into the block of the view
	require.Zero(t, copies())
	mustWrite(t, f, 10, 3, 10) // over the view
	require.EqualValues(t, 1, copies())
	mustWrite(t, f, 15, 4, 10) // the view has nothing in the new block
	require.EqualValues(t, 1, copies())
	require.Equal(t, pattern(1, 600)[0], flat(v))
	v.Ref()
	v.Release()
	f.Discard(extent.ToEnd(0))
	mustWrite(t, f, 0, 5, 2000)
	require.Equal(t, pattern(1, 600)[0], flat(v))
	f.Done(v, true)
	v.Release()
	require.Panics(t, func() { v.Release() })
}

func TestTake(t *testing.T) {
	for _, c := range []struct {
		name  string
		dirty []extent.Extent
		ext   extent.Extent
		max   int64
		want  []extent.Extent
	}{
		{"all", []extent.Extent{{Off: 0, Len: 10}, {Off: 20, Len: 1000}}, extent.ToEnd(0), 1 << 20, []extent.Extent{{Off: 0, Len: 10}, {Off: 20, Len: 1000}}},
		{"those that fit", []extent.Extent{{Off: 0, Len: 10}, {Off: 20, Len: 480}}, extent.ToEnd(0), 480, []extent.Extent{{Off: 0, Len: 10}}},
		{"just", []extent.Extent{{Off: 0, Len: 10}, {Off: 20, Len: 480}}, extent.ToEnd(0), 490, []extent.Extent{{Off: 0, Len: 10}, {Off: 20, Len: 480}}},
		{"up to the end of a block", []extent.Extent{{Off: 0, Len: 10}, {Off: 20, Len: 1000}}, extent.ToEnd(0), 1000, []extent.Extent{{Off: 0, Len: 10}, {Off: 20, Len: 492}}},
		{"one too long", []extent.Extent{{Off: 20, Len: 2000}}, extent.ToEnd(0), 1100, []extent.Extent{{Off: 20, Len: 1004}}},
		{"one too long in its block", []extent.Extent{{Off: 20, Len: 2000}}, extent.ToEnd(0), 100, []extent.Extent{{Off: 20, Len: 100}}},
		{"part of the file", []extent.Extent{{Off: 0, Len: 2000}}, extent.Extent{Off: 100, Len: 600}, 1 << 20, []extent.Extent{{Off: 100, Len: 600}}},
		{"nothing there", []extent.Extent{{Off: 0, Len: 100}}, extent.Extent{Off: 100, Len: 600}, 1 << 20, nil},
		{"no bytes", []extent.Extent{{Off: 0, Len: 100}}, extent.ToEnd(0), 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFile(t, 32, 16)
			for _, e := range c.dirty {
				mustWrite(t, f, e.Off, 1, int(e.Len))
			}
			v := f.Take(c.ext, c.max)
			if c.want == nil {
				require.Nil(t, v)
				return
			}
			require.Equal(t, c.want, v.Extents())
			require.Nil(t, f.Take(c.want[0], 1<<20), "they fly already")
			f.Done(v, false)
			v.Release()
			n, end, _ := f.Dirty()
			require.Equal(t, extent.Total(c.dirty), n)
			require.Equal(t, c.dirty[len(c.dirty)-1].End(), end)
		})
	}
}

func TestDone(t *testing.T) {
	for _, c := range []struct {
		name      string
		meanwhile func(f *File)
		ok        bool
		dirty     set
	}{
		{"ok", func(*File) {}, true, nil},
		{"failed", func(*File) {}, false, set{{Off: 0, Len: 1000}}},
		{"ok, written again", func(f *File) { mustWrite(t, f, 10, 2, 10) }, true, set{{Off: 10, Len: 10}}},
		{"failed, written again", func(f *File) { mustWrite(t, f, 10, 2, 10) }, false, set{{Off: 0, Len: 1000}}},
		{"failed, truncated", func(f *File) { f.Discard(extent.ToEnd(600)) }, false, set{{Off: 0, Len: 600}}},
		{"failed, truncated, written again", func(f *File) { f.Discard(extent.ToEnd(0)); mustWrite(t, f, 10, 2, 10) }, false, set{{Off: 10, Len: 10}}},
		{"failed, dropped", func(f *File) { f.Drop(extent.ToEnd(0)) }, false, set{{Off: 0, Len: 1000}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFile(t, 32, 16)
			mustWrite(t, f, 0, 1, 1000)
			v := f.Take(extent.ToEnd(0), 4096)
			c.meanwhile(f)
			require.Nil(t, f.Take(extent.ToEnd(0), 4096), "two versions of a byte must not be on their way")
			f.Done(v, c.ok)
			v.Release()
			var dirty set
			f.mu.Lock()
			for _, b := range f.unclean {
				for _, e := range b.dirty {
					dirty.add(e)
				}
			}
			f.mu.Unlock()
			require.Equal(t, c.dirty, dirty)
			n, _, _ := f.Dirty()
			require.Equal(t, extent.Total(c.dirty), n)
		})
	}
}

func TestDirtySince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFile(t, 32, 16)
		start := time.Now()
		since := func() time.Duration {
			_, _, at := f.Dirty()
			return at.Sub(start)
		}
		mustWrite(t, f, 0, 1, 10)
		time.Sleep(time.Second)
		mustWrite(t, f, 0, 1, 20)
		require.Zero(t, since())
		v := f.Take(extent.ToEnd(0), 4096)
		time.Sleep(time.Second)
		mustWrite(t, f, 20, 1, 10)
		time.Sleep(time.Second)
		mustWrite(t, f, 1000, 1, 10)
		require.Zero(t, since())
		f.Done(v, true)
		v.Release()
		require.Equal(t, 2*time.Second, since(), "of the append that came while the first bytes flew")
		f.Discard(extent.Extent{Off: 0, Len: 512})
		require.Equal(t, 3*time.Second, since())
		v = f.Take(extent.ToEnd(0), 4096)
		f.Done(v, false)
		v.Release()
		require.Equal(t, 3*time.Second, since())
	})
}

// TestTakeFrom takes of several places at once, and not what lies between.
func TestTakeFrom(t *testing.T) {
	f := newFile(t, 32, 16)
	mustWrite(t, f, 0, 1, 4096)
	from := []extent.Extent{{Off: 100, Len: 50}, {Off: 1024, Len: 512}, {Off: 3000, Len: 2000}}
	v := f.TakeFrom(from, 1<<20)
	require.Equal(t, []extent.Extent{{Off: 100, Len: 50}, {Off: 1024, Len: 512}, {Off: 3000, Len: 1096}}, v.Extents())
	f.Done(v, false)
	v.Release()
	v = f.TakeFrom(from, 1000)
	require.Equal(t, []extent.Extent{{Off: 100, Len: 50}, {Off: 1024, Len: 512}, {Off: 3000, Len: 72}}, v.Extents())
	f.Done(v, true)
	v.Release()
	require.Equal(t, []extent.Extent{{Off: 0, Len: 100}, {Off: 150, Len: 874}, {Off: 1536, Len: 1464}, {Off: 3072, Len: 1024}}, f.DirtyExtents(extent.ToEnd(0)))
}

// TestDirtyEnd: what is dirty and what flies, in part of a file.
func TestDirtyEnd(t *testing.T) {
	f := newFile(t, 32, 16)
	require.Zero(t, f.DirtyEnd(extent.ToEnd(0)))
	mustWrite(t, f, 10, 1, 10)
	v := f.Take(extent.ToEnd(0), 4096)
	mustWrite(t, f, 5, 1, 3)
	mustWrite(t, f, 1000, 1, 10)
	for _, c := range []struct{ off, len, want int64 }{
		{0, 5000, 1010}, {0, 1005, 1005}, {0, 1000, 20}, {0, 20, 20}, {0, 15, 15}, {0, 9, 8}, {0, 5, 0}, {20, 980, 0}, {1010, 100, 0}, {0, 0, 0},
	} {
		require.Equal(t, c.want, f.DirtyEnd(extent.Extent{Off: c.off, Len: c.len}), "%v", c)
	}
	require.EqualValues(t, 1010, f.DirtyEnd(extent.ToEnd(0)))
	f.Done(v, true)
	v.Release()
	require.EqualValues(t, 8, f.DirtyEnd(extent.Extent{Len: 1000}))
	f.Discard(extent.ToEnd(0))
}

func TestDirtyParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFile(t, 32, 16)
		begin := time.Now()
		mustWrite(t, f, 1100, 1, 100)
		time.Sleep(time.Second)
		mustWrite(t, f, 0, 1, 1024)
		mustWrite(t, f, 1500, 1, 100)
		require.Equal(t, []Part{
			{extent.Extent{Off: 0, Len: 1024}, 1024, begin.Add(time.Second)},
			{extent.Extent{Off: 1024, Len: 1024}, 200, begin},
		}, f.DirtyParts(1024))
		v := f.Take(extent.Extent{Off: 1024, Len: 1024}, 1024)
		require.Len(t, f.DirtyParts(1024), 1, "what flies does not count")
		f.Done(v, true)
		v.Release()
		require.True(t, f.DirtyParts(1024)[0].Whole())
	})
}
