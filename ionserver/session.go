package ionserver

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// maxSessions bounds the mounts of one I/O node; beyond: EUSERS.
const maxSessions = 1 << 16

// session is one mount's life on this I/O node. It outlives connections, and
// ends by BYE or when nothing was heard for the lease.
type session struct {
	id         uint64
	mount      uint64 // the same at every I/O node; never 0
	name       string // of the host
	mountpoint string
	pid        uint32
	addr       string
	life       context.Context // ends with the session
	endLife    context.CancelFunc

	trace  sync.Once // leaves the trace of the session, see recordSession
	traced bool      // set by trace

	mu       sync.Mutex
	heard    time.Time                             // guarded by mu; last sign of life
	dead     bool                                  // guarded by mu; never false again
	streams  map[*stream]struct{}                  // guarded by mu
	control  *stream                               // guarded by mu; the latest, perhaps ended
	bound    chan struct{}                         // guarded by mu; closed when control changes or the session dies
	replies  *replyTable[*rpc.Request, *rpc.Frame] // guarded by mu
	running  int                                   // guarded by mu; recorded requests at work
	idle     chan struct{}                         // guarded by mu; closed when dead and running is 0
	requests uint64                                // guarded by mu
}

// sessionTable is the sessions of one I/O node. A dead one stays until what it
// had running has ended, so that its mount does not repeat a request, under a
// new session, beside the first try.
type sessionTable struct {
	lease time.Duration

	mu   sync.Mutex
	live map[uint64]*session // guarded by mu
	ids  map[uint64]uint64   // guarded by mu; of the live sessions, by mount; of several the last one
	dead map[uint64]*session // guarded by mu
}

func newSessionTable(lease time.Duration) *sessionTable {
	return &sessionTable{lease: lease, live: make(map[uint64]*session), ids: make(map[uint64]uint64), dead: make(map[uint64]*session)}
}

// open makes a new session, or returns nil when there are too many.
func (t *sessionTable) open(m *ionpb.HelloReq, addr string) *session {
	s := &session{
		mount: m.Mount, name: m.Name, mountpoint: m.Mountpoint, pid: m.Pid, addr: addr,
		heard: time.Now(), idle: make(chan struct{}), bound: make(chan struct{}),
		streams: make(map[*stream]struct{}),
		replies: newReplyTable[*rpc.Request, *rpc.Frame](maxReplies),
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.live) >= maxSessions {
		return nil
	}
	for s.id == 0 || t.live[s.id] != nil || t.dead[s.id] != nil {
		s.id = rand.Uint64()
	}
	if s.mount == 0 {
		s.mount = cmp.Or(m.Session, s.id)
	}
	s.life, s.endLife = context.WithCancel(context.Background())
	t.live[s.id], t.ids[s.mount] = s, s.id
	return s
}

// get returns the live session with this id, or nil.
func (t *sessionTable) get(id uint64) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.live[id]
}

// of is the id of the session of a mount here, or 0.
func (t *sessionTable) of(mount uint64) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ids[mount]
}

// settle waits until nothing of a dead session is at work.
func (t *sessionTable) settle(ctx context.Context, id uint64) error {
	t.mu.Lock()
	s := t.dead[id]
	t.mu.Unlock()
	if s == nil {
		return nil
	}
	select {
	case <-s.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// kill ends s and reports whether it lived. Its streams are disconnected.
func (t *sessionTable) kill(s *session) bool {
	t.mu.Lock()
	lived := t.live[s.id] == s
	if lived {
		delete(t.live, s.id)
		if t.ids[s.mount] == s.id {
			delete(t.ids, s.mount)
		}
		t.dead[s.id] = s
	}
	t.mu.Unlock()
	if !lived {
		return false
	}
	s.mu.Lock()
	s.dead = true
	s.endLife()
	close(s.bound)
	streams := slices.Collect(maps.Keys(s.streams))
	if s.running == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	for _, st := range streams {
		st.cancel()
	}
	return true
}

// expired returns the sessions that were silent for the lease at this time, and
// in what time the next one can have been. It forgets the dead ones that have
// settled.
func (t *sessionTable) expired(now time.Time) (out []*session, next time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next = t.lease
	for _, id := range slices.Sorted(maps.Keys(t.live)) {
		s := t.live[id]
		if left := t.lease - s.silent(now); left > 0 {
			next = min(next, left)
		} else {
			out = append(out, s)
		}
	}
	for id, s := range t.dead {
		select {
		case <-s.idle:
			delete(t.dead, id)
		default:
		}
	}
	return out, next
}

func (t *sessionTable) all() []*session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Values(t.live))
}

func (s *session) silent(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Sub(s.heard)
}

// begin takes note of a request and says what to do with it; with runIt, end
// follows. alive is false when the session has ended. Requests that are not
// recorded are always to be run.
func (s *session) begin(r *rpc.Request, now time.Time) (v verdict, answer *rpc.Frame, alive bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return refuseIt, nil, false
	}
	s.heard = now
	s.requests++
	if !r.Op.Recorded() {
		s.replies.Ack(r.Acked)
		return runIt, nil, true
	}
	v, answer = s.replies.Begin(r.ID, r.Acked, r)
	if v == runIt {
		s.running++
	}
	return v, answer, true
}

// end keeps the answer of a recorded request and returns where to send it.
func (s *session) end(id uint64, answer *rpc.Frame) []*rpc.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	if s.dead && s.running == 0 {
		close(s.idle)
	}
	return s.replies.Finish(id, answer)
}

// bind makes st a stream of s, unless s is dead. A new control connection
// takes the place of older ones, which are returned to be disconnected.
func (s *session) bind(st *stream, data bool) (old []*stream, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return nil, false
	}
	s.heard = time.Now()
	if !data {
		for o := range s.streams {
			if !o.data {
				old = append(old, o)
			}
		}
		s.control = st
		close(s.bound)
		s.bound = make(chan struct{})
	}
	s.streams[st] = struct{}{}
	return old, true
}

func (s *session) unbind(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st)
}
