package ionserver

import (
	"container/list"
	"sync"
	"time"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

// maxFacts bounds the inodes about which a home remembers something.
const maxFacts = 1 << 17

// factTable is what a home remembers about inodes that nobody uses: what would
// cost a request to find out again, or could not be found out at all.
type factTable struct {
	max int

	mu     sync.Mutex
	floor  int64                    // guarded by mu; the version of what is not remembered
	known  map[uint64]*list.Element // guarded by mu; of *fact, by handle
	recent *list.List               // guarded by mu; the least recently used first
	seq    uint64                   // guarded by mu; of fact.since
}

type fact struct {
	handle  uint64
	version int64            // 0: none of its own
	mode    consistency.Mode // meaningful if hasMode
	hasMode bool
	since   uint64 // changes when the mode is forgotten
}

// newFactTable makes a table whose versions all differ from those before now,
// in ns.
func newFactTable(now int64) *factTable {
	return &factTable{max: maxFacts, floor: now, known: make(map[uint64]*list.Element), recent: list.New()}
}

// factLocked returns what is remembered of an inode, making it if needed.
func (t *factTable) factLocked(handle uint64) *fact {
	if e := t.known[handle]; e != nil {
		t.recent.MoveToBack(e)
		return e.Value.(*fact)
	}
	t.seq++
	f := &fact{handle: handle, since: t.seq}
	t.known[handle] = t.recent.PushBack(f)
	for t.recent.Len() > t.max {
		old := t.recent.Remove(t.recent.Front()).(*fact)
		delete(t.known, old.handle)
		t.floor = max(t.floor, old.version) // which changes the versions of all that are forgotten
	}
	return f
}

// changed gives the content of an inode a version that nothing had before.
func (t *factTable) changed(handle uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.factLocked(handle)
	f.version = max(time.Now().UnixNano(), f.version+1, t.floor+1)
}

// version is the version of an inode's content.
func (t *factTable) version(handle uint64) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := t.floor
	if e := t.known[handle]; e != nil && e.Value.(*fact).version != 0 {
		v = e.Value.(*fact).version
	}
	return uint64(v)
}

// consistency is the remembered mode of an inode. n is for learn.
func (t *factTable) consistency(handle uint64) (m consistency.Mode, n uint64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.factLocked(handle)
	return f.mode, f.since, f.hasMode
}

// learn remembers the mode of an inode, unless it was forgotten since n.
func (t *factTable) learn(handle uint64, m consistency.Mode, n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.factLocked(handle); f.since == n {
		f.mode, f.hasMode = m, true
	}
}

// forgetMode has the mode found out anew.
func (t *factTable) forgetMode(handle uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.factLocked(handle)
	t.seq++
	f.hasMode, f.since = false, t.seq
}
