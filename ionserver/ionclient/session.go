package ionclient

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

const (
	protocolVersion = 1

	minBackoff   = 20 * time.Millisecond
	maxBackoff   = time.Second
	defaultLease = 15 * time.Second
)

// errMoved tells that a session is over because its I/O node has left the
// view: the request belongs to someone else now.
var errMoved = errors.New("ionclient: the I/O node has left the view")

// session is this mount's life on one I/O node. It is down, with a run that
// tries to connect, or up with a link; once retired it is neither any more.
//
//	down -- connected, greeted, reclaimed --> up
//	up   -- a connection broke, no answer to a ping, session unknown --> down
//	any  -- the member left the view, or the client was closed --> retired
type session struct {
	c    *Client
	addr string
	done chan struct{} // closed when retired
	gone chan struct{} // closed when run has returned
	once sync.Once     // of closing done

	mu      sync.Mutex
	id      uint64        // guarded by mu; given by the I/O node, 0 before
	ids     ids           // guarded by mu
	link    *link         // guarded by mu; nil if down
	up      chan struct{} // guarded by mu; closed while up, renewed when it goes down
	err     error         // guarded by mu; why it is down
	pending int           // guarded by mu
	boot    uint64        // guarded by mu; of the I/O node when it gave id
	owes    bool          // guarded by mu; the I/O node was not told everything yet
	waits   []uint64      // guarded by mu; if owes: the sessions of which it waits for that
	// told has the version of what the I/O node was told, of the jobs of which
	// it is to know; guarded by mu.
	told    map[collective.JobID]uint64
	telling bool // guarded by mu; tellJobs runs

	sure atomic.Pointer[surety] // nil before the first session
}

// link is the connections of a session that is up.
type link struct {
	id      uint64 // of the session
	lease   time.Duration
	control *rpc.Conn
	data    []*rpc.Conn
	turn    atomic.Uint64
	once    sync.Once     // of closing lost
	lost    chan struct{} // closed when it must not be used any more
}

func newSession(c *Client, addr string) *session {
	return &session{c: c, addr: addr, done: make(chan struct{}), gone: make(chan struct{}), up: make(chan struct{})}
}

func (s *session) retire() { s.once.Do(func() { close(s.done) }) }

func (l *link) lose() { l.once.Do(func() { close(l.lost) }) }

func (l *link) close() {
	if l.control != nil {
		l.control.Close()
	}
	for _, d := range l.data {
		d.Close()
	}
}

// conn is the connection for an operation of this kind.
func (l *link) conn(op ionpb.Op) *rpc.Conn {
	switch op {
	case ionpb.Op_READ, ionpb.Op_WRITE, ionpb.Op_APPEND, ionpb.Op_COMMIT, ionpb.Op_REPLAY:
		return l.data[l.turn.Add(1)%uint64(len(l.data))]
	}
	return l.control
}

// run keeps the session up until ctx ends or it is retired.
func (s *session) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer close(s.gone)
	defer s.retire()
	backoff := minBackoff
	for ctx.Err() == nil && !s.retired() {
		l, err := s.connect(ctx)
		if err != nil {
			s.setErr(err)
			s.c.log.Debug("I/O node is away", "addr", s.addr, "err", err)
			s.c.kickView()
			s.sleep(ctx, backoff)
			backoff = min(2*backoff, maxBackoff)
			continue
		}
		backoff = minBackoff
		s.publish(l)
		err = s.keep(ctx, l)
		s.withdraw(l, err)
		l.close()
		if ctx.Err() == nil && !s.retired() {
			s.c.log.Warn("lost an I/O node, its calls wait", "addr", s.addr, "err", err)
		}
	}
}

func (s *session) retired() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (s *session) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.done:
	case <-ctx.Done():
	}
}

func (s *session) setErr(err error) {
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
}

func (s *session) publish(l *link) {
	s.mu.Lock()
	s.link, s.err = l, nil
	close(s.up)
	s.mu.Unlock()
}

func (s *session) withdraw(l *link, err error) {
	s.lost(l)
	s.setErr(err)
}

// connect makes the connections of a link, says hello, and gives an I/O node
// that has forgotten us what it should know.
func (s *session) connect(ctx context.Context) (*link, error) {
	l := &link{lost: make(chan struct{})}
	hello, sent, err := s.greet(ctx, l)
	if err == nil {
		s.c.learned(hello.View) // what it should know is what is its own there
		err = s.tell(ctx, l, hello)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	s.renewed(l, sent)
	return l, nil
}

// greet makes the connections of l. What it has sent at that time, since
// Client.began, is answered.
func (s *session) greet(ctx context.Context, l *link) (hello *ionpb.HelloResp, sent time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if l.control, err = s.c.dial(ctx, s.addr, s.called); err != nil {
		return nil, 0, err
	}
	old := s.lastID()
	sent = time.Since(s.c.began)
	hello, err = s.c.hello(ctx, l.control, &ionpb.HelloReq{Session: old, Mount: s.c.mount, Holds: old != 0 && s.holds()})
	if err != nil {
		return nil, 0, err
	}
	l.lease = time.Duration(hello.LeaseMs) * time.Millisecond
	if l.lease <= 0 {
		l.lease = defaultLease
	}
	for range s.c.opt.DataConns {
		d, err := s.c.dialData(ctx, s.addr)
		if err != nil {
			return nil, 0, err
		}
		l.data = append(l.data, d)
		if _, err := s.c.hello(ctx, d, &ionpb.HelloReq{Session: hello.Session, Mount: s.c.mount, Attach: true}); err != nil {
			return nil, 0, err
		}
	}
	l.id = hello.Session
	return hello, sent, nil
}

// tell makes hello's session that of s. If the I/O node knows nothing of it,
// or not all yet, it is told over l what it should know.
func (s *session) tell(ctx context.Context, l *link, hello *ionpb.HelloResp) error {
	s.mu.Lock()
	old, boot := s.id, s.boot
	s.id, s.boot = hello.Session, hello.Boot
	if !hello.Resumed {
		s.told = nil
		s.owes, s.waits = true, hello.Reclaims
	}
	owes, waits := s.owes, s.waits
	s.mu.Unlock()
	if !hello.Resumed && old != 0 {
		s.c.log.Warn("an I/O node has forgotten this mount: opening and locking again", "addr", s.addr, "session", hello.Session, "grace", len(waits) > 0)
		s.sure.Store(nil)
		s.c.keeps().Lost(old, boot == hello.Boot)
	}
	if !owes {
		return nil
	}
	p := s.c.current.Load()
	if p.view.Epoch != hello.View.GetEpoch() {
		return fmt.Errorf("ionclient: I/O node %s is of view %d, not of %d", s.addr, hello.View.GetEpoch(), p.view.Epoch)
	}
	if err := s.c.reclaim(ctx, &Reclaim{s, l, p, waits}); err != nil {
		return err
	}
	s.mu.Lock()
	s.owes = false
	s.mu.Unlock()
	return nil
}

// lastID is the id of the session, or that of the last one if that has ended.
func (s *session) lastID() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// holds reports whether this mount holds anything from the I/O node.
func (s *session) holds() bool {
	s.mu.Lock()
	owes := s.owes
	s.mu.Unlock()
	if owes {
		return true
	}
	p := s.c.current.Load()
	home := func(h uint64) bool { return p.sessions[p.place.Home(h)] == s }
	last := s.lastID()
	return len(s.c.claims(home)) > 0 || s.c.opensUnder(home) || s.c.keeps().Retains(last) || s.c.appends.placed(last)
}

// connectTimeout bounds one attempt to bring a session up.
const connectTimeout = 10 * time.Second

// keep renews the lease until the link cannot be used any more.
func (s *session) keep(ctx context.Context, l *link) error {
	tick := time.NewTicker(l.lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.ping(ctx, l); err != nil {
				return err
			}
		case <-l.control.Broken():
			return l.control.Err()
		case <-l.lost:
			return errors.New("ionclient: a connection broke, or the I/O node forgot us")
		case <-s.done:
			s.bye(l)
			return errMoved
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *session) ping(ctx context.Context, l *link) error {
	ctx, cancel := context.WithTimeout(ctx, l.lease/3)
	defer cancel()
	s.mu.Lock()
	f := &rpc.Frame{ID: s.ids.next(false), Op: ionpb.Op_PING, Acked: s.ids.acked()}
	s.mu.Unlock()
	sent := time.Since(s.c.began)
	reply, err := l.control.Call(ctx, f)
	if err != nil {
		return err
	}
	if err := reply.Err(); err != nil {
		return err
	}
	var p ionpb.PingResp
	if err := reply.Decode(&p); err != nil {
		return err
	}
	if p.Epoch != s.c.View().Epoch { // or it does not serve any more
		s.c.kickView()
		return nil
	}
	s.renewed(l, sent)
	return nil
}

// bye ends the session on the I/O node, if that is quickly done.
func (s *session) bye(l *link) {
	s.mu.Lock()
	id := s.ids.next(false)
	s.mu.Unlock()
	s.c.bye(l.control, s.addr, id)
}

// bye ends the session of a connection, by the request with this id, also when
// the client is closed meanwhile.
func (c *Client) bye(conn *rpc.Conn, addr string, id uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := conn.Call(ctx, &rpc.Frame{ID: id, Op: ionpb.Op_BYE}); err != nil {
		c.log.Debug("no answer to a goodbye", "addr", addr, "err", err)
	}
}

// ready waits until the session is up.
func (s *session) ready(ctx context.Context) (*link, error) {
	for {
		s.mu.Lock()
		l, up := s.link, s.up
		s.mu.Unlock()
		if l != nil {
			return l, nil
		}
		select {
		case <-up:
		case <-s.done:
			return nil, errMoved
		case <-ctx.Done():
			cause := context.Cause(ctx)
			return nil, errno.Wrap("ionclient", errno.Of(cause), fmt.Errorf("waiting for I/O node %s: %w", s.addr, cause))
		}
	}
}

// call has one request answered, sending it again, under the same id, as
// often as connections break meanwhile. The link returned carried the answer.
// t, if not nil, learns the id. In an answer from an I/O node that has
// forgotten us since the request was first sent, or of another view, Flags has
// inDoubt.
func (s *session) call(ctx context.Context, epoch uint64, f *rpc.Frame, p payload, t *ticket, past *tries) (*rpc.Frame, *link, error) {
	s.mu.Lock()
	id := s.ids.next(f.Op.Recorded())
	s.pending++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.ids.answer(id)
		s.pending--
		s.mu.Unlock()
	}()
	t.set(s, id)
	for {
		l, err := s.ready(ctx)
		if err != nil {
			return nil, nil, err
		}
		if !t.mayLeave() {
			return nil, nil, errno.New("ionclient", syscall.EINTR)
		}
		if r := t.answered(); r != nil {
			return r, l, nil
		}
		doubtful := past.again(l)
		if doubtful && (makesName(f.Op) || f.Op == ionpb.Op_RENAME) {
			f.Flags |= uint32(ionpb.Flag_IN_DOUBT)
			f.Age = uint64(time.Since(past.since).Microseconds())
		}
		reply, err := s.send(ctx, l, id, epoch, f, p)
		switch {
		case err == nil && reply.Flags&uint32(ionpb.Flag_STALE_SESSION) != 0 && reply.Errno == syscall.ESTALE:
			s.lost(l)
		case err == nil:
			if doubtful {
				reply.Flags |= inDoubt
			}
			return reply, l, nil
		case errors.Is(err, rpc.ErrBroken):
			s.lost(l)
		default:
			return nil, nil, err
		}
	}
}

// tries is what is known of the earlier sendings of a request.
type tries struct {
	session uint64 // of the first; 0: there was none
	since   time.Time
}

// again takes note that a request is about to be sent over l, and reports whether
// another life of an I/O node may have carried it out already.
func (p *tries) again(l *link) bool {
	if p.session == 0 {
		p.session, p.since = l.id, time.Now()
	}
	return p.session != l.id
}

// makesName reports whether op makes an object with a name, if there is none.
func makesName(op ionpb.Op) bool {
	return op == ionpb.Op_CREATE || op == ionpb.Op_MKDIR || op == ionpb.Op_SYMLINK
}

// inDoubt marks an answer to a request that may have been carried out before,
// by an I/O node that has no record of it any more. No Flag uses the bit.
const inDoubt = 1 << 31

// doneBefore reports whether a failed answer in doubt means that the request
// was carried out the first time: the name it should take away is gone. The
// kernel had seen the name there just before.
func doneBefore(op ionpb.Op, reply *rpc.Frame) bool {
	if reply.Flags&inDoubt == 0 || reply.Errno != syscall.ENOENT {
		return false
	}
	return op == ionpb.Op_UNLINK || op == ionpb.Op_RMDIR || op == ionpb.Op_RENAME
}

// payload is the pieces of a request and what they lie in; see request.
type payload struct {
	pieces [][]byte
	under  Counted
}

// send sends f once.
func (s *session) send(ctx context.Context, l *link, id, epoch uint64, f *rpc.Frame, p payload) (*rpc.Frame, error) {
	g := *f
	g.ID, g.Epoch = id, epoch
	s.mu.Lock()
	g.Acked = s.ids.acked()
	s.mu.Unlock()
	conn := l.conn(f.Op)
	switch {
	case p.under != nil:
		p.under.Ref()
		g.Data = rpc.Lent(p.pieces, p.under.Release)
	case p.pieces != nil:
		return conn.CallPieces(ctx, &g, p.pieces)
	}
	return conn.Call(ctx, &g)
}

// lost tells that l must not be used any more.
func (s *session) lost(l *link) {
	s.mu.Lock()
	if s.link == l {
		s.link = nil
		s.up = make(chan struct{})
	}
	s.mu.Unlock()
	l.lose()
}

// status is s for Sessions.
func (s *session) status() Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Session{Addr: s.addr, ID: s.id, Up: s.link != nil, Pending: s.pending, Err: s.err}
}

// ticket is the name under which a request waits at an I/O node, for those
// who may have to cancel it. A nil ticket forgets everything.
type ticket struct {
	mu   sync.Mutex
	s    *session // guarded by mu
	id   uint64   // guarded by mu
	sent bool     // guarded by mu; an I/O node may know of it
	dead bool     // guarded by mu; not to be sent any more

	answer *rpc.Frame // guarded by mu; that a Reclaim was given to the request; nil: none
}

func (t *ticket) set(s *session, id uint64) {
	if t != nil {
		t.mu.Lock()
		t.s, t.id = s, id
		t.mu.Unlock()
	}
}

// mayLeave is asked before each sending.
func (t *ticket) mayLeave() bool {
	if t == nil {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent = t.sent || !t.dead
	return t.sent
}

// answered is the answer that a Reclaim was given, or nil.
func (t *ticket) answered() *rpc.Frame {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.answer
}

// giveUp has the request not sent, unless it was.
func (t *ticket) giveUp() {
	t.mu.Lock()
	t.dead = true
	t.mu.Unlock()
}

func (t *ticket) get() (*session, uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.s, t.id
}
