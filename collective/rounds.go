package collective

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// RoundOptions says how rounds are formed. The zero value is useful.
type RoundOptions struct {
	Members int   // the most calls of a round; 0: no limit
	Bytes   int64 // the most bytes of a round of several calls; 0: no limit
	Flights int   // rounds of a key in flight together; 0 is one
	Hold    HoldOptions
}

// Validate reports the first field that makes no sense.
func (o RoundOptions) Validate() error {
	switch {
	case o.Members < 0:
		return fmt.Errorf("collective: rounds of %d members", o.Members)
	case o.Bytes < 0:
		return fmt.Errorf("collective: rounds of %d bytes", o.Bytes)
	case o.Flights < 0:
		return fmt.Errorf("collective: %d rounds in flight", o.Flights)
	}
	return o.Hold.validate()
}

// Rounds gathers calls of one kind into rounds, apart for each key, which
// names the object called for. A call starts a round at once if none of its key
// is in flight; calls that come meanwhile queue and form the next one. Where the
// calls before were collective, a start may be put off for a short, bounded
// time for members that are expected; see HoldOptions.
//
// A key is in one of these states:
//
//	state   Arrive                      Finished              Tick at its time, Elsewhere
//	idle    starts: flying              -                     -
//	        or puts it off: held
//	held    queues; starts if it is     -                     starts what is queued: flying
//	        full, or nobody is waited
//	        for any more: flying
//	flying  queues                      nothing queued: idle  nothing is put off any more
//	                                    starts it: flying
//	                                    or puts it off: held
type Rounds[K comparable, T comparable] struct {
	opts    RoundOptions
	lines   map[K]*line[K, T] // not idle
	waiting map[JobID][]*line[K, T]
	habits  habits[K]
	took    average
	lineBin []*line[K, T]  // to be used again
	bin     []*Round[K, T] // to be used again
}

// maxBin bounds what is kept to be used again.
const maxBin = 64

// line is a key that is not idle.
type line[K comparable, T any] struct {
	key    K
	flying int
	queue  []Call[T]
	bytes  int64 // of queue
	hold   hold  // of queue
}

// NewRounds returns Rounds in which every key is idle. It fails if opts makes
// no sense.
func NewRounds[K comparable, T comparable](opts RoundOptions) (*Rounds[K, T], error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	opts.Flights = max(1, opts.Flights)
	opts.Hold = opts.Hold.withDefaults()
	return &Rounds[K, T]{
		opts:    opts,
		lines:   make(map[K]*line[K, T]),
		waiting: make(map[JobID][]*line[K, T]),
	}, nil
}

// Arrive takes a call in. Its token is not in use in the same key.
func (r *Rounds[K, T]) Arrive(now time.Time, key K, c Call[T]) Decision[K, T] {
	l := r.lines[key]
	if l == nil {
		l = r.newLine(key)
		r.lines[key] = l
	}
	c.At = now
	l.queue = append(l.queue, c)
	l.bytes += c.Bytes
	r.expect(now, l, c.Member)
	return r.next(now, l, Alone)
}

// Finished says that round, which was started by a decision before, has been
// carried out and took so long; 0 if it was not carried out, as nobody waits for it
// any more. The round is not to be used after this.
func (r *Rounds[K, T]) Finished(now time.Time, round *Round[K, T], took time.Duration) Decision[K, T] {
	l := r.lines[round.Key]
	l.flying--
	if took > 0 {
		r.took.add(took)
	}
	if len(r.bin) < maxBin {
		clear(round.Calls)
		*round = Round[K, T]{Calls: round.Calls[:0]}
		r.bin = append(r.bin, round)
	}
	return r.next(now, l, Behind)
}

// Tick says that a time which Decision.Wake named for the key has come. To call
// it at any other time does no harm.
func (r *Rounds[K, T]) Tick(now time.Time, key K) Decision[K, T] {
	l := r.lines[key]
	if l == nil {
		return Decision[K, T]{}
	}
	return r.next(now, l, Expired)
}

// Leave takes the call back, if it has not been started, and reports whether it
// did.
func (r *Rounds[K, T]) Leave(key K, token T) bool {
	l := r.lines[key]
	if l == nil {
		return false
	}
	for i, c := range l.queue {
		if c.Token != token {
			continue
		}
		l.bytes -= c.Bytes
		l.queue = slices.Delete(l.queue, i, i+1)
		r.tidy(l)
		return true
	}
	return false
}

// Elsewhere says that m has asked for something that is no call to these
// Rounds, or is one of another key. It returns the rounds that were put off for
// it, which now start.
func (r *Rounds[K, T]) Elsewhere(now time.Time, m Member) []*Round[K, T] {
	var out []*Round[K, T]
	for i := 0; i < len(r.waiting[m.Job]); {
		l := r.waiting[m.Job][i]
		if _, ok := l.hold.awaited[m]; !ok {
			i++
			continue
		}
		r.release(l, Elsewhere)
		if d := r.next(now, l, Elsewhere); d.Start != nil {
			out = append(out, d.Start)
		}
	}
	return out
}

// Holding reports whether any start is put off, or will be, for members of a
// job: if not, Elsewhere need not be told.
func (r *Rounds[K, T]) Holding() bool { return len(r.waiting) > 0 }

// next starts a round of what is queued, unless there is no place in flight
// for it, or it is put off.
func (r *Rounds[K, T]) next(now time.Time, l *line[K, T], why Why) Decision[K, T] {
	switch {
	case len(l.queue) == 0 || l.flying == r.opts.Flights:
		r.tidy(l)
		return Decision[K, T]{}
	case r.full(l):
		why = Full
	case l.hold.until.After(now):
		if !l.hold.ready.IsZero() {
			return Decision[K, T]{}
		}
		l.hold.ready = now
		return Decision[K, T]{Wake: l.hold.until}
	case !l.hold.ready.IsZero():
		why = Expired
		if l.hold.until.IsZero() {
			why = l.hold.ended
		}
	}
	return Decision[K, T]{Start: r.start(now, l, why)}
}

func (r *Rounds[K, T]) full(l *line[K, T]) bool {
	return r.opts.Members > 0 && len(l.queue) >= r.opts.Members || r.opts.Bytes > 0 && l.bytes >= r.opts.Bytes
}

// start closes the next round: all that is queued, or as much as is allowed.
func (r *Rounds[K, T]) start(now time.Time, l *line[K, T], why Why) *Round[K, T] {
	round := r.newRound()
	round.Key, round.Started, round.Why = l.key, now, why
	if len(l.hold.awaited) > 0 {
		round.Missing = slices.SortedFunc(maps.Keys(l.hold.awaited), Member.compare)
	}
	if !l.hold.ready.IsZero() {
		round.Held = now.Sub(l.hold.ready)
	}
	r.release(l, why)
	l.hold.reset()
	if n := r.fit(l.queue); n == len(l.queue) {
		round.Calls, l.queue = l.queue, round.Calls
		l.bytes = 0
	} else {
		round.Calls = append(round.Calls, l.queue[:n]...)
		for _, c := range round.Calls {
			l.bytes -= c.Bytes
		}
		rest := copy(l.queue, l.queue[n:])
		clear(l.queue[rest:])
		l.queue = l.queue[:rest]
	}
	l.flying++
	return round
}

// fit is how many of the calls one round may have, at least one.
func (r *Rounds[K, T]) fit(calls []Call[T]) int {
	var bytes int64
	for i, c := range calls {
		bytes += c.Bytes
		if i > 0 && (r.opts.Bytes > 0 && bytes > r.opts.Bytes || i == r.opts.Members) {
			return i
		}
	}
	return len(calls)
}

// tidy forgets a line that has become idle.
func (r *Rounds[K, T]) tidy(l *line[K, T]) {
	if len(l.queue) > 0 {
		return
	}
	r.release(l, Alone)
	l.hold.reset()
	if l.flying > 0 {
		return
	}
	delete(r.lines, l.key)
	if len(r.lineBin) < maxBin {
		*l = line[K, T]{queue: l.queue, hold: l.hold}
		r.lineBin = append(r.lineBin, l)
	}
}

func (r *Rounds[K, T]) newLine(key K) *line[K, T] {
	if n := len(r.lineBin); n > 0 {
		l := r.lineBin[n-1]
		r.lineBin = r.lineBin[:n-1]
		l.key = key
		return l
	}
	return &line[K, T]{key: key}
}

func (r *Rounds[K, T]) newRound() *Round[K, T] {
	if n := len(r.bin); n > 0 {
		round := r.bin[n-1]
		r.bin = r.bin[:n-1]
		return round
	}
	return new(Round[K, T])
}
