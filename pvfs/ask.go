package pvfs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// owner returns the server of h.
func (c *Client) owner(h Handle) (*server, error) {
	alias, ok := c.fs.Owner(uint64(h))
	if !ok {
		return nil, errno.Wrap("pvfs", syscall.ESTALE, fmt.Errorf("handle %d belongs to no server", h))
	}
	return c.servers[alias], nil
}

// anyMeta picks a metadata server for a new object.
func (c *Client) anyMeta() *server { return c.meta[rand.IntN(len(c.meta))] }

// cred is the credential of the superuser.
func (c *Client) cred() wire.Credential {
	p := c.creds
	p.Timeout = time.Now().Unix() + lifeSeconds
	return p
}

// ask sends a request that needs no right; see tell.
func (s *server) ask(ctx context.Context, req wire.Request, resp wire.Response) (lost bool, err error) {
	k := s.client.newCall(accountOf(ctx), req.Op(), kindPlain, resp)
	if err := k.encodeNull(req); err != nil {
		k.free()
		return false, err
	}
	return s.round(ctx, k)
}

// tell sends a request about object obj that works on target, with a capability
// for both. lost reports that an attempt before the last one may have been
// carried out although its answer was lost; this holds for errors as well.
// The error has the errno of the response's status.
func (s *server) tell(ctx context.Context, req wire.Request, resp wire.Response, obj, target Handle) (lost bool, err error) {
	k := s.client.newCall(accountOf(ctx), req.Op(), kindPlain, resp)
	if err := k.encode(req, obj, target); err != nil {
		k.free()
		return false, err
	}
	return s.round(ctx, k)
}

// round carries out k and frees it. If the server says that it could not reach
// another one it asks again, until the timeout.
func (s *server) round(ctx context.Context, k *call) (lost bool, err error) {
	limit := k.begun.Add(s.client.timeout)
	forwards := k.op == wire.OpTreeGetFileSize || k.op == wire.OpTreeGetAttr || k.op == wire.OpTreeRemove
	for pause := minBackoff; ; pause = min(2*pause, maxBackoff) {
		s.start(k)
		reusable, err := s.finish(ctx, k)
		if !reusable {
			return true, err
		}
		if err == nil {
			err = k.status.Err("pvfs." + k.op.String())
		}
		down := err != nil && unreachable(k.status)
		if !down || forwards || time.Now().After(limit) || sleep(ctx, pause) != nil {
			if down && !forwards {
				err = s.explain(ctx, k, fmt.Errorf("does not reach another server: %w", err), nil)
			}
			lost = k.lost
			k.free()
			return lost, err
		}
		k.lost = true // it may have done its own part
		s.client.stats.retries.Add(1)
	}
}

// unreachable reports whether a server says that it could not reach another.
func unreachable(st wire.Status) bool {
	switch st.Errno() {
	case syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.ETIMEDOUT, syscall.EHOSTDOWN,
		syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.ENETUNREACH, syscall.ENETRESET:
		return true
	}
	return false
}

// ownerAsk is ask at the owner of h.
func (c *Client) ownerAsk(ctx context.Context, h Handle, req wire.Request, resp wire.Response) error {
	s, err := c.owner(h)
	if err != nil {
		return err
	}
	_, err = s.ask(ctx, req, resp)
	return err
}

// ownerTell is tell at the owner of target.
func (c *Client) ownerTell(ctx context.Context, req wire.Request, resp wire.Response, obj, target Handle) (lost bool, err error) {
	s, err := c.owner(target)
	if err != nil {
		return false, err
	}
	return s.tell(ctx, req, resp, obj, target)
}

// together runs fs in parallel and returns the first error.
func together(ctx context.Context, fs ...func(ctx context.Context) error) error {
	if len(fs) == 1 {
		return fs[0](ctx)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, f := range fs {
		g.Go(func() error { return f(ctx) })
	}
	return g.Wait()
}

// detached runs f to its end even if ctx is cancelled meanwhile; then it
// returns the context's error and f's result is lost.
func (c *Client) detached(ctx context.Context, f func(ctx context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ctx.Done() == nil {
		return f(ctx)
	}
	done := make(chan error, 1)
	ok := c.spawn(func() error {
		done <- f(context.WithoutCancel(ctx))
		return nil
	})
	if !ok {
		return errno.Wrap("pvfs", syscall.EIO, errClosed)
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refused reports whether a server answered that it did not do what was asked.
// EIO may also come from here, so it does not count.
func refused(err error) bool {
	var e *errno.Error
	return errors.As(err, &e) && e.Errno != syscall.EIO
}

// isNotFound reports whether an object or entry does not exist.
func isNotFound(err error) bool { return errors.Is(err, syscall.ENOENT) }
