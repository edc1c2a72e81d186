// Package round carries out what collective.Rounds decides: the calls of one
// kind and key, made by many goroutines, become rounds, and each round is one
// run of a function. It decides nothing itself.
//
// A Group may be used by many goroutines. It starts one only for a round of
// several calls; a round of one is run by its caller. Group.mu is held only
// while a decision is made; while the function runs no lock is held.
package round

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/collective"
)

// Call is one caller's part of a round: Q is what it asks. Whoever carries out
// the round sets A, or Err, of each, and Outcome of the first, for the journal.
type Call[K comparable, Q, A any] struct {
	Q      Q
	Member collective.Member
	A      A
	Err    error

	Outcome collective.Outcome

	key     K
	account collective.JobID
	self    [1]*Call[K, Q, A]
	done    chan struct{}                        // one message: answered, or to be run by the caller
	own     *collective.Round[K, *Call[K, Q, A]] // guarded by Group.mu; the round to be run by the caller
	flight  *flight                              // guarded by Group.mu; the round that is run for several
}

// flight is a round of several calls that is being carried out.
type flight struct {
	ctx    context.Context // ends when nobody waits for the round any more
	cancel context.CancelFunc
	left   int // guarded by Group.mu; callers that wait
}

// Options says how the rounds of a Group are formed. The zero value is useful.
type Options[K comparable, Q any] struct {
	Rounds collective.RoundOptions
	Bytes  func(Q) int64 // what a call adds to the size of its round; nil: nothing
	// OneAtATime says that a member makes one call at a time, so that a call of
	// one key tells that it does not come to another where it is expected.
	OneAtATime bool
	Mounts     bool // members are mounts of a job, for which rank is a number
	// Journal, if not nil, takes in what was done, and Name says for it what a
	// key is: what is asked for, and the handle of the object.
	Journal *Journal
	Name    func(K) (op string, object uint64)
}

// Group makes rounds of the calls of one kind. A key names what is called for:
// only calls of the same key become one round.
type Group[K comparable, Q, A any] struct {
	opts    Options[K, Q]
	run     func(ctx context.Context, key K, calls []*Call[K, Q, A])
	pool    sync.Pool // of *Call
	flights errgroup.Group
	holding atomic.Bool // collective.Rounds.Holding

	mu     sync.Mutex
	rounds *collective.Rounds[K, *Call[K, Q, A]] // guarded by mu
}

// New returns a Group whose rounds are carried out by run, which sets A or Err
// of each call; the calls are in order of arrival and belong to run only until it
// returns. The ctx of a round of one call is its caller's; of a round of several,
// one that ends when none of the callers waits any more, on behalf of the first. It panics if opts makes
// no sense.
func New[K comparable, Q, A any](opts Options[K, Q], run func(ctx context.Context, key K, calls []*Call[K, Q, A])) *Group[K, Q, A] {
	rounds, err := collective.NewRounds[K, *Call[K, Q, A]](opts.Rounds)
	if err != nil {
		panic(err)
	}
	return &Group[K, Q, A]{opts: opts, run: run, rounds: rounds}
}

// Do asks q of the key on behalf of m and returns the answer of the round that
// it was part of, which began after Do was called. If ctx ends first Do returns
// its error at once, and the round goes on without it: so whatever q refers to
// must stay valid for the round, and not only until Do returns.
func (g *Group[K, Q, A]) Do(ctx context.Context, key K, m collective.Member, q Q) (A, error) {
	c := g.newCall(ctx, key, m, q)
	var bytes int64
	if g.opts.Bytes != nil {
		bytes = g.opts.Bytes(q)
	}
	now := time.Now()
	g.mu.Lock()
	d := g.rounds.Arrive(now, key, collective.Call[*Call[K, Q, A]]{Token: c, Member: m, Bytes: bytes})
	if r := d.Start; r != nil && len(r.Calls) == 1 && r.Calls[0].Token == c {
		g.mu.Unlock()
		g.elsewhere(m, g.opts.OneAtATime)
		return g.alone(ctx, c, r)
	}
	do := g.settleLocked(d)
	g.mu.Unlock()
	g.elsewhere(m, g.opts.OneAtATime)
	g.spawn(g.act(key, do))
	if err := wait(ctx, c.done); err != nil {
		g.leave(c)
		var none A
		return none, err
	}
	if c.own != nil {
		return g.alone(ctx, c, c.own)
	}
	return g.answer(c)
}

// wait returns nil when done has a message, or the error of ctx if that ends
// before.
func wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-done:
		return nil
	default:
		return ctx.Err()
	}
}

// Elsewhere says that m asks for something else: what is put off because m is
// expected starts now. It costs next to nothing if nothing is put off.
func (g *Group[K, Q, A]) Elsewhere(m collective.Member) { g.elsewhere(m, true) }

// Wait returns when no round of several calls is carried out any more. No Do may
// begin meanwhile.
func (g *Group[K, Q, A]) Wait() { g.flights.Wait() }
