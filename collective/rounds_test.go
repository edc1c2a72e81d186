package collective

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write what is decided into testdata/*.txt, to be read over")

// TestTranscripts replays the stories of testdata: each line is a comment, an
// event with its time, or, indented, what was decided upon it.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			got := replay(t, string(want))
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
			}
			require.Equal(t, string(want), got)
		})
	}
}

// stage is a Rounds under test: keys and tokens are words.
type stage struct {
	t      *testing.T
	rounds *Rounds[string, string]
	flying map[string][]*Round[string, string]
	out    strings.Builder
}

var epoch0 = time.Unix(0, 0)

func replay(t *testing.T, story string) string {
	s := &stage{t: t, flying: map[string][]*Round[string, string]{}}
	s.options(RoundOptions{})
	for line := range strings.Lines(story) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "\t") {
			continue
		}
		fmt.Fprintln(&s.out, line)
		if line != "" && line[0] != '#' {
			s.event(strings.Fields(line))
		}
	}
	return s.out.String()
}

func (s *stage) options(o RoundOptions) {
	rounds, err := NewRounds[string, string](o)
	require.NoError(s.t, err)
	s.rounds = rounds
}

func (s *stage) event(f []string) {
	if f[0] == "options" {
		s.options(parseOptions(s.t, f[1:]))
		return
	}
	took, err := time.ParseDuration(f[0])
	require.NoError(s.t, err)
	now := epoch0.Add(took)
	switch f[1] {
	case "arrive":
		c := Call[string]{Member: parseMember(s.t, f[3]), Token: f[4]}
		if len(f) > 5 {
			c.Bytes, err = strconv.ParseInt(f[5], 10, 64)
			require.NoError(s.t, err)
		}
		s.print(f[2], s.rounds.Arrive(now, f[2], c))
	case "finished":
		r := s.flying[f[2]][0]
		s.flying[f[2]] = s.flying[f[2]][1:]
		s.print(f[2], s.rounds.Finished(now, r, now.Sub(r.Started)))
	case "tick":
		s.print(f[2], s.rounds.Tick(now, f[2]))
	case "leave":
		fmt.Fprintln(&s.out, "\tleft:", s.rounds.Leave(f[2], f[3]))
	case "elsewhere":
		for _, r := range s.rounds.Elsewhere(now, parseMember(s.t, f[2])) {
			s.print(r.Key, Decision[string, string]{Start: r})
		}
	default:
		s.t.Fatalf("no such event: %v", f)
	}
}

func (s *stage) print(key string, d Decision[string, string]) {
	if !d.Wake.IsZero() {
		fmt.Fprintf(&s.out, "\twake %s at %v\n", key, d.Wake.Sub(epoch0))
	}
	r := d.Start
	if r == nil {
		return
	}
	s.flying[key] = append(s.flying[key], r)
	fmt.Fprintf(&s.out, "\tstart %s, %v:", key, r.Why)
	for _, c := range r.Calls {
		fmt.Fprintf(&s.out, " %s", c.Token)
	}
	if r.Held > 0 {
		fmt.Fprintf(&s.out, "; held %v", r.Held)
	}
	if len(r.Missing) > 0 {
		fmt.Fprintf(&s.out, "; %d missing", len(r.Missing))
	}
	fmt.Fprintln(&s.out)
}

func parseOptions(t *testing.T, f []string) RoundOptions {
	var o RoundOptions
	for _, word := range f {
		name, value, _ := strings.Cut(word, "=")
		n, err := strconv.Atoi(value)
		require.NoError(t, err)
		switch name {
		case "members":
			o.Members = n
		case "bytes":
			o.Bytes = int64(n)
		case "flights":
			o.Flights = n
		default:
			t.Fatalf("no such option: %s", word)
		}
	}
	return o
}

// parseMember reads JOB.RANK, or - for a process of no job.
func parseMember(t *testing.T, s string) Member {
	if s == "-" {
		return Member{}
	}
	var m Member
	_, err := fmt.Sscanf(s, "%d.%d", &m.Job, &m.Rank)
	require.NoError(t, err)
	return m
}

func TestRoundOptionsValidate(t *testing.T) {
	for _, o := range []RoundOptions{
		{Members: -1}, {Bytes: -1}, {Flights: -1},
		{Hold: HoldOptions{Fraction: -0.1}}, {Hold: HoldOptions{Fraction: 1.1}}, {Hold: HoldOptions{Limit: -1}},
	} {
		_, err := NewRounds[int, int](o)
		require.Error(t, err, "%+v", o)
	}
}

// world drives Rounds with ranks that come when they like, or not at all. It
// checks what must hold for each call in whatever order things happen.
type world struct {
	t       *testing.T
	rand    *rand.Rand
	rounds  *Rounds[int, int]
	opts    RoundOptions
	now     time.Time
	wakes   map[int]time.Time              // of keys
	flying  map[*Round[int, int]]time.Time // until when
	bound   map[int]time.Time              // when a call, by token, must have started if its key is free
	free    map[int]time.Time              // since when a place in flight of the key has been free
	busy    map[int]int
	started map[int]bool
	latency time.Duration
}

// TestRandomRanks: with ranks that are missing, slow, dead or busy elsewhere
// no call is started twice or lost, none before it came, and none is put off for
// longer than the bound, beyond the time for which rounds before it flew.
func TestRandomRanks(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		opts := RoundOptions{Members: r.IntN(3) * 4, Bytes: int64(r.IntN(3) * 50), Flights: r.IntN(3)}
		rounds, err := NewRounds[int, int](opts)
		require.NoError(t, err)
		w := &world{
			t: t, rand: r, rounds: rounds, opts: opts, now: epoch0,
			wakes: map[int]time.Time{}, flying: map[*Round[int, int]]time.Time{}, bound: map[int]time.Time{},
			free: map[int]time.Time{}, busy: map[int]int{}, started: map[int]bool{},
			latency: time.Duration(1+r.IntN(20)) * time.Millisecond,
		}
		calls := 0
		for range 30 {
			calls += w.epoch(calls)
		}
		w.until(w.now.Add(time.Hour))
		require.Len(t, w.started, calls, "seed %d", seed)
		require.Empty(t, w.flying)
		require.Empty(t, rounds.lines)
		require.Empty(t, rounds.waiting)
	}
}

// epoch has most ranks of two jobs, and some processes of none, come to a few
// keys within some time, and returns how many did.
func (w *world) epoch(token int) int {
	type coming struct {
		at  time.Time
		key int
		m   Member
	}
	spread := 1 + w.rand.IntN(int(w.latency))
	var all []coming
	for i := range 24 {
		if w.rand.IntN(6) == 0 {
			continue
		}
		key := i / 6 % 2
		if w.rand.IntN(20) == 0 {
			key = 2
		}
		all = append(all, coming{w.now.Add(time.Duration(w.rand.IntN(spread))), key, Member{Job: JobID(i / 9), Rank: Rank(i)}})
	}
	slices.SortStableFunc(all, func(a, b coming) int { return a.at.Compare(b.at) })
	for i, c := range all {
		w.until(c.at)
		bytes := int64(w.rand.IntN(20))
		w.bound[token+i] = w.now.Add(w.rounds.bound())
		w.decided(c.key, w.rounds.Arrive(w.now, c.key, Call[int]{Token: token + i, Member: c.m, Bytes: bytes}))
		for _, r := range w.rounds.Elsewhere(w.now, c.m) {
			w.decided(r.Key, Decision[int, int]{Start: r})
		}
	}
	w.until(w.now.Add(time.Duration(w.rand.IntN(int(10 * w.latency)))))
	return len(all)
}

// until lets everything happen that is due up to then.
func (w *world) until(then time.Time) {
	for {
		at, do := then, func() {}
		for _, key := range slices.Sorted(maps.Keys(w.wakes)) {
			if wake := w.wakes[key]; !wake.After(at) {
				at, do = wake, func() {
					delete(w.wakes, key)
					w.decided(key, w.rounds.Tick(w.now, key))
				}
			}
		}
		rounds := slices.SortedFunc(maps.Keys(w.flying), func(a, b *Round[int, int]) int {
			return cmp.Compare(a.Calls[0].Token, b.Calls[0].Token)
		})
		for _, r := range rounds {
			if end := w.flying[r]; !end.After(at) {
				at, do = end, func() { w.land(r) }
			}
		}
		done := at.Equal(then) && len(w.flying) == 0 && len(w.wakes) == 0
		w.now = at
		before := len(w.flying) + len(w.wakes)
		do()
		if done || at.Equal(then) && before == len(w.flying)+len(w.wakes) {
			return
		}
	}
}

func (w *world) land(r *Round[int, int]) {
	delete(w.flying, r)
	key := r.Key
	if w.busy[key] == max(1, w.opts.Flights) {
		w.free[key] = w.now
	}
	w.busy[key]--
	w.decided(key, w.rounds.Finished(w.now, r, w.now.Sub(r.Started)))
}

func (w *world) decided(key int, d Decision[int, int]) {
	if !d.Wake.IsZero() {
		require.True(w.t, d.Wake.After(w.now))
		w.wakes[key] = d.Wake
	}
	r := d.Start
	if r == nil {
		return
	}
	w.busy[key]++
	require.LessOrEqual(w.t, w.busy[key], max(1, w.opts.Flights))
	if w.opts.Members > 0 {
		require.LessOrEqual(w.t, len(r.Calls), w.opts.Members)
	}
	for _, c := range r.Calls {
		require.False(w.t, w.started[c.Token], "started twice")
		require.False(w.t, c.At.After(r.Started), "started before it came")
		w.started[c.Token] = true
		if w.opts.Members == 0 && w.opts.Bytes == 0 { // else it may wait for a place in a round
			latest := w.bound[c.Token]
			if f := w.free[key]; f.After(latest) {
				latest = f
			}
			require.False(w.t, w.now.After(latest), "put off beyond the bound")
		}
	}
	w.flying[r] = w.now.Add(time.Duration(1 + w.rand.IntN(int(2*w.latency))))
}
