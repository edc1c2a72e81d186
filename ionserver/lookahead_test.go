package ionserver

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// readers plays reads of pieces of a file of which an owner has every other
// domain, and returns how often it fetches, and how much.
func readers(order []int64, piece, domain, most, size int64) (fetches int, bytes int64) {
	l := lookahead{size: domain, owned: func(off int64) bool { return off/domain%2 == 0 }}
	known := map[int64]bool{} // by piece
	fetch := func(e extent.Extent) {
		for off := e.Off; off < min(size, e.End()); off += piece {
			if !known[off/piece] {
				known[off/piece] = true
				bytes += piece
			}
		}
	}
	for _, i := range order {
		e := extent.Extent{Off: i * piece, Len: piece}
		if !l.owned(e.Off) {
			continue
		}
		l.note(e, piece)
		if known[i] {
			continue
		}
		fetches++
		fetch(e)
		for _, x := range l.around(e, most) {
			fetch(x)
		}
	}
	return fetches, bytes
}

// together is the order of ranks that read every ranks-th piece, or block of
// pieces, each, up to three pieces out of step.
func together(pieces, ranks, block int64, rng *rand.Rand) (order []int64) {
	at := make([]int64, ranks)
	for int64(len(order)) < pieces {
		r := rng.Int64N(ranks)
		if i := at[r]; i*ranks < pieces && i <= slices.Min(at)+3 {
			at[r]++
			order = append(order, (i/block*ranks+r)*block+i%block)
		}
	}
	return order
}

func TestLookahead(t *testing.T) {
	const piece, domain, most = 4 << 10, 4 << 20, 16 << 20
	const pieces = 128 << 20 / piece
	rng := rand.New(rand.NewPCG(3, 4))
	one := make([]int64, pieces)
	for i := range one {
		one[i] = int64(i)
	}
	for name, order := range map[string][]int64{
		"one after the other": one,
		"interleaved":         together(pieces, 8, 1, rng),
		"blocks":              together(pieces, 8, 16, rng),
	} {
		t.Run(name, func(t *testing.T) {
			fetches, bytes := readers(order, piece, domain, most, 128<<20)
			require.EqualValues(t, 64<<20, bytes, "what the owner has, once")
			t.Logf("%d fetches of %d bytes", fetches, bytes)
			require.LessOrEqual(t, fetches, 64<<20/most+40)
		})
	}
}

// TestLookaheadOfPieces: a READ that names pieces counts with their bytes.
func TestLookaheadOfPieces(t *testing.T) {
	l := lookahead{size: 4 << 20, owned: func(int64) bool { return true }}
	for off := int64(0); off < 1<<20; off += 64 << 10 {
		e := extent.Extent{Off: off, Len: 64 << 10}
		l.note(e, 4<<10)
		require.Empty(t, l.around(e, 16<<20))
	}
}

// TestLookaheadOfNobody: who reads here and there, or a part only, gets what it
// asks for and no more.
func TestLookaheadOfNobody(t *testing.T) {
	const piece, domain, most = 4 << 10, 4 << 20, 16 << 20
	rng := rand.New(rand.NewPCG(1, 2))
	random := make([]int64, 2000)
	for i := range random {
		random[i] = rng.Int64N(8 << 30 / piece)
	}
	var strided []int64
	for i := range int64(2000) {
		strided = append(strided, i*4)
	}
	for name, order := range map[string][]int64{"random": random, "a quarter": strided} {
		t.Run(name, func(t *testing.T) {
			asked := map[int64]bool{}
			for _, i := range order {
				if i*piece/domain%2 == 0 {
					asked[i] = true
				}
			}
			fetches, bytes := readers(order, piece, domain, most, 8<<30)
			require.Equal(t, len(asked), fetches)
			require.EqualValues(t, len(asked)*piece, bytes)
		})
	}
}
