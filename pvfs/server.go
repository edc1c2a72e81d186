package pvfs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"reflect"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const (
	maxInFlight = 512              // calls on one server's connection; more wait
	dialTimeout = 10 * time.Second // for one attempt to connect
	minBackoff  = 20 * time.Millisecond
	maxBackoff  = time.Second
	maxLosses   = 10 // lost attempts of one call that each prolong its timeout
)

// server is one server with its connection, which is opened at the first call
// and again after it was lost.
type server struct {
	Server
	client  *Client
	url     string
	slots   chan struct{} // one for each call in flight
	spoke   atomic.Bool   // a message of the protocol has come from it
	dialing chan struct{} // held by the goroutine that connects

	mu       sync.Mutex
	cur      *conn     // guarded by mu; nil before the first connection
	failures int       // guarded by mu; attempts to connect that failed in a row
	nextTry  time.Time // guarded by mu; not before it
}

func newServer(c *Client, s Server, url string) *server {
	return &server{Server: s, client: c, url: url, slots: make(chan struct{}, maxInFlight), dialing: make(chan struct{}, 1)}
}

// live returns the connection if there is one that takes calls.
func (s *server) live() *conn {
	s.mu.Lock()
	c := s.cur
	s.mu.Unlock()
	if c == nil || !c.usable() {
		return nil
	}
	return c
}

// connect returns the connection, opening one if need be. It makes one attempt,
// not sooner than the failures before it allow.
func (s *server) connect(ctx context.Context) (*conn, error) {
	if c := s.live(); c != nil {
		return c, nil
	}
	select {
	case s.dialing <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.dialing }()
	if c := s.live(); c != nil {
		return c, nil
	}
	s.mu.Lock()
	pause := time.Until(s.nextTry)
	s.mu.Unlock()
	if err := sleep(ctx, pause); err != nil {
		return nil, err
	}
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	nc, err := s.client.dial(dctx, "tcp", s.Addr)
	if err != nil {
		s.failed(err)
		return nil, err
	}
	c := newConn(s, nc)
	if !s.client.spawn(c.run) {
		_ = nc.Close()
		return nil, errClosed
	}
	if s.known() {
		if err := s.recognize(dctx, c); err != nil {
			c.kill(err)
			s.failed(err)
			return nil, err
		}
	}
	s.connected(c)
	return c, nil
}

// known reports whether there was a connection before.
func (s *server) known() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cur != nil
}

// recognize checks that the server behind a new connection still serves the
// file system: others answer with errors that nobody understands.
func (s *server) recognize(ctx context.Context, c *conn) error {
	var resp wire.GetConfigResp
	k := s.client.newCall(nil, wire.OpGetConfig, kindPlain, &resp)
	if err := k.encodeNull(&wire.GetConfigReq{}); err != nil {
		return err
	}
	if err := c.post(k); err != nil {
		return err
	}
	gone, err := s.wait(ctx, k)
	if gone {
		return err
	}
	defer k.free()
	if err == nil {
		err = k.status.Err("pvfs.getconfig")
	}
	if err == nil && !s.client.serves(resp.Config) {
		err = errOther
	}
	return err
}

var errOther = errors.New("it no longer serves this file system, but another one or with other handles")

// serves reports whether a configuration has the client's file system as it
// was. What else was changed is no matter.
func (c *Client) serves(text string) bool {
	conf, err := fsconf.Parse(text)
	if err != nil {
		return false
	}
	fs, ok := conf.FileSystem(c.fs.Name)
	return ok && fs.ID == c.fs.ID && fs.RootHandle == c.fs.RootHandle && fs.FlowBufferSize == c.fs.FlowBufferSize &&
		reflect.DeepEqual(fs.Meta, c.fs.Meta) && reflect.DeepEqual(fs.Data, c.fs.Data)
}

func (s *server) connected(c *conn) {
	s.mu.Lock()
	again, level := s.cur != nil || s.failures > 0, slog.LevelDebug // a flow that fails ends its connection: on a full disk each one
	if s.failures > 0 {
		level = slog.LevelInfo
	}
	s.cur, s.failures, s.nextTry = c, 0, time.Time{}
	s.mu.Unlock()
	s.client.stats.connects.Add(1)
	if again {
		s.client.log.Log(context.Background(), level, "connected again", "server", s.Alias, "addr", s.Addr)
	}
	if s.client.isClosed() {
		c.kill(errClosed)
	}
}

// failed notes an attempt to connect and puts off the next one.
func (s *server) failed(err error) {
	s.mu.Lock()
	s.failures++
	first := s.failures == 1
	back := min(minBackoff<<min(s.failures-1, 10), maxBackoff)
	back = back/2 + rand.N(back/2)
	s.nextTry = time.Now().Add(back)
	s.mu.Unlock()
	if first {
		s.client.log.Warn("cannot connect, trying on", "server", s.Alias, "addr", s.Addr, "err", err)
	}
}

// close ends the connection.
func (s *server) close() {
	s.mu.Lock()
	c := s.cur
	s.mu.Unlock()
	if c != nil {
		c.kill(errClosed)
	}
}

// release gives back k's slot.
func (s *server) release(k *call) {
	if k.st.slot {
		k.st.slot = false
		<-s.slots
	}
}

// start posts k if that is possible without waiting. Otherwise, or if the
// attempt fails, finish does the rest.
func (s *server) start(k *call) {
	c := s.live()
	if c == nil {
		return
	}
	select {
	case s.slots <- struct{}{}:
	default:
		return
	}
	s.post(c, k)
}

func (s *server) post(c *conn, k *call) bool {
	k.st.slot = true
	if err := c.post(k); err != nil {
		s.release(k)
		k.conn = nil
		return false
	}
	return true
}

// finish brings a call to its end: it connects and posts it as often as needed.
// On error nothing of the call's memory is in use any more, and if reusable is
// false k must be forgotten. The status of the response is in k.status.
func (s *server) finish(ctx context.Context, k *call) (reusable bool, err error) {
	limit := k.begun.Add(s.client.timeout)
	var last error
	pause := minBackoff
	for losses := 0; ; {
		if k.conn == nil {
			if err := s.repost(ctx, k, limit); err != nil {
				return true, s.explain(ctx, k, err, last)
			}
		}
		gone, err := s.wait(ctx, k)
		if gone {
			return false, s.explain(ctx, k, err, last)
		}
		k.conn = nil
		if err == nil {
			if !k.putOff() || time.Now().Add(pause).After(limit) {
				return true, nil
			}
			if err := sleep(ctx, pause); err != nil {
				return true, s.explain(ctx, k, err, last)
			}
			k.silent = false
			pause = min(2*pause, maxBackoff)
			s.client.stats.retries.Add(1)
			continue
		}
		var lost *lostError
		if !errors.As(err, &lost) {
			return true, fmt.Errorf("pvfs: %v on server %s at %s: %w", k.op, s.Alias, s.Addr, err)
		}
		if errors.Is(lost.err, syscall.EPROTO) && !s.spoke.Load() { // no server at all, or not for us
			return true, fmt.Errorf("pvfs: %v on server %s at %s: %w", k.op, s.Alias, s.Addr, lost.err)
		}
		k.lost = k.lost || lost.sent
		last, k.silent = lost.err, errors.Is(lost.err, errSilent)
		if losses++; losses <= maxLosses && !k.silent {
			limit = time.Now().Add(s.client.timeout) // from now on we wait for the server
		}
		if errors.Is(last, errClosed) || !time.Now().Before(limit) {
			return true, s.explain(ctx, k, err, last)
		}
		s.client.stats.retries.Add(1)
		s.client.log.Debug("connection lost, sending again", "server", s.Alias, "op", k.op.String(), "err", last)
	}
}

// putOff reports whether the server refuses changes for a while, as while a
// repair tool is at work. Of entries it may mean that their bucket has split,
// which is inBucket's business.
func (k *call) putOff() bool {
	switch k.op {
	case wire.OpCrDirent, wire.OpRmDirent, wire.OpChDirent:
		return false
	}
	return k.status != 0 && k.status.Errno() == syscall.EAGAIN
}

// repost posts k, waiting for a connection until limit.
func (s *server) repost(ctx context.Context, k *call, limit time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, limit)
	defer cancel()
	var last error
	for {
		c, err := s.connect(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return cmp.Or(last, err)
			}
			if last = err; errors.Is(err, errClosed) || errors.Is(err, errOther) {
				return err
			}
			continue
		}
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return cmp.Or(last, ctx.Err())
		}
		if s.post(c, k) {
			return nil
		}
	}
}

// wait waits for the outcome of k's attempt. gone means that the attempt goes
// on without us and k must be forgotten.
func (s *server) wait(ctx context.Context, k *call) (gone bool, err error) {
	if ctx.Err() == nil {
		k.conn.lead(k)
	}
	select {
	case err := <-k.done:
		return false, err
	default:
	}
	quiet := s.client.timeout - s.client.since(k.progress.Load())
	if k.timer == nil {
		k.timer = time.NewTimer(quiet)
	} else {
		k.timer.Reset(quiet)
	}
	defer k.timer.Stop()
	for {
		select {
		case err := <-k.done:
			return false, err
		case <-ctx.Done():
			if k.conn.abandon(k) {
				return false, <-k.done
			}
			return true, ctx.Err()
		case <-k.timer.C:
		}
		if still := s.client.timeout - s.client.since(k.progress.Load()); still > 0 {
			k.timer.Reset(still)
			continue
		}
		if k.conn.abandon(k) {
			return false, <-k.done
		}
		if s.client.since(k.conn.lastRecv.Load()) >= s.client.timeout {
			k.conn.kill(errSilent)
		}
		return true, errSilent
	}
}

var errSilent = errors.New("no answer")

// explain turns a failure to reach the server into what callers see: the error
// of their context if that is the reason, else EIO naming the server.
func (s *server) explain(ctx context.Context, k *call, err, last error) error {
	if ctx.Err() != nil {
		err := fmt.Errorf("pvfs: %v on server %s: %w", k.op, s.Alias, ctx.Err())
		if last != nil {
			err = fmt.Errorf("%w: %v", err, last)
		}
		return err
	}
	if last != nil && errors.Is(err, context.DeadlineExceeded) {
		err = last
	}
	return errno.Wrap("pvfs."+k.op.String(), syscall.EIO, fmt.Errorf("server %s at %s: %w", s.Alias, s.Addr, err))
}

// sleep waits for d or until ctx is done.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dialTCP connects with keepalive settings that notice a vanished host.
func dialTCP(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3},
		Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) {
				// Without the option the kernel takes longer to give up; that is all.
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 30000)
			})
		},
	}
	return d.DialContext(ctx, network, addr)
}
