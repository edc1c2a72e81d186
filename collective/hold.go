package collective

import (
	"fmt"
	"slices"
	"time"
)

// HoldOptions bounds for how long the start of a round may be put off for
// members of a job that are expected, because they took part in the last
// rounds together with who has come. It is put off at most until the first of
// its calls is Fraction of the time old that such rounds take, and never longer
// than Limit; it starts at once when all who are expected have come, when one of
// them does something else, or when a call joins that nobody is expected with.
// The zero value gives the defaults.
type HoldOptions struct {
	Off      bool          // nothing is ever put off
	Fraction float64       // of the time that rounds take; 0 is a half
	Limit    time.Duration // 0 is 5 ms
}

const (
	defaultFraction = 0.5
	defaultLimit    = 5 * time.Millisecond
)

func (o HoldOptions) validate() error {
	if o.Fraction < 0 || o.Fraction > 1 {
		return fmt.Errorf("collective: a hold of %g of the time that rounds take is not within 0 and 1", o.Fraction)
	}
	if o.Limit < 0 {
		return fmt.Errorf("collective: a hold of %v", o.Limit)
	}
	return nil
}

func (o HoldOptions) withDefaults() HoldOptions {
	if o.Fraction == 0 {
		o.Fraction = defaultFraction
	}
	if o.Limit == 0 {
		o.Limit = defaultLimit
	}
	return o
}

// hold says what the start of the queued calls of a line waits for.
type hold struct {
	until   time.Time           // zero: for nothing
	awaited map[Member]struct{} // empty if until is zero
	ready   time.Time           // when it could have started; zero: not yet
	jobs    []JobID             // under which the line is listed in Rounds.waiting
	ended   Why                 // what made until zero after it was not
}

// reset makes h, of which until is zero, as good as new.
func (h *hold) reset() { *h = hold{awaited: h.awaited, jobs: h.jobs} }

// expect takes note that m has come, the last of l.queue, and says for whom
// the queue now waits.
func (r *Rounds[K, T]) expect(now time.Time, l *line[K, T], m Member) {
	var set []Rank
	if m.Job != 0 && !r.opts.Hold.Off {
		set = r.habits.arrive(l.key, m, now, r.bound(), r.took.n > 0)
	}
	h := &l.hold
	if _, ok := h.awaited[m]; ok {
		delete(h.awaited, m)
		if len(h.awaited) == 0 {
			r.release(l, Complete)
		}
		return
	}
	switch {
	case len(l.queue) == 1:
		r.await(now, l, m, set)
	case h.until.IsZero() || l.knows(m.Job):
		// Nothing is put off, or m comes in addition to who is expected of its job.
	case set == nil:
		r.release(l, Alone)
	default:
		r.await(now, l, m, set)
	}
}

// knows reports whether a call before the last one is of the job.
func (l *line[K, T]) knows(job JobID) bool {
	return job != 0 && slices.ContainsFunc(l.queue[:len(l.queue)-1], func(c Call[T]) bool { return c.Member.Job == job })
}

// await has l wait for the others of set, which are of m's job, too.
func (r *Rounds[K, T]) await(now time.Time, l *line[K, T], m Member, set []Rank) {
	if set == nil {
		return
	}
	h := &l.hold
	if h.awaited == nil {
		h.awaited = make(map[Member]struct{}, len(set))
	}
	for _, rank := range set {
		if rank != m.Rank {
			h.awaited[Member{Job: m.Job, Rank: rank}] = struct{}{}
		}
	}
	if h.until.IsZero() {
		h.until = now.Add(r.bound())
	}
	h.jobs = append(h.jobs, m.Job)
	r.waiting[m.Job] = append(r.waiting[m.Job], l)
}

// release has l wait for nobody any more.
func (r *Rounds[K, T]) release(l *line[K, T], why Why) {
	h := &l.hold
	if h.until.IsZero() {
		return
	}
	h.until, h.ended = time.Time{}, why
	clear(h.awaited)
	for _, job := range h.jobs {
		r.unlist(job, l)
	}
	h.jobs = h.jobs[:0]
}

func (r *Rounds[K, T]) unlist(job JobID, l *line[K, T]) {
	ls := r.waiting[job]
	if len(ls) == 1 {
		delete(r.waiting, job)
		return
	}
	i := slices.Index(ls, l)
	r.waiting[job] = slices.Delete(ls, i, i+1)
}

// bound is for how long a start may be put off now.
func (r *Rounds[K, T]) bound() time.Duration {
	if r.took.n == 0 {
		return r.opts.Hold.Limit
	}
	return min(r.opts.Hold.Limit, time.Duration(r.opts.Hold.Fraction*r.took.mean))
}
