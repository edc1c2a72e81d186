package ionserver

import (
	"context"
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// protocolVersion is that of HELLO and PEER_HELLO.
const protocolVersion = 1

// stream is one connection from a mount or from another I/O node; the first
// frame decides which. It implements rpc.Handler.
type stream struct {
	srv    *Server
	peer   *rpc.Peer
	ctx    context.Context // ends with the stream, or when another has taken its place
	cancel context.CancelFunc

	mu    sync.Mutex
	sess  *session              // guarded by mu; set once, for a mount's stream
	data  bool                  // guarded by mu before sess is set, constant after; a further connection
	from  string                // guarded by mu; set once, for a peer's stream
	holds map[uint64]func()     // guarded by mu; releases what a peer's tokens stand for
	token uint64                // guarded by mu; last one given out
	ended bool                  // guarded by mu; no more holds
	exts  map[uint64]fencedArea // guarded by mu; what fence tokens cover
}

// Connect implements rpc.Service.
func (s *Server) Connect(p *rpc.Peer) rpc.Handler {
	st := &stream{srv: s, peer: p, holds: make(map[uint64]func()), exts: make(map[uint64]fencedArea)}
	st.ctx, st.cancel = context.WithCancel(p.Context())
	return st
}

// Close ends what the stream alone kept alive: fences and name locks of a
// peer. A mount's locks and opens belong to its session and stay.
func (st *stream) Close() {
	st.cancel()
	st.mu.Lock()
	st.ended = true
	holds := slices.Collect(maps.Values(st.holds))
	st.holds, st.exts = nil, nil
	sess := st.sess
	st.mu.Unlock()
	for _, release := range holds {
		release()
	}
	if sess != nil {
		sess.unbind(st)
	}
}

// Try implements rpc.Handler: what keeps a session alive, or ends a wait, does
// not queue behind requests that wait for servers.
func (st *stream) Try(r *rpc.Request) bool {
	quick := r.Op == ionpb.Op_PING || r.Op == ionpb.Op_CANCEL
	if quick {
		st.Handle(r)
	}
	return quick
}

// Handle implements rpc.Handler.
func (st *stream) Handle(r *rpc.Request) {
	st.mu.Lock()
	sess, from := st.sess, st.from
	st.mu.Unlock()
	if from == "" { // what mounts began may need peers until it is done
		if !st.srv.begin() {
			st.srv.leaveUnanswered(r, st)
			return
		}
		defer st.srv.end()
	}
	switch {
	case r.Op == ionpb.Op_HELLO && sess == nil && from == "":
		st.answer(r)(st.hello(r))
	case r.Op == ionpb.Op_PEER_HELLO && sess == nil && from == "":
		st.answer(r)(st.peerHello(r))
	case from != "":
		st.handlePeer(r)
	case sess == nil:
		r.Reply(outcome(nil, errStaleSession))
	default:
		st.handleMount(sess, r)
	}
}

func (st *stream) answer(r *rpc.Request) func(*rpc.Frame, error) {
	return func(f *rpc.Frame, err error) { r.Reply(outcome(f, err)) }
}

// handleMount admits a mount's request: the session's own at once, others
// through the reply table and the scheduler.
func (st *stream) handleMount(sess *session, r *rpc.Request) {
	v, kept, alive := sess.begin(r, time.Now())
	switch {
	case !alive:
		r.Reply(outcome(nil, errStaleSession))
		return
	case v == joinIt:
		return // whoever runs it answers
	case v == answerIt:
		f := *kept
		r.Reply(&f)
		return
	case v == refuseIt:
		r.Fail(errno.New("ionserver: request was answered and acknowledged", syscall.EINVAL))
		return
	case v == overflow:
		r.Fail(errno.New("ionserver: too many unacknowledged requests", syscall.ENOBUFS))
		return
	}
	job := collective.JobID(r.Job)
	account := st.srv.jobs.account(job).requests()
	account.Asked(r.Op, 0)
	account.Answered(r.Frame)
	c := &call{Request: r, srv: st.srv, ctx: st.srv.jobs.onBehalf(st.srv.work, job), stream: st, sess: sess, came: time.Now()}
	f, err := c.dispatch()
	out := outcome(f, err)
	account.Sent(out)
	if !r.Op.Recorded() {
		r.Reply(out)
		return
	}
	for _, to := range sess.end(r.ID, out) {
		f := *out
		to.Reply(&f)
	}
}

// leaveUnanswered keeps a request that came too late until its stream ends:
// the mount sends it again to this node's successor, and must not see an error.
func (s *Server) leaveUnanswered(r *rpc.Request, st *stream) {
	<-st.ctx.Done()
	r.Fail(errno.New("ionserver: going down", syscall.ESHUTDOWN))
}

func (c *call) dispatch() (*rpc.Frame, error) {
	switch c.Op {
	case ionpb.Op_PING:
		return okay(&ionpb.PingResp{Epoch: c.srv.servingEpoch()})
	case ionpb.Op_VIEW:
		return okay(c.srv.viewMsg())
	case ionpb.Op_BYE:
		c.srv.endSession(c.sess)
		return okay(nil)
	case ionpb.Op_CANCEL:
		return c.cancel()
	case ionpb.Op_JOB:
		return c.tellJob()
	case ionpb.Op_RECLAIMED:
		c.srv.grace.done(c.sess.mount, true)
		return okay(nil)
	}
	o, ok := c.srv.ops[c.Op]
	if !ok {
		return nil, errno.New("ionserver: operation "+c.Op.Key(), syscall.EOPNOTSUPP)
	}
	return c.serve(o)
}

// servingEpoch is the epoch under which this node serves, 0 while it does not:
// then another one may, and leases given here must not last.
func (s *Server) servingEpoch() uint64 {
	if ok, _, err := s.guard.May(time.Now()); err != nil || !ok {
		return 0
	}
	return s.epoch
}

// hello opens or resumes a session, or attaches a data connection to one.
func (st *stream) hello(r *rpc.Request) (*rpc.Frame, error) {
	var m ionpb.HelloReq
	if err := r.Decode(&m); err != nil {
		return nil, err
	}
	s := st.srv
	switch {
	case m.Version != protocolVersion:
		return nil, errno.New("ionserver: protocol version", syscall.EPROTONOSUPPORT)
	case m.Fsid != 0 && m.Fsid != s.fsid():
		return nil, errno.New("ionserver: another file system is served here: "+s.pvfs.FSName(), syscall.ENODEV)
	case len(m.Name) > 255 || len(m.Mountpoint) > 4096:
		return nil, errno.New("ionserver: hello", syscall.ENAMETOOLONG)
	}
	if err := s.awaitView(st.ctx); err != nil {
		return nil, err
	}
	sess := s.sessions.get(m.Session)
	if m.Attach && sess == nil {
		return nil, errStaleSession
	}
	resumed := sess != nil
	if !resumed {
		// What the mount asked for under the old session must be over
		// before it can ask again.
		if err := s.sessions.settle(st.ctx, m.Session); err != nil {
			return nil, err
		}
		if sess = s.sessions.open(&m, st.peer.Addr()); sess == nil {
			return nil, errno.New("ionserver: too many sessions", syscall.EUSERS)
		}
		if !m.Holds {
			s.grace.done(sess.mount, false)
		}
		if len(s.grace.of(sess.mount)) > 0 {
			s.recordSession(s.work, sess) // should this node end again before it has said anything
		}
	}
	if !st.bind(sess, m.Attach) {
		return nil, errStaleSession
	}
	resp := &ionpb.HelloResp{
		Session: sess.id, Resumed: resumed, Boot: s.boot, LeaseMs: uint32(s.opt.Lease.Milliseconds()),
		View: s.viewMsg(), Software: s.opt.Software,
	}
	if s.inGrace(time.Now()) {
		resp.Reclaims = s.grace.of(sess.mount)
	}
	return okay(resp)
}

func (st *stream) bind(sess *session, data bool) bool {
	st.mu.Lock()
	if st.sess != nil || st.from != "" || st.ended {
		st.mu.Unlock()
		return false
	}
	st.sess, st.data = sess, data
	st.mu.Unlock()
	old, ok := sess.bind(st, data)
	for _, o := range old {
		o.cancel()
	}
	return ok
}

// flow names whose turn in the schedule a request of this stream takes.
func (st *stream) flow() uint64 {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.sess != nil {
		return st.sess.id
	}
	return st.srv.flowOf(st.from)
}

// hold keeps release until the token is released or the stream ends. It
// releases at once if the stream has ended.
func (st *stream) hold(release func(), area fencedArea) (token uint64, err error) {
	st.mu.Lock()
	if st.ended || st.ctx.Err() != nil {
		st.mu.Unlock()
		release()
		return 0, errno.New("ionserver: stream", syscall.ECONNRESET)
	}
	defer st.mu.Unlock()
	st.token++
	st.holds[st.token], st.exts[st.token] = release, area
	return st.token, nil
}

// unhold takes the token away; the caller calls what it returns, if not nil.
func (st *stream) unhold(token uint64) func() {
	st.mu.Lock()
	defer st.mu.Unlock()
	release := st.holds[token]
	delete(st.holds, token)
	delete(st.exts, token)
	return release
}
