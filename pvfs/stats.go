package pvfs

import (
	"context"
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

// Account counts what a client does on behalf of somebody. The zero value is
// ready and safe for concurrent use.
type Account struct {
	stats stats
	under *Account
}

// UnderAccount returns ctx for calls that are also counted on part, and what is
// counted there on what ctx is counted on already.
func UnderAccount(ctx context.Context, part *Account) context.Context {
	part.under = accountOf(ctx)
	return WithAccount(ctx, part)
}

// Snapshot is what was counted on a. Retries and Connects are nobody's.
func (a *Account) Snapshot() Snapshot { return a.stats.snapshot() }

type accountKey struct{}

// WithAccount returns ctx for calls that are also counted on a.
func WithAccount(ctx context.Context, a *Account) context.Context {
	return context.WithValue(ctx, accountKey{}, a)
}

// accountOf is where calls under ctx are counted besides; nil: nowhere.
func accountOf(ctx context.Context) *Account {
	a, _ := ctx.Value(accountKey{}).(*Account)
	return a
}

func (a *Account) sent(op wire.Op) {
	for ; a != nil; a = a.under {
		a.stats.sent(op)
	}
}

// Requests is how many requests were counted on a.
func (a *Account) Requests() (n int) {
	for i := range a.stats.requests {
		n += int(a.stats.requests[i].Load())
	}
	return n
}

// moved counts bytes of file data, under ctx.
func (c *Client) moved(ctx context.Context, dir wire.IOType, n int64) {
	c.stats.moved(dir, n)
	for a := accountOf(ctx); a != nil; a = a.under {
		a.stats.moved(dir, n)
	}
}

// moved counts bytes of file data.
func (s *stats) moved(dir wire.IOType, n int64) {
	if dir == wire.IORead {
		s.bytesRead.Add(n)
		return
	}
	s.bytesWritten.Add(n)
}

// Stats returns what the client has done since it was made or ResetStats was
// last called. Bytes are those of file data moved successfully.
func (c *Client) Stats() Snapshot { return c.stats.snapshot() }

func (s *stats) snapshot() Snapshot {
	out := Snapshot{
		Requests:     map[string]int64{},
		BytesRead:    s.bytesRead.Load(),
		BytesWritten: s.bytesWritten.Load(),
		Retries:      s.retries.Load(),
		Connects:     s.connects.Load(),
	}
	for op := range s.requests {
		if n := s.requests[op].Load(); n > 0 {
			out.Requests[wire.Op(op).String()] = n
		}
	}
	return out
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
