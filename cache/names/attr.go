package names

// Attr returns the attributes of an inode if they are known.
func (c *Cache[A]) Attr(h uint64) (a A, ok bool) {
	a, _, ok = c.AttrSince(h)
	return a, ok
}

// AttrSince is Attr, and returns a moment since which no other mount has changed
// them.
func (c *Cache[A]) AttrSince(h uint64) (a A, since Mark, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.findLocked(h)
	if i == nil || !valid(i.lease) || c.moving[key{handle: h, e: attrSet}] > 0 {
		return a, 0, false
	}
	return i.attr, i.since, true
}

// Changing is called before this mount sends a change of an inode's attributes, and
// done when what has become of it was told. In between others may see it already, so
// that nothing is known.
func (c *Cache[A]) Changing(h uint64) (done func()) { return c.changing(key{handle: h, e: attrSet}) }

func (c *Cache[A]) changing(what ...key) (done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range what {
		c.moving[k]++
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, k := range what {
			if c.moving[k]--; c.moving[k] == 0 {
				delete(c.moving, k)
			}
		}
	}
}

func valid(l Lease) bool { return l != nil && l.Valid() }

// PutAttr keeps attributes that were asked for at since. lease is nil if none
// was given.
func (c *Cache[A]) PutAttr(h uint64, a A, lease Lease, since Mark) {
	if lease == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.quietLocked(since, h, attrRevoked, attrSet, written) {
		c.editLocked(h, func(i *inode[A]) { c.keepLocked(i, a, lease) })
	}
}

// keepLocked takes over attributes; facts of another session are of no use.
func (c *Cache[A]) keepLocked(i *inode[A], a A, lease Lease) {
	if i.lease != lease {
		i.facts, i.since = nil, c.tickLocked()
	}
	i.attr, i.lease = a, lease
}

func (i *inode[A]) dropAttr() {
	var none A
	i.attr, i.lease, i.facts = none, nil, nil
}

// SetAttr keeps the attributes that a change by this mount, begun at since,
// has led to. lease is nil if none was given with the answer.
func (c *Cache[A]) SetAttr(h uint64, a A, lease Lease, since Mark) {
	c.mu.Lock()
	defer c.mu.Unlock()
	quiet := c.quietLocked(since, h, attrRevoked, attrSet, written)
	c.happenedLocked(h, attrSet, "")
	c.editLocked(h, func(i *inode[A]) {
		switch {
		case quiet && lease != nil:
			c.keepLocked(i, a, lease)
		case quiet && i.lease != nil && i.since <= since: // so nobody else has changed anything
			i.attr = a
		default:
			i.dropAttr()
		}
	})
}

// Wrote corrects the attributes after a write by this mount that was begun at
// since, by f, which is not called if they are not known. Writes do not
// disturb each other.
func (c *Cache[A]) Wrote(h uint64, since Mark, f func(a *A)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	quiet := c.quietLocked(since, h, attrRevoked, attrSet)
	c.happenedLocked(h, written, "")
	if c.inodes[h] == nil {
		return
	}
	c.editLocked(h, func(i *inode[A]) {
		switch {
		case i.lease == nil:
		case quiet && i.since <= since:
			f(&i.attr)
		default:
			i.dropAttr()
		}
	})
}

// DropAttr forgets what is known of an inode but its entries, because this
// mount has changed it in a way that only its home knows, or may have.
func (c *Cache[A]) DropAttr(h uint64) { c.dropAttr(h, attrSet) }

// RevokeAttr ends the lease on attributes.
func (c *Cache[A]) RevokeAttr(h uint64) { c.dropAttr(h, attrRevoked) }

func (c *Cache[A]) dropAttr(h uint64, e event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.happenedLocked(h, e, "")
	if c.inodes[h] != nil {
		c.editLocked(h, func(i *inode[A]) { i.dropAttr() })
	}
}

// Fact returns what is known of an inode besides its attributes, about something.
func (c *Cache[A]) Fact(h uint64, about string) (v string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.findLocked(h)
	if i == nil || !valid(i.lease) || c.moving[key{handle: h, e: attrSet}] > 0 {
		return "", false
	}
	v, ok = i.facts[about]
	return v, ok
}

// PutFact keeps a fact that was asked for at since, if the attributes were kept
// already: it goes with the lease on them.
func (c *Cache[A]) PutFact(h uint64, about, v string, since Mark) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.findLocked(h)
	if i == nil || !valid(i.lease) || i.since > since || !c.quietLocked(since, h, attrRevoked, attrSet) {
		return
	}
	c.editLocked(h, func(i *inode[A]) {
		if i.facts == nil {
			i.facts = make(map[string]string)
		}
		i.facts[about] = v
	})
}
