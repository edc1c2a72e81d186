package ionserver

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

const testDomain = 100

// in is an extent in the domain with this index.
func in(at int64) extent.Extent { return extent.Extent{Off: at * testDomain, Len: 10} }

func just(e extent.Extent) []extent.Extent { return []extent.Extent{e} }

// fight has an access to a domain wait until the leases of session 1 there end.
func fight(t *leaseTable, at int64, now time.Time) []int64 {
	return t.Wait(in(at), []conflict{{1, leaseRead | leaseWrite, in(at)}}, now)
}

// once begins and ends an access that asks for leases.
func once(t *leaseTable, session uint64, at int64, write bool, want uint32, now time.Time) uint32 {
	return t.End(t.Begin(session, in(at), write), want, nil, now)
}

// TestLeaseConflicts: which leases of session 1, in the first of two domains, are
// in the way of whom.
func TestLeaseConflicts(t *testing.T) {
	const both = leaseRead | leaseWrite
	now := time.Now()
	for _, tt := range []struct {
		name    string
		has     uint32
		session uint64
		ext     extent.Extent
		write   bool
		want    uint32
	}{
		{"nothing", 0, 2, in(0), true, 0},
		{"own", both, 1, in(0), true, 0},
		{"readers share", leaseRead, 2, in(0), false, 0},
		{"a writer ends readers", leaseRead, 2, in(0), true, leaseRead},
		{"a reader ends the right to write only", both, 2, in(0), false, leaseWrite},
		{"a writer ends all", both, 2, in(0), true, both},
		{"another domain", both, 2, in(1), true, 0},
		{"the node itself", both, 0, extent.ToEnd(0), true, both},
		{"behind it", both, 0, extent.ToEnd(testDomain), true, 0},
		{"an empty extent", both, 2, extent.Extent{Off: 5}, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := newLeaseTable(testDomain)
			if tt.has != 0 {
				require.Equal(t, tt.has, once(&table, 1, 0, tt.has&leaseWrite != 0, tt.has, now))
			}
			got := table.Conflicts(tt.session, just(tt.ext), tt.write)
			if tt.want == 0 {
				require.Empty(t, got)
				return
			}
			require.Equal(t, []conflict{{1, tt.want, extent.Extent{Len: testDomain}}}, got)
		})
	}
}

// TestLeaseGrants: what an access of session 1 is given if meanwhile something
// happens.
func TestLeaseGrants(t *testing.T) {
	const both = leaseRead | leaseWrite
	now := time.Now()
	type during func(*leaseTable)
	foreign := func(write bool, want uint32) during {
		return func(t *leaseTable) { once(t, 2, 0, write, want, now) }
	}
	for _, tt := range []struct {
		name   string
		before during
		write  bool
		want   uint32
		during during
		given  uint32
	}{
		{"alone, read", nil, false, leaseRead, nil, leaseRead},
		{"alone, write", nil, true, both, nil, both},
		{"the right to write implies the other", nil, true, leaseWrite, nil, both},
		{"nothing asked", nil, true, 0, nil, 0},
		{"a reader has a lease", foreign(false, leaseRead), false, both, nil, leaseRead},
		{"somebody read meanwhile, and keeps it", nil, false, both, foreign(false, leaseRead), leaseRead},
		{"somebody read meanwhile, and is gone", nil, true, both, foreign(false, 0), both},
		{"somebody wrote meanwhile", nil, false, both, foreign(true, 0), 0},
		{"somebody wrote before", foreign(true, 0), false, both, nil, both},
		{"own write meanwhile", nil, false, leaseRead, func(t *leaseTable) { once(t, 1, 0, true, 0, now) }, leaseRead},
		{"own and other's write meanwhile", nil, false, leaseRead, func(t *leaseTable) {
			once(t, 2, 0, true, 0, now)
			once(t, 1, 0, true, 0, now)
		}, 0},
		{"the node changes it", nil, false, leaseRead, func(t *leaseTable) { t.Touch(extent.ToEnd(0)) }, 0},
		{"the node changes another domain", nil, false, leaseRead, func(t *leaseTable) { t.Touch(in(1)) }, leaseRead},
		{"somebody's write is at work", nil, false, leaseRead, func(t *leaseTable) { t.Begin(2, in(0), true) }, 0},
		{"somebody's read is at work", nil, true, both, func(t *leaseTable) { t.Begin(2, in(0), false) }, leaseRead},
		{"somebody's write was at work", func(t *leaseTable) { t.Begin(2, in(0), true) }, false, leaseRead, nil, 0},
		{"somebody waits", nil, false, both, func(t *leaseTable) { fight(t, 0, now.Add(-time.Hour)) }, 0},
		{"it is fought over", nil, false, both, func(t *leaseTable) { t.Waited(fight(t, 0, now), now) }, 0},
		{"it was fought over", nil, false, both, func(t *leaseTable) {
			past := now.Add(-minContention)
			t.Waited(fight(t, 0, past), past)
		}, both},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := newLeaseTable(testDomain)
			if tt.before != nil {
				tt.before(&table)
			}
			require.Empty(t, table.Conflicts(1, just(in(0)), tt.write))
			a := table.Begin(1, in(0), tt.write)
			if tt.during != nil {
				tt.during(&table)
			}
			require.Equal(t, tt.given, table.End(a, tt.want, nil, now))
		})
	}
}

// TestLeaseContention: the pause grows with each revocation in a row, up to a
// limit, and is forgotten in peace.
func TestLeaseContention(t *testing.T) {
	table := newLeaseTable(testDomain)
	now := time.Now()
	last := time.Duration(0)
	for range 12 {
		require.NotZero(t, once(&table, 1, 0, true, leaseWrite, now))
		waiting := fight(&table, 0, now)
		table.Drop(1, in(0), leaseRead|leaseWrite, now)
		table.Waited(waiting, now)
		pause := table.domains[0].whole.until.Sub(now)
		require.Equal(t, min(max(2*last, minContention), maxContention), pause)
		require.Zero(t, once(&table, 1, 0, true, leaseWrite, now.Add(pause-1)), "no lease in the pause")
		require.False(t, table.Idle(now.Add(pause-1)))
		last, now = pause, now.Add(pause)
	}
	require.Equal(t, maxContention, last)
	table.Waited(fight(&table, 0, now), now)
	now = now.Add(10 * maxContention)
	require.NotZero(t, once(&table, 1, 0, true, leaseWrite, now))
	fight(&table, 0, now)
	require.Equal(t, minContention, table.domains[0].whole.until.Sub(now), "that was long ago")
}

// TestLeaseContentionOnce: those who wait for one revocation have contended once,
// and a domain of which nothing is revoked has not been contended for.
func TestLeaseContentionOnce(t *testing.T) {
	table := newLeaseTable(testDomain)
	now := time.Now()
	for at := range int64(2) {
		once(&table, 1, at, true, leaseWrite, now)
	}
	for range 5 {
		table.Wait(extent.ToEnd(0), []conflict{{1, leaseRead | leaseWrite, in(1)}}, now)
	}
	require.Equal(t, minContention, table.domains[1].whole.pause)
	require.Zero(t, table.domains[0].whole.pause)
}

// TestLeaseCalm: where nobody writes any more, readers get leases before the
// pause is over: after some small reads, or a long one. Who writes does not.
func TestLeaseCalm(t *testing.T) {
	const both = leaseRead | leaseWrite
	now := time.Now()
	fought := func() *leaseTable {
		table := newLeaseTable(testDomain << 20)
		once(&table, 1, 0, true, leaseWrite, now)
		waiting := fight(&table, 0, now)
		table.Drop(1, in(0), both, now)
		table.Waited(waiting, now)
		return &table
	}
	table := fought()
	for range calmReads - 1 {
		require.Zero(t, once(table, 2, 0, false, both, now))
	}
	require.Zero(t, once(table, 1, 0, true, leaseRead, now))
	for range calmReads - 1 {
		require.Zero(t, once(table, 2, 0, false, both, now), "counted anew")
	}
	require.Equal(t, leaseRead, once(table, 2, 0, false, both, now))
	table = fought()
	long := extent.Extent{Len: 1 << 20}
	require.Equal(t, leaseRead, table.End(table.Begin(2, long, false), leaseRead, nil, now))
}

// TestLeaseDrop: giving up the right to write keeps the other one, unless that
// is named too.
func TestLeaseDrop(t *testing.T) {
	table := newLeaseTable(testDomain)
	now := time.Now()
	for at := range int64(3) {
		once(&table, 1, at, true, leaseWrite, now)
	}
	byOthers, byAny := table.KeptBack(1)
	require.False(t, byOthers)
	require.True(t, byAny)
	byOthers, _ = table.KeptBack(2)
	require.True(t, byOthers)
	table.Drop(2, extent.ToEnd(0), leaseRead|leaseWrite, now)
	require.Len(t, table.Conflicts(2, just(extent.ToEnd(0)), true), 1, "somebody else's stay")
	table.Drop(1, in(0), leaseWrite, now)
	require.Empty(t, table.Conflicts(2, just(in(0)), false))
	require.Equal(t, []conflict{{1, leaseRead, extent.Extent{Len: testDomain}}}, table.Conflicts(2, just(in(0)), true))
	table.Drop(1, in(1), leaseRead|leaseWrite, now)
	require.Empty(t, table.Conflicts(2, just(in(1)), true))
	require.Len(t, table.Conflicts(2, just(extent.ToEnd(0)), true), 1)
	table.DropSession(1, now)
	require.True(t, table.Idle(now))
}

// leaseWorld is sessions at work on domains. A session knows a domain's content
// from its accesses; under a lease nothing of others may happen to it.
type leaseWorld struct {
	*rand.Rand
	table   leaseTable
	now     time.Time
	foreign [4][2]int       // by session and domain: writes of others so far
	lease   [4][2]uint32    // by session and domain
	knows   [4][2]int       // foreign, as it was when the session last looked
	work    []*leaseWork    // at work
	waits   [][]int64       // that Waited is owed
	log     strings.Builder // of what happened
	granted int
}

type leaseWork struct {
	access
	saw   int  // of foreign, when it took effect
	done  bool // it took effect
	stale bool // its session has ended
}

func (w *leaseWorld) begin(s uint64, at int64, write bool) {
	if c := w.table.Conflicts(s, just(in(at)), write); len(c) > 0 {
		w.revoke(c, at)
		return
	}
	w.work = append(w.work, &leaseWork{access: w.table.Begin(s, in(at), write)})
}

// revoke ends what is in the way, or begins to.
func (w *leaseWorld) revoke(conflicts []conflict, at int64) {
	w.waits = append(w.waits, w.table.Wait(in(at), conflicts, w.now))
	for _, c := range conflicts {
		if w.IntN(4) > 0 {
			w.drop(c.session, at, c.leases)
		}
	}
}

func (w *leaseWorld) drop(s uint64, at int64, leases uint32) {
	has := &w.lease[s][at]
	*has &^= leases
	w.table.Drop(s, in(at), leases, w.now)
	if leases == leaseRead && *has&leaseWrite != 0 {
		*has |= leaseRead // it is implied
	}
}

func (w *leaseWorld) effect(k *leaseWork) {
	k.done = true
	k.saw = w.foreign[k.session][k.at]
	if k.write {
		w.changed(k.session, k.at)
	}
}

// changed has a write of s take effect.
func (w *leaseWorld) changed(s uint64, at int64) {
	for o := range w.foreign {
		if uint64(o) != s {
			w.foreign[o][at]++
		}
	}
}

func (w *leaseWorld) end(k *leaseWork, want uint32) {
	if !k.done || k.stale {
		want = 0
	}
	given := w.table.End(k.access, want, nil, w.now)
	fmt.Fprintf(&w.log, " -> %x", given)
	if given != 0 {
		w.granted++
		w.lease[k.session][k.at] |= given
		w.knows[k.session][k.at] = k.saw
	}
}

// touch is a change by the node itself, on behalf of s.
func (w *leaseWorld) touch(s uint64, at int64) {
	if c := w.table.Conflicts(s, just(in(at)), true); len(c) > 0 {
		w.revoke(c, at)
		return
	}
	w.table.Touch(in(at))
	w.changed(s, at)
}

func (w *leaseWorld) die(s uint64) {
	w.table.DropSession(s, w.now)
	w.lease[s] = [2]uint32{}
	for _, k := range w.work {
		k.stale = k.stale || k.session == s
	}
}

// wrong is the reason why a lease cannot be true.
func (w *leaseWorld) wrong() string {
	for s := range w.lease {
		for at, has := range w.lease[s] {
			switch {
			case has == 0:
				continue
			case w.knows[s][at] != w.foreign[s][at]:
				return fmt.Sprintf("session %d has a lease of domain %d, which others have changed", s, at)
			case has&leaseWrite == 0:
				continue
			}
			for o := range w.lease {
				if o != s && w.lease[o][at] != 0 {
					return fmt.Sprintf("session %d may write to domain %d, and %d has a lease", s, at, o)
				}
			}
			for _, k := range w.work {
				if int(k.session) != s && k.at == int64(at) {
					return fmt.Sprintf("session %d may write to domain %d, and %d is at work", s, at, k.session)
				}
			}
		}
	}
	return ""
}

func (w *leaseWorld) step() {
	s, at := 1+w.Uint64N(3), w.Int64N(2)
	pick := func() *leaseWork {
		if len(w.work) == 0 {
			return nil
		}
		return w.work[w.IntN(len(w.work))]
	}
	op := w.IntN(100)
	fmt.Fprintf(&w.log, "\n%d: session %d domain %d", op, s, at)
	switch {
	case op < 35:
		w.begin(s, at, op < 15)
	case op < 60:
		if k := pick(); k != nil && !k.done {
			fmt.Fprintf(&w.log, " effect of %+v", k.access)
			w.effect(k)
		}
	case op < 85:
		if k := pick(); k != nil {
			fmt.Fprintf(&w.log, " end of %+v", k.access)
			w.work = slices.DeleteFunc(w.work, func(o *leaseWork) bool { return o == k })
			w.end(k, []uint32{0, leaseRead, leaseWrite, leaseRead | leaseWrite}[w.IntN(4)])
		}
	case op < 90:
		if n := len(w.waits); n > 0 {
			w.table.Waited(w.waits[n-1], w.now)
			w.waits = w.waits[:n-1]
		}
	case op < 93:
		w.touch(uint64(w.IntN(4)), at)
	case op < 95:
		w.die(s)
	default:
		w.now = w.now.Add(time.Duration(w.Int64N(int64(maxContention))))
	}
}

// TestLeasesAreTrue: whatever happens in whatever order, who has a lease knows
// the content, and who may keep writes back is alone. Once all is quiet leases
// are given, and in the end nothing is remembered.
func TestLeasesAreTrue(t *testing.T) {
	granted := 0
	for seed := range uint64(3000) {
		w := &leaseWorld{Rand: rand.New(rand.NewPCG(seed, 2)), table: newLeaseTable(testDomain), now: time.Unix(1e9, 0)}
		for range 60 {
			w.step()
			require.Empty(t, w.wrong(), "seed %d%s", seed, &w.log)
		}
		for _, k := range w.work {
			w.end(k, 0)
		}
		for _, at := range w.waits {
			w.table.Waited(at, w.now)
		}
		for s := range uint64(4) {
			w.table.DropSession(s, w.now)
		}
		w.now = w.now.Add(maxContention)
		require.True(t, w.table.Idle(w.now), "seed %d%s", seed, &w.log)
		require.NotZero(t, once(&w.table, 1, 0, false, leaseWrite, w.now))
		granted += w.granted
	}
	require.Greater(t, granted, 3000, "leases are given at all")
}
