package ionserver

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// revoke has the leases in conflict with an access to ext end, and returns
// when they have. Others may have come meanwhile. The caller holds no lock
// that a write of the mounts concerned would wait for.
func (c *call) revoke(ctx context.Context, f *ownedFile, ext extent.Extent, conflicts []conflict) error {
	f.mu.Lock()
	waiting := f.leases.Wait(ext, conflicts, time.Now())
	f.mu.Unlock()
	err := c.wait(func() error {
		g, ctx := errgroup.WithContext(ctx)
		for _, x := range conflicts {
			g.Go(func() error { return c.srv.owner.revoke(ctx, f, x) })
		}
		return g.Wait()
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leases.Waited(waiting, time.Now())
	return err
}

// revoke has one mount give leases back, which it does when it has written what
// it kept back. While it is asked already, this is no second question: the
// caller looks again.
func (o *owner) revoke(ctx context.Context, f *ownedFile, x conflict) error {
	f.mu.Lock()
	asked := f.revoking[x.session]
	if asked == nil {
		f.revoking[x.session] = make(chan struct{})
	}
	f.mu.Unlock()
	if asked != nil {
		select {
		case <-asked:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var err error
	if sess := o.srv.sessions.get(x.session); sess != nil {
		_, err = sess.push(ctx, &rpc.Frame{Op: ionpb.Op_REVOKE, Handle: f.handle, Off: x.ext.Off, Len: x.ext.Len, Flags: x.leases})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.revoking[x.session])
	delete(f.revoking, x.session)
	if err == nil {
		f.leases.Drop(x.session, x.ext, x.leases, time.Now())
	}
	return err
}

// dropSession takes the leases of a session that has ended away, and forgets
// what it kept for a replay.
func (o *owner) dropSession(session uint64) {
	for _, f := range o.all() {
		f.mu.Lock()
		f.leases.DropSession(session, time.Now())
		f.unstable.end(session)
		f.mu.Unlock()
		o.put(f)
	}
}
