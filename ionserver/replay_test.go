package ionserver

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// was is a write of the earlier life of an owner.
type was struct {
	ext      extent.Extent
	stamp    int64
	prepared bool // and so at the PVFS2 servers, or something later is
}

// disk is the stamps of the bytes of a file.
type disk []int64

func (d disk) write(e extent.Extent, stamp int64) {
	for at := e.Off; at < e.End(); at++ {
		d[at] = stamp
	}
}

// TestReplayOrder: whatever the order in which mounts replay, each byte has the
// value that it had last.
func TestReplayOrder(t *testing.T) {
	const size = 40
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var writes []was
		last, found := make(disk, size), make(disk, size)
		saved := int64(rng.IntN(12)) // what was written up to here had been written back
		known := rng.IntN(2) == 0    // by all mounts, some of which may have dropped it
		for stamp := int64(1); stamp <= 12; stamp++ {
			off := rng.Int64N(size)
			e := extent.Extent{Off: off, Len: 1 + rng.Int64N(size-off)}
			last.write(e, stamp)
			w := was{ext: e, stamp: stamp}
			if stamp <= saved {
				found.write(e, stamp)
				w.prepared = known || rng.IntN(2) == 0 // else the news may not have reached the mount
				if known && rng.IntN(2) == 0 {
					continue
				}
			}
			writes = append(writes, w)
		}
		var log []string
		r := new(replayed)
		rng.Shuffle(len(writes), func(i, j int) { writes[i], writes[j] = writes[j], writes[i] })
		for _, w := range writes {
			parts := r.Admit(w.ext, w.stamp, w.prepared)
			require.True(t, slices.IsSortedFunc(parts, func(a, b extent.Extent) int { return int(a.Off - b.Off) }))
			for _, e := range parts {
				require.True(t, w.ext.Contains(e), "%v of %v", e, w.ext)
				found.write(e, w.stamp)
			}
			log = append(log, fmt.Sprintf("%v@%d prepared=%v writes %v", w.ext, w.stamp, w.prepared, parts))
		}
		require.Equal(t, last, found, "seed %d, saved %d\n%s", seed, saved, log)
		for i := 1; i < len(r.spans); i++ {
			require.LessOrEqual(t, r.spans[i-1].End(), r.spans[i].Off, "spans overlap")
		}
	}
}

// TestReplayedAgain: a replay that is sent again, because its answer was lost,
// does not undo later ones.
func TestReplayedAgain(t *testing.T) {
	r := new(replayed)
	all, part := extent.Extent{Len: 10}, extent.Extent{Off: 3, Len: 2}
	require.Equal(t, []extent.Extent{all}, r.Admit(all, 1, false))
	require.Equal(t, []extent.Extent{part}, r.Admit(part, 2, false))
	require.Empty(t, r.Admit(part, 1, false))
	require.Empty(t, r.Admit(all, 1, false))
	require.Empty(t, r.Admit(part, 2, false))
}

// TestPreparedGivesWay: prepared bytes cost no write, unless older ones that
// were replayed are in their place.
func TestPreparedGivesWay(t *testing.T) {
	r := new(replayed)
	e := extent.Extent{Off: 5, Len: 5}
	require.Empty(t, r.Admit(e, 9, true))
	require.Empty(t, r.Admit(extent.Extent{Off: 7, Len: 1}, 3, false), "older than what is there")
	r = new(replayed)
	old := extent.Extent{Off: 7, Len: 10}
	require.Equal(t, []extent.Extent{old}, r.Admit(old, 3, false))
	require.Equal(t, []extent.Extent{{Off: 7, Len: 3}}, r.Admit(e, 9, true))
}

func TestUnstable(t *testing.T) {
	var u unstable
	require.True(t, u.none())
	u.add(2, 10)
	u.add(1, 11)
	u.add(2, 12)
	require.Equal(t, []uint64{1, 2}, u.sessions())
	u.dropped(2, 11)
	require.Equal(t, []uint64{1, 2}, u.sessions(), "it has written since")
	u.dropped(2, 12)
	u.dropped(7, 12)
	require.Equal(t, []uint64{1}, u.sessions())
	u.end(1)
	require.True(t, u.none())
	u.dropped(1, 20)
	u.end(1)
	require.True(t, u.none())
}
