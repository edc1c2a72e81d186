package collective

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

const kib = 1 << 10

// follow reads n times and returns how many bytes were asked for while they
// were not read ahead, and all that was read ahead.
func follow(s *Stream, n int, read func(i int) extent.Extent) (missed int64, ahead set) {
	for i := range n {
		e := read(i)
		missed += extent.Total(ahead.gaps(nil, e))
		for _, a := range s.Next(e) {
			ahead.add(a)
		}
	}
	return missed, ahead
}

func TestStreamFindsPatterns(t *testing.T) {
	for _, c := range []struct {
		name   string
		read   func(i int64) extent.Extent
		missed int64 // reads before the pattern is known
		waste  int64 // bytes read ahead that belong to no read
	}{
		{"upwards from 0", func(i int64) extent.Extent { return extent.Extent{Off: i * 64 * kib, Len: 64 * kib} }, 1, 0},
		{"upwards from anywhere", func(i int64) extent.Extent { return extent.Extent{Off: 777 + i*4*kib, Len: 4 * kib} }, 2, 0},
		{"upwards, of any length", func(i int64) extent.Extent {
			return extent.Extent{Off: i * (i + 1) / 2 * kib, Len: (i + 1) * kib}
		}, 1, 0},
		{"downwards", func(i int64) extent.Extent { return extent.Extent{Off: (5000 - i) * 4 * kib, Len: 4 * kib} }, 2, 0},
		{"strided upwards", func(i int64) extent.Extent { return extent.Extent{Off: 100 + i*1024*kib, Len: 8 * kib} }, 3, 0},
		{"strided downwards", func(i int64) extent.Extent { return extent.Extent{Off: (2000 - i) * 1024 * kib, Len: 8 * kib} }, 3, 0},
		{"strided from 0", func(i int64) extent.Extent { return extent.Extent{Off: i * 1024 * kib, Len: 8 * kib} }, 4, 128 * kib},
		{"upwards, out of order", func(i int64) extent.Extent {
			if i > 3 {
				i ^= 1
			}
			return extent.Extent{Off: i * 64 * kib, Len: 64 * kib}
		}, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			const n = 200
			s := &Stream{Limit: 1 << 20}
			missed, ahead := follow(s, n, func(i int) extent.Extent { return c.read(int64(i)) })
			reads := set{}
			for i := range int64(n + 256) { // what it reads ahead at the end would have been read
				if e := c.read(i); e.Off >= 0 {
					reads.add(e)
				}
			}
			var most int64
			for i := range c.missed {
				most += c.read(i).Len
			}
			require.LessOrEqual(t, missed, most)
			for _, e := range reads {
				ahead.remove(e)
			}
			if len(ahead) > 0 && ahead.end() > reads.end() {
				ahead.remove(extent.ToEnd(reads.end()))
			}
			require.LessOrEqual(t, extent.Total(ahead), c.waste)
		})
	}
}

func TestStreamWindow(t *testing.T) {
	s := &Stream{Limit: 1 << 20}
	at, front := int64(0), int64(0)
	var windows []int64
	for range 200 {
		for _, e := range s.Next(extent.Extent{Off: at, Len: 32 * kib}) {
			require.GreaterOrEqual(t, e.Off, front, "read ahead twice")
			require.LessOrEqual(t, e.End()-at-32*kib, s.Limit)
			front = e.End()
			windows = append(windows, e.End()-at-32*kib)
		}
		at += 32 * kib
	}
	require.Equal(t, int64(128*kib), windows[0])
	require.Equal(t, s.Limit, windows[len(windows)-1])
	require.Less(t, len(windows), 50, "it fills the window in few large steps")
	require.Empty(t, s.Next(extent.Extent{Off: 1 << 40, Len: kib}))
	require.Zero(t, s.window, "a read elsewhere closes the window")
}

// TestStreamUnit: what several readers of one sequence have read ahead between them
// is whole units, however their reads are mixed.
func TestStreamUnit(t *testing.T) {
	const limit, unit, step = 8 << 20, 2 << 20, 64 * kib
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, down := range []bool{false, true} {
		var readers [8]Stream
		var at [8]int64
		all, requests := set{}, 0
		for range 8 * 512 {
			i := rnd.IntN(len(readers))
			e := extent.Extent{Off: at[i], Len: step}
			if down {
				e.Off = 1<<30 - step - at[i]
			}
			at[i] += step
			readers[i].Limit, readers[i].Unit = limit, unit
			for _, a := range readers[i].Next(e) {
				for _, m := range all.gaps(nil, a) {
					all.add(m)
					if at[i] > 2*limit {
						requests++
						require.Zero(t, m.Off%unit, "%v", m)
						require.Zero(t, m.End()%unit, "%v", m)
					}
				}
			}
		}
		require.NotZero(t, requests)
	}
}

func TestStreamReadsNothingAhead(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		name  string
		limit int64
		read  func(i int) extent.Extent
	}{
		{"random", 1 << 20, func(int) extent.Extent { return extent.Extent{Off: 1 + r.Int64N(1<<40), Len: 1 + r.Int64N(8*kib)} }},
		{"the same again", 1 << 20, func(int) extent.Extent { return extent.Extent{Off: 5, Len: 5} }},
		{"no limit set", 0, func(i int) extent.Extent { return extent.Extent{Off: int64(i) * kib, Len: kib} }},
		{"nothing", 1 << 20, func(int) extent.Extent { return extent.Extent{} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, ahead := follow(&Stream{Limit: c.limit}, 1000, c.read)
			require.Empty(t, ahead)
		})
	}
}

func TestStreamStaysInTheFile(t *testing.T) {
	s := &Stream{Limit: 1 << 20}
	_, ahead := follow(s, 20, func(i int) extent.Extent { return extent.Extent{Off: int64(19-i) * kib, Len: kib} })
	require.GreaterOrEqual(t, ahead[0].Off, int64(0))
	s = &Stream{Limit: 1 << 20}
	_, ahead = follow(s, 20, func(i int) extent.Extent {
		return extent.Extent{Off: math.MaxInt64 - int64(20-i)*kib, Len: kib}
	})
	require.LessOrEqual(t, ahead.end(), int64(math.MaxInt64))
	for _, e := range ahead {
		require.Positive(t, e.Len)
	}
	s = &Stream{Limit: 1 << 20}
	_, ahead = follow(s, 20, func(i int) extent.Extent {
		return extent.Extent{Off: math.MaxInt64 - int64(40-2*i)*kib, Len: kib}
	})
	for _, e := range ahead {
		require.GreaterOrEqual(t, e.Off, int64(0))
		require.LessOrEqual(t, e.Len, math.MaxInt64-e.Off)
	}
}
