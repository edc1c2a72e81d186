package pvfsd

import (
	"sync/atomic"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// stats counts since the start of the server.
type stats struct {
	requests     [wire.MaxOp]atomic.Int64
	protoErrors  atomic.Int64
	bytesRead    atomic.Int64
	bytesWritten atomic.Int64
	connections  atomic.Int64 // open now
}

func (st *stats) count(op wire.Op) {
	if op >= 0 && op < wire.MaxOp {
		st.requests[op].Add(1)
	}
}

// Snapshot is what a server counted since it started.
type Snapshot struct {
	Requests     map[string]int64 `json:"requests"`     // by operation, those that came at all
	ProtoErrors  int64            `json:"proto_errors"` // requests that did not decode
	BytesRead    int64            `json:"bytes_read"`
	BytesWritten int64            `json:"bytes_written"`
	Connections  int64            `json:"connections"` // open now
}

// Snapshot reads the counters.
func (s *Server) Snapshot() Snapshot {
	snap := Snapshot{
		Requests:     make(map[string]int64),
		ProtoErrors:  s.stats.protoErrors.Load(),
		BytesRead:    s.stats.bytesRead.Load(),
		BytesWritten: s.stats.bytesWritten.Load(),
		Connections:  s.stats.connections.Load(),
	}
	for op := range s.stats.requests {
		if n := s.stats.requests[op].Load(); n > 0 {
			snap.Requests[wire.Op(op).String()] = n
		}
	}
	return snap
}
