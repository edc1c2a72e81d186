package ionserver

import (
	"context"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

// doubtSlack is by how much the clocks of two I/O nodes may differ, in whole
// seconds of PVFS2, without that a request in doubt is refused what it has made.
const doubtSlack = 5 * time.Second

// ownWork is asked when a request that makes a name finds it taken. Where an I/O
// node that has no record of it any more may have carried it out, and has made
// just this, it returns what the name means: if that fits, is not older than the
// request, and no mount has been told that a call of its own has made it. Of
// several such requests one is believed; each of them was under way all the time.
// Else the error is err. The caller holds the name's lock.
func (c *call) ownWork(name string, err error, fits func(pvfs.Attr) bool) (pvfs.Attr, error) {
	if c.Flags&uint32(ionpb.Flag_IN_DOUBT) == 0 || errno.Of(err) != syscall.EEXIST {
		return pvfs.Attr{}, err
	}
	h, lookErr := c.srv.pvfs.Lookup(c.ctx, c.dir(), name)
	if lookErr != nil {
		return pvfs.Attr{}, err
	}
	a, lookErr := c.srv.pvfs.GetAttr(c.ctx, h)
	now := time.Now()
	since := now.Add(-time.Duration(c.Age)*time.Microsecond - doubtSlack).Unix()
	if lookErr != nil || !fits(a) || min(a.Atime, a.Mtime, a.Ctime) < since || c.srv.believed.has(uint64(h), now) {
		return pvfs.Attr{}, err
	}
	claimed, askErr := c.claimed(uint64(h))
	if askErr != nil {
		return pvfs.Attr{}, askErr
	}
	if claimed {
		return pvfs.Attr{}, err
	}
	c.srv.believed.add(uint64(h), now)
	return a, nil
}

// claimed reports whether a mount has been told that it has made an inode. Mounts
// answer at once.
func (c *call) claimed(handle uint64) (yes bool, err error) {
	sessions := c.srv.sessions.all()
	answers := make([]ionpb.MadeResp, len(sessions))
	err = c.wait(func() error {
		g, ctx := errgroup.WithContext(c.ctx)
		for i, sess := range sessions {
			g.Go(func() error { return sess.hasMade(ctx, handle, &answers[i]) })
		}
		return g.Wait()
	})
	for i := range answers {
		yes = yes || answers[i].Made
	}
	return yes, err
}

// hasMade sends MADE. Who has ended, or does not know the question, has not.
func (s *session) hasMade(ctx context.Context, handle uint64, answer *ionpb.MadeResp) error {
	r, err := s.push(ctx, &rpc.Frame{Op: ionpb.Op_MADE, Handle: handle})
	if err != nil || r == nil || r.Err() != nil {
		return err
	}
	return r.Decode(answer)
}
