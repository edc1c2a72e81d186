package ranks

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/collective"
)

// Process is a process that has called. A nil Process is one of which nothing
// is known.
type Process struct {
	pid     uint32
	started uint64 // tells it from another that has had the number
	pidfd   int    // -1: there is none, and started has to be looked at
	first   int64  // when it was first seen, ns since Table.epoch

	who     atomic.Pointer[identity] // never nil
	next    atomic.Int64             // when it is to be looked at again, as first
	writing atomic.Int32             // handles that it has open for writing

	tids []uint32 // under which it is found; guarded by Table.mu
	turn int      // which of tids goes next; guarded by Table.mu
	gone bool     // guarded by Table.mu
}

// identity is what is known of a process. It never changes.
type identity struct {
	uid  uint32
	job  *Job // nil: of none
	rank collective.Rank
	seat *seat // nil: of no rank
}

// Job is the job of p, or nil.
func (p *Process) Job() *Job {
	if p == nil {
		return nil
	}
	return p.who.Load().job
}

// Rank is the rank that p has in its job; false if it has none. Programs that a
// rank has started have its rank too.
func (p *Process) Rank() (collective.Rank, bool) {
	if p == nil {
		return 0, false
	}
	w := p.who.Load()
	return w.rank, w.job != nil && w.seat != nil
}

// Caller is p as merging and accounts see it at this moment.
func (p *Process) Caller() (c collective.Caller) {
	if p == nil {
		return c
	}
	w := p.who.Load()
	if w.job == nil {
		return c
	}
	c.Account = w.job.ID
	if w.seat != nil && w.seat.holder.Load() == p && w.job.merged.Load() {
		c.Member = collective.Member{Job: w.job.ID, Rank: w.rank}
	}
	return c
}

// Writing notes that p has n more handles open for writing.
func (p *Process) Writing(n int32) {
	if p != nil {
		p.writing.Add(n)
	}
}

// hasThread reports whether the thread tid is one of p, which lives. An error
// other than ESRCH says that it is, and that we may not signal it.
func (p *Process) hasThread(tid uint32) bool {
	return unix.Tgkill(int(p.pid), int(tid), 0) != unix.ESRCH
}
