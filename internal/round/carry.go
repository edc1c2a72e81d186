package round

import (
	"context"
	"time"

	"github.com/zoidfs/zoidfs/collective"
)

// alone carries out r, which has only c.
func (g *Group[K, Q, A]) alone(ctx context.Context, c *Call[K, Q, A], r *collective.Round[K, *Call[K, Q, A]]) (A, error) {
	g.run(ctx, c.key, c.self[:])
	took := time.Since(r.Started)
	g.record(r, took, c.Outcome)
	g.spawn(g.finish(r, took))
	return g.answer(c)
}

// finish says that r was carried out and took so long, and returns the next
// round of its key if that has several calls.
func (g *Group[K, Q, A]) finish(r *collective.Round[K, *Call[K, Q, A]], took time.Duration) *collective.Round[K, *Call[K, Q, A]] {
	key, now := r.Key, time.Now()
	g.mu.Lock()
	d := g.rounds.Finished(now, r, took)
	do := g.settleLocked(d)
	g.mu.Unlock()
	return g.act(key, do)
}

// todo is what a decision wants done when g.mu is not held any more.
type todo[K comparable, Q, A any] struct {
	call  *Call[K, Q, A]                       // to be run by its caller
	round *collective.Round[K, *Call[K, Q, A]] // of several calls, to be carried out
	wake  time.Time                            // zero: never
}

// settleLocked prepares what d has started to be carried out.
func (g *Group[K, Q, A]) settleLocked(d collective.Decision[K, *Call[K, Q, A]]) todo[K, Q, A] {
	g.holding.Store(g.rounds.Holding())
	r := d.Start
	if r == nil {
		return todo[K, Q, A]{wake: d.Wake}
	}
	if len(r.Calls) == 1 {
		c := r.Calls[0].Token
		c.own = r
		return todo[K, Q, A]{call: c}
	}
	f := &flight{left: len(r.Calls)}
	first := r.Calls[0].Token
	f.ctx, f.cancel = context.WithCancel(collective.WithCaller(context.Background(), collective.Caller{Member: first.Member, Account: first.account}))
	for _, c := range r.Calls {
		c.Token.flight = f
	}
	return todo[K, Q, A]{round: r}
}

// act does what is to be done about key. A round of several calls is returned,
// for the caller to have it carried out.
func (g *Group[K, Q, A]) act(key K, do todo[K, Q, A]) *collective.Round[K, *Call[K, Q, A]] {
	if do.call != nil {
		do.call.done <- struct{}{}
	}
	if !do.wake.IsZero() {
		time.AfterFunc(time.Until(do.wake), func() { g.tick(key) })
	}
	return do.round
}

func (g *Group[K, Q, A]) tick(key K) {
	now := time.Now()
	g.mu.Lock()
	do := g.settleLocked(g.rounds.Tick(now, key))
	g.mu.Unlock()
	g.spawn(g.act(key, do))
}

// spawn has r carried out by a goroutine of its own, and after it the rounds
// that queued behind it.
func (g *Group[K, Q, A]) spawn(first *collective.Round[K, *Call[K, Q, A]]) {
	if first == nil {
		return
	}
	g.flights.Go(func() error {
		for r := first; r != nil; {
			r = g.carryOut(r)
		}
		return nil
	})
}

// carryOut carries out a round of several calls, answers them, and returns the
// next one like finish.
func (g *Group[K, Q, A]) carryOut(r *collective.Round[K, *Call[K, Q, A]]) *collective.Round[K, *Call[K, Q, A]] {
	calls := make([]*Call[K, Q, A], len(r.Calls))
	for i, c := range r.Calls {
		calls[i] = c.Token
	}
	f := calls[0].flight
	g.run(f.ctx, r.Key, calls)
	f.cancel()
	took := time.Since(r.Started)
	g.record(r, took, calls[0].Outcome)
	next := g.finish(r, took)
	for _, c := range calls {
		c.done <- struct{}{}
	}
	return next
}

// elsewhere starts what waits for m, if there may be any.
func (g *Group[K, Q, A]) elsewhere(m collective.Member, may bool) {
	if !may || m.Job == 0 || !g.holding.Load() {
		return
	}
	now := time.Now()
	g.mu.Lock()
	rounds := g.rounds.Elsewhere(now, m)
	dos := make([]todo[K, Q, A], len(rounds))
	for i, r := range rounds {
		dos[i] = g.settleLocked(collective.Decision[K, *Call[K, Q, A]]{Start: r})
	}
	g.holding.Store(g.rounds.Holding())
	g.mu.Unlock()
	for _, do := range dos {
		var none K // a round that starts needs no key
		g.spawn(g.act(none, do))
	}
}

// leave gives up waiting for c, which has not been answered.
func (g *Group[K, Q, A]) leave(c *Call[K, Q, A]) {
	g.mu.Lock()
	queued := g.rounds.Leave(c.key, c)
	g.holding.Store(g.rounds.Holding())
	own := c.own
	if !queued && own == nil {
		if c.flight.left--; c.flight.left == 0 {
			c.flight.cancel()
		}
	}
	g.mu.Unlock()
	if own != nil {
		g.spawn(g.finish(own, 0)) // without having been run
	}
}

func (g *Group[K, Q, A]) newCall(ctx context.Context, key K, m collective.Member, q Q) *Call[K, Q, A] {
	c, ok := g.pool.Get().(*Call[K, Q, A])
	if !ok {
		c = &Call[K, Q, A]{done: make(chan struct{}, 1)}
		c.self[0] = c
	}
	c.key, c.Member, c.Q, c.account = key, m, q, collective.CallerOf(ctx).Account
	return c
}

// answer returns what c was answered, and c to the pool.
func (g *Group[K, Q, A]) answer(c *Call[K, Q, A]) (A, error) {
	a, err := c.A, c.Err
	*c = Call[K, Q, A]{done: c.done, self: c.self}
	g.pool.Put(c)
	return a, err
}
