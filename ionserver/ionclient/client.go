package ionclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/buf"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// Client speaks for one mount.
type Client struct {
	opt      Options
	rpcOpt   rpc.Options
	log      *slog.Logger
	counters rpc.Counters
	kick     chan struct{} // capacity 1: the view may be old
	ctx      context.Context
	cancel   context.CancelFunc // ends all sessions and all that waits
	current  atomic.Pointer[placed]

	mu     sync.Mutex
	closed bool             // guarded by mu; nothing is spawned any more
	group  sync.WaitGroup   // Add is guarded by mu
	files  map[uint64]*file // guarded by mu; what this mount holds, by handle
	// settling has the abandoned lock requests; guarded by mu.
	settling map[lockKey]chan struct{}
}

// placed is a view with what follows from it. It never changes.
type placed struct {
	view     View
	place    *collective.Placement
	sessions []*session    // by index of view.Members
	replaced chan struct{} // closed when a newer view is current
}

// file is what this mount holds of one inode at its home.
type file struct {
	opens uint32
	locks lockTable
}

// Dial learns the view from the first of Addrs that answers. It tries for
// DialWait and then fails with the error of the first of them; sooner if there
// is no zoidfs I/O node (EPROTO) or it serves another file system (ENODEV).
func Dial(ctx context.Context, opt Options) (*Client, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	c := &Client{opt: opt.withDefaults(), kick: make(chan struct{}, 1), files: make(map[uint64]*file), settling: make(map[lockKey]chan struct{})}
	c.log = c.opt.Logger
	c.rpcOpt = rpc.Options{Dialer: opt.Dialer, Pool: new(buf.Pool), Logger: c.log, Counters: &c.counters}
	v, err := c.firstView(ctx)
	if err != nil {
		return nil, err
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if err := c.setView(v); err != nil {
		c.cancel()
		return nil, err
	}
	c.spawn(c.watchView)
	return c, nil
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

// spawn runs f in a goroutine that Close waits for. It reports whether the
// client still runs things.
func (c *Client) spawn(f func(ctx context.Context)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.group.Go(func() { f(c.ctx) })
	return true
}

// Close ends all sessions, which drops this mount's locks and opens. Calls
// under way end with an error. ctx bounds the goodbyes.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	stop := context.AfterFunc(ctx, c.cancel)
	defer stop()
	for _, s := range c.current.Load().sessions {
		s.retire()
	}
	for _, s := range c.current.Load().sessions {
		select {
		case <-s.gone:
		case <-ctx.Done():
		}
	}
	c.cancel()
	c.group.Wait()
	return nil
}

// View returns the current view.
func (c *Client) View() View { return c.current.Load().view }

// Sessions lists the sessions in the order of the view's members.
func (c *Client) Sessions() []Session {
	var out []Session
	for _, s := range c.current.Load().sessions {
		out = append(out, s.status())
	}
	return out
}

func (c *Client) dial(ctx context.Context, addr string) (*rpc.Conn, error) {
	return rpc.Dial(ctx, addr, c.rpcOpt)
}

// hello introduces a connection and checks who is there.
func (c *Client) hello(ctx context.Context, conn *rpc.Conn, req *ionpb.HelloReq) (*ionpb.HelloResp, error) {
	req.Version, req.Name, req.Pid, req.Mountpoint = protocolVersion, c.opt.Name, uint32(os.Getpid()), c.opt.Mountpoint
	req.Fsid = c.opt.FSID
	if p := c.current.Load(); p != nil {
		req.Fsid = p.view.FSID
	}
	f := &rpc.Frame{ID: 1<<63 | 1, Op: ionpb.Op_HELLO} // not one of the session's
	f.Encode(req)
	reply, err := conn.Call(ctx, f)
	if err != nil {
		return nil, err
	}
	if err := reply.Err(); err != nil {
		return nil, err
	}
	resp := new(ionpb.HelloResp)
	if err := reply.Decode(resp); err != nil {
		return nil, err
	}
	if got := resp.View.GetFsid(); req.Fsid != 0 && got != req.Fsid {
		return nil, errno.Wrap("ionclient.Dial", syscall.ENODEV, fmt.Errorf("the I/O node serves file system %s with id %d, not the one with id %d", resp.View.GetFsName(), got, req.Fsid))
	}
	return resp, nil
}

// askView gets the view from addr, over a connection for this alone.
func (c *Client) askView(ctx context.Context, addr string) (*ionpb.View, error) {
	conn, err := c.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	resp, err := c.hello(ctx, conn, new(ionpb.HelloReq))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", addr, err)
	}
	if _, err := conn.Call(ctx, &rpc.Frame{ID: 1<<63 | 2, Op: ionpb.Op_BYE}); err != nil {
		c.log.Debug("no answer to a goodbye", "addr", addr, "err", err)
	}
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

// target picks the session that a request belongs to.
type target func(p *placed) *session

func home(h uint64) target { return func(p *placed) *session { return p.sessions[p.place.Home(h)] } }

func owner(h uint64, off int64) target {
	return func(p *placed) *session { return p.sessions[p.place.Owner(h, off)] }
}

// request is one call of do.
type request struct {
	to      target
	frame   rpc.Frame
	body    proto.Message // nil: none
	payload []byte        // lent to the transport; nil: none
	ticket  *ticket       // may be nil
	// granted, if not nil, is called after success, under c.mu, to note what
	// this mount holds now, of the inode that it returns.
	granted func(reply *rpc.Frame) uint64
}

// do has a request answered by whom it belongs to, however long that takes.
// The caller releases the reply's data.
func (c *Client) do(ctx context.Context, r request) (*rpc.Frame, error) {
	if r.body != nil {
		r.frame.Encode(r.body)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(c.ctx, func() { cancel(errClosed) })
	defer stop()
	for {
		p := c.current.Load()
		s := r.to(p)
		reply, l, err := s.call(ctx, p.view.Epoch, &r.frame, r.payload, r.ticket)
		switch {
		case errors.Is(err, errMoved):
			if c.isClosed() {
				return nil, errClosed
			}
			err = c.newer(ctx, p)
		case err != nil:
			return nil, err
		case reply.Errno == syscall.ESTALE && reply.Flags&uint32(ionpb.Flag_STALE_VIEW) != 0:
			c.kickView()
			err = c.newer(ctx, p)
		case doneBefore(r.frame.Op, reply):
			return &rpc.Frame{}, nil
		default:
			if err := reply.Err(); err != nil {
				return nil, err
			}
			c.note(s, l, r, reply)
			return reply, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

var errClosed = errno.New("ionclient", syscall.ESHUTDOWN)

func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// newer waits until p is not the current view, or a while, as the I/O node
// that refused us may be the one whose view is old.
func (c *Client) newer(ctx context.Context, p *placed) error {
	t := time.NewTimer(maxBackoff)
	defer t.Stop()
	select {
	case <-p.replaced:
	case <-t.C:
	case <-ctx.Done():
		return errno.Wrap("ionclient", errno.Of(context.Cause(ctx)), context.Cause(ctx))
	}
	return nil
}

// note records what was granted. If the I/O node has forgotten us between its
// reply and now, it may have been told all but this.
func (c *Client) note(s *session, l *link, r request, reply *rpc.Frame) {
	if r.granted == nil {
		return
	}
	c.mu.Lock()
	held := r.granted(reply)
	c.mu.Unlock()
	s.mu.Lock()
	forgotten := s.fresh != l.fresh
	s.mu.Unlock()
	if forgotten {
		c.spawn(func(ctx context.Context) {
			c.reassert(ctx, func(h uint64) bool { return h == held })
		})
	}
}
