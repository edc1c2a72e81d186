package ranks

import (
	"slices"
	"strings"
)

// Bounds of what can be told.
const (
	maxTold     = 1 << 10 // jobs; of more the one told first is forgotten
	toldParents = 64      // between a process and the one that was told
)

// Named is a job whose processes somebody has named, as the prolog of a batch
// system can. It is theirs whatever their environment says, which tells their
// ranks alone.
type Named struct {
	UID  uint32 // who tells: of whose processes it is true; 0: of everybody's
	Job  string
	Size int // ranks of the whole job; 0: not known

	// Its processes are those of which one of these is true.
	PIDs    []uint32 // it is one of these or a descendant
	Session uint32   // it is of this session; 0: of none
	Cgroup  string   // it is in this control group, as in /proc/PID/cgroup, or below; empty: in none
}

// named is a Named with what tells its processes from later ones with the same
// numbers.
type named struct {
	Named
	started []uint64 // of PIDs
}

// Begin notes a job. It replaces what the same user has told of a job with the
// same name.
func (t *Table) Begin(job Named) {
	n := named{Named: job, started: make([]uint64, len(job.PIDs))}
	for i, pid := range job.PIDs {
		if st, err := t.proc.stat(pid); err == nil {
			n.started[i] = st.started
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropToldLocked(job.UID, job.Job)
	if len(t.told) >= maxTold {
		t.told = slices.Delete(t.told, 0, 1)
	}
	t.told = append(t.told, n)
	t.lookAgainLocked()
}

// End forgets a job that the user has told, and reports whether there was one.
// Its processes are then what their environment says.
func (t *Table) End(uid uint32, job string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := t.dropToldLocked(uid, job)
	if found {
		t.lookAgainLocked()
	}
	return found
}

func (t *Table) dropToldLocked(uid uint32, job string) bool {
	n := len(t.told)
	t.told = slices.DeleteFunc(t.told, func(x named) bool { return x.UID == uid && x.Job == job })
	return len(t.told) < n
}

// lookAgainLocked has every process looked at again when it calls next.
func (t *Table) lookAgainLocked() {
	for _, p := range t.procs {
		p.next.Store(0)
	}
}

// toldOf returns the job that was told of a process of uid; false if none was.
func (t *Table) toldOf(pid uint32, st stat, uid uint32) (Named, bool) {
	t.mu.RLock()
	all := slices.Clone(t.told)
	t.mu.RUnlock()
	all = slices.DeleteFunc(all, func(x named) bool { return x.UID != 0 && x.UID != uid })
	if len(all) == 0 {
		return Named{}, false
	}
	var groups []string
	if slices.ContainsFunc(all, func(x named) bool { return x.Cgroup != "" }) {
		groups = t.proc.cgroups(pid)
	}
	family := map[uint32]uint64{pid: st.started}
	if slices.ContainsFunc(all, func(x named) bool { return len(x.PIDs) > 0 }) {
		t.proc.ancestors(st, toldParents, func(pid uint32, st stat) bool {
			family[pid] = st.started
			return true
		})
	}
	for _, x := range slices.Backward(all) { // what was told last
		if x.has(st, groups, family) {
			return x.Named, true
		}
	}
	return Named{}, false
}

// has reports whether a process with this stat, these control groups, and this
// family (itself and its parents, by when they were started) is of the job.
func (x named) has(st stat, groups []string, family map[uint32]uint64) bool {
	if x.Session != 0 && x.Session == st.session {
		return true
	}
	if x.Cgroup != "" && slices.ContainsFunc(groups, func(g string) bool { return within(g, x.Cgroup) }) {
		return true
	}
	for i, pid := range x.PIDs {
		if started, ok := family[pid]; ok && started == x.started[i] {
			return true
		}
	}
	return false
}

// within reports whether a path is dir or below it.
func within(path, dir string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(dir, "/"))
	return ok && (rest == "" || rest[0] == '/')
}
