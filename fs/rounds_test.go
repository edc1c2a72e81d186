package fs

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/round"
)

// TestRoundsKnowWhoCalls: the journal of a mount tells which ranks took part in
// a round, and what it asks an I/O node is asked on behalf of their job.
func TestRoundsKnowWhoCalls(t *testing.T) {
	const job, object = collective.JobID(7), uint64(42)
	synctest.Test(t, func(t *testing.T) {
		r := &rounds{journal: round.NewJournal(8)}
		first := make(chan struct{})
		var behalf []collective.JobID
		g := newGate(r, opGetattr, func(h uint64) uint64 { return h }, one[struct{}](func(ctx context.Context, _ uint64) (int, int, error) {
			<-first
			behalf = append(behalf, collective.CallerOf(ctx).Account)
			return len(behalf), 5, nil
		}))
		ask := func(rank collective.Rank, want int) {
			m := collective.Member{Job: job, Rank: rank}
			ctx := collective.WithCaller(t.Context(), collective.Caller{Member: m, Account: job})
			got, err := g.do(ctx, object)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
		go ask(0, 1)
		synctest.Wait()
		for rank := range collective.Rank(3) { // they come while that one is on its way
			go ask(rank+1, 2)
		}
		synctest.Wait()
		close(first)
		synctest.Wait()
		require.Equal(t, []collective.JobID{job, job}, behalf)
		records := r.journal.Select(object, job)
		require.NotEmpty(t, records)
		last := records[len(records)-1]
		require.Equal(t, opGetattr.String(), last.Op)
		require.Equal(t, []collective.Members{{Job: job, Ranks: []collective.Ranks{{First: 1, Last: 3}}, Count: 3}}, last.Members)
		require.Equal(t, 5, last.Requests, "not for each call")
	})
}

// TestWhoIsElsewhereIsNotWaitedFor: a rank that reads does not come to where it
// is expected, but one that looks for names may.
func TestWhoIsElsewhereIsNotWaitedFor(t *testing.T) {
	m := collective.Member{Job: 7, Rank: 1}
	var released []collective.Member
	r := &rounds{holding: []func(collective.Member){func(m collective.Member) { released = append(released, m) }}}
	for _, o := range []op{opLookup, opGetattr, opOpen, opReaddir, opStatfs, opFsync} {
		r.elsewhere(m, o)
	}
	r.elsewhere(collective.Member{}, opRead)
	require.Empty(t, released)
	r.elsewhere(m, opRead)
	require.Equal(t, []collective.Member{m}, released)
}
