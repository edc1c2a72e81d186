package ionserver

import (
	"maps"
	"slices"
)

// unstable is which sessions keep bytes that they wrote to a file, in case this
// node loses them before they are at the PVFS2 servers. It is pure.
//
// What one mount wrote may have been written over by another one. So long as
// any mount would replay the older bytes, the newer ones must be kept too.
// Where several sessions keep bytes, all are therefore told first that a part
// is stable, and only then that they may drop it: one that knows the former
// does not replay for the sake of its own bytes, see replayed.
type unstable struct {
	last map[uint64]int64 // by session: the stamp of its last write that it keeps
}

func (u *unstable) add(session uint64, stamp int64) {
	if u.last == nil {
		u.last = make(map[uint64]int64)
	}
	u.last[session] = stamp
}

func (u *unstable) none() bool { return len(u.last) == 0 }

// sessions that keep bytes written up to stamp, or later ones, in order.
func (u *unstable) sessions() []uint64 { return slices.Sorted(maps.Keys(u.last)) }

// dropped takes note that a session keeps nothing that was written up to stamp.
func (u *unstable) dropped(session uint64, stamp int64) {
	if u.last[session] <= stamp {
		delete(u.last, session)
	}
}

// end takes note of the end of a session.
func (u *unstable) end(session uint64) { delete(u.last, session) }
