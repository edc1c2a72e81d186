package names

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// lease is a session's: its leases are valid until it ends.
type lease struct{ over *bool }

func (l lease) Valid() bool { return !*l.over }

func newLease() lease { return lease{new(bool)} }

// TestOvertaken: an answer is kept only if nothing that concerns it has
// happened since the question.
func TestOvertaken(t *testing.T) {
	l := newLease()
	const h, dir = 1, 2
	attr := func(c *Cache[int], since Mark) { c.PutAttr(h, 1, l, since) }
	entry := func(c *Cache[int], since Mark) { c.PutEntry(dir, "n", Entry{Handle: 7}, l, since) }
	list := func(c *Cache[int], since Mark) { c.PutList(dir, []Named{{"n", Entry{Handle: 7}}}, l, since) }
	for _, k := range []struct {
		name           string
		event          func(c *Cache[int])
		attr, one, all bool // kept
	}{
		{"nothing", func(*Cache[int]) {}, true, true, true},
		{"attributes revoked", func(c *Cache[int]) { c.RevokeAttr(h) }, false, true, true},
		{"own write", func(c *Cache[int]) { c.Wrote(h, c.Now(), func(a *int) {}) }, false, true, true},
		{"own setattr", func(c *Cache[int]) { c.SetAttr(h, 2, nil, c.Now()) }, false, true, true},
		{"own unknown change", func(c *Cache[int]) { c.DropAttr(h) }, false, true, true},
		{"entries revoked", func(c *Cache[int]) { c.RevokeEntries(dir) }, true, false, false},
		{"own change of the name", func(c *Cache[int]) { c.SetEntry(dir, "n", Entry{}, c.Now()) }, true, false, false},
		{"own change of another", func(c *Cache[int]) { c.SetEntry(dir, "m", Entry{Handle: 8}, c.Now()) }, true, true, false},
		{"own unknown change of the name", func(c *Cache[int]) { c.DropEntry(dir, "n") }, true, false, false},
	} {
		t.Run(k.name, func(t *testing.T) {
			c := New[int](100)
			since := c.Now()
			k.event(c)
			attr(c, since)
			_, ok := c.Attr(h)
			require.Equal(t, k.attr, ok, "attributes")
			entry(c, since)
			_, ok = c.Entry(dir, "n")
			require.Equal(t, k.one, ok, "entry")
			c = New[int](100)
			since = c.Now()
			k.event(c)
			list(c, since)
			_, ok = c.List(dir)
			require.Equal(t, k.all, ok, "list")
			since = c.Now()
			attr(c, since)
			list(c, since)
			_, ok = c.Attr(h)
			require.True(t, ok)
			_, ok = c.List(dir)
			require.True(t, ok, "asked again")
		})
	}
}

// TestOwnChanges: two of the mount's own changes at once leave nothing that
// may be wrong.
func TestOwnChanges(t *testing.T) {
	l := newLease()
	c := New[int](100)
	c.PutAttr(1, 10, l, c.Now())
	a, b := c.Now(), c.Now()
	c.SetAttr(1, 11, nil, a)
	v, ok := c.Attr(1)
	require.True(t, ok)
	require.Equal(t, 11, v)
	c.SetAttr(1, 12, l, b)
	_, ok = c.Attr(1)
	require.False(t, ok, "which of the two came last is not known")

	c.PutAttr(1, 10, l, c.Now())
	a, b = c.Now(), c.Now()
	add := func(a *int) { *a++ }
	c.Wrote(1, a, add)
	c.Wrote(1, b, add)
	v, _ = c.Attr(1)
	require.Equal(t, 12, v, "writes do not disturb each other")
	w := c.Now()
	c.SetAttr(1, 5, l, c.Now())
	c.Wrote(1, w, add)
	_, ok = c.Attr(1)
	require.False(t, ok, "was it written before it was cut?")

	c.PutList(2, []Named{{"x", Entry{7, 1}}}, l, c.Now())
	a, b = c.Now(), c.Now()
	c.SetEntry(2, "x", Entry{}, a)
	e, ok := c.Entry(2, "x")
	require.True(t, ok)
	require.Zero(t, e)
	c.SetEntry(2, "x", Entry{8, 1}, b)
	_, ok = c.Entry(2, "x")
	require.False(t, ok)
	_, ok = c.List(2)
	require.False(t, ok)
}

// TestChangesUnderWay: while a change by this mount is under way, which others may see
// already, nothing is known, also not what comes meanwhile.
func TestChangesUnderWay(t *testing.T) {
	c := New[int](10)
	l := newLease()
	c.PutAttr(1, 10, l, c.Now())
	done := c.Changing(1)
	since := c.Now()
	_, ok := c.Attr(1)
	require.False(t, ok)
	c.PutAttr(1, 11, l, c.Now())
	_, ok = c.Attr(1)
	require.False(t, ok)
	again := c.Changing(1)
	c.SetAttr(1, 20, l, since)
	done()
	_, ok = c.Attr(1)
	require.False(t, ok)
	again()
	a, ok := c.Attr(1)
	require.True(t, ok)
	require.Equal(t, 20, a)

	c.PutFact(1, "k", "v", c.Now())
	done = c.Changing(1)
	_, ok = c.Fact(1, "k")
	require.False(t, ok)
	done()
	_, ok = c.Fact(1, "k")
	require.True(t, ok)

	c.PutAttr(2, 10, l, c.Now())
	c.PutList(2, []Named{{"x", Entry{7, 1}}}, l, c.Now())
	done = c.ChangingEntry(2, "x")
	since = c.Now()
	_, ok = c.Entry(2, "x")
	require.False(t, ok)
	_, ok = c.Entry(2, "y")
	require.True(t, ok, "another name")
	_, ok = c.List(2)
	require.False(t, ok)
	_, ok = c.Attr(2)
	require.False(t, ok, "its times")
	c.SetEntry(2, "x", Entry{}, since)
	done()
	e, ok := c.Entry(2, "x")
	require.True(t, ok)
	require.Zero(t, e)
	all, ok := c.List(2)
	require.True(t, ok)
	require.Empty(t, all)
}

// TestFactsBeforeTheLease: what was asked for before there was a lease may have been
// changed by others before it was given.
func TestFactsBeforeTheLease(t *testing.T) {
	c := New[int](100)
	since := c.Now()
	c.PutAttr(1, 10, newLease(), c.Now())
	c.PutFact(1, "k", "old", since)
	_, ok := c.Fact(1, "k")
	require.False(t, ok)
	c.PutFact(1, "k", "new", c.Now())
	v, _ := c.Fact(1, "k")
	require.Equal(t, "new", v)
}

func TestLeaseEnds(t *testing.T) {
	l := newLease()
	c := New[int](100)
	c.PutAttr(1, 10, l, c.Now())
	c.PutFact(1, "k", "v", c.Now())
	c.PutEntry(2, "x", Entry{Handle: 1}, l, c.Now())
	v, ok := c.Fact(1, "k")
	require.True(t, ok)
	require.Equal(t, "v", v)
	*l.over = true
	_, ok = c.Attr(1)
	require.False(t, ok)
	_, ok = c.Fact(1, "k")
	require.False(t, ok)
	_, ok = c.Entry(2, "x")
	require.False(t, ok)
	next := newLease()
	c.PutAttr(1, 11, next, c.Now())
	_, ok = c.Fact(1, "k")
	require.False(t, ok, "facts of another session")
	c.PutEntry(2, "y", Entry{}, next, c.Now())
	_, ok = c.Entry(2, "x")
	require.False(t, ok, "entries of another session")
	e, ok := c.Entry(2, "y")
	require.True(t, ok)
	require.Zero(t, e)
}

func TestBounded(t *testing.T) {
	l := newLease()
	c := New[int](100)
	for h := range uint64(1000) {
		c.PutAttr(h, 1, l, c.Now())
		c.PutEntry(h%7+2000, fmt.Sprint(h), Entry{Handle: h}, l, c.Now())
		require.LessOrEqual(t, c.Len(), 100)
	}
	_, ok := c.Attr(999)
	require.True(t, ok)
	_, ok = c.Attr(1)
	require.False(t, ok)
	var many []Named
	for i := range 100 {
		many = append(many, Named{fmt.Sprint(i), Entry{Handle: 5}})
	}
	c.PutList(1, many, l, c.Now())
	_, ok = c.List(1)
	require.False(t, ok)
	for h := range uint64(3000) {
		c.RevokeAttr(h)
		c.RevokeEntries(h)
	}
	require.Zero(t, c.Len())
	require.Zero(t, c.ages.Len())
}

// TestTruth runs a directory and a file at a server against the caches of two
// mounts, with answers and revocations in any order: what a cache knows is true,
// unless a write of its mount has not been answered.
func TestTruth(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	s := &server{names: map[string]uint64{}}
	for i := range s.mounts {
		s.mounts[i] = &mount{Cache: New[int](1000), lease: newLease()}
	}
	for range 200000 {
		m := s.mounts[rnd.IntN(len(s.mounts))]
		s.step(t, m, rnd)
		for _, m := range s.mounts {
			s.check(t, m)
		}
	}
	require.Greater(t, s.known, 50000)
}

const file, dir = 1, 2

// server is the truth, and who has leases on it.
type server struct {
	mounts [2]*mount
	size   int
	names  map[string]uint64
	next   uint64
	change *change // at work; one at a time
	known  int
}

type mount struct {
	*Cache[int]
	lease        lease
	attr, listed bool // the server has given leases
	answers      []func()
	revokes      []func()
	writes       int // that are not answered yet
}

// change is one of a mount that waits for others to answer REVOKE.
type change struct {
	by  *mount
	run func()
}

func (s *server) other(m *mount) *mount {
	if m == s.mounts[0] {
		return s.mounts[1]
	}
	return s.mounts[0]
}

func (s *server) step(t *testing.T, m *mount, rnd *rand.Rand) {
	name := string(rune('a' + rnd.IntN(3)))
	since := m.Now()
	calm := s.change == nil || s.change.by == m
	answer := func(f func()) { m.answers = append(m.answers, f) }
	take := func(list *[]func()) {
		if len(*list) > 0 {
			i := rnd.IntN(len(*list))
			f := (*list)[i]
			*list = append((*list)[:i:i], (*list)[i+1:]...)
			f()
		}
	}
	lease := func(given *bool) Lease {
		if !calm {
			return nil
		}
		*given = true
		return m.lease
	}
	if len(m.answers) > rnd.IntN(6) {
		take(&m.answers)
		return
	}
	switch rnd.IntN(12) {
	case 0:
		size, l := s.size, lease(&m.attr)
		answer(func() { m.PutAttr(file, size, l, since) })
	case 1:
		h, l := s.names[name], lease(&m.listed)
		answer(func() { m.PutEntry(dir, name, Entry{Handle: h}, l, since) })
	case 2:
		var all []Named
		for n, h := range s.names {
			all = append(all, Named{n, Entry{Handle: h}})
		}
		l := lease(&m.listed)
		answer(func() { m.PutList(dir, all, l, since) })
	case 3:
		if s.begin(m, func() {
			s.size = max(s.size, rnd.IntN(100))
			end := s.size
			answer(func() { m.writes--; m.Wrote(file, since, func(a *int) { *a = max(*a, end) }) })
		}, true) {
			m.writes++
		}
	case 4:
		var done func()
		if s.begin(m, func() {
			s.size = rnd.IntN(10)
			size := s.size
			answer(func() { m.SetAttr(file, size, nil, since); done() })
		}, true) {
			done = m.Changing(file)
		}
	case 5, 6:
		var done func()
		if s.begin(m, func() {
			s.next++
			h := s.next
			if s.names[name] != 0 {
				h = 0
			}
			s.names[name] = h
			if h == 0 {
				delete(s.names, name)
			}
			answer(func() { m.SetEntry(dir, name, Entry{Handle: h}, since); done() })
		}, false) {
			done = m.ChangingEntry(dir, name)
		}
	case 7, 8, 9:
		take(&m.answers)
	case 10:
		take(&m.revokes)
	case 11:
		if c := s.change; c != nil && len(s.other(c.by).revokes) == 0 {
			s.change = nil
			c.run()
		}
	}
}

// begin starts a change, of the file or the directory, unless one is at work.
func (s *server) begin(m *mount, run func(), attr bool) bool {
	if s.change != nil {
		return false
	}
	s.change = &change{m, run}
	o := s.other(m)
	switch {
	case attr && o.attr:
		o.attr = false
		o.revokes = append(o.revokes, func() { o.RevokeAttr(file) })
	case !attr && o.listed:
		o.listed = false
		o.revokes = append(o.revokes, func() { o.RevokeEntries(dir) })
	}
	return true
}

func (s *server) check(t *testing.T, m *mount) {
	if size, ok := m.Attr(file); ok && m.writes == 0 {
		s.known++
		require.Equal(t, s.size, size)
	}
	for _, n := range []string{"a", "b", "c"} {
		if e, ok := m.Entry(dir, n); ok {
			s.known++
			require.Equal(t, s.names[n], e.Handle, n)
		}
	}
	if all, ok := m.List(dir); ok {
		require.Len(t, all, len(s.names))
	}
}
