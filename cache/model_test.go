package cache

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// model is a file and what lies below the cache: the dumbest correct thing.
// want is what a reader must see, below what was written out. Ranges of the
// file are locked as an owner does it.
type model struct {
	f      *File
	ranges RangeLock

	mu    sync.Mutex
	want  []byte          // guarded by mu
	below []byte          // guarded by mu; what write-back and fetch see
	limit map[*View]int64 // guarded by mu; flights, and where the file was truncated since
}

func newModel(s *Store) *model { return &model{f: s.File(), limit: make(map[*View]int64)} }

const modelSize = 40 << 10

func (m *model) fetch(fail bool) Fetch {
	return func(_ context.Context, exts []extent.Extent, bufs [][]byte) (int64, error) {
		if fail {
			return 0, errors.New("below is broken")
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		n, i, at := int64(0), 0, 0
		for _, e := range exts {
			for off := e.Off; off < e.End(); off++ {
				for at == len(bufs[i]) {
					i, at = i+1, 0
				}
				bufs[i][at] = 0xee
				if off < int64(len(m.below)) {
					bufs[i][at] = m.below[off]
					n++
				}
				at++
			}
		}
		return n, nil
	}
}

// take is File.Take. Truncating excludes it, so that landed knows which bytes
// are not to be written any more.
func (m *model) take(e extent.Extent, most int64) *View {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.f.Take(e, most)
	if v != nil {
		m.limit[v] = modelSize
	}
	return v
}

// landed ends a flight; if ok, it writes the view below.
func (m *model) landed(v *View, ok bool) {
	m.mu.Lock()
	v.each(func(e extent.Extent, mem []byte) {
		if n := min(e.Len, m.limit[v]-e.Off); ok && n > 0 {
			m.below = writeAt(m.below, e.Off, mem[:n])
		}
	})
	delete(m.limit, v)
	m.mu.Unlock()
	m.f.Done(v, ok)
	v.Release()
}

func (m *model) truncate(size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.f.Discard(extent.ToEnd(size))
	for v, n := range m.limit {
		m.limit[v] = min(n, size)
	}
	m.want = m.want[:min(size, int64(len(m.want)))]
	m.below = m.below[:min(size, int64(len(m.below)))]
	if n := len(m.want) - len(m.below); n > 0 { // the end may lie in a hole, and is there now
		m.below = append(m.below, make([]byte, n)...)
	}
}

func writeAt(file []byte, off int64, p []byte) []byte {
	if n := off + int64(len(p)) - int64(len(file)); n > 0 {
		file = append(file, make([]byte, n)...)
	}
	copy(file[off:], p)
	return file
}

// held is a view that somebody keeps, and what was in it.
type held struct {
	v   *View
	sum uint32
}

func sumOf(v *View) uint32 {
	var sum uint32
	for _, p := range v.Slices() {
		sum = crc32.Update(sum, crc32.IEEETable, p)
	}
	return sum
}

func flat(v *View) []byte { return bytes.Join(v.Slices(), nil) }

func cut(r *rand.Rand, p []byte) (pieces [][]byte) {
	for len(p) > 0 {
		n := 1 + r.IntN(len(p))
		pieces, p = append(pieces, p[:n]), p[n:]
	}
	return pieces
}

func randomExtent(r *rand.Rand) extent.Extent {
	off := r.Int64N(modelSize)
	n := r.Int64N(300)
	if r.IntN(4) == 0 {
		n = r.Int64N(8 << 10)
	}
	return extent.Extent{Off: off, Len: min(n, modelSize-off)}
}

// actor is one of the goroutines that use the files. It has nothing that
// others wait for while it waits itself: views go to later.
type actor struct {
	t     *testing.T
	r     *rand.Rand
	files []*model
	later *later
}

// later has what actors did not finish: flights, and views that are kept.
type later struct {
	t     *testing.T
	s     *Store
	files []*model
	stop  atomic.Bool

	mu   sync.Mutex
	kept []held   // guarded by mu
	air  []flying // guarded by mu
}

type flying struct {
	m *model
	v *View
}

func (a *actor) keep(v *View) {
	if a.r.IntN(3) > 0 {
		v.Release()
		return
	}
	a.later.mu.Lock()
	a.later.kept = append(a.later.kept, held{v, sumOf(v)})
	a.later.mu.Unlock()
}

// run finishes things, in any order, and all of them if writers wait.
func (l *later) run(r *rand.Rand) {
	for stop := false; !stop; {
		stop = l.stop.Load()
		select {
		case <-l.s.Pressure():
		case <-time.After(200 * time.Microsecond):
		}
		l.mu.Lock()
		n, k := len(l.air), len(l.kept)
		if !stop && l.s.waiting.Load() == 0 {
			n, k = r.IntN(n+1), r.IntN(k+1)
		}
		r.Shuffle(len(l.air), func(i, j int) { l.air[i], l.air[j] = l.air[j], l.air[i] })
		air, kept := l.air[:n], l.kept[:k]
		l.air, l.kept = l.air[n:], l.kept[k:]
		l.mu.Unlock()
		for _, x := range air {
			x.m.landed(x.v, r.IntN(4) > 0)
		}
		for _, h := range kept {
			require.Equal(l.t, h.sum, sumOf(h.v), "a view has changed")
			h.v.Release()
		}
		for _, m := range l.files {
			if v := m.take(extent.ToEnd(0), 4<<10); v != nil {
				m.landed(v, l.s.waiting.Load() > 0)
			}
		}
	}
}

func (a *actor) write(m *model, e extent.Extent) {
	p := make([]byte, e.Len)
	for i := range p {
		p[i] = byte(a.r.Uint32())
	}
	release := mustLock(a.t, &m.ranges, e, true)
	defer release()
	if a.r.IntN(2) == 0 {
		if !m.f.TryWrite(e.Off, cut(a.r, p)) {
			return
		}
	} else {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(a.t, m.f.Write(ctx, e.Off, cut(a.r, p)))
	}
	if e.Len > 0 {
		m.mu.Lock()
		m.want = writeAt(m.want, e.Off, p)
		m.mu.Unlock()
	}
}

// some is parts of e, or all of it.
func (a *actor) some(e extent.Extent) (out []extent.Extent) {
	if a.r.IntN(2) == 0 && e.Len > 0 {
		return []extent.Extent{e}
	}
	for off := e.Off; off < e.End(); {
		n := 1 + a.r.Int64N(min(e.End()-off, 700))
		out = append(out, extent.Extent{Off: off, Len: n})
		off += n + 1 + a.r.Int64N(700)
	}
	return out
}

// first is the first n bytes of exts.
func first(exts []extent.Extent, n int64) (out []extent.Extent) {
	for ; n > 0; exts = exts[1:] {
		e := exts[0]
		e.Len = min(e.Len, n)
		out = append(out, e)
		n -= e.Len
	}
	return out
}

// read compares with the model, of which bytes behind the end of what the view
// has must be zeros: they were never written.
func (a *actor) read(m *model, e extent.Extent) {
	release := mustLock(a.t, &m.ranges, e, false)
	defer release()
	fail := a.r.IntN(20) == 0
	exts := a.some(e)
	v, err := m.f.Read(context.Background(), exts, m.fetch(fail))
	if err != nil {
		require.True(a.t, fail)
		return
	}
	got := flat(v)
	require.Len(a.t, got, v.Len())
	if v.Len() > 0 {
		require.Equal(a.t, first(exts, int64(v.Len())), v.Extents())
	}
	m.mu.Lock()
	var want []byte
	for _, e := range exts {
		part := make([]byte, e.Len)
		if e.Off < int64(len(m.want)) {
			copy(part, m.want[e.Off:])
		}
		want = append(want, part...)
	}
	m.mu.Unlock()
	if !bytes.Equal(want[:len(got)], got) || len(bytes.Trim(want[len(got):], "\x00")) > 0 {
		a.t.Errorf("read %v of %d bytes: differs", e, len(got))
		a.t.FailNow()
	}
	a.keep(v)
}

func (a *actor) take(m *model, e extent.Extent, most int64) {
	v := m.take(e, most)
	if v == nil {
		return
	}
	require.LessOrEqual(a.t, int64(v.Len()), most)
	require.Equal(a.t, int64(v.Len()), extent.Total(v.Extents()))
	require.Equal(a.t, extent.Normalize(v.Extents()), v.Extents())
	if a.r.IntN(2) == 0 {
		v.Ref()
		a.keep(v)
	}
	a.later.mu.Lock() // whoever lands it releases it
	a.later.air = append(a.later.air, flying{m, v})
	a.later.mu.Unlock()
}

func (a *actor) step() {
	m := a.files[a.r.IntN(len(a.files))]
	e := randomExtent(a.r)
	switch k := a.r.IntN(100); {
	case k < 35:
		a.write(m, e)
	case k < 65:
		a.read(m, e)
	case k < 80:
		a.take(m, e, 1+a.r.Int64N(10<<10))
	case k < 90:
		m.f.Drop(e)
	case k < 97:
		v, missing := m.f.Peek(e)
		require.Equal(a.t, e.Len, int64(v.Len())+extent.Total(missing))
		a.keep(v)
	case k < 99:
		a.insert(m, e)
	default:
		release := mustLock(a.t, &m.ranges, extent.ToEnd(0), true)
		m.truncate(e.Off)
		release()
	}
}

// insert brings bytes that a reader under a lock has from below.
func (a *actor) insert(m *model, e extent.Extent) {
	release := mustLock(a.t, &m.ranges, e, true)
	defer release()
	v, missing := m.f.Peek(e)
	v.Release()
	for _, x := range missing {
		m.mu.Lock()
		x.Len = max(0, min(x.Len, int64(len(m.below))-x.Off))
		var p []byte
		if x.Len > 0 {
			p = bytes.Clone(m.below[x.Off:x.End()])
		}
		m.mu.Unlock()
		m.f.Insert(x.Off, cut(a.r, p))
	}
}

func TestModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, c := range []struct {
		name   string
		block  int
		blocks int64
		dirty  int64
		row    int64
		actors uint64
	}{
		{"one at a time", 512, 16, 8, 2, 1},
		{"tiny slab", 512, 24, 12, 1, 4},
		{"tiny slab, rows", 512, 24, 12, 4, 4},
		{"all may be dirty", 512, 24, 24, 8, 4},
		{"few blocks for many", 4096, 12, 4, 4, 6},
		{"one block has all", 64 << 10, 8, 1, 1, 4},
		{"room enough", 1024, 400, 200, 16, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			bs := int64(c.block)
			s, err := New(Options{Bytes: c.blocks * bs, BlockSize: c.block, MaxDirty: c.dirty * bs})
			require.NoError(t, err)
			s.perRow = c.row
			files := []*model{newModel(s), newModel(s)}
			l := &later{t: t, s: s, files: files}
			var world, actors sync.WaitGroup
			world.Go(func() { l.run(rand.New(rand.NewPCG(seed, 99))) })
			for i := range c.actors {
				actors.Go(func() {
					a := &actor{t: t, r: rand.New(rand.NewPCG(seed, i)), files: files, later: l}
					for range 1500 {
						if a.step(); t.Failed() {
							break
						}
					}
				})
			}
			actors.Wait()
			l.stop.Store(true)
			world.Wait()
			for _, m := range files {
				finish(t, m)
			}
			require.Equal(t, c.blocks*bs, s.Snapshot().BytesFree)
			require.Zero(t, s.Snapshot().Unclean)
			require.Zero(t, s.Snapshot().BytesDirty)
			t.Logf("%+v", s.Snapshot())
			s.Close()
		})
	}
}

// finish writes everything out: no dirty byte was lost.
func finish(t *testing.T, m *model) {
	for {
		v := m.take(extent.ToEnd(0), 1<<20)
		if v == nil {
			break
		}
		m.landed(v, true)
	}
	n, end, since := m.f.Dirty()
	require.Zero(t, n)
	require.Zero(t, end)
	require.True(t, since.IsZero())
	require.True(t, bytes.Equal(m.want, m.below))
	m.f.Close()
}
