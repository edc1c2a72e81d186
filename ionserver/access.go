package ionserver

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
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

// enter begins an access of a mount to s, when no lease of another one is in its
// way. A read is one of what lies between the pieces, too: whether there is
// anything tells what is a hole. leave must follow if it succeeds.
func (c *call) enter(f *ownedFile, s spread, write bool) (access, error) {
	ext, exts := s.hull, s.exts
	if !write {
		exts = []extent.Extent{ext}
	}
	for {
		f.mu.Lock()
		conflicts := f.leases.Conflicts(c.sess.id, exts, write)
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
// that were asked for the mount has now; wanted is which pieces.
func (c *call) leave(f *ownedFile, a access, wanted []extent.Extent, reply *rpc.Frame) {
	want := uint32(0)
	if reply != nil && !c.srv.opt.NoDataLeases && !c.srv.inGrace(time.Now()) {
		want = c.Flags & dataLeases
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.sess.isDead() {
		want = 0
	}
	if given := f.leases.End(a, want, wanted, time.Now()); reply != nil {
		reply.Flags |= given
	}
}

// spread is the bytes that a READ, a WRITE or a REPLAY concerns.
type spread struct {
	hull  extent.Extent   // from the first to the last
	exts  []extent.Extent // sorted, none touch; hull alone if there are no holes
	bytes int64           // of exts
}

// before is how many of the bytes lie before end.
func (s spread) before(end int64) (n int64) {
	for _, e := range s.exts {
		n += min(max(end-e.Off, 0), e.Len)
	}
	return n
}

// pieces is the Pieces that are the body of a READ or WRITE; nil if it has none.
func (c *call) pieces() (*ionpb.Pieces, error) {
	if len(c.Body) == 0 {
		return nil, nil
	}
	p := new(ionpb.Pieces)
	if err := c.Decode(p); err != nil {
		return nil, errno.Wrap("ionserver.pieces", syscall.EINVAL, err)
	}
	return p, nil
}

// spread is what the call concerns: the pieces p or, if that is nil, n bytes at
// its offset.
func (c *call) spread(p *ionpb.Pieces, n int64) (spread, error) {
	if p == nil {
		ext, err := c.dataExtent(n)
		return spread{ext, []extent.Extent{ext}, n}, err
	}
	exts, err := p.Extents()
	if err != nil {
		return spread{}, err
	}
	s := spread{extent.Hull(exts), exts, extent.Total(exts)}
	if s.hull.Off != c.Off || s.hull.Len != c.Len {
		return spread{}, errno.New("ionserver: the pieces are not those of offset and length", syscall.EINVAL)
	}
	return s, nil
}

// wanted is which pieces a WRITE of s, with the body p, would have under LEASE_PIECES.
func (c *call) wanted(p *ionpb.Pieces, s spread) ([]extent.Extent, error) {
	if c.Flags&leasePieces == 0 {
		return nil, nil
	}
	if p.GetWish() == nil {
		return s.exts, nil
	}
	more, err := p.Wish.Extents()
	if err != nil {
		return nil, err
	}
	all := extent.Normalize(append(more, s.exts...))
	return all, c.checkOwner(extent.Hull(all))
}

// payload is the bytes of the call's data, which are those of s.
func (c *call) payload(s spread) ([][]byte, error) {
	if n := int64(c.Data.Len()); n != s.bytes {
		return nil, errno.Wrap("ionserver", syscall.EINVAL, fmt.Errorf("%d bytes of data for pieces of %d", n, s.bytes))
	}
	return c.Data.Append(nil), nil
}

// lockRange takes the range lock of ext, without a worker if it has to wait.
func (o *owner) lockRange(w waiter, ctx context.Context, f *ownedFile, ext extent.Extent, exclusive bool) (release func(), err error) {
	hold, err := f.ranges.Lock(o.srv.ended, ext, exclusive)
	if err != nil {
		err = w.wait(func() error {
			hold, err = f.ranges.Lock(ctx, ext, exclusive)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	return hold.Release, nil
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
