package ionserver

// class separates requests that must not wait for each other's workers.
type class int

const (
	classControl class = iota // metadata and locks, from mounts
	classData                 // reads, writes and appends, from mounts
	classPeer                 // from other I/O nodes; its handlers never ask peers
	numClasses
)

const (
	quantum  = 64 << 10 // bytes a flow may send each time its turn comes
	baseCost = 4 << 10  // bytes that a request without payload counts for
)

// job is one request to the schedule, or one that waited outside of it and
// wants its place back.
type job struct {
	class  class
	flow   uint64        // whose turn it takes: the session, or the peer
	cost   int64         // bytes, at least baseCost
	resume bool          // had a place before and goes first
	ready  chan struct{} // of one that waits: closed when it may run
}

// classLimits bounds what one class may have in the works.
type classLimits struct {
	workers int   // jobs that run at the same time
	bytes   int64 // their cost together; a single larger job runs alone
}

// schedule decides which request runs next. Within a class the flows take
// turns, weighted by bytes, so that large writes of one mount do not starve
// the small ones of another; requests that had started go first. It is pure;
// the caller serialises calls, and bounds how many jobs wait.
//
// Source: Shreedhar and Varghese, "Efficient Fair Queuing using Deficit
// Round-Robin", SIGCOMM '95, section 3.
type schedule struct {
	classes [numClasses]classState
}

type classState struct {
	classLimits
	running int
	bytes   int64
	queued  int
	resumed []*job
	flows   map[uint64]*flow // those with waiting jobs
	turns   []*flow          // the same, next turn first
}

type flow struct {
	id      uint64
	jobs    []*job
	deficit int64 // bytes it may still send in this turn
}

func newSchedule(limits [numClasses]classLimits) *schedule {
	s := &schedule{}
	for c := range s.classes {
		s.classes[c] = classState{classLimits: limits[c], flows: make(map[uint64]*flow)}
	}
	return s
}

// Add puts j behind the others of its flow, or ahead of all if it resumes.
func (s *schedule) Add(j *job) {
	c := &s.classes[j.class]
	if j.resume {
		c.resumed = append(c.resumed, j)
		return
	}
	f := c.flows[j.flow]
	if f == nil {
		f = &flow{id: j.flow, deficit: quantum}
		c.flows[j.flow] = f
		c.turns = append(c.turns, f)
	}
	f.jobs = append(f.jobs, j)
	c.queued++
}

// Next takes out a job that may run now, or returns nil. It counts as running
// until Done.
func (s *schedule) Next() *job {
	for i := range s.classes {
		if j := s.classes[i].next(); j != nil {
			return j
		}
	}
	return nil
}

// Done gives the place of a running job back.
func (s *schedule) Done(j *job) {
	c := &s.classes[j.class]
	c.running--
	c.bytes -= j.cost
}

func (c *classState) fits(j *job) bool {
	return c.running < c.workers && (c.running == 0 || c.bytes+j.cost <= c.classLimits.bytes)
}

func (c *classState) start(j *job) *job {
	c.running++
	c.bytes += j.cost
	return j
}

func (c *classState) next() *job {
	if len(c.resumed) > 0 {
		j := c.resumed[0]
		if !c.fits(j) {
			return nil
		}
		c.resumed[0] = nil
		c.resumed = c.resumed[1:]
		return c.start(j)
	}
	for len(c.turns) > 0 {
		f := c.turns[0]
		j := f.jobs[0]
		if f.deficit < j.cost && len(c.turns) > 1 {
			f.deficit += quantum
			copy(c.turns, c.turns[1:])
			c.turns[len(c.turns)-1] = f
			continue
		}
		if !c.fits(j) {
			return nil
		}
		f.deficit = max(f.deficit-j.cost, 0)
		f.jobs[0] = nil
		if f.jobs = f.jobs[1:]; len(f.jobs) == 0 {
			delete(c.flows, f.id)
			copy(c.turns, c.turns[1:])
			c.turns[len(c.turns)-1] = nil
			c.turns = c.turns[:len(c.turns)-1]
		}
		c.queued--
		return c.start(j)
	}
	return nil
}
