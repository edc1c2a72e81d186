package cache

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/zoidfs/zoidfs/internal/extent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newFile returns a file in a store of blocks of 512 bytes.
func newFile(t *testing.T, blocks, dirty int64) *File {
	t.Helper()
	s, err := New(Options{Bytes: blocks * 512, BlockSize: 512, MaxDirty: dirty * 512})
	require.NoError(t, err)
	f := s.File()
	t.Cleanup(func() {
		f.Close()
		require.Equal(t, blocks*512, s.Snapshot().BytesFree)
		require.Zero(t, s.Snapshot().Unclean)
		s.Close()
	})
	return f
}

func pattern(b byte, n int) [][]byte { return [][]byte{bytes.Repeat([]byte{b}, n)} }

func mustWrite(t *testing.T, f *File, off int64, b byte, n int) {
	t.Helper()
	require.NoError(t, f.Write(t.Context(), off, pattern(b, n)))
}

// below is a file that fetch reads, and how often it did.
type below struct {
	data  []byte
	exts  [][]extent.Extent
	hold  chan struct{} // if not nil, a fetch waits here
	err   error
	calls sync.Mutex
}

func (b *below) fetch(ctx context.Context, exts []extent.Extent, bufs [][]byte) (int64, error) {
	b.calls.Lock()
	b.exts = append(b.exts, exts)
	hold, err := b.hold, b.err
	b.calls.Unlock()
	var all, n int64
	flat := make([]byte, 0)
	for _, e := range exts {
		all += e.Len
		have := min(max(int64(len(b.data))-e.Off, 0), e.Len)
		n += have
		flat = append(flat, make([]byte, e.Len)...)
		if have > 0 {
			copy(flat[int64(len(flat))-e.Len:], b.data[e.Off:])
		}
	}
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	for _, p := range bufs {
		flat = flat[copy(p, flat):]
	}
	return n, err
}

func mustRead(t *testing.T, f *File, b *below, off, n int64) []byte {
	t.Helper()
	v, err := f.Read(t.Context(), []extent.Extent{{Off: off, Len: n}}, b.fetch)
	require.NoError(t, err)
	defer v.Release()
	return flat(v)
}

func TestOptionsValidate(t *testing.T) {
	for _, c := range []struct {
		field string
		o     Options
	}{
		{"Bytes", Options{}},
		{"Bytes", Options{Bytes: 7 << 16}},
		{"BlockSize", Options{Bytes: 1 << 20, BlockSize: 1000}},
		{"BlockSize", Options{Bytes: 1 << 20, BlockSize: 256}},
		{"MaxDirty", Options{Bytes: 1 << 20, MaxDirty: 1}},
		{"MaxDirty", Options{Bytes: 1 << 20, MaxDirty: 2 << 20}},
	} {
		require.ErrorContains(t, c.o.Validate(), c.field)
		_, err := New(c.o)
		require.Error(t, err)
	}
	require.NoError(t, Options{Bytes: 1 << 20}.Validate())
}

// TestReadEndsWhereKnowledgeEnds: the file below has 100 bytes.
func TestReadEndsWhereKnowledgeEnds(t *testing.T) {
	for _, c := range []struct {
		name   string
		dirty  []extent.Extent
		off, n int64
		end    int64
		gap    extent.Extent // zeros
	}{
		{"all there", nil, 0, 100, 100, extent.Extent{}},
		{"short", nil, 50, 1000, 100, extent.Extent{}},
		{"nothing", nil, 100, 50, 100, extent.Extent{}},
		{"far behind", nil, 5000, 50, 5000, extent.Extent{}},
		{"dirty behind a gap", []extent.Extent{{Off: 3000, Len: 10}}, 0, 4000, 3010, extent.Extent{Off: 100, Len: 2900}},
		{"dirty behind what is asked", []extent.Extent{{Off: 3000, Len: 10}}, 0, 2000, 100, extent.Extent{}},
		{"dirty over the end", []extent.Extent{{Off: 90, Len: 30}}, 0, 1000, 120, extent.Extent{}},
		{"starts in the gap", []extent.Extent{{Off: 300, Len: 10}}, 200, 1000, 310, extent.Extent{Off: 200, Len: 100}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFile(t, 32, 16)
			b := &below{data: bytes.Repeat([]byte{1}, 100)}
			for _, e := range c.dirty {
				mustWrite(t, f, e.Off, 2, int(e.Len))
			}
			for range 2 { // what was not there is not cached as if it were
				got := mustRead(t, f, b, c.off, c.n)
				require.Len(t, got, int(c.end-c.off))
				for i, x := range got {
					off := extent.Extent{Off: c.off + int64(i), Len: 1}
					want := byte(1)
					if c.gap.Contains(off) {
						want = 0
					}
					for _, e := range c.dirty {
						if e.Contains(off) {
							want = 2
						}
					}
					require.Equal(t, want, x, "byte %d", off.Off)
				}
			}
		})
	}
}

func TestReadFetchesOnlyWhatIsMissing(t *testing.T) {
	f := newFile(t, 32, 16)
	b := &below{data: bytes.Repeat([]byte{1}, 4096)}
	mustWrite(t, f, 10, 2, 10)
	mustWrite(t, f, 1000, 2, 100)
	mustRead(t, f, b, 0, 2000)
	require.Equal(t, [][]extent.Extent{{{Off: 0, Len: 10}, {Off: 20, Len: 980}, {Off: 1100, Len: 900}}}, b.exts)
	mustRead(t, f, b, 0, 2000)
	require.Len(t, b.exts, 1)
	st := f.store.Snapshot()
	require.EqualValues(t, 1, st.Hits)
	require.EqualValues(t, 1, st.Misses)
	require.EqualValues(t, 1890, st.BytesFetched)
	require.EqualValues(t, 2110, st.BytesHit)
}

func TestReadsOfTheSameFetchOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFile(t, 64, 32)
		b := &below{data: bytes.Repeat([]byte{7}, 3000), hold: make(chan struct{})}
		var wg sync.WaitGroup
		for i := range int64(16) {
			wg.Go(func() {
				if got := mustRead(t, f, b, i*10, 4096); len(got) != int(3000-i*10) || bytes.Count(got, []byte{7}) != len(got) {
					t.Errorf("reader %d: %d bytes", i, len(got))
				}
			})
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() {
			_, err := f.Read(ctx, []extent.Extent{{Off: 0, Len: 10}}, b.fetch)
			require.ErrorIs(t, err, context.Canceled)
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(b.hold)
		wg.Wait()
		total := int64(0)
		for _, exts := range b.exts {
			total += extent.Total(exts)
		}
		require.EqualValues(t, 4096+15*10, total, "each byte once")
	})
}

// TestReadAfterAFailedOne: those who joined fetch for themselves.
func TestReadAfterAFailedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFile(t, 32, 16)
		b := &below{data: bytes.Repeat([]byte{7}, 3000), hold: make(chan struct{}), err: errors.New("broken")}
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := f.Read(t.Context(), []extent.Extent{{Off: 0, Len: 10}}, b.fetch)
			require.ErrorIs(t, err, b.err)
		})
		synctest.Wait()
		wg.Go(func() { require.Len(t, mustRead(t, f, &below{data: b.data}, 0, 10), 10) })
		synctest.Wait()
		close(b.hold)
		wg.Wait()
	})
}

// TestFetchIsNotKeptAcrossChanges: what happens to the file while a fetch is on
// its way makes the fetched bytes old.
func TestFetchIsNotKeptAcrossChanges(t *testing.T) {
	e := extent.Extent{Off: 0, Len: 1024}
	for _, c := range []struct {
		name   string
		change func(f *File)
		keeps  extent.Extent
	}{
		{"nothing", func(*File) {}, e},
		{"drop", func(f *File) { f.Drop(extent.Extent{Off: 0, Len: 512}) }, extent.Extent{Off: 512, Len: 512}},
		{"discard", func(f *File) { f.Discard(extent.ToEnd(100)) }, extent.Extent{Off: 0, Len: 100}},
		{"write, written out and evicted", func(f *File) {
			mustWrite(t, f, 0, 9, 1024)
			v := f.Take(e, 4096)
			f.Done(v, true)
			v.Release()
			f.store.reclaim(100)
			f.store.reclaim(100)
		}, extent.Extent{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFile(t, 32, 16)
				b := &below{data: bytes.Repeat([]byte{7}, 3000), hold: make(chan struct{})}
				var wg sync.WaitGroup
				wg.Go(func() { require.Equal(t, pattern(7, 1024)[0], mustRead(t, f, b, 0, 1024)) })
				synctest.Wait()
				c.change(f)
				wg.Go(func() { // may join only what is not old
					b2 := &below{data: bytes.Repeat([]byte{8}, 3000)}
					got := mustRead(t, f, b2, 0, 1024)
					require.Equal(t, int(c.keeps.Len), bytes.Count(got, []byte{7}))
				})
				synctest.Wait()
				close(b.hold)
				wg.Wait()
				v, _ := f.Peek(e)
				defer v.Release()
				require.Equal(t, int(c.keeps.Len), bytes.Count(flat(v), []byte{7}))
			})
		})
	}
}

func TestWriterWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFile(t, 16, 8)
		require.False(t, f.TryWrite(0, pattern(1, 9*512)))
		n, _, _ := f.Dirty()
		require.Zero(t, n, "TryWrite has written nothing")
		require.True(t, f.TryWrite(0, pattern(1, 8*512)))
		require.True(t, f.TryWrite(100, pattern(1, 100)), "no new room needed")
		require.False(t, f.TryWrite(10*512, pattern(1, 1)))
		<-f.store.Pressure()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, f.Write(ctx, 10*512, pattern(1, 1)), context.DeadlineExceeded)
		var wg sync.WaitGroup
		for i := range int64(3) {
			wg.Go(func() { mustWrite(t, f, (10+i*10)*512, 2, 6*512) })
		}
		synctest.Wait()
		require.EqualValues(t, 3, f.store.Snapshot().Waiting)
		for f.store.Snapshot().Waiting > 0 {
			<-f.store.Pressure()
			v := f.Take(extent.ToEnd(0), 2048)
			f.Done(v, true)
			v.Release()
			synctest.Wait()
		}
		wg.Wait()
	})
}

// TestViewsHoldRoom: a writer waits for a view if nothing else is left.
func TestViewsHoldRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFile(t, 8, 8)
		b := &below{data: make([]byte, 8*512)}
		v, err := f.Read(t.Context(), []extent.Extent{{Off: 0, Len: 8 * 512}}, b.fetch)
		require.NoError(t, err)
		var wg sync.WaitGroup
		wg.Go(func() { mustWrite(t, f, 100*512, 1, 512) })
		synctest.Wait()
		require.EqualValues(t, 1, f.store.Snapshot().Waiting)
		require.Len(t, mustRead(t, f, b, 0, 8*512), 8*512)
		require.Len(t, mustRead(t, f, &below{data: make([]byte, 10*512)}, 8*512, 1024), 1024, "a reader waits for nobody")
		require.NotZero(t, f.store.Snapshot().Uncached)
		v.Release()
		wg.Wait()
	})
}

// TestFetchedFindsRoom: where views hold all that is not clean, what was kept for
// long gives way to what is fetched.
func TestFetchedFindsRoom(t *testing.T) {
	f := newFile(t, 64, 32)
	f.Insert(0, pattern(1, 64*512))
	f.store.policy.Wait() // until it has said what it does not keep
	for off := int64(100 * 512); f.store.Snapshot().BytesFree > 0; off += 512 {
		mustWrite(t, f, off, 2, 512)
		v := f.Take(extent.ToEnd(0), 512)
		defer v.Release()
		f.Done(v, true)
		f.Drop(extent.Extent{Off: off, Len: 512})
	}
	fetched := extent.Extent{Off: 200 * 512, Len: 512}
	f.Insert(fetched.Off, pattern(3, 512))
	require.True(t, f.Known(fetched))
	ahead := &below{data: make([]byte, 202*512)}
	mustRead(t, f, ahead, 201*512, 512)
	require.True(t, f.Known(extent.Extent{Off: 201 * 512, Len: 512}))
	require.Zero(t, f.store.Snapshot().Uncached)
}

func TestInsertIsNeverOver(t *testing.T) {
	f := newFile(t, 32, 16)
	mustWrite(t, f, 100, 1, 100)
	mustWrite(t, f, 300, 2, 10)
	v := f.Take(extent.Extent{Off: 300, Len: 10}, 100)
	f.Insert(0, pattern(3, 1024))
	f.Insert(0, pattern(4, 2000))
	got := mustRead(t, f, &below{}, 0, 2000)
	want := append(pattern(3, 1024)[0], pattern(4, 976)[0]...)
	copy(want[100:], pattern(1, 100)[0])
	copy(want[300:], pattern(2, 10)[0])
	require.Equal(t, want, got)
	f.Drop(extent.ToEnd(0))
	known, missing := f.Peek(extent.Extent{Off: 0, Len: 1000})
	known.Release()
	require.Equal(t, []extent.Extent{{Off: 0, Len: 100}, {Off: 200, Len: 100}, {Off: 310, Len: 690}}, missing)
	f.Done(v, true)
	v.Release()
	f.Discard(extent.ToEnd(0))
}

func TestClose(t *testing.T) {
	f := newFile(t, 32, 16)
	mustWrite(t, f, 0, 1, 2000)
	v := f.Take(extent.Extent{Off: 0, Len: 512}, 512)
	f.Close()
	require.Zero(t, f.store.Snapshot().BytesDirty)
	f.Done(v, false)
	require.Equal(t, pattern(1, 512)[0], flat(v))
	v.Release()
	require.ErrorIs(t, f.Write(t.Context(), 0, pattern(1, 1)), syscall.EBADF)
	require.ErrorIs(t, f.Write(t.Context(), 0, pattern(1, 512)), syscall.EBADF)
	require.False(t, f.TryWrite(0, pattern(1, 1)))
	require.Len(t, mustRead(t, f, &below{data: make([]byte, 10)}, 0, 10), 10)
	require.Zero(t, f.store.Snapshot().BytesHeld)
}

// TestViewOutlivesTheStore: the memory goes with the last view.
func TestViewOutlivesTheStore(t *testing.T) {
	s, err := New(Options{Bytes: 1 << 20})
	require.NoError(t, err)
	f := s.File()
	mustWrite(t, f, 0, 1, 100)
	v, _ := f.Peek(extent.Extent{Off: 0, Len: 100})
	f.Close()
	s.Close()
	require.Equal(t, pattern(1, 100)[0], flat(v))
	require.NotNil(t, s.memory)
	v.Release()
	require.Nil(t, s.memory)
}

// TestReadBesideAnOlderEnd: where the file ended for a fetch that began before it grew
// is not where it ends for a Read that begins afterwards.
func TestReadBesideAnOlderEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFile(t, 64, 32)
		answer := make(chan struct{})
		fetches := 0
		fetch := func(_ context.Context, exts []extent.Extent, bufs [][]byte) (int64, error) {
			if fetches++; fetches == 1 {
				<-answer
				return 7, nil
			}
			return extent.Total(exts), nil
		}
		read := func() int {
			v, err := f.Read(t.Context(), []extent.Extent{{Off: 0, Len: 100}}, fetch)
			require.NoError(t, err)
			defer v.Release()
			return v.Len()
		}
		var wg sync.WaitGroup
		wg.Go(func() { require.Equal(t, 7, read(), "the first, which began before") })
		synctest.Wait()
		mustWrite(t, f, 5000, 1, 10)
		v := f.Take(extent.ToEnd(0), 4096)
		f.Done(v, true)
		v.Release()
		wg.Go(func() { require.Equal(t, 100, read(), "one that began afterwards") })
		synctest.Wait()
		close(answer)
		wg.Wait()
		require.Equal(t, 2, fetches)
	})
}

// TestWriteIsThereAtOnce: Take never meets a part of a write, also of one that waits for
// room.
func TestWriteIsThereAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFile(t, 8, 2)
		size := f.store.size
		mustWrite(t, f, 0, 1, 10)
		mustWrite(t, f, 5*size, 1, 10)
		var wg sync.WaitGroup
		wg.Go(func() { mustWrite(t, f, size-5, 2, 10) })
		synctest.Wait()
		for range 2 {
			v := f.Take(extent.ToEnd(0), 100*size)
			require.NotNil(t, v)
			for _, e := range v.Extents() {
				if end := (extent.Extent{Off: size - 5, Len: 10}); e.Overlaps(end) {
					require.True(t, e.Contains(end), "%v", e)
				}
			}
			f.Done(v, true)
			v.Release()
			synctest.Wait()
		}
		wg.Wait()
	})
}
