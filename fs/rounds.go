package fs

import (
	"context"

	"github.com/zoidfs/zoidfs/cache/holder"
	"github.com/zoidfs/zoidfs/cache/names"
	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/round"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// rounds are the questions that many callers have at once. While one is on its
// way to a home, who asks the same queues, and is answered from what has become
// known under a lease meanwhile, or by one more request for all.
type rounds struct {
	journal *round.Journal
	alone   bool

	attrs gate[uint64, struct{}, ionclient.Attr]
	names gate[entryKey, struct{}, ionclient.Attr]
	lists gate[uint64, struct{}, []names.Named]
	opens gate[openKey, *opener, ionclient.Attr]
	syncs gate[syncKey, struct{}, struct{}]
	stats gate[struct{}, struct{}, ionclient.StatFS]

	holding []func(collective.Member) // of each gate: round.Group.Elsewhere
}

// What rounds are of.
type (
	entryKey struct {
		dir  uint64
		name string
	}
	syncKey struct {
		handle   uint64
		dataOnly bool
	}
)

func newRounds(k *known, journal *round.Journal, alone bool) *rounds {
	r := &rounds{journal: journal, alone: alone}
	self := func(h uint64) uint64 { return h }
	r.attrs = newGate(r, opGetattr, self, one[struct{}](k.askAttr))
	r.names = newGate(r, opLookup, func(e entryKey) uint64 { return e.dir }, one[struct{}](k.askName))
	r.lists = newGate(r, opReaddir, self, one[struct{}](k.askList))
	r.opens = newGate(r, opOpen, func(o openKey) uint64 { return o.handle }, k.askOpen)
	r.stats = newGate(r, opStatfs, func(struct{}) uint64 { return k.client.View().Root },
		one[struct{}](func(ctx context.Context, _ struct{}) (ionclient.StatFS, int, error) {
			s, err := k.client.StatFS(ctx)
			return s, 1, err
		}))
	return r
}

// holdWith has k know of what held writes, and held carry out fsyncs.
func (k *known) holdWith(held *holder.Holder) {
	k.hides = held.Hides
	r := k.rounds
	r.syncs = newGate(r, opFsync, func(s syncKey) uint64 { return s.handle },
		one[struct{}](func(ctx context.Context, key syncKey) (struct{}, int, error) {
			asked, err := held.Sync(ctx, key.handle, key.dataOnly)
			return struct{}{}, asked, err
		}))
}

// elsewhere says that m does o: rounds that are put off because it is expected
// start. Looking names and attributes up does not say so, it is how a process
// comes to what is expected of it.
func (r *rounds) elsewhere(m collective.Member, o op) {
	if m.Job == 0 {
		return
	}
	switch o {
	case opLookup, opGetattr, opOpen, opReaddir, opStatfs, opFsync:
		return
	}
	for _, release := range r.holding {
		release(m)
	}
}

// gate is a round.Group, or nothing but what it runs.
type gate[K comparable, Q, A any] struct {
	group *round.Group[K, Q, A] // nil: every call alone
	run   func(ctx context.Context, key K, calls []*round.Call[K, Q, A])
}

// newGate makes a gate for calls of a kind, about the object that of names.
func newGate[K comparable, Q, A any](r *rounds, kind op, of func(K) uint64, run func(context.Context, K, []*round.Call[K, Q, A])) gate[K, Q, A] {
	if r.alone {
		return gate[K, Q, A]{run: run}
	}
	group := round.New(round.Options[K, Q]{
		Journal: r.journal,
		Name:    func(key K) (string, uint64) { return kind.String(), of(key) },
	}, run)
	r.holding = append(r.holding, group.Elsewhere)
	return gate[K, Q, A]{group: group}
}

// one is the run that asks once and gives all the same answer. ask also returns how
// many requests that took.
func one[Q any, K comparable, A any](ask func(context.Context, K) (A, int, error)) func(context.Context, K, []*round.Call[K, Q, A]) {
	return func(ctx context.Context, key K, calls []*round.Call[K, Q, A]) {
		a, asked, err := ask(ctx, key)
		calls[0].Outcome.Requests = asked
		for _, c := range calls {
			c.A, c.Err = a, err
		}
	}
}

// do is the answer for key.
func (g gate[K, Q, A]) do(ctx context.Context, key K) (A, error) {
	var none Q
	return g.with(ctx, key, none)
}

func (g gate[K, Q, A]) with(ctx context.Context, key K, q Q) (A, error) {
	if g.group != nil {
		return g.group.Do(ctx, key, collective.CallerOf(ctx).Member, q)
	}
	c := &round.Call[K, Q, A]{Q: q}
	g.run(ctx, key, []*round.Call[K, Q, A]{c})
	return c.A, c.Err
}
