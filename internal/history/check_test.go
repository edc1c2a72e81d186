package history

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

// parse makes a history of a text in which every line is a call that begins when
// the one before has returned; a line that begins with "|" overlaps that one.
// A line is the process, a call and its words, as in
//
//	P open x 1 creat; P write 1 0 10 =1; P read 1 0 12 : 10x1
//
// Processes P and Q live on nodes 0 and 1, R on 0 and S on 2.
func parse(t *testing.T, mode Mode, text string) History {
	t.Helper()
	h := History{Header: Header{Program: t.Name(), Mode: mode, Visibility: 1000}}
	now := int64(0)
	for l := range strings.SplitSeq(text, ";") {
		l = strings.TrimSpace(l)
		l, overlaps := strings.CutPrefix(l, "|")
		e := parseCall(t, strings.Fields(l))
		e.Proc = strings.Index("PQRS", strings.Fields(l)[0])
		e.Node = []int{0, 1, 0, 2}[e.Proc]
		now += 10
		e.Call, e.Return = now, now+5
		if last := len(h.Events) - 1; overlaps {
			e.Call = h.Events[last].Call + 1
			h.Events[last].Return = max(h.Events[last].Return, now+3)
		}
		h.Events = append(h.Events, e)
	}
	return h
}

func parseCall(t *testing.T, f []string) Event {
	t.Helper()
	e := Event{Op: Op(f[1])}
	var rest string
	scan := func(format string, to ...any) {
		_, err := fmt.Sscanf(strings.Join(f[2:], " ")+" ;", format+" %s", append(to, &rest)...)
		require.NoError(t, err, "%v", f)
	}
	switch e.Op {
	case Open:
		flags := ""
		scan("%s %d %s", &e.Name, &e.FD, &flags)
		e.Flags = map[string]int{"rdonly": unix.O_RDONLY, "rdwr": unix.O_RDWR, "creat": unix.O_RDWR | unix.O_CREAT, "sync": unix.O_RDWR | unix.O_SYNC}[flags]
		e.Ino = uint64(len(e.Name)) // names of one length are one file
	case Write, Store, Append:
		scan("%d %d %d =%d", &e.FD, &e.Off, &e.Len, &e.Value)
		e.N = e.Len
	case Sieve: // fd window own value : what the holes have
		scan("%d %d %d own %d %d =%d : %d", &e.FD, &e.Off, &e.Len, &e.Own.Off, &e.Own.Len, &e.Value, &e.N)
		e.Seen, e.N = []Run{{e.Len, uint8(e.N)}}, e.Len
	case Read:
		scan("%d %d %d", &e.FD, &e.Off, &e.Len)
		for _, r := range f[6:] {
			var run Run
			_, err := fmt.Sscanf(r, "%dx%d", &run.Len, &run.Value)
			require.NoError(t, err, "%v", f)
			e.Seen, e.N = append(e.Seen, run), e.N+run.Len
		}
	case Lock, Unlock:
		scan("%d %d %d", &e.FD, &e.Off, &e.Len)
		e.Flags = unix.F_WRLCK
	case Truncate:
		scan("%d %d", &e.FD, &e.Len)
	case Chmod:
		scan("%d %o", &e.FD, &e.Flags)
	case Fstat:
		scan("%d %d", &e.FD, &e.N)
	case Rename:
		scan("%s %s", &e.Name, &e.To)
	case Dup:
		scan("%d %d", &e.FD, &e.FD2)
	default:
		scan("%d", &e.FD)
	}
	return e
}

// everyMode are all modes.
var everyMode = consistency.All()

const open2 = "P open x 1 creat; Q open x 1 rdonly; "

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name  string
		modes []Mode // in which it is wrong
		why   Reason
		text  string
	}{
		{"nothing synchronises", []Mode{Strong}, Stale, open2 + "P write 1 0 10 =1; Q read 1 0 10 : 10x0"},
		{"seen without a sync", nil, "", open2 + "P write 1 0 10 =1; Q read 1 0 10 : 10x1"},
		{"one node", everyMode, Stale, "P open x 1 creat; R open x 1 rdonly; P write 1 0 10 =1; R read 1 0 10 : 10x0"},
		{"own write", everyMode, Stale, open2 + "P write 1 0 10 =1; P read 1 0 10 : 10x0"},
		{"fsync", []Mode{Strong, Commit, Laminated}, Stale, open2 + "P write 1 0 10 =1; P fsync 1; Q read 1 0 10 : 10x0"},
		{"O_SYNC", []Mode{Strong, Commit, Laminated}, Stale, "P open x 1 creat; P open x 2 sync; Q open x 1 rdonly; P write 2 0 10 =1; Q read 1 0 10 : 10x0"},
		{"close, old file", []Mode{Strong, Commit, Laminated}, Stale, open2 + "P write 1 0 10 =1; P close 1; Q read 1 0 10 : 10x0"},
		{"close, open", []Mode{Strong, Commit, Laminated, Session}, Stale, open2 + "P write 1 0 10 =1; P close 1; Q open x 2 rdonly; Q read 2 0 10 : 10x0"},
		{"close while open runs", []Mode{Strong, Commit, Laminated}, Stale, open2 + "P write 1 0 10 =1; P close 1;| Q open x 2 rdonly; Q read 2 0 10 : 10x0"},
		{"close of a dup", []Mode{Strong, Commit, Laminated, Session}, Stale, open2 + "P write 1 0 10 =1; P dup 2 1; P close 2; Q open x 2 rdonly; Q read 2 0 10 : 10x0"},
		{"close by a child", []Mode{Strong, Commit, Laminated, Session}, Stale, open2 + "P write 1 0 10 =1; P forkclose 1; Q open x 2 rdonly; Q read 2 0 10 : 10x0"},
		{"close of another file", []Mode{Strong}, Stale, open2 + "P open yy 2 creat; P write 1 0 10 =1; P close 2; Q open x 2 rdonly; Q read 2 0 10 : 10x0"},
		{"locks", everyMode, Stale, open2 + "P lock 1 0 10; P write 1 0 10 =1; P unlock 1 0 10; Q lock 1 0 10; Q read 1 0 10 : 10x0; Q unlock 1 0 10"},
		{"locks of other bytes", []Mode{Strong}, Stale, open2 + "P lock 1 20 10; P write 1 0 10 =1; P unlock 1 20 10; Q lock 1 20 10; Q read 1 0 10 : 10x0; Q unlock 1 20 10"},
		{"lock after fsync", everyMode, Stale, open2 + "P write 1 0 10 =1; P fsync 1; Q lock 1 0 10; Q read 1 0 10 : 10x0"},
		{"msync", []Mode{Strong, Commit, Laminated, Session}, Stale, open2 + "P store 1 0 10 =1; Q open x 2 rdonly; Q read 2 0 10 : 10x0"},
		{"sealing publishes", []Mode{Strong, Laminated}, Stale, open2 + "P write 1 0 10 =1; P chmod 1 444; Q read 1 0 10 : 10x0"},
		{"rename publishes", everyMode, Stale, "P open a 1 creat; P write 1 0 10 =1; P close 1; P rename a b; Q open b 1 rdonly; Q read 1 0 10 : 10x0"},
		{"renamed without a close", everyMode, Stale, "P open a 1 creat; P write 1 0 10 =1; P rename a b; Q open b 1 rdonly; Q read 1 0 10 : 10x0"},
		{"fsync by another process of the node", []Mode{Strong, Commit, Laminated}, Stale, open2 + "R open x 1 rdonly; P write 1 0 10 =1; R fsync 1; Q read 1 0 10 : 10x0"},
		{"truncation publishes what others wrote", []Mode{Strong, Commit, Laminated}, Stale, "P open x 1 creat; Q open x 1 rdwr; S open x 1 rdonly; P write 1 0 10 =1; Q truncate 1 20; S read 1 0 20 : 20x0"},
		{"open for writing too", everyMode, Stale, "P open x 1 creat; Q open x 1 rdwr; P write 1 0 10 =1; Q read 1 0 10 : 10x0"},
		{"ordered overwrites", everyMode, Stale, "P open x 1 creat; Q open x 1 rdwr; P write 1 0 10 =1; P fsync 1; Q write 1 0 10 =2; Q fsync 1; S open x 1 rdonly; S lock 1 0 10; S read 1 0 10 : 10x1"},
		{"overwrites of two nodes, not ordered", []Mode{Strong}, Stale, "P open x 1 creat; Q open x 1 rdwr; P write 1 0 10 =1; Q write 1 0 10 =2; Q fsync 1; P fsync 1; S open x 1 rdonly; S read 1 0 10 : 10x1"},
		{"one byte of two writers is lost", everyMode, Stale, "P open x 1 creat; Q open x 1 rdwr; P write 1 0 5 =1; Q write 1 5 5 =2; P fsync 1; Q fsync 1; S open x 1 rdonly; S lock 1 0 10; S read 1 0 10 : 5x0 5x2"},
		{"invented", everyMode, Invented, open2 + "P write 1 0 10 =1; Q read 1 0 11 : 10x1 1x1"},
		{"of a later write", everyMode, Future, open2 + "Q read 1 0 10 : 10x1; P write 1 0 10 =1"},
		{"of a write that runs", nil, "", open2 + "P write 1 0 10 =1;| Q read 1 0 10 : 4x1 6x0"},
		{"back", everyMode, Back, open2 + "P write 1 0 10 =1;| Q read 1 0 10 : 10x1; Q read 1 0 10 : 10x0"},
		{"a hole written back over a byte", everyMode, Stale, "P open x 1 creat; Q open x 1 rdwr; P write 1 0 5 =1; Q read 1 0 10 : ; Q sieve 1 0 10 own 5 5 =2 : 0; P fsync 1; Q fsync 1; S open x 1 rdonly; S lock 1 0 10; S read 1 0 10 : 5x0 5x2"},
		{"a hole written back over a later byte", everyMode, Stale, "P open x 1 creat; Q open x 1 rdwr; Q read 1 0 10 : ; Q sieve 1 0 10 own 5 5 =2 : 0; P write 1 0 5 =1; P fsync 1; Q fsync 1; S open x 1 rdonly; S lock 1 0 10; S read 1 0 10 : 5x0 5x2"},
		{"a truncated byte comes back", everyMode, Stale, open2 + "P write 1 0 10 =1; P fsync 1; P truncate 1 5; P truncate 1 10; Q read 1 0 10 : 10x1"},
		{"size before a truncation", everyMode, Size, open2 + "P write 1 0 10 =1; P fsync 1; P truncate 1 0; Q fstat 1 10"},
		{"size before a write", []Mode{Strong}, Size, open2 + "P write 1 0 10 =1; Q fstat 1 0"},
		{"size before a close", []Mode{Strong, Commit, Laminated, Session}, Size, open2 + "P write 1 0 10 =1; P close 1; Q open x 2 rdonly; Q fstat 2 0"},
		{"size that cannot be", everyMode, Size, open2 + "P write 1 0 10 =1; Q fstat 1 11"},
		{"short read", []Mode{Strong, Commit, Laminated}, Size, open2 + "P write 1 5 5 =1; P fsync 1; Q read 1 0 5 : "},
		{"two hold one lock", everyMode, Excluded, open2 + "P lock 1 0 10; Q lock 1 5 10; P unlock 1 0 10; Q unlock 1 5 10"},
		{"sealed", []Mode{Laminated}, Sealed, "P open x 1 creat; Q open x 1 rdwr; P write 1 0 10 =1; P chmod 1 444; Q write 1 0 10 =2"},
		{"sealed, unsealed", nil, "", "P open x 1 creat; Q open x 1 rdwr; P write 1 0 10 =1; P chmod 1 444; P chmod 1 644; Q write 1 0 10 =2"},
		{"a record is lost", everyMode, Record, "P open x 1 creat; Q open x 1 creat; P append 1 0 5 =1; Q append 1 0 5 =2; P fsync 1; Q fsync 1; Q open x 2 rdonly; Q lock 2 0 100; Q read 2 0 100 : 5x2"},
		{"a record is torn", everyMode, Record, "P open x 1 creat; P append 1 0 5 =1; P append 1 0 5 =2; P read 1 0 100 : 3x1 5x2"},
		{"a record is there twice", everyMode, Record, "P open x 1 creat; P append 1 0 5 =1; P append 1 0 5 =2; P read 1 0 100 : 5x1 5x2 5x1"},
		{"records out of order", everyMode, Record, "P open x 1 creat; P append 1 0 5 =1; P append 1 0 5 =2; P read 1 0 100 : 5x2 5x1"},
		{"a name is missed", everyMode, Order, "P open x 1 creat; P rename x y; Q open x 1 rdonly"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, mode := range everyMode {
				got := Check(parse(t, mode, tt.text)).Violations
				wrong := false
				for _, m := range tt.modes {
					wrong = wrong || m == mode
				}
				if !wrong {
					require.Empty(t, got, mode)
					continue
				}
				require.NotEmpty(t, got, mode)
				if mode != Strong { // which has more reasons to find fault with the same
					require.Equal(t, tt.why, got[0].Reason, "%s: %v", mode, got)
				}
			}
		})
	}
}

func TestVisibilityOfEventual(t *testing.T) {
	h := parse(t, Eventual, open2+"P write 1 0 10 =1; Q read 1 0 10 : 10x0")
	last := &h.Events[len(h.Events)-1]
	last.Call, last.Return = h.Events[2].Return+999, h.Events[2].Return+2000
	require.Empty(t, Check(h).Violations, "younger than the visibility")
	last.Call++
	require.Equal(t, Stale, Check(h).Violations[0].Reason, "as old as it")
	h.Visibility = time.Hour
	require.Empty(t, Check(h).Violations)
}

// TestUntimed requires that without a common clock only what processes told
// each other counts.
func TestUntimed(t *testing.T) {
	h := parse(t, Commit, open2+"P write 1 0 10 =1; P fsync 1; Q read 1 0 10 : 10x0")
	h.Untimed = true
	require.Empty(t, Check(h).Violations)
	h.Events[4].After = []int{3}
	require.Equal(t, Stale, Check(h).Violations[0].Reason)
}

// TestFailures requires that a write that failed may be seen or not, and that it
// is reported.
func TestFailures(t *testing.T) {
	for _, seen := range []string{"10x0", "10x1", "3x1 7x0"} {
		h := parse(t, Strong, open2+"P write 1 0 10 =1; Q read 1 0 10 : "+seen)
		h.Events[2].Errno = syscall.EIO
		got := Check(h).Violations
		require.Len(t, got, 1, seen)
		require.Equal(t, Failed, got[0].Reason)
	}
}

// TestCrash requires that a crash excuses what was not fsynced and nothing else.
func TestCrash(t *testing.T) {
	lost := parse(t, Strong, open2+"P write 1 0 10 =1; Q read 1 0 10 : 10x0")
	lost.Crash = true
	require.Empty(t, Check(lost).Violations)
	synced := parse(t, Strong, open2+"P write 1 0 10 =1; P fsync 1; Q read 1 0 10 : 10x0")
	synced.Crash = true
	require.NotEmpty(t, Check(synced).Violations)
}

func TestRaces(t *testing.T) {
	free := parse(t, Commit, open2+"P write 1 0 10 =1; P fsync 1; Q read 1 0 10 : 10x1")
	require.Zero(t, Check(free).Races)
	raced := parse(t, Session, open2+"P write 1 0 10 =1; P fsync 1; Q read 1 0 10 : 10x1")
	require.Equal(t, 1, Check(raced).Races)
}

func TestCounters(t *testing.T) {
	h := parse(t, Eventual, "P open x 1 creat; Q open x 1 rdwr; P read 1 0 4 : ; P write 1 0 4 =1; Q read 1 0 4 : ; Q write 1 0 4 =1")
	h.Events[3].Op, h.Events[5].Op = Incr, Incr
	lost := func(v Violation) bool { return v.Reason == Lost }
	require.True(t, slices.ContainsFunc(Check(h).Violations, lost))
}

// TestLinearizability feeds what only the search for an order finds: pairs of
// reads by different processes while a write, or a truncation, runs.
func TestLinearizability(t *testing.T) {
	two := "P open x 1 creat; Q open x 1 rdonly; R open x 1 rdonly; S open x 1 rdwr; "
	four := two + "P write 1 0 4 =1; "
	for _, tt := range []struct {
		name string
		unit int64
		ok   bool
		text string
	}{
		{"either value while the write runs", 0, true, two + "P write 1 0 10 =1;| S read 1 0 10 : 10x0;| Q read 1 0 10 : 10x1"},
		{"back in time, another reader", 0, false, two + "P write 1 0 10 =1;| Q read 1 0 10 : 10x1; R read 1 0 10 : 10x0"},
		{"half of a write, by bytes", 0, true, two + "P write 1 0 10 =1;| Q read 1 0 10 : 5x1 5x0"},
		{"half of a write, by units", 16, false, two + "P write 1 0 10 =1;| Q read 1 0 10 : 5x1 5x0"},
		{"half of a write in two units", 5, true, four + "P truncate 1 10; P write 1 0 10 =2;| Q read 1 0 10 : 5x2 5x0"},
		{"size back in time", 0, false, two + "P write 1 0 10 =1;| Q fstat 1 10; R fstat 1 0"},
		{"part of a write by size", 0, true, two + "P write 1 0 10 =1;| Q fstat 1 4"},
		{"part of a write by size, by units", 16, false, two + "P write 1 0 10 =1;| Q fstat 1 4"},

		{"the old end", 16, true, four + "P write 1 0 10 =2;| Q read 1 0 12 : 4x1"},
		{"the new end", 16, true, four + "P write 1 0 10 =2;| Q read 1 0 12 : 10x2"},
		{"new bytes up to the old end", 16, false, four + "P write 1 0 10 =2;| Q read 1 0 12 : 4x2"},
		{"new bytes up to the old end, by bytes", 0, true, four + "P write 1 0 10 =2;| Q read 1 0 12 : 4x2"},
		{"old bytes up to the new end, where there are mappings", 16, true, "P open x 1 creat; Q open x 1 rdwr; P store 1 0 4 =1; P write 1 0 10 =2;| Q read 1 0 12 : 4x1 6x0"},
		{"old bytes up to the new end", 16, false, four + "P write 1 0 10 =2;| Q read 1 0 12 : 4x1 6x0"},
		{"a part of the new bytes", 16, false, four + "P write 1 0 10 =2;| Q read 1 0 12 : 7x2"},
		{"the end goes back, by bytes read", 16, false, four + "P write 1 0 10 =2;| Q read 1 4 8 : 6x2; R read 1 4 8 : "},
		{"the end goes back, by a size", 16, false, four + "P write 1 0 10 =2;| Q fstat 1 10; R read 1 0 12 : 4x1"},
		{"the end goes back, by a read of what is not new", 16, false, four + "P write 1 8 2 =2;| Q read 1 0 8 : 4x1 4x0; R read 1 0 8 : 4x1"},
		{"a hole shows before its end", 16, false, four + "P write 1 8 2 =2;| Q read 1 0 8 : 4x1 2x0"},
		{"the first part is there", 5, true, four + "P write 1 0 10 =2;| Q read 1 0 12 : 5x2"},
		{"the last part is there", 5, true, four + "P write 1 0 10 =2;| Q read 1 0 12 : 4x1 1x0 5x2"},
		{"the first part, and the end of the last", 5, false, four + "P write 1 0 10 =2;| Q read 1 0 10 : 5x2 5x0"},
		{"neither part, and the end of the first", 5, true, four + "P write 1 0 10 =2;| Q read 1 0 5 : 4x1 1x0"},
		{"neither part, the end of the first, and no other", 5, false, four + "P write 1 0 5 =2;| Q read 1 0 5 : 4x1 1x0"},
		{"a write behind the unit", 5, true, four + "P write 1 6 2 =2;| Q read 1 0 5 : 4x1 1x0"},
		{"a write behind the unit, back", 5, false, four + "P write 1 6 2 =2;| Q read 1 0 5 : 4x1 1x0; R read 1 0 5 : 4x1"},

		{"cut off", 16, true, two + "P write 1 0 10 =1; P truncate 1 4;| Q read 1 0 12 : 4x1"},
		{"not yet cut off", 16, true, two + "P write 1 0 10 =1; P truncate 1 4;| Q read 1 0 12 : 10x1"},
		{"cut off, and as long", 16, false, two + "P write 1 0 10 =1; P truncate 1 4;| Q read 1 0 12 : 4x1 6x0"},
		{"cut off elsewhere", 16, false, two + "P write 1 0 10 =1; P truncate 1 4;| Q read 1 0 12 : 7x1"},
		{"cut off, and not any more", 16, false, two + "P write 1 0 10 =1; P truncate 1 4;| Q fstat 1 4; R read 1 0 12 : 10x1"},
		{"made longer", 16, true, four + "P truncate 1 8;| Q read 1 0 12 : 4x1 4x0"},
		{"made longer in part", 16, false, four + "P truncate 1 8;| Q read 1 0 12 : 4x1 2x0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := parse(t, Strong, tt.text)
			h.Atomic = tt.unit
			// What others overlap runs until the end.
			before, _, _ := strings.Cut(tt.text, ";|")
			h.Events[strings.Count(before, ";")].Return = h.Events[len(h.Events)-1].Return + 1
			if got := Check(h).Violations; tt.ok {
				require.Empty(t, got)
			} else {
				require.Len(t, got, 1)
				require.Equal(t, Order, got[0].Reason)
			}
		})
	}
}

// TestLongCalls: a call of more than one request takes effect request by request,
// wherever the kernel cuts it.
func TestLongCalls(t *testing.T) {
	const long = 3 << 20
	text := fmt.Sprintf("P open x 1 creat; Q open x 1 rdonly; R open x 1 rdonly; P write 1 0 %d =1;| ", long)
	for _, tt := range []struct {
		name, text string
		ok         bool
	}{
		{"a part", "Q read 1 0 2000000 : 1000000x1; R fstat 1 2097152", true},
		{"a part, and no more for a while", "Q read 1 0 500000 : 500000x1; R read 1 600000 10 : ", true},
		{"a part, and what is behind it", "Q read 1 1200000 10 : 10x1; R read 1 0 10 : ", false},
		{"back", "Q fstat 1 2097152; R read 1 0 2000000 : 1000000x1", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := parse(t, Strong, text+tt.text)
			h.Atomic = 4 << 20
			h.Events[3].Return = h.Events[len(h.Events)-1].Return + 1
			require.Equal(t, tt.ok, len(Check(h).Violations) == 0, Check(h).Violations)
		})
	}
}
