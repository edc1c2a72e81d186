package ionclient

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// placed is a view with what follows from it. It never changes.
type placed struct {
	view     View
	place    *collective.Placement
	sessions []*session    // by index of view.Members
	replaced chan struct{} // closed when a newer view is current
}

// firstView asks all Addrs in turn until DialWait is over.
func (c *Client) firstView(ctx context.Context) (*ionpb.View, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.opt.DialWait, errno.New("ionclient.Dial", syscall.ETIMEDOUT))
	defer cancel()
	var last error
	for round := 1; ; round++ {
		var first error // of this round
		for _, addr := range c.opt.Addrs {
			v, err := c.askView(ctx, addr)
			if err == nil {
				return v, nil
			}
			if first == nil {
				first = err
			}
		}
		if last == nil || ctx.Err() == nil { // else it only says that time is up
			last = first
		}
		if hopeless(last, round) {
			return nil, last
		}
		t := time.NewTimer(min(minBackoff<<round, maxBackoff))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, last
		}
	}
}

// hopeless tells whether there is no use in dialling again after err. Someone
// who hangs up may be an I/O node that is just going down, so that counts
// only when it happens again.
func hopeless(err error, round int) bool {
	switch errno.Of(err) {
	case syscall.ENODEV, syscall.EPROTONOSUPPORT:
		return true
	case syscall.EPROTO:
		return round >= 3
	}
	return false
}

// askView gets the view from addr, over a connection for this alone, in a session
// that is nobody's: that of this mount there may be about to be reclaimed.
func (c *Client) askView(ctx context.Context, addr string) (*ionpb.View, error) {
	conn, err := c.dial(ctx, addr, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	resp, err := c.hello(ctx, conn, new(ionpb.HelloReq))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", addr, err)
	}
	c.bye(conn, addr, 1<<63|2)
	if len(resp.View.GetMembers()) == 0 {
		return nil, errno.Wrap("ionclient.Dial", syscall.EPROTO, fmt.Errorf("%s has a view without I/O nodes", addr))
	}
	return resp.View, nil
}

// setView makes v current if it is newer than what is, and moves what this
// mount holds to the new homes.
func (c *Client) setView(v *ionpb.View) error {
	place, err := collective.NewPlacement(v.Members, v.DomainSize)
	if err != nil {
		return errno.Wrap("ionclient", syscall.EPROTO, err)
	}
	next := &placed{place: place, replaced: make(chan struct{}), view: View{
		Epoch: v.Epoch, Members: v.Members, FSID: v.Fsid, FSName: v.FsName, Root: v.Root, DomainSize: v.DomainSize,
	}}
	c.mu.Lock()
	old := c.current.Load()
	if c.closed || (old != nil && old.view.Epoch >= v.Epoch) {
		c.mu.Unlock()
		return nil
	}
	var retired, begun []*session
	for _, addr := range v.Members {
		var s *session
		if old != nil {
			if i := slices.Index(old.view.Members, addr); i >= 0 {
				s = old.sessions[i]
			}
		}
		if s == nil {
			s = newSession(c, addr)
			begun = append(begun, s)
		}
		next.sessions = append(next.sessions, s)
	}
	c.current.Store(next)
	c.mu.Unlock()
	if old != nil {
		for _, s := range old.sessions {
			if !slices.Contains(next.sessions, s) {
				retired = append(retired, s)
			}
		}
		close(old.replaced)
		c.log.Info("new view", "epoch", v.Epoch, "members", v.Members)
	}
	for _, s := range retired {
		s.retire()
		c.spawn(func(context.Context) {
			<-s.gone // what it has answered is known
			c.keeps().Lost(s.lastID(), false)
		})
	}
	for _, s := range begun {
		if !c.spawn(s.run) {
			s.retire()
			close(s.gone)
		}
	}
	if old != nil {
		// Homes whose session begins with this view are told at its begin.
		c.spawn(func(ctx context.Context) {
			c.reassert(ctx, func(h uint64) bool {
				return old.sessions[old.place.Home(h)] != next.sessions[next.place.Home(h)]
			})
		})
	}
	return nil
}

// kickView has watchView look for a newer view.
func (c *Client) kickView() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// learned is told of a view that an I/O node uses.
func (c *Client) learned(v *ionpb.View) {
	if v.GetEpoch() <= c.View().Epoch {
		return
	}
	if err := c.setView(v); err != nil {
		c.log.Warn("an I/O node has a view that makes no sense", "err", err)
	}
}

// watchView asks around, whenever kicked, until someone has a newer view or
// all that can be asked have been.
func (c *Client) watchView(ctx context.Context) {
	for {
		select {
		case <-c.kick:
		case <-ctx.Done():
			return
		}
		p := c.current.Load()
		addrs := slices.Concat(p.view.Members, c.opt.Addrs)
		slices.Sort(addrs)
		for _, addr := range slices.Compact(addrs) {
			v, err := c.askView(ctx, addr)
			if err != nil {
				continue
			}
			c.learned(v)
			if c.current.Load() != p {
				break
			}
		}
		t := time.NewTimer(maxBackoff) // not more often than this
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// newer waits until p is not the current view, or a while, as the I/O node
// that refused us may be the one whose view is old.
func (c *Client) newer(ctx context.Context, p *placed) error {
	t := time.NewTimer(maxBackoff)
	defer t.Stop()
	select {
	case <-p.replaced:
	case <-t.C:
	case <-c.ctx.Done():
	case <-ctx.Done():
		return errno.Wrap("ionclient", errno.Of(context.Cause(ctx)), context.Cause(ctx))
	}
	return nil
}
