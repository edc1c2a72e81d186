package collective

import (
	"slices"
	"time"
)

// Record is what a Journal keeps of a round; or of many rounds of one call
// each, of one job with one object, that nobody joined.
type Record struct {
	Op      string    `json:"op"`
	Object  uint64    `json:"object,string"` // a handle
	At      time.Time `json:"at"`            // the first call
	Rounds  int       `json:"rounds"`        // more than 1 only if each was of one call
	Calls   int       `json:"calls"`
	Members []Members `json:"members"` // who called, by job
	Bytes   int64     `json:"bytes"`   // that the calls asked for

	Why     Why           `json:"why"`               // what started it just then
	Held    time.Duration `json:"held_ns,omitempty"` // for how long its start was put off
	Missing []Members     `json:"missing,omitempty"` // for whom in vain
	Took    time.Duration `json:"took_ns"`           // in all, from the start of each
	Outcome
}

// Outcome is what became of a round. Whoever carries it out tells as much of it
// as there is to tell.
type Outcome struct {
	Extents  int           `json:"extents,omitempty"`     // that the calls asked for
	Runs     int           `json:"runs,omitempty"`        // what they are when merged
	Requests int           `json:"requests"`              // that were sent further
	Moved    int64         `json:"moved,omitempty"`       // bytes, in both directions
	Plan     string        `json:"plan,omitempty"`        // what was chosen
	Estimate time.Duration `json:"estimate_ns,omitempty"` // of Took, by the plan
	Fewer    string        `json:"fewer,omitempty"`       // why it did not take fewer requests
}

// Members are ranks of one job, or as many processes of no job.
type Members struct {
	Job   JobID   `json:"job,string"`
	Ranks []Ranks `json:"ranks,omitempty"` // sorted, none touch; none if Job is zero, or where they are not known
	Count int     `json:"count"`           // of ranks, or of calls where they are not known

	Mounts bool `json:"mounts,omitempty"` // Ranks are numbers of mounts
}

// Ranks are the ranks from First to Last, both included.
type Ranks struct {
	First Rank `json:"first"`
	Last  Rank `json:"last"`
}

// Has reports whether the rank is among them.
func (m Members) Has(rank Rank) bool {
	return slices.ContainsFunc(m.Ranks, func(r Ranks) bool { return r.First <= rank && rank <= r.Last })
}

// Gather returns members by job, which it sorts in place; each counts once, but
// those of no job all.
func Gather(members []Member) []Members {
	slices.SortFunc(members, Member.compare)
	var out []Members
	for i, m := range members {
		if i == 0 || m.Job != members[i-1].Job {
			out = append(out, Members{Job: m.Job})
		}
		of := &out[len(out)-1]
		switch last := len(of.Ranks) - 1; {
		case m.Job == 0, m.Rank == NoRank:
		case last >= 0 && of.Ranks[last].Last == m.Rank:
			continue
		case last >= 0 && of.Ranks[last].Last == m.Rank-1:
			of.Ranks[last].Last++
		default:
			of.Ranks = append(of.Ranks, Ranks{m.Rank, m.Rank})
		}
		of.Count++
	}
	return out
}

// Record returns what is known of the round when it has been carried out. It
// sets neither Outcome nor what names the key.
func (r *Round[K, T]) Record(took time.Duration) Record {
	members := make([]Member, len(r.Calls))
	out := Record{At: r.First(), Rounds: 1, Calls: len(r.Calls), Why: r.Why, Held: r.Held, Took: took}
	for i, c := range r.Calls {
		members[i] = c.Member
		out.Bytes += c.Bytes
	}
	out.Members = Gather(members)
	if len(r.Missing) > 0 {
		out.Missing = Gather(slices.Clone(r.Missing))
	}
	return out
}

// Journal keeps the last rounds: a bounded number of records, of which the
// oldest goes first. Rounds of one call that were not put off are counted
// together while the record of the first is there, so that they do not drive out
// those that tell more.
type Journal struct {
	ring  []Record
	next  int // where the next record goes
	alone map[loner]int
}

// loner is who the record of rounds of one call is of.
type loner struct {
	op     string
	object uint64
	job    JobID
}

// NewJournal returns a journal of at most n records, at least one.
func NewJournal(n int) *Journal {
	return &Journal{ring: make([]Record, 0, max(1, n)), alone: make(map[loner]int)}
}

// Add takes a record in, which belongs to the journal from then on.
func (j *Journal) Add(r Record) {
	at := j.next
	if len(j.ring) < cap(j.ring) {
		j.ring = append(j.ring, r)
	} else {
		old := j.ring[at].loner()
		if i, ok := j.alone[old]; ok && i == at {
			delete(j.alone, old)
		}
		j.ring[at] = r
	}
	if r.lone() {
		j.alone[r.loner()] = at
	}
	j.next = (at + 1) % cap(j.ring)
}

// Alone takes in a round of one call, and reports whether it could be counted
// together with others; if not, Add its record.
func (j *Journal) Alone(op string, object uint64, c Member, bytes int64, took time.Duration, o Outcome) bool {
	i, ok := j.alone[loner{op, object, c.Job}]
	if !ok {
		return false
	}
	r := &j.ring[i]
	r.Rounds++
	r.Calls++
	r.Bytes += bytes
	r.Took += took
	r.Members[0].add(c)
	r.Outcome.add(o)
	return true
}

// Select returns the records of an object, or of all if it is zero, and of a
// job, or of all if that is zero; the oldest first. They belong to the caller.
func (j *Journal) Select(object uint64, job JobID) []Record {
	var out []Record
	for i := range j.ring {
		r := j.ring[(j.next+i)%len(j.ring)]
		if (object == 0 || r.Object == object) && (job == 0 || r.Of(job)) {
			r.Members = slices.Clone(r.Members)
			for k := range r.Members {
				r.Members[k].Ranks = slices.Clone(r.Members[k].Ranks)
			}
			out = append(out, r)
		}
	}
	return out
}

// Of reports whether a member of the job took part.
func (r *Record) Of(job JobID) bool {
	return slices.ContainsFunc(r.Members, func(m Members) bool { return m.Job == job })
}

// lone reports whether rounds of one call are counted together in r.
func (r *Record) lone() bool { return r.Calls == r.Rounds && r.Held == 0 }

func (r *Record) loner() loner { return loner{r.Op, r.Object, r.Members[0].Job} }

// maxRanges bounds what is kept of who called alone.
const maxRanges = 64

// add takes m, of the same job, in.
func (of *Members) add(m Member) {
	if m.Job == 0 || m.Rank == NoRank {
		of.Count++
		return
	}
	if of.Has(m.Rank) || len(of.Ranks) == maxRanges {
		return
	}
	of.Count++
	i, _ := slices.BinarySearchFunc(of.Ranks, m.Rank, func(r Ranks, rank Rank) int { return int(r.First) - int(rank) })
	of.Ranks = slices.Insert(of.Ranks, i, Ranks{m.Rank, m.Rank})
	if i+1 < len(of.Ranks) && of.Ranks[i+1].First == m.Rank+1 {
		of.Ranks[i].Last = of.Ranks[i+1].Last
		of.Ranks = slices.Delete(of.Ranks, i+1, i+2)
	}
	if i > 0 && of.Ranks[i-1].Last == m.Rank-1 {
		of.Ranks[i-1].Last = of.Ranks[i].Last
		of.Ranks = slices.Delete(of.Ranks, i, i+1)
	}
}

// add sums o up; the words are those of the last one.
func (a *Outcome) add(o Outcome) {
	a.Extents += o.Extents
	a.Runs += o.Runs
	a.Requests += o.Requests
	a.Moved += o.Moved
	a.Estimate += o.Estimate
	a.Plan, a.Fewer = o.Plan, o.Fewer
}
