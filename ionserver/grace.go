package ionserver

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// grace is the time after a restart in which the mounts that this node had
// before open, lock and write again what it has forgotten; under a new view, the
// mounts that any node of the view before had, as inodes and domains may have
// come from each of them. Meanwhile nobody is told what this node may not know:
// other requests wait. It ends when all of them have said that they are done, and the
// other I/O nodes that can be reached what they owe this home, or with the lease that
// the mounts would have had.
type grace struct {
	end  time.Time     // immutable once serving
	over chan struct{} // closed at the end, or before end by the last mount

	mu       sync.Mutex
	expected map[uint64]trace // guarded by mu; sessions of earlier lives
	peers    map[int]bool     // guarded by mu; to be asked yet
	ended    bool             // guarded by mu; over is closed
}

// trace is what is known of a session of an earlier life.
type trace struct {
	mount  uint64
	before bool // of the view before, with whichever node
}

func newGrace() *grace {
	return &grace{over: make(chan struct{}), expected: make(map[uint64]trace), peers: make(map[int]bool)}
}

// expect adds a session of an earlier life, before anything is served.
func (g *grace) expect(session uint64, t trace) { g.expected[session] = t }

// begin says when it ends at the latest, and which peers are to be asked before. Without
// sessions to wait for it is over at once: no mount has had anything here.
func (g *grace) begin(end time.Time, peers []int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.end = end
	for _, at := range peers {
		if len(g.expected) > 0 {
			g.peers[at] = true
		}
	}
	g.checkLocked()
}

// asked takes note that a peer has told what it owes, or cannot be reached.
func (g *grace) asked(peer int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.peers, peer)
	g.checkLocked()
}

func (g *grace) checkLocked() {
	if len(g.expected)+len(g.peers) == 0 && !g.ended {
		g.ended = true
		close(g.over)
	}
}

// of is the earlier sessions of a mount that are waited for. If this node died
// within a grace, there are several.
func (g *grace) of(mount uint64) (sessions []uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, t := range g.expected {
		if t.mount == mount && !g.ended {
			sessions = append(sessions, id)
		}
	}
	slices.Sort(sessions)
	return sessions
}

// done takes note that a mount has nothing more to say; with before false, that
// it may have nothing to say but of the view before.
func (g *grace) done(mount uint64, before bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.expected, func(_ uint64, t trace) bool { return t.mount == mount && (before || !t.before) })
	g.checkLocked()
}

func (g *grace) in(now time.Time) bool {
	select {
	case <-g.over:
		return false
	default:
		return now.Before(g.end)
	}
}

// wait returns when the grace is over.
func (g *grace) wait(ctx context.Context) error {
	t := time.NewTimer(time.Until(g.end))
	defer t.Stop()
	select {
	case <-g.over:
		return nil
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// inGrace reports whether mounts may still be reclaiming.
func (s *Server) inGrace(now time.Time) bool { return s.grace.in(now) }

// awaitGrace waits until no mount reclaims any more.
func (s *Server) awaitGrace(ctx context.Context) error { return s.grace.wait(ctx) }

// waitsForGrace reports whether the call would tell, or change, what mounts may
// be about to reclaim.
func (c *call) waitsForGrace() bool {
	switch c.Op {
	case ionpb.Op_REPLAY, ionpb.Op_CLOSE, ionpb.Op_HOLD, ionpb.Op_STATFS, ionpb.Op_LOCK,
		ionpb.Op_ANNOUNCE, ionpb.Op_UNFENCE, ionpb.Op_NAME_LOCK, ionpb.Op_NAME_UNLOCK, ionpb.Op_FORGET, ionpb.Op_ORPHAN,
		ionpb.Op_ADOPT, ionpb.Op_OWED, ionpb.Op_TIMES:
		return false
	case ionpb.Op_WRITE:
		return c.Flags&uint32(ionpb.Flag_RECALLED) == 0
	case ionpb.Op_APPEND:
		return c.Flags&uint32(ionpb.Flag_PLACED) == 0
	case ionpb.Op_OPEN:
		var m ionpb.OpenReq
		return c.Decode(&m) == nil && m.Reclaim == 0
	}
	return true
}
