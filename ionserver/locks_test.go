package ionserver

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/errno"
)

func lockOf(owner uint64, start, end uint64, mode lockMode) *lockReq {
	return &lockReq{handle: 1, owner: lockOwner{session: owner / 10, owner: owner}, start: start, end: end, mode: mode, pid: uint32(owner)}
}

func waiting(r *lockReq) *lockReq { r.wait = true; return r }

func flock(r *lockReq) *lockReq {
	r.owner.flock = true
	r.start, r.end = 0, maxLockEnd
	return r
}

func TestLockRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		r    *lockReq
		want syscall.Errno
	}{
		{"start behind end", lockOf(1, 5, 4, lockShared), syscall.EINVAL},
		{"end beyond the largest offset", lockOf(1, 0, 1<<63, lockShared), syscall.EINVAL},
		{"unknown mode", lockOf(1, 0, 1, 3), syscall.EINVAL},
		{"conflict", lockOf(2, 10, 20, lockShared), syscall.EAGAIN},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := newLockTable()
			_, _, err := table.Set(lockOf(1, 0, 10, lockExclusive))
			require.NoError(t, err)
			blocked, _, err := table.Set(c.r)
			require.False(t, blocked)
			require.Equal(t, c.want, errno.Of(err))
		})
	}
}

func TestLockSplitsAndMerges(t *testing.T) {
	table := newLockTable()
	set := func(start, end uint64, mode lockMode) {
		_, _, err := table.Set(lockOf(1, start, end, mode))
		require.NoError(t, err)
	}
	set(0, 99, lockExclusive)
	set(10, 19, lockShared)
	set(40, 49, lockNone)
	owner := lockOwner{0, 1, false}
	require.Equal(t, []lockSpan{
		{0, 9, lockExclusive, 1}, {10, 19, lockShared, 1}, {20, 39, lockExclusive, 1}, {50, 99, lockExclusive, 1},
	}, table.files[1].held[owner])
	set(40, 49, lockExclusive)
	set(10, 19, lockExclusive)
	require.Equal(t, []lockSpan{{0, 99, lockExclusive, 1}}, table.files[1].held[owner])
	set(0, maxLockEnd, lockNone)
	require.Empty(t, table.files, "a file without locks is forgotten")
	require.Empty(t, table.spans)
}

// TestLockDeadlock: two owners, each holding what the other wants, over two
// files of one home.
func TestLockDeadlock(t *testing.T) {
	table := newLockTable()
	a, b := lockOf(1, 0, 0, lockExclusive), lockOf(2, 0, 0, lockExclusive)
	b.handle = 2
	for _, r := range []*lockReq{a, b} {
		_, _, err := table.Set(r)
		require.NoError(t, err)
	}
	wantB, wantA := waiting(lockOf(1, 0, 0, lockShared)), waiting(lockOf(2, 0, 0, lockShared))
	wantB.handle = 2
	blocked, _, err := table.Set(wantB)
	require.NoError(t, err)
	require.True(t, blocked)
	_, _, err = table.Set(wantA)
	require.Equal(t, syscall.EDEADLK, errno.Of(err))
	free := lockOf(2, 0, 0, lockNone)
	free.handle = 2
	_, granted, err := table.Set(free)
	require.NoError(t, err)
	require.Equal(t, []*lockReq{wantB}, granted, "the first waiter goes on")
}

// TestLockOrder: waiters are served in order of arrival; a reader does not
// pass a writer that waits.
func TestLockOrder(t *testing.T) {
	table := newLockTable()
	_, _, err := table.Set(lockOf(1, 0, 9, lockShared))
	require.NoError(t, err)
	w, r, far := waiting(lockOf(2, 0, 9, lockExclusive)), waiting(lockOf(3, 5, 5, lockShared)), waiting(lockOf(4, 20, 20, lockExclusive))
	for _, c := range []struct {
		r       *lockReq
		blocked bool
	}{{w, true}, {r, true}, {far, false}} {
		blocked, granted, err := table.Set(c.r)
		require.NoError(t, err)
		require.Empty(t, granted)
		require.Equal(t, c.blocked, blocked)
	}
	_, granted, err := table.Set(lockOf(1, 0, 9, lockNone))
	require.NoError(t, err)
	require.Equal(t, []*lockReq{w}, granted)
	_, granted, err = table.Set(lockOf(2, 0, 9, lockNone))
	require.NoError(t, err)
	require.Equal(t, []*lockReq{r}, granted)
}

// TestLockTurnIsNoDeadlock: who already holds what an earlier waiter waits
// for may take more; otherwise both would wait for ever.
func TestLockTurnIsNoDeadlock(t *testing.T) {
	table := newLockTable()
	_, _, err := table.Set(lockOf(1, 0, 9, lockShared))
	require.NoError(t, err)
	blocked, _, err := table.Set(waiting(lockOf(2, 0, 9, lockExclusive)))
	require.NoError(t, err)
	require.True(t, blocked)
	blocked, _, err = table.Set(waiting(lockOf(1, 0, 9, lockExclusive)))
	require.NoError(t, err)
	require.False(t, blocked, "the only holder may upgrade")
}

// TestFlockConversionGivesUpFirst: two holders of a shared lock that both want
// it exclusive do not wait for each other.
func TestFlockConversionGivesUpFirst(t *testing.T) {
	table := newLockTable()
	for owner := range uint64(2) {
		_, _, err := table.Set(flock(lockOf(owner+1, 0, 0, lockShared)))
		require.NoError(t, err)
	}
	up1, up2 := waiting(flock(lockOf(1, 0, 0, lockExclusive))), waiting(flock(lockOf(2, 0, 0, lockExclusive)))
	blocked, granted, err := table.Set(up1)
	require.NoError(t, err)
	require.True(t, blocked)
	require.Empty(t, granted)
	blocked, _, err = table.Set(up2)
	require.NoError(t, err)
	require.False(t, blocked, "nobody else holds it")
	_, granted, err = table.Set(flock(lockOf(2, 0, 0, lockNone)))
	require.NoError(t, err)
	require.Equal(t, []*lockReq{up1}, granted)
}

func TestLockDropSession(t *testing.T) {
	table := newLockTable()
	_, _, err := table.Set(lockOf(11, 0, 9, lockExclusive)) // session 1
	require.NoError(t, err)
	mine, other := waiting(lockOf(12, 0, 9, lockShared)), waiting(lockOf(21, 0, 9, lockShared))
	for _, r := range []*lockReq{mine, other} {
		blocked, _, err := table.Set(r)
		require.NoError(t, err)
		require.True(t, blocked)
	}
	dropped, granted := table.DropSession(1)
	require.Equal(t, []*lockReq{mine}, dropped)
	require.Equal(t, []*lockReq{other}, granted)
	require.Empty(t, table.blocked)
	require.Empty(t, table.waiters)
}

func TestLockBounds(t *testing.T) {
	table := newLockTable()
	for i := range uint64(maxSpansPerSession) {
		_, _, err := table.Set(lockOf(1, 2*i, 2*i, lockShared))
		if i > 2000 { // the table is quadratic in one owner's spans; do not wait for all
			table.spans[0] = maxSpansPerSession
			_, _, err = table.Set(lockOf(1, 2*i+2, 2*i+2, lockShared))
			require.Equal(t, syscall.ENOLCK, errno.Of(err))
			return
		}
		require.NoError(t, err)
	}
}

// byteLocks is the dumbest model: who holds each byte, and how.
type byteLocks [32]map[uint64]lockMode

func (m *byteLocks) free(r *lockReq) bool {
	for b := r.start; b <= r.end; b++ {
		for o, mode := range m[b] {
			if o != r.owner.owner && (mode == lockExclusive || r.mode == lockExclusive) {
				return false
			}
		}
	}
	return true
}

func (m *byteLocks) apply(r *lockReq) {
	for b := r.start; b <= r.end; b++ {
		if m[b] == nil {
			m[b] = make(map[uint64]lockMode)
		}
		delete(m[b], r.owner.owner)
		if r.mode != lockNone {
			m[b][r.owner.owner] = r.mode
		}
	}
}

// TestLockModel: random histories give the same locks as byteLocks, every
// waiter that could be granted is, and nobody waits while he waits for himself.
func TestLockModel(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 7))
			table, model := newLockTable(), &byteLocks{}
			blockedBy := map[uint64]*lockReq{} // by owner; one thread each
			grant := func(rs []*lockReq) {
				for _, r := range rs {
					require.Equal(t, r, blockedBy[r.owner.owner])
					require.True(t, model.free(r), "granted against the model: %+v", r)
					delete(blockedBy, r.owner.owner)
					model.apply(r)
				}
			}
			for range 400 {
				owner := 10*(1+rnd.Uint64N(3)) + rnd.Uint64N(3)
				if w := blockedBy[owner]; w != nil {
					if rnd.IntN(8) == 0 {
						found, granted := table.Cancel(w)
						require.True(t, found)
						delete(blockedBy, owner)
						grant(granted)
					}
					continue
				}
				start := rnd.Uint64N(32)
				r := lockOf(owner, start, start+rnd.Uint64N(32-start), lockMode(rnd.IntN(3)))
				r.wait = rnd.IntN(2) == 0
				if rnd.IntN(40) == 0 {
					dropped, granted := table.DropSession(r.owner.session)
					for _, d := range dropped {
						delete(blockedBy, d.owner.owner)
					}
					for o := r.owner.session * 10; o < r.owner.session*10+10; o++ {
						model.apply(lockOf(o, 0, 31, lockNone))
					}
					grant(granted)
					continue
				}
				free := r.mode == lockNone || model.free(r)
				blocked, granted, err := table.Set(r)
				switch {
				case errno.Of(err) == syscall.EAGAIN:
					require.False(t, free || r.wait)
				case errno.Of(err) == syscall.EDEADLK:
					require.False(t, free)
				case blocked:
					require.NoError(t, err)
					require.True(t, r.wait)
					blockedBy[owner] = r
				default:
					require.NoError(t, err)
					require.True(t, free)
					model.apply(r)
				}
				grant(granted)
				checkLockTable(t, table, model, blockedBy)
			}
		})
	}
}

func checkLockTable(t *testing.T, table *lockTable, model *byteLocks, blocked map[uint64]*lockReq) {
	held := map[uint64]map[uint64]lockMode{}
	n := 0
	if f := table.files[1]; f != nil {
		for o, spans := range f.held {
			for i, s := range spans {
				n++
				require.True(t, i == 0 || spans[i-1].end < s.start)
				for b := s.start; b <= s.end; b++ {
					if held[b] == nil {
						held[b] = map[uint64]lockMode{}
					}
					held[b][o.owner] = s.mode
				}
			}
		}
		require.Len(t, f.waiting, len(blocked))
		// The one who waits longest waits for a lock, not for a turn.
		if len(f.waiting) > 0 {
			require.False(t, model.free(f.waiting[0]))
		}
	}
	for b := range model {
		require.Equal(t, len(model[b]), len(held[uint64(b)]))
		for o, mode := range model[b] {
			require.Equal(t, mode, held[uint64(b)][o])
		}
	}
	total := 0
	for _, k := range table.spans {
		total += k
	}
	require.Equal(t, n, total)
}
