package rpc

import (
	"sync/atomic"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// maxOp bounds the operation numbers that are counted apart.
const maxOp = 128

// Counters counts requests by operation and the bytes of frames. The zero
// value is ready and safe for concurrent use.
type Counters struct {
	requests       [maxOp]atomic.Uint64
	sent, received atomic.Uint64
}

// Snapshot is what was counted since the start or the last Reset.
type Snapshot struct {
	Requests      map[string]uint64 // by ionpb.Op.Key; only operations that occurred
	BytesSent     uint64            // of bodies and data, without headers
	BytesReceived uint64
}

// Snapshot reads the counters, each by itself.
func (c *Counters) Snapshot() Snapshot {
	s := Snapshot{Requests: make(map[string]uint64), BytesSent: c.sent.Load(), BytesReceived: c.received.Load()}
	for op := range c.requests {
		if n := c.requests[op].Load(); n > 0 {
			s.Requests[ionpb.Op(op).Key()] = n
		}
	}
	return s
}

// Reset starts counting anew.
func (c *Counters) Reset() {
	for i := range c.requests {
		c.requests[i].Store(0)
	}
	c.sent.Store(0)
	c.received.Store(0)
}

func (c *Counters) request(op ionpb.Op) {
	if op < 0 || op >= maxOp {
		op = ionpb.Op_INVALID
	}
	c.requests[op].Add(1)
}

// Asked counts a request that is sent apart from any Conn or Peer, with so many
// bytes of body and data. A nil c counts nothing.
func (c *Counters) Asked(op ionpb.Op, bytes int64) {
	if c != nil {
		c.request(op)
		c.sent.Add(uint64(bytes))
	}
}

// Answered counts a reply likewise.
func (c *Counters) Answered(f *Frame) {
	if c != nil {
		c.receive(f)
	}
}

// Sent counts what a reply carries, on the side that sends it.
func (c *Counters) Sent(f *Frame) {
	if c != nil {
		c.send(f)
	}
}

func (c *Counters) send(f *Frame) { c.sent.Add(uint64(len(f.Body) + f.Data.Len())) }

func (c *Counters) receive(f *Frame) { c.received.Add(uint64(len(f.Body) + f.Data.Len())) }
