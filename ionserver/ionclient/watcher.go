package ionclient

import (
	"context"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// Watcher is who keeps attributes and directory entries on this node, and has
// files open under leases. Its methods return at once; they may be called at any
// time, several at once.
type Watcher interface {
	// Revoke gives up leases on h: LeaseAttr, LeaseEntries. When it returns,
	// nothing that was kept under them is used any more. open tells the home to
	// count an open of h, until a Closing with Told.
	Revoke(h uint64, leases uint32) (open bool)
	// Opens reports whether files that want picks are open that their homes have
	// not counted, apart from what Revoke has told.
	Opens(want func(h uint64) bool) bool
	// Count lists these files, which are counted from now on as by one Open, as
	// is what Revoke has told.
	Count(want func(h uint64) bool) []uint64
	// Writing tells that a write to h is about to be sent. What it returns is
	// called once, when the write has been answered: bytes up to end were
	// written at a time in ns. At 0 it is not known what was done, and with
	// lost not even whether it will still be.
	Writing(h uint64) func(end, at int64, lost bool)
}

// Leases of homes.
const (
	LeaseAttr    = uint32(ionpb.Flag_LEASE_ATTR)
	LeaseEntries = uint32(ionpb.Flag_LEASE_ENTRIES)
	homeLeases   = LeaseAttr | LeaseEntries
)

// SetWatcher tells who keeps attributes and entries. From then on leases on
// them are asked for. It must be called before anything is asked for; once.
func (c *Client) SetWatcher(w Watcher) { c.watcher.Store(&w) }

// wants is the leases to ask a home for.
func (c *Client) wants() uint32 {
	if c.watcher.Load() == nil {
		return 0
	}
	return homeLeases
}

func (c *Client) revoked(h uint64, leases uint32) (open bool) {
	w := c.watcher.Load()
	return w != nil && leases != 0 && (*w).Revoke(h, leases)
}

// opensUnder reports whether files are open under leases of homes that want picks.
func (c *Client) opensUnder(want func(h uint64) bool) bool {
	w := c.watcher.Load()
	return w != nil && (*w).Opens(want)
}

// countOpens turns what is open under leases into opens to be claimed.
func (c *Client) countOpens(want func(h uint64) bool) {
	w := c.watcher.Load()
	if w == nil {
		return
	}
	added := (*w).Count(want)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range added {
		c.openedLocked(h)
	}
}

func (c *Client) writing(h uint64) func(end, at int64, lost bool) {
	if w := c.watcher.Load(); w != nil {
		return (*w).Writing(h)
	}
	return func(int64, int64, bool) {}
}

// Outlive runs f, which changes something and must know its end, to that end,
// whatever becomes of ctx. If ctx ends first, orphaned gets the result of f.
func Outlive[T any](ctx context.Context, c *Client, f func(context.Context) (T, error), orphaned func(context.Context, T, error)) (T, error) {
	return outlive(ctx, c, f, orphaned)
}
