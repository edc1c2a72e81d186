package fsck

import (
	"math/bits"
	"slices"
	"sync"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// state is what a pass knows of an object.
//
//	bits 0-2   the type: 0 none, else 1 + log2 of the wire's number
//	bit  3     held in reserve
//	bit  4     its server lists it and says nothing about it
//	bits 5-10  for each role, how often it is referred to: 0, 1, or 2 for more
type state uint16

const (
	typeBits    state = 7
	reserved    state = 1 << 3
	mute        state = 1 << 4
	refBits           = 5
	refsPerRole       = 2
)

func (s state) objType() wire.ObjType {
	if s&typeBits == 0 {
		return wire.TypeNone
	}
	return 1 << (s&typeBits - 1)
}

func (s state) withType(t wire.ObjType) state {
	return s&^typeBits | state(bits.Len32(uint32(t)))&typeBits
}

func (s state) refs(r role) int { return int(s >> (refBits + refsPerRole*state(r)) & 3) }

func (s state) withRef(r role) state {
	if s.refs(r) < 2 {
		s += 1 << (refBits + refsPerRole*state(r))
	}
	return s
}

// anyRefs is how often the object is referred to, up to 2 for each role.
func (s state) anyRefs() int {
	n := 0
	for r := range roles {
		n += s.refs(r)
	}
	return n
}

// shard is the objects that one server keeps.
type shard struct {
	alias   string
	handles []pvfs.Handle // sorted; complete before the first use of state

	mu    sync.Mutex
	state []state // guarded by mu while the pass runs; one for each handle
}

// sorted makes the shard ready once all handles are in it.
func (s *shard) sort() {
	slices.Sort(s.handles)
	s.handles = slices.Clip(slices.Compact(s.handles))
	s.state = make([]state, len(s.handles))
}

// change replaces the state of h by what f makes of it and returns that; ok is
// false if h is not there.
func (s *shard) change(h pvfs.Handle, f func(state) state) (st state, ok bool) {
	i, ok := slices.BinarySearch(s.handles, h)
	if !ok {
		return 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state[i] = f(s.state[i])
	return s.state[i], true
}

// ofType lists the handles of type t that are not held in reserve.
func (s *shard) ofType(t wire.ObjType) []pvfs.Handle {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []pvfs.Handle
	for i, st := range s.state {
		if st&reserved == 0 && st.objType() == t {
			out = append(out, s.handles[i])
		}
	}
	return out
}

// table is the objects of all servers.
type table struct {
	owner  func(pvfs.Handle) (alias string, ok bool)
	shards []*shard // one a server
	by     map[string]*shard
}

func newTable(c *pvfs.Client) *table {
	t := &table{owner: c.Owner, by: map[string]*shard{}}
	for _, s := range c.Servers() {
		sh := &shard{alias: s.Alias}
		t.shards = append(t.shards, sh)
		t.by[s.Alias] = sh
	}
	return t
}

// change is that of the shard of the server that owns h.
func (t *table) change(h pvfs.Handle, f func(state) state) (st state, ok bool) {
	alias, ok := t.owner(h)
	if !ok {
		return 0, false
	}
	return t.by[alias].change(h, f)
}

// refer notes that something refers to h as r; ok is false if h was not listed.
func (t *table) refer(h pvfs.Handle, r role) (st state, ok bool) {
	return t.change(h, func(s state) state { return s.withRef(r) })
}

// get is what is known of h.
func (t *table) get(h pvfs.Handle) (st state, ok bool) {
	return t.change(h, func(s state) state { return s })
}

// tree is the directories with what contains them.
type tree struct {
	dirs []pvfs.Handle // sorted

	mu     sync.Mutex
	parent []pvfs.Handle // guarded by mu; 0 if nothing contains it
}

func newTree(dirs []pvfs.Handle) *tree {
	slices.Sort(dirs)
	return &tree{dirs: dirs, parent: make([]pvfs.Handle, len(dirs))}
}

func (t *tree) setParent(dir, parent pvfs.Handle) {
	if i, ok := slices.BinarySearch(t.dirs, dir); ok {
		t.mu.Lock()
		t.parent[i] = parent
		t.mu.Unlock()
	}
}

func (t *tree) parentOf(dir pvfs.Handle) pvfs.Handle {
	i, ok := slices.BinarySearch(t.dirs, dir)
	if !ok {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.parent[i]
}

// rings finds directories that contain themselves: one of each such ring, the
// one with the lowest handle.
func (t *tree) rings() []pvfs.Handle {
	const fresh, done, now = 0, 1, 2
	mark := make([]uint8, len(t.dirs))
	var out []pvfs.Handle
	for i := range t.dirs {
		path := i
		for mark[path] == fresh {
			mark[path] = now
			next, ok := slices.BinarySearch(t.dirs, t.parent[path])
			if !ok {
				break
			}
			path = next
		}
		if mark[path] == now && t.inRing(path) {
			out = append(out, t.lowest(path))
		}
		for path = i; mark[path] == now; {
			mark[path] = done
			if next, ok := slices.BinarySearch(t.dirs, t.parent[path]); ok {
				path = next
			}
		}
	}
	return out
}

// inRing reports whether following parents from i leads back to i.
func (t *tree) inRing(i int) bool {
	at := i
	for range t.dirs {
		next, ok := slices.BinarySearch(t.dirs, t.parent[at])
		if !ok {
			return false
		}
		if at = next; at == i {
			return true
		}
	}
	return false
}

func (t *tree) lowest(i int) pvfs.Handle {
	low := t.dirs[i]
	for at, _ := slices.BinarySearch(t.dirs, t.parent[i]); at != i; at, _ = slices.BinarySearch(t.dirs, t.parent[at]) {
		low = min(low, t.dirs[at])
	}
	return low
}
