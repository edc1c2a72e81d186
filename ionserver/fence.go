package ionserver

import (
	"context"
	"sync"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// fencing is what a fence is to keep out, and for whom.
type fencing struct {
	handle uint64
	ext    extent.Extent
	flags  uint32 // of fenceFlags
	mount  uint64 // whose leases are not in the way; 0: none's
}

const fenceFlags = uint32(ionpb.Flag_SHARED | ionpb.Flag_CUT)

// fence keeps writes, and unless shared reads, of the extent out until release.
// Of other sessions no leases are left in its way. Unless shared, nothing of
// the extent is known here when it returns, what was written is at the PVFS2
// servers; but what is to be cut off stays until cut.
func (o *owner) fence(c *call, ctx context.Context, x fencing) (release func(), err error) {
	shared := x.flags&uint32(ionpb.Flag_SHARED) != 0
	session := o.srv.sessions.of(x.mount)
	f := o.get(x.handle)
	defer func() {
		if err != nil {
			o.put(f)
		}
	}()
	for {
		if err := c.awaitLeases(ctx, f, x.ext, !shared, session); err != nil {
			return nil, err
		}
		unlock, err := o.lockRange(c, ctx, f, x.ext, !shared)
		if err != nil {
			return nil, err
		}
		if !f.closeTo(x.ext, shared, session) { // somebody was faster
			unlock()
			continue
		}
		if x.flags&fenceFlags == 0 {
			if err := o.writeBack(c, ctx, f, x.ext); err != nil {
				unlock()
				return nil, err
			}
			f.data.Drop(x.ext)
		}
		return sync.OnceFunc(func() {
			if !shared {
				f.data.Grown() // first: what PVFS2 shows no fetch relies on any more, nor on the floor
				f.setFloor(0)
			}
			unlock()
			o.put(f)
		}), nil
	}
}

// cut forgets the bytes behind off, of which the caller holds the fences at all
// owners: at one that has none yet a reader would find the file without them
// and yet longer.
func (o *owner) cut(c *call, ctx context.Context, handle uint64, off int64) error {
	f := o.get(handle)
	defer o.put(f)
	leave, err := f.takeBack(c, ctx) // nothing is on its way any more
	if err != nil {
		return err
	}
	f.setFloor(off) // where PVFS2 will show the end when it has cut the file, and nobody before
	f.data.Discard(extent.ToEnd(off))
	leave()
	return o.cutOff(c, ctx, f, off) // nobody must replay it
}

// awaitLeases waits until no leases of others are in the way of a fence.
func (c *call) awaitLeases(ctx context.Context, f *ownedFile, ext extent.Extent, write bool, session uint64) error {
	for {
		f.mu.Lock()
		conflicts := f.leases.Conflicts(session, []extent.Extent{ext}, write)
		f.mu.Unlock()
		if len(conflicts) == 0 {
			return nil
		}
		if err := c.revoke(ctx, f, ext, conflicts); err != nil {
			return err
		}
	}
}

// closeTo has no access that is at work end with a lease, if a fence changes
// what it saw. It is false if there are leases in the way again. The caller
// holds the range lock.
func (f *ownedFile) closeTo(ext extent.Extent, shared bool, session uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.leases.Conflicts(session, []extent.Extent{ext}, !shared)) > 0 {
		return false
	}
	if !shared {
		f.leases.Touch(ext)
	}
	return true
}

// writeFenced writes within a fence that the caller holds, through to the
// PVFS2 servers.
func (o *owner) writeFenced(w waiter, ctx context.Context, handle uint64, off int64, pieces [][]byte, flags uint32) (int64, error) {
	f := o.get(handle)
	defer o.put(f)
	ext := extent.Extent{Off: off, Len: piecesLen(pieces)}
	return o.writeThrough(w, ctx, f, spread{ext, []extent.Extent{ext}, ext.Len}, pieces, flags)
}
