package ionserver

import (
	"context"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// checkOwner refuses an extent that this node does not own whole.
func (c *call) checkOwner(ext extent.Extent) error {
	p := c.srv.placement
	size := p.DomainSize()
	switch {
	case p.Owner(c.Handle, ext.Off) != c.srv.self:
		return errStaleView
	case !ext.Empty() && ext.Off/size != (ext.End()-1)/size:
		return errno.New("ionserver: extent crosses a file domain", syscall.EINVAL)
	}
	return nil
}

// enter begins an access of a mount, when no lease of another one is in its
// way. leave must follow if it succeeds.
func (c *call) enter(f *ownedFile, ext extent.Extent, write bool) (access, error) {
	for {
		f.mu.Lock()
		conflicts := f.leases.Conflicts(c.sess.id, ext, write)
		if len(conflicts) == 0 {
			a := f.leases.Begin(c.sess.id, ext, write)
			f.mu.Unlock()
			return a, nil
		}
		f.mu.Unlock()
		if err := c.revoke(c.ctx, f, ext, conflicts); err != nil {
			return access{}, err
		}
	}
}

// leave ends an access and says in reply, if it succeeded, which of the leases
// that were asked for the mount has now.
func (c *call) leave(f *ownedFile, a access, reply *rpc.Frame) {
	want := uint32(0)
	if reply != nil && !c.srv.inGrace(time.Now()) {
		want = c.Flags & (leaseRead | leaseWrite)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.sess.isDead() {
		want = 0
	}
	if given := f.leases.End(a, want, time.Now()); reply != nil {
		reply.Flags |= given
	}
}

// lockRange takes the range lock of ext, without a worker if it has to wait.
func (c *call) lockRange(ctx context.Context, f *ownedFile, ext extent.Extent, exclusive bool) (release func(), err error) {
	if release, err = f.ranges.Lock(c.srv.ended, ext, exclusive); err == nil {
		return release, nil
	}
	err = c.wait(func() error {
		release, err = f.ranges.Lock(ctx, ext, exclusive)
		return err
	})
	return release, err
}

// reach is the end of the bytes here that PVFS2 may not show.
func (f *ownedFile) reach() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reachLocked()
}

func (f *ownedFile) reachLocked() int64 {
	_, end, _ := f.data.Dirty()
	return max(end, f.floor)
}

func (f *ownedFile) setFloor(at int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.floor = at
}
