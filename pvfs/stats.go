package pvfs

import (
	"sync/atomic"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// stats is what Snapshot reports.
type stats struct {
	requests     [wire.MaxOp]atomic.Int64
	bytesRead    atomic.Int64
	bytesWritten atomic.Int64
	retries      atomic.Int64
	connects     atomic.Int64
}

func (s *stats) sent(op wire.Op) { s.requests[op].Add(1) }

// Stats returns what the client has done since it was made or ResetStats was
// last called. Bytes are those of file data moved successfully.
func (c *Client) Stats() Snapshot {
	s := Snapshot{
		Requests:     map[string]int64{},
		BytesRead:    c.stats.bytesRead.Load(),
		BytesWritten: c.stats.bytesWritten.Load(),
		Retries:      c.stats.retries.Load(),
		Connects:     c.stats.connects.Load(),
	}
	for op := range c.stats.requests {
		if n := c.stats.requests[op].Load(); n > 0 {
			s.Requests[wire.Op(op).String()] = n
		}
	}
	return s
}

// ResetStats starts counting anew.
func (c *Client) ResetStats() {
	for op := range c.stats.requests {
		c.stats.requests[op].Store(0)
	}
	c.stats.bytesRead.Store(0)
	c.stats.bytesWritten.Store(0)
	c.stats.retries.Store(0)
	c.stats.connects.Store(0)
}
