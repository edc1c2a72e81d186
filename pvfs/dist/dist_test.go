package dist

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// strip is one step of the dumbest description of a distribution: the next n
// bytes of the file go to server.
type strip struct{ server, n int }

type model struct {
	name    string
	d       Distribution
	servers int
	pattern []strip // repeated for ever
}

func must[D any](d D, err error) D {
	if err != nil {
		panic(err)
	}
	return d
}

func models() []model {
	var out []model
	out = append(out, model{"basic", Basic{}, 1, []strip{{0, 1000}}})
	for _, c := range []struct{ strip, n int }{{1, 1}, {1, 3}, {7, 1}, {4, 4}, {13, 5}, {64, 2}} {
		m := model{name: fmt.Sprintf("simple %d over %d", c.strip, c.n), d: must(NewSimpleStripe(int64(c.strip), c.n)), servers: c.n}
		for i := range c.n {
			m.pattern = append(m.pattern, strip{i, c.strip})
		}
		out = append(out, m)
	}
	for _, c := range []struct{ groups, strip, factor, n int }{{2, 4, 3, 4}, {2, 5, 2, 5}, {3, 1, 4, 8}, {9, 3, 2, 4}, {1, 6, 2, 3}, {2, 3, 5, 3}, {2, 8, 2, 1}} {
		m := model{name: fmt.Sprintf("twod %+v", c), d: must(NewTwoD(c.groups, int64(c.strip), c.factor, c.n)), servers: c.n}
		g := min(c.groups, c.n)
		for k := range g {
			first, last := k*(c.n/g), (k+1)*(c.n/g)
			if k == g-1 {
				last = c.n
			}
			for range c.factor {
				for s := first; s < last; s++ {
					m.pattern = append(m.pattern, strip{s, c.strip})
				}
			}
		}
		out = append(out, m)
	}
	for _, c := range []struct {
		spec    string
		servers int
		pattern []strip
	}{
		{"0:5", 1, []strip{{0, 5}}},
		{"0:16;1:32;2:4;3:64", 4, []strip{{0, 16}, {1, 32}, {2, 4}, {3, 64}}},
		{"1:3;0:2;1:7;2:1;0:9;", 5, []strip{{1, 3}, {0, 2}, {1, 7}, {2, 1}, {0, 9}}},
		{"0:3;0:4;1:5", 2, []strip{{0, 3}, {0, 4}, {1, 5}}},
	} {
		out = append(out, model{"varstrip " + c.spec, must(ParseVarStrip(c.spec, c.servers)), c.servers, c.pattern})
	}
	return out
}

// place is where one logical byte lies.
type place struct {
	server int
	phys   int64
}

// bytes deals out the first n bytes of the file.
func (m model) bytes(n int) []place {
	out := make([]place, 0, n)
	next := make([]int64, m.servers)
	for {
		for _, s := range m.pattern {
			for range s.n {
				if len(out) == n {
					return out
				}
				out = append(out, place{s.server, next[s.server]})
				next[s.server]++
			}
		}
	}
}

const modelBytes = 3000

func TestLocateAndLogicalAgainstBytes(t *testing.T) {
	for _, m := range models() {
		t.Run(m.name, func(t *testing.T) {
			want := m.bytes(modelBytes)
			for off := range modelBytes - 200 {
				s, p, n := m.d.Locate(int64(off))
				require.Equal(t, want[off], place{s, p}, "byte %d", off)
				require.Positive(t, n)
				for i := range min(n, 100) {
					require.Equal(t, place{s, p + i}, want[off+int(i)], "byte %d of the run at %d", i, off)
				}
				back, n := m.d.Logical(s, p)
				require.Equal(t, int64(off), back)
				require.Positive(t, n)
				for i := range min(n, 100) {
					require.Equal(t, place{s, p + i}, want[off+int(i)])
				}
			}
		})
	}
}

func TestSizesAgainstBytes(t *testing.T) {
	for _, m := range models() {
		t.Run(m.name, func(t *testing.T) {
			want := m.bytes(modelBytes)
			sizes := make([]int64, m.servers)
			for size := range modelBytes {
				for i := range sizes {
					require.Equal(t, sizes[i], m.d.PhysSize(i, int64(size)), "server %d at size %d", i, size)
				}
				require.Equal(t, int64(size), m.d.Size(sizes), "dense file")
				sizes[want[size].server]++
			}
			r := rand.New(rand.NewPCG(1, 2))
			for range 200 { // sparse: each server ends where it likes
				end := int64(0)
				for i := range sizes {
					sizes[i] = 0
				}
				for range r.IntN(6) {
					off := r.IntN(modelBytes)
					sizes[want[off].server] = max(sizes[want[off].server], want[off].phys+1)
					end = max(end, int64(off)+1)
				}
				require.Equal(t, end, m.d.Size(sizes), "sparse file %v", sizes)
			}
		})
	}
}

func TestStripIsOnServerZero(t *testing.T) {
	for _, m := range models() {
		want := m.bytes(modelBytes)
		for i := range min(m.d.Strip(), modelBytes) {
			require.Equal(t, place{0, i}, want[i], m.name)
		}
	}
	n, err := VarStripStart("0:16k;1:1")
	require.NoError(t, err)
	require.Equal(t, int64(16384), n)
	n, err = VarStripStart("1:5;0:3")
	require.NoError(t, err)
	require.Zero(t, n, "the first strip is on another server")
}

func TestNextCoversTheExtentInOrder(t *testing.T) {
	for _, m := range models() {
		want := m.bytes(modelBytes)
		for seed := range uint64(50) {
			r := rand.New(rand.NewPCG(seed, 9))
			e := extent.Extent{Off: int64(r.IntN(1500)), Len: int64(r.IntN(1000))}
			at := e.Off
			for rest := e; !rest.Empty(); {
				var run Run
				run, rest = Next(m.d, rest)
				require.Equal(t, at, run.Off)
				require.Positive(t, run.Len)
				for i := range run.Len {
					require.Equal(t, place{run.Server, run.Phys + i}, want[run.Off+i])
				}
				at += run.Len
			}
			require.Equal(t, e.End(), at)
		}
	}
}

func TestLargeOffsets(t *testing.T) {
	for _, m := range models() {
		for _, off := range []int64{1<<40 + 17, 1 << 55, math.MaxInt64 - 1<<20} {
			s, p, n := m.d.Locate(off)
			require.Positive(t, n, m.name)
			back, _ := m.d.Logical(s, p)
			require.Equal(t, off, back, m.name)
			sum := int64(0)
			for i := range m.servers {
				sum += m.d.PhysSize(i, off)
			}
			require.Equal(t, off, sum, m.name)
		}
		off, n := m.d.Logical(m.servers-1, math.MaxInt64)
		require.Positive(t, off, m.name)
		require.Positive(t, n, m.name)
	}
}

func TestRefusals(t *testing.T) {
	for name, err := range map[string]error{
		"strip 0":         second(NewSimpleStripe(0, 1)),
		"strip negative":  second(NewSimpleStripe(-5, 1)),
		"strip huge":      second(NewSimpleStripe(MaxStrip+1, 1)),
		"no servers":      second(NewSimpleStripe(1, 0)),
		"many servers":    second(NewSimpleStripe(1, MaxServers+1)),
		"no groups":       second(NewTwoD(0, 1, 1, 1)),
		"no factor":       second(NewTwoD(1, 1, 0, 1)),
		"period overflow": second(NewTwoD(2, MaxStrip, math.MaxInt32, 1024)),
		"empty":           second(ParseVarStrip("", 1)),
		"no size":         second(ParseVarStrip("0", 1)),
		"size zero":       second(ParseVarStrip("0:0", 1)),
		"size overflow":   second(ParseVarStrip("0:99999999999g", 1)),
		"hole in servers": second(ParseVarStrip("0:1;2:1", 4)),
		"beyond servers":  second(ParseVarStrip("0:1;1:1", 1)),
		"negative server": second(ParseVarStrip("-1:5", 1)),
	} {
		require.Error(t, err, name)
	}
}

func second[A any](_ A, err error) error { return err }

func TestNextDoesNotAllocate(t *testing.T) {
	var d Distribution = must(NewSimpleStripe(65536, 4))
	var sum int64
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for e := (extent.Extent{Off: 5, Len: 1 << 20}); !e.Empty(); {
			var r Run
			r, e = Next(d, e)
			sum += r.Len
		}
	}))
	require.Positive(t, sum)
}
