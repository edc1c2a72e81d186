package history

import "golang.org/x/sys/unix"

// The models: which chains of synchronising calls oblige a file system to show
// a write to a later call on another node. In all of them a process sees what
// it wrote itself, a node sees what was written on it before, and truncation
// is strong.

// isWrite reports whether the event puts bytes of its own into a file at a place
// that it names.
func (e *Event) isWrite() bool {
	switch e.Op {
	case Write, Store, Sieve, Incr:
		return true
	}
	return false
}

// written is the range that the event means to change. A call that failed may
// have changed all of it. A truncation changes all that lies behind it.
func (e *Event) written() Range {
	switch {
	case e.Op == Truncate:
		return Range{e.Len, maxOff - e.Len}
	case e.Op == Sieve:
		return e.Own
	case e.Errno == 0:
		return Range{e.Off, e.N}
	}
	return e.span()
}

// maxOff is beyond every file.
const maxOff = 1 << 62

// isRead reports whether the event returned bytes of a file.
func (e *Event) isRead() bool { return e.Op == Read || e.Op == Load }

// seals reports whether the event takes the last write bit away.
func (e *Event) seals() bool { return e.Op == Chmod && e.Flags&0o222 == 0 }

// publishes reports whether call c publishes bytes r that write w, which
// happened before or is c itself, wrote.
func (v *view) publishes(c, w int, r Range) bool {
	e := &v.Events[c]
	if e.Errno != 0 || v.ino[c] != v.ino[w] {
		return false
	}
	if c == w {
		sync := v.open[c] >= 0 && v.Events[v.open[c]].Flags&unix.O_DSYNC != 0
		return sync || e.Op == Store || e.Op == Append
	}
	if !v.before(w, c) {
		return false
	}
	switch e.Op {
	case Truncate:
		return true
	case Close, ForkClose, Fsync:
		return v.sameNode(w, c)
	case Unlock:
		return v.sameNode(w, c) && covers(e.span(), r)
	case Chmod:
		return v.sameNode(w, c) && v.Mode == Laminated && e.seals()
	}
	return false
}

// acquires reports whether call a of the process that makes call y obliges the
// file system to show bytes r to y as they were published before a.
func (v *view) acquires(a, y int, r Range) bool {
	e := &v.Events[a]
	if e.Errno != 0 || v.ino[a] != v.ino[y] || a != y && !v.own(a, y) {
		return false
	}
	return e.Op == Open && v.Mode == Session || e.Op == Lock && covers(e.span(), r)
}

// must reports whether call y must see bytes r of write w, or later ones.
func (v *view) must(w, y int, r Range) bool {
	if v.Events[w].Errno != 0 || !v.before(w, y) || v.Crash && !v.durable(w) {
		return false
	}
	if v.atOnce(w, y) || v.recalls(y) || v.renamed(w, y) {
		return true
	}
	for c := range v.Events {
		if !v.publishes(c, w, r) {
			continue
		}
		if v.Mode == Session || v.Mode == Eventual {
			if v.acquired(c, y, r) {
				return true
			}
		} else if v.before(c, y) {
			return true
		}
	}
	return false
}

// atOnce reports whether y must see w, which happened before, although nobody
// synchronised.
func (v *view) atOnce(w, y int) bool {
	return v.Mode == Strong || v.sameNode(w, y) || v.Events[w].Op == Truncate || v.aged(w, y)
}

// recalls reports whether y reads by a file that is open for writing too: it
// sees what other nodes wrote, published or not, as its process may be about to
// write back what it read.
func (v *view) recalls(y int) bool {
	return v.Events[y].isRead() && v.open[y] >= 0 && v.Events[v.open[y]].Flags&unix.O_ACCMODE == unix.O_RDWR
}

// durable reports whether an fsync of its process followed write w.
func (v *view) durable(w int) bool {
	for c := range v.Events {
		e := &v.Events[c]
		if e.Op == Fsync && e.Errno == 0 && v.ino[c] == v.ino[w] && v.own(w, c) {
			return true
		}
	}
	return false
}

// acquired reports whether the process of y acquired bytes r after c.
func (v *view) acquired(c, y int, r Range) bool {
	for a := range v.Events {
		if v.acquires(a, y, r) && v.before(c, a) {
			return true
		}
	}
	return false
}

// aged reports whether w was written so long before y that `eventual` shows it.
func (v *view) aged(w, y int) bool {
	return v.Mode == Eventual && !v.Untimed && v.Events[w].Return+int64(v.Visibility) <= v.Events[y].Call
}

// renamed reports whether y is by a file that was opened under a name that
// the node of w had given it after w: a file that is renamed into its place is
// complete in every mode.
func (v *view) renamed(w, y int) bool {
	o := v.open[y]
	if o < 0 {
		return false
	}
	for n := range v.Events {
		e := &v.Events[n]
		if e.Op == Rename && e.Errno == 0 && e.To == v.Events[o].Name && v.sameNode(w, n) && v.before(w, n) && v.before(n, o) {
			return true
		}
	}
	return false
}

// ordered reports whether write x must take the place of write w in bytes r:
// w was published, or written on the same node, before x was made, or x
// publishes it.
func (v *view) ordered(w, x int, r Range) bool {
	if v.Events[w].Errno != 0 || v.Events[x].Errno != 0 || !v.before(w, x) {
		return false
	}
	if v.atOnce(w, x) {
		return true
	}
	for c := range v.Events {
		if v.publishes(c, w, r) && v.before(c, x) {
			return true
		}
	}
	return v.publishes(x, w, r)
}
