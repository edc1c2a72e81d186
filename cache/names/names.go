// Package names keeps what one mount knows of inodes and directory entries for
// as long as it has leases on them.
//
// It knows no protocol: its user asks for leases, tells of answers, of
// revocations and of the mount's own changes, and shows it each answer
// together with the moment before the request was sent, a Mark. What may have
// been overtaken since then, by a revocation or by a change of the mount's
// own, is not kept: answers come in any order. A lease covers the changes of
// other mounts alone; the mount's own ones bring what is kept up to date when
// they have been answered, and never before.
//
// What is kept is bounded; the least recently used goes first, silently: the
// lease ends when it is revoked. A Cache is safe for concurrent use and never
// blocks for long.
package names

import (
	"container/list"
	"hash/maphash"
	"sync"
)

// Lease is a right to keep something. Leases of one session are equal.
type Lease interface {
	// Valid reports whether what was learned under it may be used now.
	Valid() bool
}

// Mark is a moment, from Now.
type Mark uint64

// Cache is what a mount keeps: attributes of type A, further facts about
// inodes, and entries of directories.
type Cache[A any] struct {
	max  int
	seed maphash.Seed

	mu     sync.Mutex
	now    Mark                     // guarded by mu
	moved  [slots]Mark              // guarded by mu; when something of those that share a slot last happened
	inodes map[uint64]*list.Element // guarded by mu; of *inode[A]
	ages   *list.List               // guarded by mu; the least recently used first
	cost   int                      // guarded by mu; of all inodes
	moving map[key]int              // guarded by mu; changes by this mount that are not answered, of attributes, entries and lists
}

// slots is how many moments are told apart; things that share one by chance
// are kept less often.
const slots = 1 << 12

// what happens to an inode or a name
type event byte

const (
	attrRevoked event = iota
	attrSet           // by this mount
	written           // by this mount
	entriesRevoked
	entriesSet // any entry, by this mount
	entrySet   // one entry, by this mount
)

type inode[A any] struct {
	handle   uint64
	attr     A
	lease    Lease             // on attr and facts; nil: they are not known
	since    Mark              // when lease was got: others have changed nothing from then on
	facts    map[string]string // of the inode, by key
	entries  map[string]Entry
	listed   Lease // on entries; nil: they are not known
	from     Mark  // as since, of listed
	complete bool  // what is not in entries is not there
}

func (i *inode[A]) cost() int { return 1 + len(i.facts) + len(i.entries) }

// New makes an empty cache for so many inodes and entries.
func New[A any](max int) *Cache[A] {
	return &Cache[A]{max: max, seed: maphash.MakeSeed(), inodes: make(map[uint64]*list.Element), ages: list.New(), moving: make(map[key]int)}
}

// Now is the moment to remember before a request is sent.
func (c *Cache[A]) Now() Mark {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Len is what is kept, in inodes and entries.
func (c *Cache[A]) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cost
}

// key is a thing that events happen to.
type key struct {
	handle uint64
	e      event
	name   string
}

func (c *Cache[A]) slot(k key) int { return int(maphash.Comparable(c.seed, k) % slots) }

// tickLocked is a moment later than all Marks there are.
func (c *Cache[A]) tickLocked() Mark {
	c.now++
	return c.now
}

// happenedLocked takes note of an event.
func (c *Cache[A]) happenedLocked(h uint64, e event, name string) {
	c.moved[c.slot(key{h, e, name})] = c.tickLocked()
}

// quietLocked reports whether no such event has happened since.
func (c *Cache[A]) quietLocked(since Mark, h uint64, es ...event) bool {
	for _, e := range es {
		if c.moved[c.slot(key{handle: h, e: e})] > since {
			return false
		}
	}
	return true
}

// findLocked returns what is kept of an inode, or nil.
func (c *Cache[A]) findLocked(h uint64) *inode[A] {
	e := c.inodes[h]
	if e == nil {
		return nil
	}
	c.ages.MoveToBack(e)
	return e.Value.(*inode[A])
}

// editLocked changes what is kept of an inode, makes it if needed, and forgets
// it if nothing is left, or others if there is too much.
func (c *Cache[A]) editLocked(h uint64, f func(i *inode[A])) {
	e := c.inodes[h]
	if e == nil {
		e = c.ages.PushBack(&inode[A]{handle: h})
		c.inodes[h] = e
		c.cost++
	}
	i := e.Value.(*inode[A])
	c.ages.MoveToBack(e)
	before := i.cost()
	f(i)
	c.cost += i.cost() - before
	if i.lease == nil && i.listed == nil {
		c.removeLocked(e)
	}
	for c.cost > c.max {
		c.removeLocked(c.ages.Front())
	}
}

func (c *Cache[A]) removeLocked(e *list.Element) {
	i := c.ages.Remove(e).(*inode[A])
	delete(c.inodes, i.handle)
	c.cost -= i.cost()
}
