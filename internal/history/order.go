package history

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"
)

// view is a history with what the checkers want to know of its events. Slices
// are indexed by event.
type view struct {
	History
	ino   []uint64 // the file that it works on, 0 if none
	open  []int    // the Open that made its open file, -1 if none
	index []int    // from 1, among the events of its process
	clock [][]int  // by process: how many of its events happened before
	holds []hold
}

// hold is the time in which a lock was held: from the return of event lock to
// the call of event release, -1 if it was not released.
type hold struct{ lock, release int }

func newView(h History) *view {
	v := &view{History: h}
	v.resolve()
	v.findHolds()
	v.runClocks()
	return v
}

// resolve finds the open file and the file of every event.
func (v *view) resolve() {
	type name struct{ proc, fd int }
	open := map[name]int{}
	count := map[int]int{}
	for i, e := range v.Events {
		count[e.Proc]++
		v.index = append(v.index, count[e.Proc])
		opened, ino := -1, e.Ino
		switch e.Op {
		case Open:
			if e.Errno == 0 {
				opened = i
				open[name{e.Proc, e.FD}] = i
			}
		case Dup:
			if at, ok := open[name{e.Proc, e.FD2}]; ok && e.Errno == 0 {
				opened = at
				open[name{e.Proc, e.FD}] = at
			}
		case Stat, Rename, Unlink:
		default:
			if at, ok := open[name{e.Proc, e.FD}]; ok {
				opened = at
			}
		}
		if opened >= 0 {
			ino = v.Events[opened].Ino
		}
		if e.Op == Close {
			delete(open, name{e.Proc, e.FD})
		}
		v.open, v.ino = append(v.open, opened), append(v.ino, ino)
	}
}

// findHolds pairs locks with what released them: an unlock that touches their
// bytes, or the close of any descriptor of the file by the process.
func (v *view) findHolds() {
	for i, e := range v.Events {
		if e.Op != Lock || e.Errno != 0 {
			continue
		}
		h := hold{i, -1}
		for k := i + 1; k < len(v.Events) && h.release < 0; k++ {
			o := v.Events[k]
			if o.Proc != e.Proc || v.ino[k] != v.ino[i] {
				continue
			}
			if o.Op == Close || o.Op == Unlock && overlap(e.span(), o.span()) {
				h.release = k
			}
		}
		v.holds = append(v.holds, h)
	}
}

// conflict reports whether two locks cannot be held at once.
func (v *view) conflict(a, b int) bool {
	x, y := v.Events[a], v.Events[b]
	return v.ino[a] == v.ino[b] && x.Proc != y.Proc && overlap(x.span(), y.span()) &&
		(x.Flags == unix.F_WRLCK || y.Flags == unix.F_WRLCK)
}

// effect is a time at which an event may be placed so that all that happened
// before it has an earlier place.
func (e *Event) effect() int64 {
	if e.Op == Lock {
		return e.Return // it may wait for a call that was made later
	}
	return e.Call
}

// runClocks computes vector clocks over the order of each process, what
// processes were told, the passing on of locks, and the order of real time.
func (v *view) runClocks() {
	procs := 0
	for _, e := range v.Events {
		procs = max(procs, e.Proc+1)
	}
	turn := make([]int, len(v.Events))
	for i := range turn {
		turn[i] = i
	}
	if !v.Untimed {
		slices.SortStableFunc(turn, func(a, b int) int { return cmp.Compare(v.Events[a].effect(), v.Events[b].effect()) })
	}
	v.clock = make([][]int, len(v.Events))
	done := make([][]int, procs) // events of each process that have their clock
	for _, i := range turn {
		e := v.Events[i]
		c := make([]int, procs)
		after := func(a int) {
			for p, n := range v.clock[a] {
				c[p] = max(c[p], n)
			}
			c[v.Events[a].Proc] = max(c[v.Events[a].Proc], v.index[a])
		}
		for p, events := range done {
			for _, a := range slices.Backward(events) {
				if p == e.Proc || !v.Untimed && v.Events[a].Return < e.Call {
					after(a)
					break
				}
			}
		}
		for _, a := range e.After {
			if v.clock[a] != nil {
				after(a)
			}
		}
		if e.Op == Lock && e.Errno == 0 {
			for _, h := range v.holds {
				if h.release >= 0 && v.clock[h.release] != nil && v.conflict(h.lock, i) {
					after(h.release)
				}
			}
		}
		v.clock[i] = c
		done[e.Proc] = append(done[e.Proc], i)
	}
}

// before reports whether a happened before b.
func (v *view) before(a, b int) bool {
	return a != b && v.clock[b][v.Events[a].Proc] >= v.index[a]
}

// own reports whether a comes before b in the order of one process.
func (v *view) own(a, b int) bool {
	return v.Events[a].Proc == v.Events[b].Proc && v.index[a] < v.index[b]
}

// sameNode reports whether two events were made on one node.
func (v *view) sameNode(a, b int) bool { return v.Events[a].Node == v.Events[b].Node }

// span is the range that the call named.
func (e *Event) span() Range { return Range{e.Off, e.Len} }

// end is the first byte behind r.
func (r Range) end() int64 { return r.Off + r.Len }

func overlap(a, b Range) bool { return a.Off < b.end() && b.Off < a.end() }

func covers(a, b Range) bool { return a.Off <= b.Off && b.end() <= a.end() }

// at is the value of a byte of what the event saw or wrote; beyond that it is 0.
func (e *Event) at(off int64) uint8 {
	for _, r := range e.Seen {
		if off -= r.Len; off < e.Off {
			return r.Value
		}
	}
	return 0
}
