package ionserver

import (
	"container/list"
	"sync"
	"time"
)

// maxVersions bounds the inodes whose versions a home knows.
const maxVersions = 1 << 17

// versionTable is the versions of the content of files: numbers that change
// with it and never come back, not even after a restart. A file that is not in
// the table has the version floor, which rises when one is forgotten; so
// forgetting changes versions where nothing has happened, and that is all.
type versionTable struct {
	mu     sync.Mutex
	max    int                      // guarded by mu; maxVersions but in tests
	floor  int64                    // guarded by mu
	known  map[uint64]*list.Element // guarded by mu; of *versioned, by handle
	recent *list.List               // guarded by mu; the one that changed longest ago first
}

type versioned struct {
	handle  uint64
	version int64
}

// newVersionTable makes a table of a home that starts at a time, in ns.
func newVersionTable(now int64) *versionTable {
	return &versionTable{max: maxVersions, floor: now, known: make(map[uint64]*list.Element), recent: list.New()}
}

// changed gives the content of a file a version that nothing had before.
func (t *versionTable) changed(handle uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.known[handle]
	if e == nil {
		e = t.recent.PushBack(&versioned{handle: handle})
		t.known[handle] = e
	}
	t.recent.MoveToBack(e)
	v := e.Value.(*versioned)
	v.version = max(time.Now().UnixNano(), v.version+1, t.floor+1)
	for t.recent.Len() > t.max {
		old := t.recent.Remove(t.recent.Front()).(*versioned)
		delete(t.known, old.handle)
		t.floor = max(t.floor, old.version)
	}
}

// version is the version of a file's content.
func (t *versionTable) version(handle uint64) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.known[handle]; e != nil {
		return uint64(e.Value.(*versioned).version)
	}
	return uint64(t.floor)
}
