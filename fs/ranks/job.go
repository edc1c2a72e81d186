package ranks

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/zoidfs/zoidfs/collective"
)

// Job is a parallel job of which processes were seen on this mount. What is not
// guarded never changes.
type Job struct {
	ID         collective.JobID
	Launcher   string
	Name       string // for people: the launcher and its name of the job
	UID        uint32
	Size       int // ranks of the whole job; 0: not known
	Confidence Confidence
	Began      time.Time
	Counts

	key string

	// merged: its processes are surely several ranks.
	merged atomic.Bool

	// The rest is guarded by Table.mu.
	seats map[collective.Rank]*seat
	procs int       // that live
	idle  time.Time // since when procs is 0
	ended bool
}

// Counts are what a job did on this mount. They only grow.
type Counts struct {
	Calls                   []atomic.Uint64 // by kind, as Options.Kinds says
	BytesRead, BytesWritten atomic.Uint64
}

// seat is the place of one rank of a job on this mount. Programs that a rank
// starts have the same environment; only one process sits there at a time.
type seat struct {
	holder atomic.Pointer[Process]
	// claimants are the living processes with this rank, the holder first;
	// guarded by Table.mu.
	claimants []*Process
}

// newJob makes the job of a claim of a process of uid.
func newJob(c claim, uid uint32, kinds int) *Job {
	return &Job{
		ID: NewJobID(uid, c.launcher, c.key, c.size), Launcher: c.launcher, Name: printable(c.launcher + " " + c.key),
		UID: uid, Size: c.size, Confidence: c.confidence, Began: time.Now(),
		Counts: Counts{Calls: make([]atomic.Uint64, kinds)},
		key:    c.key, seats: make(map[collective.Rank]*seat),
	}
}

// NewJobID is the id of a job, the same on every node: of a user, by the name
// that the launcher has for it, and of its size in ranks, 0 if that is not
// known. It is never 0.
func NewJobID(uid uint32, launcher, name string, size int) collective.JobID {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d\x00%s\x00%s\x00%d", uid, launcher, name, size) // never fails
	return collective.JobID(max(h.Sum64(), 1))
}

// printable is s as it may be shown: a user has chosen it.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 128)]
}

// sit makes p a claimant of a rank. The first one holds it, unless that one is
// a parent that writes nothing here: a script, say, that starts the program.
func (j *Job) sit(p *Process, rank collective.Rank, parents []uint32) *seat {
	s := j.seats[rank]
	if s == nil {
		s = new(seat)
		j.seats[rank] = s
		if len(j.seats) > 1 || j.Launcher != slurm {
			j.merged.Store(true)
		}
	}
	if h := s.holder.Load(); h != nil && h.writing.Load() == 0 && slices.Contains(parents, h.pid) {
		s.claimants = slices.Insert(s.claimants, 0, p)
	} else {
		s.claimants = append(s.claimants, p)
	}
	s.holder.Store(s.claimants[0])
	return s
}

// leave takes p off s. The next claimant holds the rank then.
func (s *seat) leave(p *Process) {
	s.claimants = slices.DeleteFunc(s.claimants, func(q *Process) bool { return q == p })
	if len(s.claimants) == 0 {
		s.holder.Store(nil)
		return
	}
	s.holder.Store(s.claimants[0])
}

// ranks are those that were seen, in order.
func (j *Job) ranks() []collective.Rank {
	out := make([]collective.Rank, 0, len(j.seats))
	for r := range j.seats {
		out = append(out, r)
	}
	slices.Sort(out)
	return out
}
