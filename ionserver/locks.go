package ionserver

import (
	"cmp"
	"maps"
	"slices"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
)

// lockMode is what a lock lets others do; the values are those of the wire.
type lockMode uint32

const (
	lockNone      lockMode = iota // free; setting it unlocks
	lockShared                    // F_RDLCK, LOCK_SH
	lockExclusive                 // F_WRLCK, LOCK_EX
)

const (
	maxSpansPerSession   = 1 << 16 // held byte ranges; beyond: ENOLCK
	maxWaitersPerSession = 1 << 12 // blocked requests; beyond: ENOLCK
	maxLockEnd           = 1<<63 - 1
)

// lockOwner is who holds a lock: an owner number is chosen by the mount and
// means nothing outside its session. flock and fcntl locks never meet.
type lockOwner struct {
	session uint64
	owner   uint64
	flock   bool
}

func (o lockOwner) compare(p lockOwner) int {
	return cmp.Or(cmp.Compare(o.session, p.session), cmp.Compare(o.owner, p.owner))
}

// lockSpan is one held byte range; end is inclusive, as in struct file_lock.
type lockSpan struct {
	start, end uint64
	mode       lockMode
	pid        uint32
}

// lockReq asks for the bytes [start, end] of a file to be in mode.
type lockReq struct {
	handle     uint64
	owner      lockOwner
	start, end uint64
	mode       lockMode
	pid        uint32
	wait       bool
	id         uint64        // names the request within its session, for cancel
	done       chan struct{} // closed by lockService when no longer blocked
	cancelled  bool          // was given up, not granted
}

func (r *lockReq) conflicts(o lockOwner, s lockSpan) bool {
	return o != r.owner && o.flock == r.owner.flock && s.start <= r.end && r.start <= s.end &&
		(r.mode == lockExclusive || s.mode == lockExclusive)
}

func (r *lockReq) span() lockSpan { return lockSpan{r.start, r.end, r.mode, r.pid} }

// fileLocks are the locks of one inode.
type fileLocks struct {
	held    map[lockOwner][]lockSpan // sorted by start, none overlap; equal neighbours are merged
	waiting []*lockReq               // in order of arrival
}

// lockTable decides about the fcntl and flock locks of every file of one home.
// It is pure: no I/O, goroutine, lock or clock; the caller serialises calls.
// A waiter is granted in order of arrival among those it conflicts with, unless
// that order alone would close a cycle of waiters.
type lockTable struct {
	files   map[uint64]*fileLocks
	spans   map[uint64]int        // held spans of each session
	waiters map[uint64]int        // blocked requests of each session
	blocked map[lockOwner]waitSet // what each owner waits for
}

type waitSet []*lockReq

func newLockTable() *lockTable {
	return &lockTable{
		files: make(map[uint64]*fileLocks), spans: make(map[uint64]int),
		waiters: make(map[uint64]int), blocked: make(map[lockOwner]waitSet),
	}
}

// Set applies r. blocked is true when r waits and will come out of a later
// call's granted list; errors are EAGAIN, EDEADLK, ENOLCK and EINVAL. granted
// are the waiting requests that hold their lock now, in order.
func (t *lockTable) Set(r *lockReq) (blocked bool, granted []*lockReq, err error) {
	if r.start > r.end || r.end > maxLockEnd || r.mode > lockExclusive {
		return false, nil, errno.New("ionserver.lock", syscall.EINVAL)
	}
	f := t.files[r.handle]
	if f == nil {
		if r.mode == lockNone {
			return false, nil, nil
		}
		f = &fileLocks{held: make(map[lockOwner][]lockSpan)}
		t.files[r.handle] = f
	}
	defer t.drop(r.handle)
	free := r.mode == lockNone || t.free(f, r) && (!r.wait || !t.overtakes(f, r, len(f.waiting)))
	if !free && r.owner.flock && f.held[r.owner] != nil {
		// flock(2): a conversion first gives up the lock that was held.
		t.count(r.owner.session, -len(f.held[r.owner]))
		delete(f.held, r.owner)
		granted = t.wake(r.handle)
	}
	switch {
	case free:
		if r.mode != lockNone && t.spans[r.owner.session] >= maxSpansPerSession {
			return false, granted, errno.New("ionserver.lock", syscall.ENOLCK)
		}
		t.apply(f, r)
		return false, append(granted, t.wake(r.handle)...), nil
	case !r.wait:
		return false, granted, errno.New("ionserver.lock", syscall.EAGAIN)
	case t.waiters[r.owner.session] >= maxWaitersPerSession:
		return false, granted, errno.New("ionserver.lock", syscall.ENOLCK)
	case !r.owner.flock && t.deadlock(f, r):
		return false, granted, errno.New("ionserver.lock", syscall.EDEADLK)
	}
	f.waiting = append(f.waiting, r)
	t.waiters[r.owner.session]++
	t.blocked[r.owner] = append(t.blocked[r.owner], r)
	// The new waiter may have closed a cycle in which somebody waits only for
	// his turn; such a waiter may overtake.
	return true, append(granted, t.wakeAll()...), nil
}

// Test returns a lock that keeps r from being granted now.
func (t *lockTable) Test(r *lockReq) (o lockOwner, s lockSpan, found bool) {
	f := t.files[r.handle]
	if f == nil {
		return o, s, false
	}
	for _, owner := range slices.SortedFunc(maps.Keys(f.held), lockOwner.compare) {
		for _, held := range f.held[owner] {
			if r.conflicts(owner, held) && (!found || held.start < s.start) {
				o, s, found = owner, held, true
			}
		}
	}
	return o, s, found
}

// Find returns the blocked request id of a session, or nil.
func (t *lockTable) Find(session, id uint64) *lockReq {
	for _, f := range t.files {
		for _, r := range f.waiting {
			if r.owner.session == session && r.id == id {
				return r
			}
		}
	}
	return nil
}

// Cancel forgets r if it is still blocked; granted is as in Set.
func (t *lockTable) Cancel(r *lockReq) (found bool, granted []*lockReq) {
	f := t.files[r.handle]
	if f == nil || !slices.Contains(f.waiting, r) {
		return false, nil
	}
	t.unwait(f, r)
	granted = t.wake(r.handle)
	t.drop(r.handle)
	return true, granted
}

// DropSession drops everything of a session, in every file; dropped are the
// requests that were blocked, granted is as in Set.
func (t *lockTable) DropSession(session uint64) (dropped, granted []*lockReq) {
	for _, h := range slices.Sorted(maps.Keys(t.files)) {
		d, g := t.dropFile(h, session)
		dropped, granted = append(dropped, d...), append(granted, g...)
	}
	return dropped, granted
}

// Held reports whether any lock of the file is held or waited for.
func (t *lockTable) Held(handle uint64) bool { return t.files[handle] != nil }

func (t *lockTable) dropFile(handle, session uint64) (dropped, granted []*lockReq) {
	f := t.files[handle]
	for _, r := range slices.Clone(f.waiting) {
		if r.owner.session == session {
			t.unwait(f, r)
			dropped = append(dropped, r)
		}
	}
	for o, spans := range f.held {
		if o.session == session {
			t.count(session, -len(spans))
			delete(f.held, o)
		}
	}
	granted = t.wake(handle)
	t.drop(handle)
	return dropped, granted
}

// free reports whether no other owner's held lock conflicts with r.
func (t *lockTable) free(f *fileLocks, r *lockReq) bool {
	for o, spans := range f.held {
		if o == r.owner {
			continue
		}
		i, _ := slices.BinarySearchFunc(spans, r.start, func(s lockSpan, at uint64) int { return cmp.Compare(s.end, at) })
		for ; i < len(spans) && spans[i].start <= r.end; i++ {
			if r.conflicts(o, spans[i]) {
				return false
			}
		}
	}
	return true
}

// overtakes reports whether r, granted now, would pass one of the first n
// waiters that it conflicts with and that does not itself wait for r's owner.
func (t *lockTable) overtakes(f *fileLocks, r *lockReq, n int) bool {
	for _, w := range f.waiting[:n] {
		if r.conflicts(w.owner, w.span()) && !t.reaches(w.owner, r.owner, true) {
			return true
		}
	}
	return false
}

// deadlock reports whether a holder that r would wait for waits for r's owner.
func (t *lockTable) deadlock(f *fileLocks, r *lockReq) bool {
	for o, spans := range f.held {
		if slices.ContainsFunc(spans, func(s lockSpan) bool { return r.conflicts(o, s) }) && t.reaches(o, r.owner, false) {
			return true
		}
	}
	return false
}

// reaches reports whether from waits, through any number of owners, for to.
// With turns, waiting for an earlier waiter's turn counts too.
func (t *lockTable) reaches(from, to lockOwner, turns bool) bool {
	seen := map[lockOwner]bool{from: true}
	todo := []lockOwner{from}
	for len(todo) > 0 {
		o := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, r := range t.blocked[o] {
			for _, next := range t.waitsFor(r, turns) {
				if next == to {
					return true
				}
				if !seen[next] {
					seen[next] = true
					todo = append(todo, next)
				}
			}
		}
	}
	return false
}

// waitsFor lists the owners that the blocked request r waits for.
func (t *lockTable) waitsFor(r *lockReq, turns bool) []lockOwner {
	f := t.files[r.handle]
	var out []lockOwner
	for o, spans := range f.held {
		if slices.ContainsFunc(spans, func(s lockSpan) bool { return r.conflicts(o, s) }) {
			out = append(out, o)
		}
	}
	for _, w := range f.waiting {
		if !turns || w == r {
			break
		}
		if r.conflicts(w.owner, w.span()) {
			out = append(out, w.owner)
		}
	}
	return out
}

// wake grants the waiters of one file that nothing blocks any more.
func (t *lockTable) wake(handle uint64) (granted []*lockReq) {
	f := t.files[handle]
	if f == nil {
		return nil
	}
	for i := 0; i < len(f.waiting); {
		r := f.waiting[i]
		if !t.free(f, r) || t.overtakes(f, r, i) {
			i++
			continue
		}
		t.unwait(f, r)
		t.apply(f, r)
		granted = append(granted, r)
		i = 0 // a conversion to shared may free an earlier one
	}
	return granted
}

func (t *lockTable) wakeAll() (granted []*lockReq) {
	for _, h := range slices.Sorted(maps.Keys(t.files)) {
		if len(t.files[h].waiting) > 0 {
			granted = append(granted, t.wake(h)...)
		}
	}
	return granted
}

// apply makes the bytes of r be in r.mode for r.owner, whatever they were.
func (t *lockTable) apply(f *fileLocks, r *lockReq) {
	old := f.held[r.owner]
	out := make([]lockSpan, 0, len(old)+2)
	for _, s := range old {
		if s.end < r.start || r.end < s.start {
			out = append(out, s)
			continue
		}
		if s.start < r.start {
			out = append(out, lockSpan{s.start, r.start - 1, s.mode, s.pid})
		}
		if s.end > r.end {
			out = append(out, lockSpan{r.end + 1, s.end, s.mode, s.pid})
		}
	}
	if r.mode != lockNone {
		out = append(out, r.span())
	}
	slices.SortFunc(out, func(a, b lockSpan) int { return cmp.Compare(a.start, b.start) })
	n := 0
	for _, s := range out {
		if n > 0 && out[n-1].mode == s.mode && out[n-1].end+1 == s.start {
			out[n-1].end, out[n-1].pid = s.end, s.pid
			continue
		}
		out[n] = s
		n++
	}
	t.count(r.owner.session, n-len(old))
	if n == 0 {
		delete(f.held, r.owner)
		return
	}
	f.held[r.owner] = out[:n]
}

func (t *lockTable) unwait(f *fileLocks, r *lockReq) {
	f.waiting = slices.DeleteFunc(f.waiting, func(w *lockReq) bool { return w == r })
	t.blocked[r.owner] = slices.DeleteFunc(t.blocked[r.owner], func(w *lockReq) bool { return w == r })
	if len(t.blocked[r.owner]) == 0 {
		delete(t.blocked, r.owner)
	}
	if t.waiters[r.owner.session]--; t.waiters[r.owner.session] == 0 {
		delete(t.waiters, r.owner.session)
	}
}

func (t *lockTable) count(session uint64, n int) {
	if t.spans[session] += n; t.spans[session] == 0 {
		delete(t.spans, session)
	}
}

// drop forgets a file without locks.
func (t *lockTable) drop(handle uint64) {
	if f := t.files[handle]; f != nil && len(f.held) == 0 && len(f.waiting) == 0 {
		delete(t.files, handle)
	}
}
