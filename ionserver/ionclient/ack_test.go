package ionclient

import (
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// TestAckedAgainstTheDumbestModel: acked is never at or above an unanswered
// recorded request and never falls.
func TestAckedAgainstTheDumbestModel(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		var i ids
		var open []uint64 // recorded and unanswered
		last, acked := uint64(0), uint64(0)
		for range 300 {
			switch {
			case r.IntN(2) == 0 || len(open) == 0:
				rec := r.IntN(3) > 0
				id := i.next(rec)
				require.Equal(t, last+1, id)
				last = id
				if rec {
					open = append(open, id)
				} else {
					i.answer(id) // of no consequence
				}
			default:
				n := r.IntN(len(open))
				i.answer(open[n])
				open = append(open[:n], open[n+1:]...)
			}
			want := last
			for _, id := range open {
				want = min(want, id-1)
			}
			require.Equal(t, want, i.acked(), "seed %d", seed)
			require.GreaterOrEqual(t, i.acked(), acked)
			acked = i.acked()
		}
	}
}

// TestLockTableAgainstBytes compares with one entry a byte.
func TestLockTableAgainstBytes(t *testing.T) {
	type key struct {
		owner uint64
		flock bool
		at    uint64
	}
	types := []ionpb.LockType{ionpb.LockType_UNLOCK, ionpb.LockType_READ_LOCK, ionpb.LockType_WRITE_LOCK}
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 2))
		var table lockTable
		model := make(map[key]ionpb.LockType)
		for range 60 {
			l := Lock{Owner: uint64(r.IntN(3)), Flock: r.IntN(4) == 0, Start: uint64(r.IntN(20)), Type: types[r.IntN(3)]}
			l.End = l.Start + uint64(r.IntN(8))
			table.apply(l)
			for at := l.Start; at <= l.End; at++ {
				model[key{l.Owner, l.Flock, at}] = l.Type
				if l.Type == ionpb.LockType_UNLOCK {
					delete(model, key{l.Owner, l.Flock, at})
				}
			}
			got := make(map[key]ionpb.LockType)
			for _, h := range table {
				for at := h.Start; at <= h.End; at++ {
					k := key{h.Owner, h.Flock, at}
					if _, twice := got[k]; twice {
						t.Fatalf("seed %d: two locks of one owner on byte %d", seed, at)
					}
					got[k] = h.Type
				}
			}
			require.True(t, maps.Equal(model, got), "seed %d", seed)
		}
	}
}

func TestWithin(t *testing.T) {
	table := lockTable{
		{Owner: 1, Start: 0, End: 9, Type: ionpb.LockType_READ_LOCK},
		{Owner: 1, Start: 20, End: 29, Type: ionpb.LockType_WRITE_LOCK},
		{Owner: 2, Start: 0, End: 99, Type: ionpb.LockType_READ_LOCK},
	}
	require.Equal(t, []Lock{
		{Owner: 1, Start: 5, End: 9, Type: ionpb.LockType_READ_LOCK},
		{Owner: 1, Start: 20, End: 25, Type: ionpb.LockType_WRITE_LOCK},
	}, table.within(Lock{Owner: 1, Start: 5, End: 25}))
}
