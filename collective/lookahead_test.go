package collective

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// readers plays reads of pieces of a file of which an owner has every other
// domain, by ranks of a job or by one process, and returns how often it fetches,
// and how much. What is fetched ahead is there slow reads later.
func readers(order []int64, job JobID, slow int, piece, domain, round, size int64) (fetches int, bytes int64) {
	l := Lookahead{Domain: domain, Owned: func(off int64) bool { return off/domain%2 == 0 }}
	known := map[int64]bool{} // by piece
	fetch := func(exts ...extent.Extent) {
		fetches++
		for _, e := range exts {
			for off := e.Off / piece * piece; off < min(size, e.End()); off += piece {
				if !known[off/piece] {
					known[off/piece] = true
					bytes += piece
				}
			}
		}
	}
	type flight struct {
		a    *Ahead
		left int
	}
	var flights []flight
	land := func(all bool) {
		flights = slices.DeleteFunc(flights, func(f flight) bool {
			if all || f.left <= 0 {
				l.Landed(f.a)
				fetch(f.a.Extents...)
				return true
			}
			return false
		})
	}
	for _, i := range order {
		e := extent.Extent{Off: i * piece, Len: piece}
		if !l.Owned(e.Off) {
			continue
		}
		for k := range flights {
			flights[k].left--
		}
		land(false)
		l.Note(0, job, e, piece, 1)
		for known[i] == false {
			a, behind := l.Miss(e, round, 2*round)
			if a != nil {
				flights = append(flights, flight{a, slow})
			}
			if a == nil && behind == nil {
				fetch(e)
			}
			land(true)
		}
		if a := l.Next(e, 2*round); a != nil {
			flights = append(flights, flight{a, slow})
		}
	}
	land(true)
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
			for _, slow := range []int{0, 100} {
				fetches, bytes := readers(order, 7, slow, piece, domain, most, 128<<20)
				require.EqualValues(t, 64<<20, bytes, "what the owner has, once")
				t.Logf("%d fetches of %d bytes", fetches, bytes)
				require.LessOrEqual(t, fetches, 64<<20/most+24) // most are small, until the readers are found
				alone, bytes := readers(order, 0, slow, piece, domain, most, 128<<20)
				require.EqualValues(t, 64<<20, bytes)
				require.LessOrEqual(t, alone, 64<<20/most+60, "who is alone is trusted less")
			}
		})
	}
}

// TestLookaheadOfFirst: of the first readers of a domain one goes alone, and those
// who come meanwhile go together; nobody waits whose domain is another.
func TestLookaheadOfFirst(t *testing.T) {
	l := Lookahead{Domain: 4 << 20, Owned: func(int64) bool { return true }}
	miss := func(off int64) (fetch, behind *Ahead) {
		return l.Miss(extent.Extent{Off: off, Len: 4 << 10}, 16<<20, 32<<20)
	}
	read := func(off int64) (fetch, behind *Ahead) {
		l.Note(1, 7, extent.Extent{Off: off, Len: 4 << 10}, 4<<10, 1)
		return miss(off)
	}
	alone, behind := read(80 << 10)
	require.Nil(t, behind)
	require.Equal(t, []extent.Extent{{Off: 80 << 10, Len: 4 << 10}}, alone.Extents)
	for _, off := range []int64{0, 200 << 10} {
		fetch, behind := read(off)
		require.Nil(t, fetch)
		require.Same(t, alone, behind)
	}
	fetch, behind := read(8 << 20)
	require.Nil(t, fetch)
	require.Nil(t, behind)
	l.Landed(alone)
	all, behind := miss(0)
	require.Nil(t, behind)
	require.Equal(t, []extent.Extent{{Off: 0, Len: 4 << 10}, {Off: 80 << 10, Len: 4 << 10}, {Off: 200 << 10, Len: 4 << 10}}, all.Extents)
	fetch, behind = miss(200 << 10)
	require.Nil(t, fetch)
	require.Same(t, all, behind)
	l.Landed(all)
	for range firstReads {
		read(16 << 20)
	}
	fetch, behind = read(12 << 20)
	require.Nil(t, fetch, "the first ones were looked at")
	require.Nil(t, behind)
}

// TestLookaheadOfPieces: a READ that names pieces counts with their bytes.
func TestLookaheadOfPieces(t *testing.T) {
	l := Lookahead{Domain: 4 << 20, Owned: func(int64) bool { return true }}
	for off := int64(0); off < 1<<20; off += 64 << 10 {
		e := extent.Extent{Off: off, Len: 64 << 10}
		l.Note(1, 2, e, 4<<10, 1)
		a, behind := l.Miss(e, 16<<20, 32<<20)
		require.Nil(t, a)
		require.Nil(t, behind)
	}
}

// combs has ranks read the pieces of each MiB that are theirs with one READ, one
// rank after the other, and returns the fetches and their bytes.
func combs(ranks []int, of int, size int64) (fetches int, bytes int64) {
	const piece, domain, round = 4 << 10, 4 << 20, 16 << 20
	l := Lookahead{Domain: domain, Owned: func(int64) bool { return true }}
	known := make(map[int64]bool)
	for off := int64(0); off < size; off += RegionSize {
		for _, rank := range ranks {
			var exts []extent.Extent
			missing := int64(0)
			for at := off + int64(rank)*piece; at < off+RegionSize; at += int64(of) * piece {
				exts = append(exts, extent.Extent{Off: at, Len: piece})
				if !known[at] {
					missing += piece
				}
			}
			hull := extent.Hull(exts)
			l.Note(uint64(1+rank*2/of), 7, hull, extent.Total(exts), len(exts))
			a := l.Next(hull, 2*round)
			if missing > 0 {
				fetches++
				if a, _ = l.Miss(hull, round, 2*round); a == nil {
					bytes += missing
					a = &Ahead{Extents: exts}
				}
			}
			if a == nil {
				continue
			}
			for _, e := range a.Extents {
				for at := e.Off; at < min(size, e.End()); at += piece {
					if !known[at] && len(a.Extents) < 8 {
						bytes += piece
					}
					known[at] = true
				}
			}
			l.Landed(a)
		}
	}
	return fetches, bytes
}

// TestLookaheadOfCombs: ranks whose nodes ask for many pieces at once are trusted
// with the first domain, and with what follows if they read all of that.
func TestLookaheadOfCombs(t *testing.T) {
	const size = 64 << 20
	fetches, bytes := combs([]int{3, 0, 1, 2, 7, 5, 6, 4}, 8, size)
	require.LessOrEqual(t, fetches, 5)
	require.LessOrEqual(t, bytes, int64(size+32<<20))
	_, bytes = combs([]int{3}, 8, size)
	require.LessOrEqual(t, bytes, int64(size/8+4<<20), "the others do not read: no more than the first domain is in vain")
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
			fetches, bytes := readers(order, 7, 0, piece, domain, most, 8<<30)
			require.Equal(t, len(asked), fetches)
			require.EqualValues(t, len(asked)*piece, bytes)
		})
	}
}

// TestLookaheadOfIslands: who reads all of a place and passes by what follows is
// trusted once and no more.
func TestLookaheadOfIslands(t *testing.T) {
	const piece, domain, round = 4 << 10, 4 << 20, 16 << 20
	var islands []int64
	for off := int64(0); off < 1<<30; off += 1 << 20 {
		for i := range int64(64) { // 256 KiB of each MiB
			islands = append(islands, off/piece+i)
		}
	}
	_, bytes := readers(islands, 7, 0, piece, domain, round, 1<<30)
	require.LessOrEqual(t, bytes, int64(1<<29/4+2*round))
}

// TestLookaheadAgain: what is not there any more is fetched again like the first
// time.
func TestLookaheadAgain(t *testing.T) {
	l := Lookahead{Domain: 4 << 20, Owned: func(int64) bool { return true }}
	for range 3 {
		var fetched int
		for off, known := int64(0), int64(0); off < 256<<20; off += 64 << 10 {
			e := extent.Extent{Off: off, Len: 64 << 10}
			l.Note(1, 7, e, e.Len, 1)
			a := l.Next(e, 32<<20)
			if off >= known {
				fetched++
				if a, _ = l.Miss(e, 16<<20, 32<<20); a == nil {
					known = e.End()
				}
			}
			if a != nil {
				known = a.to()
				l.Landed(a)
			}
		}
		require.LessOrEqual(t, fetched, 10)
	}
}
