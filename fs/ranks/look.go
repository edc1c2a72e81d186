package ranks

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/collective"
)

// look finds out which process a thread belongs to, and who that is. buf is
// for its use, and returned to be used again.
func (t *Table) look(a ask, buf []byte) (*Process, []byte) {
	if a.again != nil {
		st, err := t.proc.stat(a.again.pid)
		if err != nil || st.started != a.again.started {
			return nil, buf
		}
		c, ok, buf := t.identify(a.again.pid, st, a.uid, buf)
		t.learn(a.again, st, a.uid, c, ok)
		return a.again, buf
	}
	pid := a.tid
	if unix.Tgkill(int(pid), int(pid), 0) == unix.ESRCH { // it leads no process
		var err error
		if pid, err = t.proc.leader(a.tid); err != nil || pid == 0 {
			return nil, buf
		}
	}
	st, err := t.proc.stat(pid)
	if err != nil {
		return nil, buf
	}
	p, known := t.admit(a.tid, pid, st)
	if p == nil || known {
		return p, buf
	}
	c, ok, buf := t.identify(pid, st, a.uid, buf)
	t.learn(p, st, a.uid, c, ok)
	return p, buf
}

// admit notes that the thread tid belongs to the process pid, which was started
// at st.started. known tells that the process was there already; without room
// for it, it is nil.
func (t *Table) admit(tid, pid uint32, st stat) (p *Process, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p = t.procs[pid]
	if p != nil && p.started != st.started {
		t.exitLocked(p)
		p = nil
	}
	known = p != nil
	if !known {
		if len(t.procs) >= maxProcesses {
			return nil, false
		}
		p = &Process{pid: pid, started: st.started, first: t.now()}
		p.next.Store(p.first + int64(firstLook))
		p.who.Store(&identity{uid: nobody})
		p.pidfd = t.exits.watch(pid, st.started)
		t.procs[pid] = p
		t.bindLocked(pid, p)
	}
	t.bindLocked(tid, p)
	return p, known
}

// bindLocked has p found under tid. Of more threads than are kept the one that
// came first is forgotten.
func (t *Table) bindLocked(tid uint32, p *Process) {
	if t.byTID[tid] == p {
		return
	}
	t.byTID[tid] = p
	if len(p.tids) < maxThreads {
		p.tids = append(p.tids, tid)
		return
	}
	place := &p.tids[1+p.turn%(maxThreads-1)] // the first is p itself
	if old := *place; t.byTID[old] == p {
		delete(t.byTID, old)
	}
	*place = tid
	p.turn++
}

// nobody is no caller's uid: of a process that is being looked at.
const nobody = 1<<32 - 1

// identify finds out what is told of a process of uid, and else what it says of
// itself.
func (t *Table) identify(pid uint32, st stat, uid uint32, buf []byte) (claim, bool, []byte) {
	var e env
	b, err := t.proc.read(buf, pid, "environ")
	if err == nil {
		e, buf = parseEnviron(b), b[:0]
	}
	if job, ok := t.toldOf(pid, st, uid); ok {
		return e.named(job.Job, job.Size), true, buf
	}
	c, ok := e.byUser()
	if !ok {
		c, ok = e.launched()
	}
	if !ok {
		c, ok = slurmCgroup(t.proc.cgroups(pid))
	}
	if ok && c.key == "" {
		c.key = t.proc.hydraKey(st)
		if c.key == "" { // alike on every node, and in jobs that do the same at the same time
			h := fnv.New64a()
			h.Write([]byte(strings.Join(t.proc.cmdline(pid), "\x00"))) // never fails
			c.key = fmt.Sprintf("?%x", h.Sum64())
		}
	}
	return c, ok, buf
}

// learn makes p what its claim says; ok tells whether there is one.
func (t *Table) learn(p *Process, st stat, uid uint32, c claim, ok bool) {
	if j := t.settle(p, st, uid, c, ok); j != nil && t.opt.Changed != nil {
		t.opt.Changed(j)
	}
}

// settle is learn. It returns the job of which something new was seen, or nil.
func (t *Table) settle(p *Process, st stat, uid uint32, c claim, ok bool) (changed *Job) {
	var parents []uint32
	if ok && t.taken(c, uid) {
		t.proc.ancestors(st, maxAncestry, func(pid uint32, _ stat) bool {
			parents = append(parents, pid)
			return true
		})
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.gone {
		return nil
	}
	var j *Job
	if ok {
		j = t.jobLocked(c, uid)
	}
	old := p.who.Load()
	if old.uid == uid && old.job == j && (j == nil || old.rank == c.rank) {
		return nil
	}
	t.leaveLocked(p)
	who := &identity{uid: uid, job: j, rank: c.rank}
	if j != nil {
		if j.procs++; c.rank != noRank {
			_, seen := j.seats[c.rank]
			who.seat = j.sit(p, c.rank, parents)
			if !seen {
				changed = j
			}
		}
		if j.procs == 1 {
			changed = j
		}
	}
	p.who.Store(who)
	return changed
}

// taken reports whether the rank of a claim has a process.
func (t *Table) taken(c claim, uid uint32) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	j := t.jobs[NewJobID(uid, c.launcher, c.key, c.size)]
	return j != nil && j.seats[c.rank] != nil && j.seats[c.rank].holder.Load() != nil
}

// leaveLocked takes p out of its job.
func (t *Table) leaveLocked(p *Process) {
	who := p.who.Load()
	if who.job == nil {
		return
	}
	if who.seat != nil {
		who.seat.leave(p)
	}
	if who.job.procs--; who.job.procs == 0 {
		who.job.idle = time.Now()
	}
	p.who.Store(&identity{uid: who.uid, job: who.job, rank: noRank}) // closes that follow an exit are the job's
}

// jobLocked is the job that a process of uid claims. It is nil if there are too
// many.
func (t *Table) jobLocked(c claim, uid uint32) *Job {
	if c.launcher == slurm && c.size == 0 { // found by its control group
		for _, j := range t.jobs {
			if j.UID == uid && j.Launcher == slurm && (j.key == c.key || strings.HasSuffix(j.key, "/"+c.key)) {
				j.ended = false
				return j
			}
		}
	}
	id := NewJobID(uid, c.launcher, c.key, c.size)
	j := t.jobs[id]
	if j == nil {
		if len(t.jobs) >= maxJobs+maxEnded {
			return nil
		}
		j = newJob(c, uid, t.opt.Kinds)
		t.jobs[id] = j
	}
	j.ended = false
	return j
}

// endJobs returns the jobs that have ended by now, and the oldest of those that
// did before, which it forgets if they are too many.
func (t *Table) endJobs(now time.Time) (out, forgotten []*Job) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var ended []*Job
	for _, j := range t.jobs {
		switch {
		case j.ended:
			ended = append(ended, j)
		case j.procs == 0 && now.Sub(j.idle) >= linger:
			j.ended = true
			out = append(out, j)
		}
	}
	byIdle := func(a, b *Job) int { return a.idle.Compare(b.idle) }
	slices.SortFunc(ended, byIdle)
	slices.SortFunc(out, byIdle)
	forgotten = ended[:max(0, len(ended)-maxEnded)]
	for _, j := range forgotten {
		delete(t.jobs, j.ID)
	}
	return out, forgotten
}

// Ranks returns the ranks of a job that have been seen on this mount, in order.
func (t *Table) Ranks(j *Job) []collective.Rank {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return j.ranks()
}

// Job returns the job with this id, or nil.
func (t *Table) Job(id collective.JobID) *Job {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.jobs[id]
}

// State is how a job is doing on this mount.
type State struct {
	Ranks     int       // that were seen
	Processes int       // that live
	Last      time.Time // when the last process was gone; zero while there are some
	Ended     bool
}

// State returns how a job is doing.
func (t *Table) State(j *Job) State {
	t.mu.RLock()
	defer t.mu.RUnlock()
	s := State{Ranks: len(j.seats), Processes: j.procs, Ended: j.ended}
	if j.procs == 0 {
		s.Last = j.idle
	}
	return s
}

// Jobs returns the jobs that are there and those that ended last, the oldest
// first.
func (t *Table) Jobs() []*Job {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]*Job, 0, len(t.jobs))
	for _, j := range t.jobs {
		out = append(out, j)
	}
	slices.SortFunc(out, func(a, b *Job) int { return a.Began.Compare(b.Began) })
	return out
}
