package holder

import (
	"time"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// mode is the consistency mode of a Handle, never Default.
type mode consistency.Mode

const (
	strong    = mode(consistency.Strong)
	commit    = mode(consistency.Commit)
	session   = mode(consistency.Session)
	eventual  = mode(consistency.Eventual)
	laminated = mode(consistency.Laminated)
)

// right is on what grounds clean bytes in the cache may answer a read.
type right uint8

const (
	byLease   right = iota // nobody else has written since: LEASE_DATA is held
	byAcquire              // they were fetched after the last open or lock
	byAge                  // they were fetched not longer ago than a share of the visibility
)

// right returns that of a handle. One that may write never takes less than a
// lease: what it reads it may write back, and the bytes that it was not asked
// to change must not be old.
func (m mode) right(mayWrite bool) right {
	switch {
	case mayWrite:
		return byLease
	case m == session:
		return byAcquire
	case m == eventual:
		return byAge
	}
	return byLease
}

// usable reports whether clean bytes may be used now: leased tells whether the
// domain is under LEASE_DATA, age how long ago the oldest were fetched.
func (r right) usable(leased bool, age, visibility time.Duration) bool {
	switch r {
	case byAcquire:
		return true
	case byAge:
		return age < share(visibility)
	}
	return leased
}

// share is the part of the visibility for which a writer keeps bytes that it has
// not published, and for which a reader uses what it has fetched. Of the quarter
// that is left, half may pass until Run looks; the rest is for requests.
func share(visibility time.Duration) time.Duration { return visibility / 8 * 3 }

// asks is the leases that a READ asks for.
func (r right) asks() uint32 {
	if r == byLease {
		return ionclient.LeaseData
	}
	return 0
}

// keepsBack reports whether a write may return before it is published;
// exclusive tells whether its domain is under LEASE_WRITE.
func (m mode) keepsBack(exclusive bool) bool { return m != strong || exclusive }

// asksToWrite is the leases that the WRITE of a handle's bytes asks for.
func (m mode) asksToWrite() uint32 {
	switch m {
	case strong:
		return ionclient.LeaseWrite | ionclient.LeaseData | ionclient.LeasePieces
	case commit, laminated:
		return ionclient.LeaseData
	}
	return 0
}

// recalls reports whether a read must first have other nodes publish what they
// hold of the range, unless they surely hold nothing.
func (m mode) recalls(mayWrite bool) bool { return m != strong && mayWrite }

// holds reports whether the home must know of unpublished bytes. In strong it
// need not: LEASE_WRITE says the same.
func (m mode) holds() bool { return m != strong }

// revalidates reports whether an open must not go on with what was cached of
// another version; sealed tells that the file is sealed.
func (m mode) revalidates(sealed bool) bool {
	return m == session || m == eventual || m == laminated && sealed
}

// maxAge is how long unpublished bytes may stay so with nobody asking for them.
func (m mode) maxAge(visibility time.Duration) time.Duration {
	if m == eventual {
		return min(share(visibility), writeBackAge)
	}
	return writeBackAge
}

// writeBackAge is how old unpublished bytes get. No mode demands it; what is
// written should not stay on a node that may die.
const writeBackAge = 5 * time.Second
