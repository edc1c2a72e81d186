package ionclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

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
	began    time.Time // the zero of the surety of sessions
	keeper   atomic.Pointer[Keeper]
	watcher  atomic.Pointer[Watcher]
	mount    uint64 // what HelloReq.mount is
	jobs     jobs
	made     made
	appends  appends

	mu     sync.Mutex
	closed bool             // guarded by mu; nothing is spawned any more
	group  sync.WaitGroup   // Add is guarded by mu
	files  map[uint64]*file // guarded by mu; what this mount holds, by handle
	// settling has the abandoned lock requests; guarded by mu.
	settling map[lockKey]chan struct{}
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
	c := &Client{opt: opt.withDefaults(), began: time.Now(), mount: rand.Uint64() | 1, kick: make(chan struct{}, 1), files: make(map[uint64]*file), settling: make(map[lockKey]chan struct{})}
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

// dialData connects to an I/O node for READs and WRITEs.
func (c *Client) dialData(ctx context.Context, addr string) (*rpc.Conn, error) {
	opt := c.rpcOpt
	opt.Shared = c.opt.Memory
	return rpc.Dial(ctx, addr, opt)
}

// dial connects to an I/O node, whose requests called answers; nil: it has none.
func (c *Client) dial(ctx context.Context, addr string, called func(context.Context, *rpc.Frame) *rpc.Frame) (*rpc.Conn, error) {
	opt := c.rpcOpt
	opt.Callback = called
	return rpc.Dial(ctx, addr, opt)
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

// target is who a request belongs to: the home of an inode, which is the owner
// of its first byte, or another owner.
type target struct {
	handle uint64
	off    int64
}

func home(h uint64) target { return target{handle: h} }

func owner(h uint64, off int64) target { return target{h, off} }

// session picks the target's session.
func (t target) session(p *placed) *session { return p.sessions[p.place.Owner(t.handle, t.off)] }

// request is one call of do.
type request struct {
	to     target
	frame  rpc.Frame
	body   proto.Message // nil: none
	pieces [][]byte      // the payload, lent to the transport; nil: none
	under  Counted       // what they lie in; nil: they must be free when the request has its answer
	ticket *ticket       // may be nil
	tenure *Tenure       // gets that of the answer; may be nil
	flags  *uint32       // gets the flags of the answer, also of a failed one; may be nil
	// granted, if not nil, is called after success, under c.mu, to note what
	// this mount holds now, of the inode that it returns.
	granted func(reply *rpc.Frame) uint64
}

func (r *request) payload() payload { return payload{r.pieces, r.under} }

// do has a request answered by whom it belongs to, however long that takes.
// The caller releases the reply's data.
func (c *Client) do(ctx context.Context, r request) (*rpc.Frame, error) {
	if r.body != nil {
		r.frame.Encode(r.body)
	}
	job := c.jobOf(ctx, r.frame.Handle)
	r.frame.Job = uint64(job)
	var past tries
	for {
		p := c.current.Load()
		s := r.to.session(p)
		traffic := s.onBehalf(job, &r)
		reply, l, err := s.call(ctx, p.view.Epoch, &r.frame, r.payload(), r.ticket, &past)
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
			traffic.Answered(reply)
			if r.tenure != nil {
				*r.tenure = Tenure{s, l.id, p.view.Epoch}
			}
			if r.flags != nil {
				*r.flags = reply.Flags
			}
			if err := reply.Err(); err != nil {
				return nil, err
			}
			c.made.note(r.frame.Op, reply)
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

// note records what was granted. If the I/O node has forgotten us between its
// reply and now, it may have been told all but this.
func (c *Client) note(s *session, l *link, r request, reply *rpc.Frame) {
	if r.granted == nil {
		return
	}
	c.mu.Lock()
	held := r.granted(reply)
	c.mu.Unlock()
	if s.lastID() != l.id { // it has been forgotten
		c.spawn(func(ctx context.Context) {
			c.reassert(ctx, func(h uint64) bool { return h == held })
		})
	}
}
