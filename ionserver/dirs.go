package ionserver

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const (
	// dirLife is how long a home goes by what it knows of a directory, as tools of
	// PVFS2 may change it, too.
	dirLife  = 2 * time.Second
	maxDirs  = 1 << 12 // directories remembered
	maxNames = 1 << 18 // names remembered, of all directories
)

// dirTable is what a home knows of directories in which names are changed. Every
// change of an entry passes the home of the directory, which so knows what there
// is and since when, without asking again after each: in a storm of creates the
// kernels ask for the times of the directory and whether the name is free, every
// time. Who looks a name up holds its lock, so that what is known of it stands.
//
//	attributes   asked for; then with the times of changes here
//	names        read all, when as much was spent on asking for single ones;
//	             then with the changes here
//
// Other changes of an inode are told with change. The zero value is ready.
type dirTable struct {
	mu      sync.Mutex
	dirs    map[uint64]*knownDir  // guarded by mu
	names   int                   // guarded by mu; of all dirs
	shapes  map[uint64]shape      // guarded by mu; of files, see learnShape
	dropped uint64                // guarded by mu; directories forgotten so far
	reads   map[uint64][]*reading // guarded by mu; by directory
	inodes  [256]struct {         // guarded by mu; by handle; several share one
		active  int    // changes at work
		changes uint64 // begun or ended so far
	}
}

// knownDir is one directory. All fields are guarded by dirTable.mu.
type knownDir struct {
	attr  *pvfs.Attr // nil: not known
	until time.Time  // of attr
	last  int64      // s; the last change of an entry here; 0: none is known
	used  time.Time  // when that was

	names  map[string]meaning // every name that there is; nil: not known
	listed time.Time          // when names were asked for
	asked  int                // single names since
	need   int                // pages of names that are not too many; that many must have been asked for before
	load   *dirLoad           // names are being read

	changing map[string]changing // names whose locks are held to change them
}

// meaning is what a name means.
type meaning struct {
	handle  pvfs.Handle  // 0: nothing
	kind    wire.ObjType // TypeNone if not known
	unknown bool
}

// changing is a name that is being changed.
type changing struct {
	was   meaning
	since time.Time // when its lock was taken: the servers' time of the change is not earlier
	said  bool      // what it means now
}

// reading is a look at the names of a directory without their locks.
type reading struct {
	dir   uint64
	moved map[string]struct{} // those that were locked to change them; guarded by dirTable.mu
}

// asking is the moment before something is asked for.
type asking struct{ changes, dropped uint64 }

// ask begins to ask for attributes.
func (t *dirTable) ask(handle uint64) asking {
	t.mu.Lock()
	defer t.mu.Unlock()
	return asking{t.inodes[handle%uint64(len(t.inodes))].changes, t.dropped}
}

// attr returns the attributes of a directory if they are known.
func (t *dirTable) attr(handle uint64, now time.Time) (a pvfs.Attr, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.dirs[handle]
	if d == nil || d.attr == nil || now.After(d.until) {
		return a, false
	}
	return *d.attr, true
}

// learn takes over the attributes of an inode that were asked for, and returns
// them with the times that are known here.
func (t *dirTable) learn(a pvfs.Attr, since asking, now time.Time) pvfs.Attr {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.dirs[uint64(a.Handle)]
	i := &t.inodes[uint64(a.Handle)%uint64(len(t.inodes))]
	if d == nil || since != (asking{i.changes, t.dropped}) || i.active > 0 {
		return a
	}
	a.Mtime, a.Ctime = max(a.Mtime, d.last), max(a.Ctime, d.last)
	d.attr, d.until = &a, now.Add(dirLife)
	return a
}

// change begins a change of an inode, apart from its entries; if it is moved or
// removed, those are not known any more either. end must follow.
func (t *dirTable) change(handle uint64, moved bool) (end func()) {
	t.forget(handle, moved, 1)
	return func() { t.forget(handle, moved, -1) }
}

func (t *dirTable) forget(handle uint64, moved bool, more int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := &t.inodes[handle%uint64(len(t.inodes))]
	i.active += more
	i.changes++
	delete(t.shapes, handle)
	if d := t.dirs[handle]; d != nil {
		d.attr, d.last = nil, 0
		if moved {
			t.dropNamesLocked(d)
		}
	}
}

// begin begins the change of an entry, with its lock held: from now on nobody
// knows what it means. The holder says it with means or stays; end must follow.
func (t *dirTable) begin(k nameKey, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.dirs[k.dir]
	if d == nil {
		t.makeRoomLocked()
		d = &knownDir{need: 1, changing: make(map[string]changing)}
		t.dirs[k.dir] = d
	}
	d.used = now
	d.changing[k.name] = changing{was: t.setLocked(d, k.name, meaning{unknown: true}), since: now}
	for _, r := range t.reads[k.dir] {
		r.moved[k.name] = struct{}{}
	}
}

// means says what an entry means now, after it was changed.
func (t *dirTable) means(k nameKey, m meaning, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.dirs[k.dir]
	if d == nil {
		return
	}
	c, ok := d.changing[k.name]
	if !ok { // this is not its home
		return
	}
	c.said = true
	d.changing[k.name] = c
	t.setLocked(d, k.name, m)
	d.last, d.used = max(d.last, c.since.Unix()), now
	if d.attr != nil {
		a := *d.attr
		a.Mtime, a.Ctime = max(a.Mtime, d.last), max(a.Ctime, d.last)
		d.attr = &a
	}
}

// stays says that an entry surely was not changed.
func (t *dirTable) stays(k nameKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.dirs[k.dir]
	if c, ok := d.changing[k.name]; ok { // and d is there for as long
		c.said = true
		d.changing[k.name] = c
		t.setLocked(d, k.name, c.was)
	}
}

// end ends the change. If nothing was said of it, it is not known what became of
// the entry, nor of the times of the directory.
func (t *dirTable) end(k nameKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.dirs[k.dir]
	if !d.changing[k.name].said {
		d.attr = nil
		t.inodes[k.dir%uint64(len(t.inodes))].changes++
	}
	delete(d.changing, k.name)
}

// read begins to read the names of a directory; moved must follow.
func (t *dirTable) read(dir uint64) *reading {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &reading{dir: dir, moved: make(map[string]struct{})}
	if d := t.dirs[dir]; d != nil {
		for name := range d.changing {
			r.moved[name] = struct{}{}
		}
	}
	if t.reads == nil {
		t.reads = make(map[uint64][]*reading)
	}
	t.reads[dir] = append(t.reads[dir], r)
	return r
}

// moved ends r, and returns the names, sorted, of which it may have read what is
// there while they are changed and nobody is to see.
func (t *dirTable) moved(r *reading) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reads[r.dir] = without(t.reads[r.dir], r); len(t.reads[r.dir]) == 0 {
		delete(t.reads, r.dir)
	}
	return slices.Sorted(maps.Keys(r.moved))
}

// expire forgets directories in which nothing has been changed lately.
func (t *dirTable) expire(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for h, d := range t.dirs {
		if now.Sub(d.used) > dirLife {
			t.dropLocked(h, d)
		}
	}
	for h, s := range t.shapes {
		if now.After(s.until) {
			delete(t.shapes, h)
		}
	}
}

// makeRoomLocked forgets a directory if there are too many.
func (t *dirTable) makeRoomLocked() {
	if t.dirs == nil {
		t.dirs = make(map[uint64]*knownDir)
	}
	for h, d := range t.dirs {
		if len(t.dirs) < maxDirs {
			return
		}
		t.dropLocked(h, d)
	}
}

// dropLocked forgets a directory, unless its names are being changed or read.
func (t *dirTable) dropLocked(h uint64, d *knownDir) {
	if len(d.changing) == 0 && d.load == nil {
		t.dropNamesLocked(d)
		delete(t.dirs, h)
		t.dropped++
	}
}
