package ionclient

import (
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// maxMade is how many of the inodes that it has made last a mount remembers.
const maxMade = 1 << 16

// made is the inodes that calls of this mount have made, and that they were told
// so. An I/O node asks for one that a call in doubt may have made: that of another
// call it has not. The zero value is ready.
type made struct {
	mu    sync.Mutex
	known map[uint64]struct{} // guarded by mu
	order []uint64            // guarded by mu; a ring, once it is full
	next  int                 // guarded by mu; where the oldest is then
}

func (m *made) add(h uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.known[h]; ok {
		return
	}
	if m.known == nil {
		m.known = make(map[uint64]struct{})
	}
	if len(m.order) < maxMade {
		m.order = append(m.order, h)
	} else {
		delete(m.known, m.order[m.next])
		m.order[m.next] = h
		m.next = (m.next + 1) % maxMade
	}
	m.known[h] = struct{}{}
}

func (m *made) has(h uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.known[h]
	return ok
}

// note takes note of a successful answer to a request that makes a name.
func (m *made) note(op ionpb.Op, reply *rpc.Frame) {
	if !makesName(op) {
		return
	}
	var e ionpb.EntryResp
	if reply.Decode(&e) == nil && e.Created {
		m.add(e.Handle)
	}
}

// answer answers MADE.
func (m *made) answer(h uint64) proto.Message { return &ionpb.MadeResp{Made: m.has(h)} }
