package ionclient

import "time"

// surePart is the part of a lease during which a session surely lives, whatever
// the two clocks make of a second.
const surePart = 0.8

// surety is how long a session surely lives.
type surety struct {
	fresh uint64        // session.fresh that it is about
	until time.Duration // since Client.began
}

// Tenure is what leases hang on: one life of a session under one view. What an
// I/O node gives ends with it. The zero value has ended. Tenures can be compared.
type Tenure struct {
	s            *session
	fresh, epoch uint64
}

// Addr is the address of the I/O node.
func (t Tenure) Addr() string { return t.s.addr }

// Valid reports whether the tenure surely goes on: the I/O node has not given
// to others what it gave to this mount.
func (t Tenure) Valid() bool {
	if t.s == nil {
		return false
	}
	sure := t.s.sure.Load()
	return sure != nil && sure.fresh == t.fresh && time.Since(t.s.c.began) < sure.until && t.s.c.View().Epoch == t.epoch
}

// LeaseOK reports whether what the owner of the domain of off has leased to
// this mount in its present session is surely not given to others. The home of
// h is the owner of offset 0.
func (c *Client) LeaseOK(h uint64, off int64) bool {
	p := c.current.Load()
	s := owner(h, off).session(p)
	sure := s.sure.Load()
	return sure != nil && time.Since(c.began) < sure.until
}

// renewed notes that the I/O node has answered, over l, what was sent at that
// time since Client.began.
func (s *session) renewed(l *link, sent time.Duration) {
	s.sure.Store(&surety{l.fresh, sent + time.Duration(surePart*float64(l.lease))})
}
