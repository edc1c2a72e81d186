package ionserver

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReplyTable(t *testing.T) {
	table := newReplyTable[string, int](3)
	v, _ := table.Begin(1, 0, "first")
	require.Equal(t, runIt, v)
	v, _ = table.Begin(1, 0, "again")
	require.Equal(t, joinIt, v)
	require.Equal(t, []string{"first", "again"}, table.Finish(1, 42))
	v, answer := table.Begin(1, 0, "third")
	require.Equal(t, answerIt, v)
	require.Equal(t, 42, answer)
	v, _ = table.Begin(2, 1, "second")
	require.Equal(t, runIt, v)
	v, _ = table.Begin(1, 0, "stray")
	require.Equal(t, refuseIt, v, "acknowledged; a smaller acked does not undo that")
	require.Equal(t, 1, table.Len())
}

func TestReplyTableOverflow(t *testing.T) {
	table := newReplyTable[int, int](2)
	for id := range uint64(2) {
		v, _ := table.Begin(id+1, 0, 0)
		require.Equal(t, runIt, v)
	}
	v, _ := table.Begin(3, 0, 0)
	require.Equal(t, overflow, v)
	table.Finish(1, 0)
	v, _ = table.Begin(3, 1, 0)
	require.Equal(t, runIt, v)
}

// TestReplyTableAckOfRunning: an acknowledgement that comes while the request
// runs, because its caller gave up, keeps nothing behind.
func TestReplyTableAckOfRunning(t *testing.T) {
	table := newReplyTable[int, int](2)
	table.Begin(1, 0, 7)
	table.Ack(1 << 60)
	require.Equal(t, []int{7}, table.Finish(1, 0))
	require.Zero(t, table.Len())
}

// TestReplyTableOnce: however often requests are sent, and in whatever order
// they and their answers come, each is carried out once.
func TestReplyTableOnce(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	table := newReplyTable[uint64, uint64](1 << 10)
	runs, answered := map[uint64]int{}, map[uint64]bool{}
	var running []uint64
	acked, next := uint64(0), uint64(1)
	for range 20000 {
		switch rnd.IntN(3) {
		case 0:
			if next-acked < 100 {
				v, _ := table.Begin(next, acked, next)
				require.Equal(t, runIt, v)
				runs[next]++
				running = append(running, next)
				next++
			}
		case 1: // sent again
			id := acked + rnd.Uint64N(next-acked)
			if id == acked {
				continue
			}
			switch v, answer := table.Begin(id, acked, id); v {
			case runIt:
				runs[id]++
			case answerIt:
				require.Equal(t, id*2, answer)
				answered[id] = true
			case joinIt:
			default:
				t.Fatalf("verdict %d on %d, acked %d", v, id, acked)
			}
		case 2:
			if len(running) > 0 {
				i := rnd.IntN(len(running))
				for _, to := range table.Finish(running[i], running[i]*2) {
					answered[to] = true
				}
				running = append(running[:i], running[i+1:]...)
			}
		}
		for answered[acked+1] {
			acked++
		}
	}
	for id := uint64(1); id < next; id++ {
		require.Equal(t, 1, runs[id])
	}
	require.LessOrEqual(t, table.Len(), 100)
}
