package ionserver

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// view is the set of I/O nodes that serve one file system, and under which
// epoch. Two I/O nodes with the same view agree on every home and owner.
type view struct {
	epoch      uint64
	members    []string // in the order of the configuration
	domainSize int64    // bytes
}

// viewOf is the view of a message, the zero one of nil.
func viewOf(m *ionpb.View) view { return view{m.GetEpoch(), m.GetMembers(), m.GetDomainSize()} }

// sameNodes reports whether v and w place every byte alike.
func (v view) sameNodes(w view) bool {
	a, b := slices.Sorted(slices.Values(v.members)), slices.Sorted(slices.Values(w.members))
	return v.domainSize == w.domainSize && slices.Equal(a, b)
}

// maxViewText is the longest symbolic link that every PVFS2 server stores.
const maxViewText = 4000

// String is the view as stored in PVFS2: epoch, domain size and members.
func (v view) String() string {
	return fmt.Sprintf("%d %d %s", v.epoch, v.domainSize, strings.Join(v.members, ","))
}

// parseView reads what String wrote.
func parseView(s string) (view, error) {
	f := strings.Fields(s)
	if len(f) != 3 {
		return view{}, fmt.Errorf("view %q does not have three fields", s)
	}
	epoch, err1 := strconv.ParseUint(f[0], 10, 64)
	size, err2 := strconv.ParseInt(f[1], 10, 64)
	if err := cmp.Or(err1, err2); err != nil {
		return view{}, fmt.Errorf("view %q: %w", s, err)
	}
	return view{epoch, strings.Split(f[2], ","), size}, nil
}

// validate reports what is wrong with the node's own list.
func (v view) validate(self string) error {
	switch {
	case !slices.Contains(v.members, self):
		return fmt.Errorf("own address %s is not among the peers %v", self, v.members)
	case v.domainSize <= 0:
		return fmt.Errorf("domain size %d is not positive", v.domainSize)
	case len(v.String()) > maxViewText:
		return errors.New("the peer list is too long")
	}
	for i, m := range v.members {
		if m == "" || strings.ContainsAny(m, " ,\t\n/") {
			return fmt.Errorf("peer address %q is malformed", m)
		}
		if slices.Contains(v.members[:i], m) {
			return fmt.Errorf("peer %s is listed twice", m)
		}
	}
	return nil
}

// viewStep is what an I/O node that starts does next about the view.
type viewStep int

const (
	viewServe  viewStep = iota // the settled view is ours: serve under its epoch
	viewSettle                 // the newest claim is ours: wait until older views have ended, publish
	viewClaim                  // claim the next epoch for our list
)

// decideView is taken with the settled view (epoch 0 if there is none), the
// newest claim (epoch 0 if none is newer than the settled view) and our list.
//
//	newest claim   settled view   step
//	ours           any            settle; nothing to wait for with epoch 1
//	another's      any            claim the epoch after it
//	none           ours           serve
//	none           another's      claim the epoch after it
//	none           none           claim epoch 1
func decideView(settled, claim, ours view) (step viewStep, epoch uint64) {
	switch {
	case claim.epoch > settled.epoch && claim.sameNodes(ours):
		return viewSettle, claim.epoch
	case claim.epoch > settled.epoch:
		return viewClaim, claim.epoch + 1
	case settled.epoch > 0 && settled.sameNodes(ours):
		return viewServe, settled.epoch
	}
	return viewClaim, settled.epoch + 1
}

// viewGuard tells whether this I/O node may serve. Having seen that no newer
// epoch is claimed it may for a while; it must look again before that has
// passed. Whoever claims a newer epoch waits longer than that while, so views
// never overlap. A refusal is final.
type viewGuard struct {
	lasting time.Duration // how long one look is good for

	mu      sync.Mutex
	until   time.Time     // guarded by mu; may serve before it
	refused error         // guarded by mu; set once
	next    chan struct{} // guarded by mu; closed at the next change
}

func newViewGuard(lasting time.Duration) *viewGuard {
	return &viewGuard{lasting: lasting, next: make(chan struct{})}
}

// Seen records that a look which began at the given time found no newer epoch.
func (g *viewGuard) Seen(began time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := began.Add(g.lasting); g.refused == nil && t.After(g.until) {
		g.until = t
		close(g.next)
		g.next = make(chan struct{})
	}
}

// Refuse ends the service for good. The first reason stays.
func (g *viewGuard) Refuse(reason error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refused == nil {
		g.refused = errno.Wrap("ionserver.view", syscall.ESTALE, reason)
		close(g.next)
		g.next = make(chan struct{})
	}
}

// May reports whether a request may be served at this time: err says why it
// never will; else, if not ok, the caller tries again when changed is closed.
func (g *viewGuard) May(now time.Time) (ok bool, changed <-chan struct{}, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refused != nil {
		return false, nil, g.refused
	}
	return now.Before(g.until), g.next, nil
}
