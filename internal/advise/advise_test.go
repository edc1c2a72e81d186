package advise

import (
	"fmt"
	"math/rand"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/history"
	"github.com/zoidfs/zoidfs/internal/trace"
)

// historyOf is a play as package history sees it: each rank on a node of its own.
func historyOf(s *play, mode history.Mode) history.History {
	h := history.History{Header: history.Header{Program: "play", Mode: mode}}
	all, err := trace.Merge(s.traces)
	if err != nil {
		panic(err)
	}
	ops := map[trace.Op]history.Op{
		trace.Open: history.Open, trace.Read: history.Read, trace.Write: history.Write, trace.Fsync: history.Fsync,
		trace.Flush: history.Close, trace.Lock: history.Lock, trace.Unlock: history.Unlock, trace.Truncate: history.Truncate,
	}
	for _, at := range all {
		c := at.Call
		e := history.Event{
			Proc: at.Trace, Node: at.Trace, Op: ops[c.Op], FD: int(c.Open), Ino: c.File, Off: c.Off, Len: c.Len, N: c.N,
			Call: c.Start + 1, Return: c.End + 1, Flags: unix.F_WRLCK,
		}
		switch c.Op {
		case trace.Open:
			e.Flags, e.Name = int(c.Arg), c.Path
		case trace.Write:
			e.Value = uint8(len(h.Events)%255 + 1)
		case trace.Release:
			continue
		}
		h.Events = append(h.Events, e)
	}
	return h
}

// TestAgreesWithHistory makes random programs, one call after the other, and has
// package history say in which modes a pair of accesses is not ordered.
func TestAgreesWithHistory(t *testing.T) {
	needs := map[Need]int{}
	for seed := range int64(1500) {
		rnd := rand.New(rand.NewSource(seed))
		s := newPlay()
		ranks := s.ranks(3)
		for _, r := range ranks { // every piece is read by somebody, or history would not look at it
			r.as("x", unix.O_RDONLY).read("x", 0, 8).close("x")
			r.as("x", []int{unix.O_RDONLY, unix.O_RDWR}[rnd.Intn(2)])
		}
		locked := map[*actor]bool{}
		for range 4 + rnd.Intn(12) {
			r := ranks[rnd.Intn(3)]
			off := int64(rnd.Intn(4)) * 2
			switch rnd.Intn(10) {
			case 0, 1, 2:
				r.write("x", off, 2)
			case 3, 4:
				r.read("x", off, 2)
			case 5:
				r.fsync("x")
			case 6, 7:
				if !locked[r] {
					r.close("x").as("x", []int{unix.O_RDONLY, unix.O_RDWR}[rnd.Intn(2)])
				}
			case 8:
				r.truncate("x", off)
			case 9:
				if len(locked) == 0 {
					r.lock("x", 0, 4)
					locked[r] = true
				} else if locked[r] {
					r.unlock("x", 0, 4)
					delete(locked, r)
				}
			}
		}
		want := NeedSession
		for _, m := range []history.Mode{history.Session, history.Commit} {
			if len(history.Unordered(historyOf(s, m))) > 0 {
				want = map[history.Mode]Need{history.Session: NeedCommit, history.Commit: NeedStrong}[m]
			}
		}
		require.Empty(t, history.Unordered(historyOf(s, history.Strong)))
		got := s.file("x", Options{})
		require.Equal(t, want, max(got.Zoidfs.Need, NeedSession), "seed %d: %v", seed, history.Unordered(historyOf(s, history.Session)))
		require.GreaterOrEqual(t, got.Model.Need, got.Zoidfs.Need)
		needs[got.Zoidfs.Need]++
	}
	for _, n := range []Need{NeedSession, NeedCommit, NeedStrong} {
		require.Greater(t, needs[n], 10, "of each kind there are some: %v", needs)
	}
}

func TestBarriers(t *testing.T) {
	s := newPlay()
	P, Q, R := s.rank(), s.rank(), s.rank()
	P.wronly("x")
	Q.rdonly("x")
	P.write("x", 0, 10) // ends at 25
	s.now = 1000
	Q.read("x", 0, 10)
	_ = R
	second := func(ns int64) string { return fmt.Sprintf("0.%09d", ns) }
	line := func(name string, rank int, enter, leave int64) string {
		return fmt.Sprintf("%s %d %s %s\n", name, rank, second(enter), second(leave))
	}
	for name, tt := range map[string]struct {
		text string
		want Order
	}{
		"none":                 {"", ByTime},
		"between":              {line("b", 0, 30, 100) + line("b", 1, 90, 101) + line("b", 2, 95, 99), ByBarrier},
		"of others":            {line("b", 0, 30, 100) + line("b", 2, 95, 99), ByTime},
		"over a third rank":    {line("b", 0, 30, 100) + line("b", 2, 95, 99) + "# later\n\n" + line("c", 2, 200, 210) + line("c", 1, 201, 211), ByBarrier},
		"in the wrong order":   {line("c", 2, 10, 20) + line("c", 1, 11, 21) + line("b", 0, 30, 100) + line("b", 2, 95, 99), ByTime},
		"before the write":     {line("b", 0, 20, 24) + line("b", 1, 20, 24), ByTime},
		"left after the read":  {line("b", 0, 30, 2000) + line("b", 1, 900, 2000), ByTime},
		"the second of a name": {line("b", 0, 10, 15) + line("b", 1, 10, 15) + line("b", 0, 30, 100) + line("b", 1, 90, 100), ByBarrier},
	} {
		t.Run(name, func(t *testing.T) {
			bars, err := ParseBarriers(strings.NewReader(tt.text))
			require.NoError(t, err)
			require.Equal(t, map[Order]int{tt.want: 1}, s.file("x", Options{Barriers: bars}).Orders)
			f := s.file("x", Options{Barriers: bars, Strict: true})
			if tt.want == ByTime {
				require.Equal(t, NeedMore, f.Model.Need)
				require.Equal(t, "nothing but time says which came first", f.Breaks[0].Missing)
			} else {
				require.Equal(t, NeedStrong, f.Model.Need)
			}
		})
	}
}

// TestChance has an open that came after an fsync by chance: only barriers show
// that nothing in the program sees to it.
func TestChance(t *testing.T) {
	s := newPlay()
	P, Q := s.rank(), s.rank()
	P.wronly("x").write("x", 0, 10).fsync("x") // returns at 25
	Q.rdonly("x")                              // called at 30
	s.now = 1000
	Q.read("x", 0, 10)
	f := s.file("x", Options{})
	require.Equal(t, NeedSession, f.Model.Need)
	require.EqualValues(t, 5, f.Margin)
	bar, err := ParseBarriers(strings.NewReader("b 0 0.0000001 0.0000002\nb 1 0.0000001 0.0000002\n"))
	require.NoError(t, err)
	f = s.file("x", Options{Barriers: bar, Strict: true})
	require.Equal(t, NeedCommit, f.Model.Need)
	require.Equal(t, map[Order]int{ByBarrier: 1}, f.Orders)
}

func TestBadBarriers(t *testing.T) {
	for text, want := range map[string]string{
		"b 0 1":                       "line 1: want NAME RANK ENTER LEAVE [JOB]",
		"\nb x 1 2":                   `line 2: "x" is not a rank`,
		"b -1 1 2":                    `line 1: "-1" is not a rank`,
		"b 0 one 2":                   `line 1: "one" is not a time in seconds`,
		"b 0 1.x 2":                   `line 1: "1.x" is not a time in seconds`,
		"b 0 2 1.9":                   "line 1: left before it was entered",
		"b 0 99999999999 99999999999": `line 1: "99999999999" is not a time in seconds`,
	} {
		_, err := ParseBarriers(strings.NewReader(text))
		require.EqualError(t, err, want)
	}
	bars, err := ParseBarriers(strings.NewReader("b 3 1.5 1.0625e my job"))
	require.ErrorContains(t, err, "is not a time")
	require.Empty(t, bars)
	bars, err = ParseBarriers(strings.NewReader("b 3 1.5 2 my job"))
	require.NoError(t, err)
	require.Equal(t, []Barrier{{"b", []Member{{"my job", 3, 1_500_000_000, 2_000_000_000}}}}, bars)
}

func TestPerNode(t *testing.T) {
	s := newPlay()
	P, Q := s.rank(), s.rank()
	Q.node, Q.proc = 0, 2 // beside P
	s.traces[0].Procs = append(s.traces[0].Procs, trace.Process{ID: 2, PID: 7, Command: "cat"})
	P.wronly("x")
	Q.rdonly("x")
	P.write("x", 0, 10)
	Q.read("x", 0, 10)
	f := s.file("x", Options{})
	require.Equal(t, NeedStrong, f.Model.Need)
	require.Equal(t, []string{"cat[7]"}, f.Readers)
	require.Equal(t, NeedNothing, s.file("x", Options{PerNode: true}).Model.Need)
}

// TestMappedPages are written back by the kernel, for whoever opened the file.
func TestMappedPages(t *testing.T) {
	s := newPlay()
	P, Q := s.rank(), s.rank()
	P.rdwr("x")
	Q.rdonly("x")
	P.proc = 0
	P.write("x", 0, 4096)
	Q.read("x", 0, 10)
	f := s.file("x", Options{})
	require.Equal(t, NeedStrong, f.Model.Need)
	require.Equal(t, []string{"rank 0"}, f.Writers)
	P.open["x"] = 999
	P.write("x", 0, 4096)
	require.Equal(t, 1, s.report(Options{}).Skipped)
}

// TestManyPieces is about time: interleaved pieces of many ranks, read by all.
func TestManyPieces(t *testing.T) {
	s := newPlay()
	ranks := s.ranks(16)
	for _, r := range ranks {
		r.wronly("x")
	}
	for i := range int64(500) {
		for _, r := range ranks {
			r.write("x", (i*16+int64(r.rank))*100, 100)
		}
	}
	for _, r := range ranks {
		r.close("x")
	}
	for _, r := range ranks {
		r.rdonly("x").read("x", 0, 16*500*100)
	}
	f := s.file("x", Options{})
	require.Equal(t, NeedSession, f.Model.Need)
	require.Equal(t, map[Order]int{ByOpen: 16 * 15 * 500}, f.Orders)
	require.False(t, f.Partial)
}
