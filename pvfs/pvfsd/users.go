package pvfsd

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// maxUsers is how many users are remembered: those seen last. Clients have room
// for no more. Source: OrangeFS src/common/misc/pint-uid-mgmt.h.
const maxUsers = 25

// users remembers who made requests. The zero value is ready for use.
type users struct {
	mu    sync.Mutex
	byUID map[uint32]*user // guarded by mu; at most maxUsers
}

type user struct {
	count       uint64 // requests
	first, last time.Time
}

// saw notes a request of a user.
func (u *users) saw(uid uint32, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if who := u.byUID[uid]; who != nil {
		who.count++
		who.last = now
		return
	}
	if u.byUID == nil {
		u.byUID = make(map[uint32]*user)
	}
	if len(u.byUID) == maxUsers {
		u.dropLocked()
	}
	u.byUID[uid] = &user{count: 1, first: now, last: now}
}

// dropLocked forgets the user who was seen longest ago.
func (u *users) dropLocked() {
	var oldest uint32
	var at time.Time
	for uid, who := range u.byUID {
		if at.IsZero() || who.last.Before(at) {
			oldest, at = uid, who.last
		}
	}
	delete(u.byUID, oldest)
}

// since lists the users seen after a time, the latest first.
func (u *users) since(t time.Time) []wire.UIDUse {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []wire.UIDUse
	for uid, who := range u.byUID {
		if who.last.Before(t) {
			continue
		}
		out = append(out, wire.UIDUse{
			UID: uid, Count: who.count,
			FirstSec: uint64(who.first.Unix()), FirstUs: uint32(who.first.Nanosecond() / 1000),
			LastSec: uint64(who.last.Unix()), LastUs: uint32(who.last.Nanosecond() / 1000),
		})
	}
	slices.SortFunc(out, func(a, b wire.UIDUse) int {
		return cmp.Or(cmp.Compare(b.LastSec, a.LastSec), cmp.Compare(b.LastUs, a.LastUs), cmp.Compare(a.UID, b.UID))
	})
	return out
}

// getUID tells who made requests in the last req.History seconds.
func (s *Server) getUID(req *wire.GetUIDReq) *wire.GetUIDResp {
	return &wire.GetUIDResp{Uses: s.users.since(s.clock().Add(-time.Duration(req.History) * time.Second))}
}
