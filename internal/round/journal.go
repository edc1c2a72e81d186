package round

import (
	"sync"
	"time"

	"github.com/zoidfs/zoidfs/collective"
)

// Journal is a collective.Journal that many Groups, and others that carry out
// rounds, write to. A nil Journal keeps nothing.
type Journal struct {
	mu sync.Mutex
	j  *collective.Journal // guarded by mu
}

// NewJournal returns a journal of the last n rounds.
func NewJournal(n int) *Journal { return &Journal{j: collective.NewJournal(n)} }

// Add takes a record in, which belongs to the journal from then on.
func (j *Journal) Add(r collective.Record) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.j.Add(r)
}

// One takes in a round of one call, which others are counted together with.
func (j *Journal) One(op string, object uint64, c collective.Call[struct{}], took time.Duration, o collective.Outcome) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.j.Alone(op, object, c.Member, c.Bytes, took, o) {
		return
	}
	r := collective.Round[struct{}, struct{}]{Calls: []collective.Call[struct{}]{c}}
	rec := r.Record(took)
	rec.Op, rec.Object, rec.Outcome = op, object, o
	j.j.Add(rec)
}

// Select returns the records of an object, or of all if it is zero, and of a
// job, or of all if that is zero; the oldest first.
func (j *Journal) Select(object uint64, job collective.JobID) []collective.Record {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.j.Select(object, job)
}

// record has the journal take in r, which has been carried out.
func (g *Group[K, Q, A]) record(r *collective.Round[K, *Call[K, Q, A]], took time.Duration, o collective.Outcome) {
	j := g.opts.Journal
	if j == nil {
		return
	}
	op, object := g.opts.Name(r.Key)
	j.mu.Lock()
	defer j.mu.Unlock()
	if c := r.Calls[0]; len(r.Calls) == 1 && r.Held == 0 && j.j.Alone(op, object, c.Member, c.Bytes, took, o) {
		return
	}
	rec := r.Record(took)
	rec.Op, rec.Object, rec.Outcome = op, object, o
	for _, all := range [][]collective.Members{rec.Members, rec.Missing} {
		for i := range all {
			all[i].Mounts = g.opts.Mounts
		}
	}
	j.j.Add(rec)
}
