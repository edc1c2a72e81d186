package collective

import (
	"container/list"
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

// habits keeps the habits of the keys and jobs that were used last. The zero
// value is ready.
type habits[K comparable] struct {
	byName map[habitName[K]]*list.Element
	order  list.List // of *namedHabit[K], the last used first
}

type habitName[K comparable] struct {
	key K
	job JobID
}

type namedHabit[K comparable] struct {
	name habitName[K]
	habit
}

// get returns the habit of the job with the key, a new one if there is none.
func (s *habits[K]) get(key K, job JobID) *habit {
	name := habitName[K]{key, job}
	if e, ok := s.byName[name]; ok {
		s.order.MoveToFront(e)
		return &e.Value.(*namedHabit[K]).habit
	}
	if s.byName == nil {
		s.byName = make(map[habitName[K]]*list.Element)
	}
	h := &namedHabit[K]{name: name}
	s.byName[name] = s.order.PushFront(h)
	if s.order.Len() > maxHabits {
		last := s.order.Remove(s.order.Back()).(*namedHabit[K])
		delete(s.byName, last.name)
	}
	return &h.habit
}
