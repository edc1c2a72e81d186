package ionclient

import "time"

// surePart is the part of a lease during which a session surely lives, whatever
// the two clocks make of a second.
const surePart = 0.8

// surety is how long a session surely lives.
type surety struct {
	id    uint64        // session.id that it is about
	until time.Duration // since Client.began
}

// Tenure is what leases hang on: one life of a session under one view. What an
// I/O node gives ends with it. The zero value has ended. Tenures can be compared.
type Tenure struct {
	s         *session
	id, epoch uint64
}

// Session is the id of the session, 0 of the zero value.
func (t Tenure) Session() uint64 { return t.id }

// Lives reports whether this mount has heard of neither another life of the
// session nor another view.
func (t Tenure) Lives() bool {
	return t.s != nil && t.s.c.View().Epoch == t.epoch && t.s.lastID() == t.id
}

// Valid reports whether the tenure surely goes on: the I/O node has not given
// to others what it gave to this mount.
func (t Tenure) Valid() bool {
	if t.s == nil {
		return false
	}
	sure := t.s.sure.Load()
	return sure != nil && sure.id == t.id && time.Since(t.s.c.began) < sure.until && t.s.c.View().Epoch == t.epoch
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
	s.sure.Store(&surety{l.id, sent + time.Duration(surePart*float64(l.lease))})
}
