package collective

import (
	"slices"
	"time"
)

const (
	maxHabits  = 1024 // keys and jobs of which is known who takes part
	maxSets    = 4    // sets of ranks that are remembered for each
	maxSet     = 4096 // ranks of a set
	minNeed    = 2    // collective epochs in a row before anything is put off
	maxNeed    = 64
	maxMisses  = 2 // epochs in a row that were expected and not collective, before nothing is put off any more
	forgiveFor = 8 // collective epochs in a row after which need is minNeed again
)

// habit knows who of a job takes part in the calls of a key. An epoch is the
// calls within a hold's bound of its first; it is collective if two members or
// more came, and of those that were expected with the first at least half. All this is
// seen whether anything is put off or not, so that to find out costs nothing.
//
//	state     collective epoch        one that was expected to be, and was not
//	watching  need in a row: holding  begin to count anew
//	holding   -                       maxMisses in a row: watching, need doubled
type habit struct {
	holding bool
	need    int
	hits    int // collective epochs in a row
	misses  int // epochs in a row that were not as expected

	sets   [][]Rank // each sorted, that of the last epoch first; never changed
	began  time.Time
	bound  time.Duration
	came   []Rank // in this epoch, sorted
	expect []Rank // with the first of this epoch, from sets; nil: nobody was known
}

// arrive takes note of a call of rank and returns whom to wait for: a sorted set
// that has rank in it, or nil. bound is how long a hold might last now; may
// says whether it is known well enough to put anything off.
func (h *habit) arrive(rank Rank, now time.Time, bound time.Duration, may bool) []Rank {
	if !h.began.IsZero() && now.Sub(h.began) <= h.bound {
		h.add(rank)
		return nil
	}
	return h.open(rank, now, bound, may)
}

// open ends the epoch and begins the next one with rank, like arrive.
func (h *habit) open(rank Rank, now time.Time, bound time.Duration, may bool) []Rank {
	if !h.began.IsZero() {
		h.judge()
		h.remember()
	}
	h.began, h.bound = now, bound
	h.came = append(h.came[:0], rank)
	h.expect = h.predict(rank)
	if h.holding && may && len(h.expect) > 1 {
		return h.expect
	}
	return nil
}

func (h *habit) add(rank Rank) {
	i, ok := slices.BinarySearch(h.came, rank)
	if !ok && len(h.came) < maxSet {
		h.came = slices.Insert(h.came, i, rank)
	}
}

// predict returns the last set that rank was in.
func (h *habit) predict(rank Rank) []Rank {
	for _, s := range h.sets {
		if _, ok := slices.BinarySearch(s, rank); ok {
			return s
		}
	}
	return nil
}

// judge learns from the epoch that has ended.
func (h *habit) judge() {
	came := 0 // of those expected, without the first
	for _, rank := range h.expect {
		if _, ok := slices.BinarySearch(h.came, rank); ok {
			came++
		}
	}
	switch {
	case len(h.came) > 1 && (h.expect == nil || 2*(came-1) >= len(h.expect)-1):
		h.hit()
	case len(h.expect) > 1:
		h.miss()
	case h.expect == nil:
		h.hits = 0
	}
}

func (h *habit) hit() {
	h.hits++
	h.misses = 0
	switch {
	case !h.holding && h.hits >= max(minNeed, h.need):
		h.holding, h.hits = true, 0
	case h.holding && h.hits >= forgiveFor:
		h.need = minNeed
	}
}

func (h *habit) miss() {
	h.hits = 0
	h.misses++
	if h.holding && h.misses >= maxMisses {
		h.holding, h.misses = false, 0
		h.need = min(maxNeed, 2*max(minNeed, h.need))
	}
}

// remember puts the set of the epoch that has ended before the others.
func (h *habit) remember() {
	at := slices.IndexFunc(h.sets, func(s []Rank) bool { return slices.Equal(s, h.came) })
	set := []Rank(nil)
	if at >= 0 {
		set = h.sets[at]
	} else {
		set = slices.Clone(h.came)
		if len(h.sets) < maxSets {
			h.sets = append(h.sets, nil)
		}
		at = len(h.sets) - 1
	}
	copy(h.sets[1:at+1], h.sets[:at])
	h.sets[0] = set
}

// habits keeps the habits of the keys and jobs that were used last. For each job
// there is one more habit, of the first epochs of its keys: a job that opens
// one file after the other together is expected to open the next one together.
// The zero value is ready.
type habits[K comparable] struct {
	known recent[habitName[K], habit]
	fresh recent[JobID, freshHabit[K]]
}

type habitName[K comparable] struct {
	key K
	job JobID
}

// freshHabit is the habit of a job with keys that are new. Each of them begins
// an epoch, and ends that of the one before.
type freshHabit[K comparable] struct {
	habit
	of K // whose first epoch it is
}

// arrive takes note of a call of m and returns whom to wait for, like
// habit.arrive.
func (s *habits[K]) arrive(key K, m Member, now time.Time, bound time.Duration, may bool) []Rank {
	h := s.known.get(habitName[K]{key, m.Job})
	isNew := h.began.IsZero()
	set := h.arrive(m.Rank, now, bound, may)
	if len(h.sets) > 0 { // not its first epoch
		return set
	}
	f := s.fresh.get(m.Job)
	if isNew {
		f.of = key
		return f.open(m.Rank, now, bound, may)
	}
	if f.of == key {
		f.add(m.Rank)
	}
	return nil
}
