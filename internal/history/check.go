package history

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Reason names the promise that was broken.
type Reason string

// The reasons.
const (
	Invented Reason = "invented" // bytes that nobody had written there
	Future   Reason = "future"   // bytes of a write that was not yet begun
	Stale    Reason = "stale"    // bytes older than what had to be visible
	Back     Reason = "back"     // bytes older than what the same open file had returned
	Size     Reason = "size"     // a size that the file cannot have
	Excluded Reason = "excluded" // two processes held one lock
	Sealed   Reason = "sealed"   // a sealed file changed, or one that is not was refused
	Record   Reason = "record"   // an appended record is missing, torn, doubled or out of order
	Order    Reason = "order"    // no order of the calls explains what they returned
	Lost     Reason = "lost"     // two increments of a counter counted once
	Failed   Reason = "failed"   // a call failed that had no reason to
)

// Violation is a broken promise.
type Violation struct {
	Reason Reason `json:"reason"`
	Event  int    `json:"event"` // that shows it, -1 if no single one does
	Text   string `json:"text"`
}

// Report is what Check found.
type Report struct {
	Violations []Violation
	Races      int // pieces of reads that might have come from more than one write
}

// Check judges a history by its mode. Violations of one file come in the order
// of their bytes.
func Check(h History) Report {
	c := checker{view: newView(h)}
	c.checkErrors()
	c.checkLocks()
	c.checkSeals()
	c.checkNames()
	for _, ino := range c.files() {
		f := c.newFile(ino)
		linear := h.Mode == Strong && !h.Untimed && !h.Crash
		if len(f.appends) > 0 {
			f.checkLog()
			if linear && len(c.Violations) == 0 {
				f.checkLogOrder()
			}
			continue
		}
		f.checkBytes()
		f.checkCounters()
		f.checkSizes()
		if linear && len(c.Violations) == 0 {
			f.checkUnits()
			f.checkSizeOrder()
		}
	}
	return c.Report
}

// checker collects what is wrong with a history.
type checker struct {
	*view
	Report
}

// fail records a violation. The same one of neighbouring bytes counts once.
func (c *checker) fail(reason Reason, event int, format string, args ...any) {
	same := func(v Violation) bool { return v.Reason == reason && v.Event == event }
	if event < 0 || !slices.ContainsFunc(c.Violations, same) {
		c.Violations = append(c.Violations, Violation{reason, event, fmt.Sprintf(format, args...)})
	}
}

// files are the files of the history, in order.
func (c *checker) files() []uint64 {
	var out []uint64
	for _, ino := range c.ino {
		if ino != 0 {
			out = append(out, ino)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// file is what the checks of one file work on: indices of its events.
type file struct {
	*checker
	id      uint64 // the inode number
	writes  []int  // at a named place, and truncations
	reads   []int
	appends []int
	sieves  []int
	sizes   []int // that returned a size
}

func (c *checker) newFile(ino uint64) *file {
	f := &file{checker: c, id: ino}
	for i := range c.Events {
		e := &c.Events[i]
		if c.ino[i] != ino {
			continue
		}
		switch e.Op {
		case Append:
			f.appends = append(f.appends, i)
		case Fstat, SeekEnd, Stat:
			if e.Errno == 0 {
				f.sizes = append(f.sizes, i)
			}
		case Truncate:
			f.writes = append(f.writes, i)
		case Sieve:
			f.sieves = append(f.sieves, i)
		}
		if e.isWrite() {
			f.writes = append(f.writes, i)
		}
		if e.isRead() && e.Errno == 0 {
			f.reads = append(f.reads, i)
		}
	}
	return f
}

// checkErrors requires that calls succeed. Whether one that goes by name should
// have is left to checkNames, and whether a write was rightly refused to
// checkSeals.
func (c *checker) checkErrors() {
	for i := range c.Events {
		e := &c.Events[i]
		named := e.Op == Open || e.Op == Stat || e.Op == Rename || e.Op == Unlink
		refused := c.Mode == Laminated && e.Errno == unix.EPERM
		if e.Errno != 0 && !named && !refused && !c.Crash {
			c.fail(Failed, i, "%v", e)
		}
	}
}

// checkLocks requires that no two locks that exclude each other were held at
// once.
func (c *checker) checkLocks() {
	if c.Untimed {
		return
	}
	for i, a := range c.holds {
		for _, b := range c.holds[:i] {
			if c.conflict(a.lock, b.lock) && c.heldAfter(a, b) && c.heldAfter(b, a) {
				c.fail(Excluded, a.lock, "%v was granted while %v held the lock", c.Events[a.lock], c.Events[b.lock])
			}
		}
	}
}

// heldAfter reports whether a was still held, for sure, when b was granted.
func (c *checker) heldAfter(a, b hold) bool {
	return a.release < 0 || c.Events[a.release].Call > c.Events[b.lock].Return
}

// checkSeals requires of Laminated that a file does not change from the chmod
// that seals it to the one that unseals it, and that a write of any other time
// is not refused.
func (c *checker) checkSeals() {
	if c.Mode != Laminated {
		return
	}
	for i := range c.Events {
		e := &c.Events[i]
		if !e.isWrite() && e.Op != Truncate && e.Op != Append {
			continue
		}
		sealed, maybe := c.sealed(i)
		switch {
		case sealed && e.Errno == 0:
			c.fail(Sealed, i, "%v of a sealed file", e)
		case !maybe && e.Errno == unix.EPERM:
			c.fail(Sealed, i, "%v, though the file is not sealed", e)
		}
	}
}

// sealed reports whether the file of event i was sealed all the while, and
// whether it may have been sealed at any time of it.
func (c *checker) sealed(i int) (surely, maybe bool) {
	for s := range c.Events {
		e := &c.Events[s]
		if c.ino[s] != c.ino[i] || e.Errno != 0 || !e.seals() || c.before(i, s) {
			continue
		}
		open, over := false, false // an unseal may have come, or has come, after s and before i
		for u := range c.Events {
			o := &c.Events[u]
			if c.ino[u] == c.ino[i] && o.Op == Chmod && !o.seals() && !c.before(u, s) && !c.before(i, u) {
				open = true
				over = over || c.before(s, u) && c.before(u, i) && o.Errno == 0
			}
		}
		surely = surely || c.before(s, i) && !open
		maybe = maybe || !over
	}
	return surely, maybe
}
