package names

import (
	"slices"
	"strings"
)

// Entry is what a name means: nothing if Handle is 0.
type Entry struct {
	Handle uint64
	Type   uint32 // of the inode, in its user's terms; 0 if not known
}

// Named is an entry with its name.
type Named struct {
	Name string
	Entry
}

// Entry returns what a name in a directory means, if that is known.
func (c *Cache[A]) Entry(dir uint64, name string) (e Entry, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.findLocked(dir)
	if i == nil || !valid(i.listed) || c.moving[key{dir, entrySet, name}] > 0 {
		return Entry{}, false
	}
	e, known = i.entries[name]
	return e, known || i.complete
}

// List returns all entries of a directory, sorted by name, if they are known.
func (c *Cache[A]) List(dir uint64) (out []Named, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.findLocked(dir)
	if i == nil || !valid(i.listed) || !i.complete || c.moving[key{handle: dir, e: entriesSet}] > 0 {
		return nil, false
	}
	out = make([]Named, 0, len(i.entries))
	for name, e := range i.entries {
		if e.Handle != 0 {
			out = append(out, Named{name, e})
		}
	}
	slices.SortFunc(out, func(a, b Named) int { return strings.Compare(a.Name, b.Name) })
	return out, true
}

// ChangingEntry is Changing of what a name means, and so of the list of its directory
// and of the directory's attributes.
func (c *Cache[A]) ChangingEntry(dir uint64, name string) (done func()) {
	return c.changing(key{dir, entrySet, name}, key{handle: dir, e: entriesSet}, key{handle: dir, e: attrSet})
}

// PutEntry keeps what a name means, there or not, as asked for at since. lease
// is nil if none was given.
func (c *Cache[A]) PutEntry(dir uint64, name string, e Entry, lease Lease, since Mark) {
	if lease == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.quietLocked(since, dir, entriesRevoked) || c.entryMovedLocked(dir, name, since) {
		return
	}
	c.editLocked(dir, func(i *inode[A]) {
		if i.listed != lease {
			i.dropEntries()
			i.listed, i.from = lease, c.tickLocked()
		}
		i.set(name, e)
	})
}

// PutList keeps all entries of a directory, as asked for at since.
func (c *Cache[A]) PutList(dir uint64, all []Named, lease Lease, since Mark) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if lease == nil || len(all) > c.max/4 || !c.quietLocked(since, dir, entriesRevoked, entriesSet) {
		return
	}
	c.editLocked(dir, func(i *inode[A]) {
		if i.listed != lease {
			i.listed, i.from = lease, c.tickLocked()
		}
		i.entries, i.complete = make(map[string]Entry, len(all)), true
		for _, n := range all {
			i.entries[n.Name] = n.Entry
		}
	})
}

// SetEntry keeps what a name means after a change by this mount that was begun
// at since. It goes with a lease that is held already.
func (c *Cache[A]) SetEntry(dir uint64, name string, e Entry, since Mark) {
	c.setEntry(dir, name, since, func(i *inode[A]) { i.set(name, e) })
}

// DropEntry forgets what a name means, because a change by this mount may have
// been carried out or not.
func (c *Cache[A]) DropEntry(dir uint64, name string) {
	c.setEntry(dir, name, 0, func(i *inode[A]) { i.forget(name) })
}

func (c *Cache[A]) setEntry(dir uint64, name string, since Mark, f func(i *inode[A])) {
	c.mu.Lock()
	defer c.mu.Unlock()
	quiet := c.quietLocked(since, dir, entriesRevoked) && !c.entryMovedLocked(dir, name, since)
	c.happenedLocked(dir, entrySet, name)
	c.happenedLocked(dir, entriesSet, "")
	if c.inodes[dir] == nil {
		return
	}
	c.editLocked(dir, func(i *inode[A]) {
		switch {
		case i.listed == nil:
		case quiet && i.from <= since:
			f(i)
		default:
			i.forget(name)
		}
	})
}

func (c *Cache[A]) entryMovedLocked(dir uint64, name string, since Mark) bool {
	return c.moved[c.slot(key{dir, entrySet, name})] > since
}

// RevokeEntries ends the lease on a directory's entries.
func (c *Cache[A]) RevokeEntries(dir uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.happenedLocked(dir, entriesRevoked, "")
	if c.inodes[dir] != nil {
		c.editLocked(dir, func(i *inode[A]) { i.dropEntries() })
	}
}

func (i *inode[A]) dropEntries() { i.entries, i.listed, i.complete = nil, nil, false }

// set takes over what a name means.
func (i *inode[A]) set(name string, e Entry) {
	if e.Handle == 0 && i.complete {
		delete(i.entries, name)
		return
	}
	if old := i.entries[name]; e.Type == 0 && old.Handle == e.Handle {
		e.Type = old.Type
	}
	if i.entries == nil {
		i.entries = make(map[string]Entry)
	}
	i.entries[name] = e
}

// forget makes a name unknown. Where the rest is known to be all, that ends.
func (i *inode[A]) forget(name string) {
	delete(i.entries, name)
	i.complete = false
}

// Forget drops everything that is known of an inode that is gone, but knows
// nothing of names.
func (c *Cache[A]) Forget(h uint64) {
	c.DropAttr(h)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.happenedLocked(h, entriesSet, "")
	if c.inodes[h] != nil {
		c.editLocked(h, func(i *inode[A]) { i.dropEntries() })
	}
}
