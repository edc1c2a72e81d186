package round

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/zoidfs/zoidfs/collective"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type call = Call[string, int, int]

var sizesMu sync.Mutex

// double answers each call with twice what it asks, after a while.
func double(took time.Duration, sizes *[]int) func(context.Context, string, []*call) {
	return func(_ context.Context, _ string, calls []*call) {
		time.Sleep(took)
		if sizes != nil {
			sizesMu.Lock()
			*sizes = append(*sizes, len(calls))
			sizesMu.Unlock()
		}
		for _, c := range calls {
			c.A = 2 * c.Q
		}
	}
}

// TestBatchBehind: who comes while a round is in flight is in the next one.
func TestBatchBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		g := New(Options[string, int]{}, double(time.Millisecond, &sizes))
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				time.Sleep(time.Duration(i) * 10 * time.Microsecond)
				a, err := g.Do(t.Context(), "k", collective.Member{}, i)
				require.NoError(t, err)
				require.Equal(t, 2*i, a)
			})
		}
		all.Wait()
		g.Wait()
		require.Equal(t, []int{1, 99}, sizes)
	})
}

func TestKeysDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options[string, int]{}, double(time.Second, nil))
		start := time.Now()
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() {
				_, err := g.Do(t.Context(), fmt.Sprint(i), collective.Member{}, i)
				require.NoError(t, err)
			})
		}
		all.Wait()
		require.Equal(t, time.Second, time.Since(start))
	})
}

func TestErrorsAreOfOneMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		odd := errors.New("odd")
		g := New(Options[string, int]{}, func(_ context.Context, _ string, calls []*call) {
			time.Sleep(time.Millisecond)
			for _, c := range calls {
				if c.Q%2 == 1 {
					c.Err = odd
				}
			}
		})
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() {
				_, err := g.Do(t.Context(), "k", collective.Member{}, i)
				require.Equal(t, i%2 == 1, errors.Is(err, odd))
			})
		}
		all.Wait()
	})
}

// TestCancelFreesTheCaller: one of a round, one that is queued, and one that
// is alone; the others are answered.
func TestCancelFreesTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		g := New(Options[string, int]{}, double(10*time.Millisecond, &sizes))
		do := func(ctx context.Context, q int) (time.Duration, error) {
			start := time.Now()
			_, err := g.Do(ctx, "k", collective.Member{}, q)
			return time.Since(start), err
		}
		var all sync.WaitGroup
		all.Go(func() { do(t.Context(), 0) }) // flies until 10 ms
		time.Sleep(time.Millisecond)
		for range 2 {
			all.Go(func() { // flies from 10 to 20 ms
				took, err := do(t.Context(), 1)
				require.NoError(t, err)
				require.Equal(t, 19*time.Millisecond, took)
			})
		}
		for _, until := range []time.Duration{5, 15} { // queued, flying
			ctx, cancel := context.WithTimeout(t.Context(), until*time.Millisecond)
			defer cancel()
			all.Go(func() {
				took, err := do(ctx, 2)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, until*time.Millisecond, took)
			})
		}
		all.Wait()
		require.Equal(t, []int{1, 3}, sizes)
	})
}

// TestRoundEndsWithItsLastCaller: the ctx of a round that nobody waits for any
// more ends.
func TestRoundEndsWithItsLastCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended []time.Duration
		start := time.Now()
		g := New(Options[string, int]{}, func(ctx context.Context, _ string, calls []*call) {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			ended = append(ended, time.Since(start))
		})
		var all sync.WaitGroup
		for i := range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1000+100*i)*time.Millisecond)
			defer cancel()
			all.Go(func() { g.Do(ctx, "k", collective.Member{}, i) })
			synctest.Wait()
		}
		all.Wait()
		g.Wait()
		require.Equal(t, []time.Duration{time.Second, 1200 * time.Millisecond}, ended)
	})
}

// TestHold: ranks that came together twice are waited for; one that does
// something else lets them go.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		g := New(Options[string, int]{OneAtATime: true}, double(8*time.Millisecond, &sizes))
		epoch := func(ranks int, last string) time.Duration {
			start := time.Now()
			var all sync.WaitGroup
			for i := range ranks {
				all.Go(func() {
					time.Sleep(time.Duration(i) * time.Millisecond)
					key := "k"
					if i == ranks-1 {
						key = last
					}
					_, err := g.Do(t.Context(), key, collective.Member{Job: 1, Rank: collective.Rank(i)}, i)
					require.NoError(t, err)
				})
			}
			all.Wait()
			time.Sleep(time.Second)
			return time.Since(start) - time.Second
		}
		for range 2 {
			require.Equal(t, 16*time.Millisecond, epoch(4, "k"))
		}
		sizes = nil
		require.Equal(t, 11*time.Millisecond, epoch(4, "k"), "the first waits for the last")
		require.Equal(t, []int{4}, sizes)
		require.Equal(t, 11*time.Millisecond, epoch(4, "other"), "the last comes to another key")
		require.Equal(t, 10*time.Millisecond, epoch(3, "k"), "the three of the last time are all")
		require.Equal(t, 12*time.Millisecond, epoch(2, "k"), "the third does not come: 4 ms and no more")
		g.Wait()
	})
}

func TestAloneCostsNoAllocation(t *testing.T) {
	g := New(Options[string, int]{}, func(_ context.Context, _ string, calls []*call) { calls[0].A = calls[0].Q })
	ctx := t.Context()
	got := testing.AllocsPerRun(1000, func() {
		if a, err := g.Do(ctx, "k", collective.Member{Job: 1, Rank: 3}, 7); a != 7 || err != nil {
			t.Fatal(a, err)
		}
	})
	require.Zero(t, got) // of a whole number, so that a collection meanwhile does not matter
}

// TestRandom: many callers of few keys, some of which give up: each is answered
// once, by a round that began after it called.
func TestRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		var clock, ran atomic.Int64
		g := New(Options[string, int]{Rounds: collective.RoundOptions{Members: 5, Flights: 2}}, func(_ context.Context, _ string, calls []*call) {
			now := clock.Add(1)
			time.Sleep(time.Duration(now%5) * time.Millisecond)
			for _, c := range calls {
				ran.Add(1)
				c.A = int(now)
			}
		})
		var all sync.WaitGroup
		var left atomic.Int64
		const callers, each = 50, 40
		for i := range callers {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			all.Go(func() {
				for range each {
					time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(40))*time.Millisecond)
					before := clock.Load()
					a, err := g.Do(ctx, fmt.Sprint(r.IntN(3)), collective.Member{Job: collective.JobID(i % 2), Rank: collective.Rank(i)}, i)
					if err != nil {
						require.ErrorIs(t, err, context.DeadlineExceeded)
						left.Add(1)
					} else {
						require.Greater(t, int64(a), before)
					}
					cancel()
				}
			})
		}
		all.Wait()
		g.Wait()
		require.False(t, g.holding.Load())
		require.GreaterOrEqual(t, ran.Load()+left.Load(), int64(callers*each))
		require.Less(t, left.Load(), int64(callers*each))
	})
}

// TestJournal: a Group records what it did, one caller alone at no cost.
func TestJournal(t *testing.T) {
	j := NewJournal(10)
	g := New(Options[string, int]{
		Journal: j, Name: func(string) (string, uint64) { return "read", 7 },
		Bytes: func(q int) int64 { return int64(q) },
	}, func(_ context.Context, _ string, calls []*call) {
		calls[0].Outcome = collective.Outcome{Requests: 1}
	})
	got := testing.AllocsPerRun(99, func() {
		g.Do(t.Context(), "k", collective.Member{Job: 1, Rank: 3}, 7)
	})
	require.Zero(t, got)
	recs := j.Select(7, 1)
	require.Len(t, recs, 1)
	require.Equal(t, 100, recs[0].Calls)
	require.EqualValues(t, 700, recs[0].Bytes)
	require.Equal(t, 100, recs[0].Requests)
	require.Empty(t, j.Select(8, 0))

	synctest.Test(t, func(t *testing.T) {
		g := New(Options[string, int]{Journal: j, Name: g.opts.Name}, double(time.Millisecond, nil))
		var all sync.WaitGroup
		for i := range 5 {
			all.Go(func() { g.Do(t.Context(), "k", collective.Member{Job: 2, Rank: collective.Rank(i)}, i) })
		}
		all.Wait()
		g.Wait()
	})
	recs = j.Select(0, 2)
	require.Len(t, recs, 2)
	require.Equal(t, "read", recs[1].Op)
	require.Equal(t, 4, recs[1].Members[0].Count)
	require.Equal(t, collective.Behind, recs[1].Why)

	j = nil
	j.Add(collective.Record{})
	require.Empty(t, j.Select(0, 0))
}

func BenchmarkAlone(b *testing.B) {
	g := New(Options[string, int]{}, func(context.Context, string, []*call) {})
	b.ReportAllocs()
	for b.Loop() {
		g.Do(b.Context(), "k", collective.Member{}, 1)
	}
}
