package ionserver

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// TestLeasePieces: who may have pieces of a domain, after what others did there.
func TestLeasePieces(t *testing.T) {
	const all = dataLeases
	now := time.Now()
	mine, theirs := extent.Extent{Len: 10}, extent.Extent{Off: 10, Len: 10}
	write := func(t *leaseTable, session uint64, e extent.Extent, want uint32) uint32 {
		return t.End(t.Begin(session, e, true), want, just(e), now)
	}
	both := func(t *leaseTable) { // 2 is at work, so 1 gets no whole domain
		a := t.Begin(2, theirs, true)
		write(t, 1, mine, all)
		t.End(a, all, just(theirs), now)
	}
	t.Run("beside each other", func(t *testing.T) {
		table := newLeaseTable(testDomain)
		both(&table)
		require.Equal(t, []conflict{{1, leasePieces, extent.Extent{Len: testDomain}}}, table.Conflicts(2, just(mine), true))
		require.Equal(t, []conflict{{2, leasePieces, extent.Extent{Len: testDomain}}}, table.Conflicts(1, just(extent.Extent{Len: 11}), false))
		require.Empty(t, table.Conflicts(2, just(theirs), true))
		require.Empty(t, table.Conflicts(3, just(extent.Extent{Off: 20, Len: 5}), true))
		byOthers, byAny := table.KeptBack(1)
		require.True(t, byOthers && byAny)
		require.Zero(t, write(&table, 1, mine, leaseRead|leaseWrite), "the whole domain is not to be had")
		require.Zero(t, table.End(table.Begin(3, theirs, false), leaseRead, nil, now), "nor may anybody keep what he reads")
		table.Drop(1, mine, leasePieces, now)
		table.DropSession(2, now)
		require.True(t, table.Idle(now.Add(maxContention)))
	})
	t.Run("alone", func(t *testing.T) {
		table := newLeaseTable(testDomain)
		require.Equal(t, leaseRead|leaseWrite, write(&table, 1, mine, all), "the whole domain is better")
	})
	t.Run("another one's", func(t *testing.T) {
		table := newLeaseTable(testDomain)
		both(&table)
		a := table.Begin(3, extent.Extent{Off: 30, Len: 5}, true)
		require.Zero(t, table.End(a, all, []extent.Extent{mine, {Off: 30, Len: 5}}, now))
	})
	t.Run("with a reader", func(t *testing.T) {
		table := newLeaseTable(testDomain)
		a := table.Begin(1, mine, true)
		once(&table, 2, 0, false, 0, now)
		table.domains[0].readers[2] = struct{}{}
		require.Zero(t, table.End(a, leasePieces, just(mine), now))
	})
	t.Run("changed by the node itself", func(t *testing.T) {
		table := newLeaseTable(testDomain)
		a := table.Begin(1, mine, true)
		table.Touch(extent.ToEnd(0))
		require.Zero(t, table.End(a, leasePieces, just(mine), now))
	})
	t.Run("fought over", func(t *testing.T) {
		table := newLeaseTable(testDomain)
		both(&table)
		conflicts := table.Conflicts(2, just(mine), true)
		waiting := table.Wait(mine, conflicts, now)
		table.Drop(1, mine, leasePieces, now)
		table.Waited(waiting, now)
		require.Zero(t, write(&table, 1, mine, leasePieces))
	})
	t.Run("not wanted any more", func(t *testing.T) {
		table := newLeaseTable(testDomain)
		both(&table)
		free := extent.Extent{Off: 50, Len: 10}
		for range calmReads {
			require.Empty(t, table.Conflicts(3, just(free), false))
			require.Zero(t, table.End(table.Begin(3, free, false), leaseRead, nil, now))
		}
		require.Len(t, table.Conflicts(3, just(free), false), 2, "those who read there may have a lease")
	})
}

// TestPiecesAreTrue: whatever happens in whatever order, no access begins while
// another session has a lease in its way, and none is given beside one.
func TestPiecesAreTrue(t *testing.T) {
	type rights struct {
		leases uint32
		pieces []extent.Extent
	}
	granted := 0
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		now := time.Unix(1e9, 0)
		table := newLeaseTable(testDomain)
		var has [4]rights
		var work []access
		for step := range 60 {
			s := 1 + rnd.Uint64N(3)
			off := rnd.Int64N(testDomain - 10)
			e := extent.Extent{Off: off, Len: 1 + rnd.Int64N(10)}
			switch op := rnd.IntN(10); {
			case op < 4:
				write := op > 0
				conflicts := table.Conflicts(s, just(e), write)
				for _, c := range conflicts {
					table.Drop(c.session, c.ext, c.leases, now)
					has[c.session].pieces = nil // a mount gives all of a domain back
					has[c.session].leases &^= c.leases
				}
				for o, r := range has {
					if uint64(o) != s {
						msg := fmt.Sprintf("seed %d, step %d: %d begins at %v, %d has %+v", seed, step, s, e, o, r)
						require.Zero(t, r.leases&leaseWrite, msg)
						require.False(t, write && r.leases != 0, msg)
						require.False(t, extent.Meet(r.pieces, just(e)), msg)
					}
				}
				work = append(work, table.Begin(s, e, write))
			case op < 8 && len(work) > 0:
				i := rnd.IntN(len(work))
				a := work[i]
				work = slices.Delete(work, i, i+1)
				wish := extent.Normalize([]extent.Extent{a.ext, e})
				given := table.End(a, []uint32{0, leaseRead, dataLeases, leasePieces}[rnd.IntN(4)], wish, now)
				if given != 0 {
					granted++
				}
				if given&leasePieces != 0 {
					has[a.session].pieces = extent.Normalize(append(has[a.session].pieces, wish...))
				}
				has[a.session].leases |= given &^ leasePieces
				for o, r := range has {
					if uint64(o) == a.session || given == 0 {
						continue
					}
					msg := fmt.Sprintf("seed %d, step %d: %d is given %x of %v, %d has %+v", seed, step, a.session, given, wish, o, r)
					switch {
					case given&leasePieces != 0:
						require.Zero(t, r.leases, msg)
						require.False(t, extent.Meet(r.pieces, wish), msg)
					case given&leaseWrite != 0:
						require.Zero(t, r.leases, msg)
						require.Empty(t, r.pieces, msg)
					default:
						require.Zero(t, r.leases&leaseWrite, msg)
						require.Empty(t, r.pieces, msg)
					}
				}
			case op == 8:
				table.DropSession(s, now)
				has[s] = rights{}
			default:
				now = now.Add(time.Duration(rnd.Int64N(int64(maxContention))))
			}
		}
	}
	require.Greater(t, granted, 2000, "leases are given at all")
}
