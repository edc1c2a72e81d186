package pvfstest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Proxy stands between a client and its servers and makes the network bad: it
// ends connections after any byte, by closing or resetting them, stalls them,
// so that they are taken and never answered, holds them back so that later ones
// overtake them, opens them twice, and passes bytes on in pieces of any size and
// at any time. Within a connection it keeps their order, and what it has not
// passed on when the client gives a connection up is gone, as with TCP.
//
// What becomes of the nth connection to a server depends on the seed alone. A
// Proxy behaves until Misbehave is called.
type Proxy struct {
	seed  uint64
	to    map[string]*proxied // by the server's address
	bad   atomic.Bool
	done  chan struct{}  // closed at the end
	tasks sync.WaitGroup // all goroutines
	links sync.WaitGroup // those of connections

	mu   sync.Mutex
	open map[*link]bool // guarded by mu
	hits map[string]int // guarded by mu; faults that have struck, by name
}

// proxied is one server.
type proxied struct {
	nr       int
	addr     string
	listener net.Listener
}

// NewProxy listens for every address of servers. All ends with the test.
func NewProxy(t testing.TB, seed uint64, addrs ...string) *Proxy {
	t.Helper()
	p := &Proxy{seed: seed, to: map[string]*proxied{}, done: make(chan struct{}), open: map[*link]bool{}, hits: map[string]int{}}
	for i, addr := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		s := &proxied{i, addr, l}
		p.to[addr] = s
		p.tasks.Go(func() { p.accept(s) })
	}
	t.Cleanup(func() {
		close(p.done)
		p.stop()
		p.tasks.Wait()
	})
	return p
}

// Dial connects to what stands for the server at addr, see pvfs.Options.
func (p *Proxy) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	s, ok := p.to[addr]
	if !ok {
		return nil, fmt.Errorf("no server %q behind the proxy", addr)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, s.listener.Addr().String())
}

// Misbehave turns the faults on or off. Off, connections that have stalled stay
// so, and nothing else happens to those that are open.
func (p *Proxy) Misbehave(on bool) { p.bad.Store(on) }

// Drained fails the test unless all connections are given up by their ends. It
// ends the listeners, so nobody connects any more.
func (p *Proxy) Drained(t testing.TB) {
	t.Helper()
	for _, s := range p.to {
		_ = s.listener.Close()
	}
	all := make(chan struct{})
	p.tasks.Go(func() {
		p.links.Wait()
		close(all)
	})
	select {
	case <-all:
	case <-time.After(10 * time.Second):
		require.Fail(t, "connections are left behind", "%d", p.count())
	}
}

func (p *Proxy) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open)
}

// Hits tells how often each fault has struck.
func (p *Proxy) Hits() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]int{}
	for name, n := range p.hits {
		out[name] = n
	}
	return out
}

func (p *Proxy) hit(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hits[name]++
}

// stop ends everything.
func (p *Proxy) stop() {
	for _, s := range p.to {
		_ = s.listener.Close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.open {
		l.close(false)
	}
}

func (p *Proxy) accept(s *proxied) {
	for n := uint64(0); ; n++ {
		nc, err := s.listener.Accept()
		if err != nil {
			return
		}
		p.links.Add(1)
		p.tasks.Go(func() {
			defer p.links.Done()
			p.serve(s, nc, fateOf(p.seed, uint64(s.nr)<<32|n))
		})
	}
}

// The ways in which a connection ends.
const (
	endNever = iota
	endClose
	endReset
	endStall
)

// fate is what will happen to a connection.
type fate struct {
	r     *rand.Rand    // of the pauses and pieces of both directions, guarded by link.mu
	hold  time.Duration // before anything is passed on
	twin  bool          // the server gets a second connection, on which nothing comes
	end   int           // how it ends
	after [2]int64      // bytes to and from the server after which it ends
	fine  int           // bytes passed on one at a time, at the start
	piece int           // most bytes passed on at once after them
	pause time.Duration // most between two pieces
}

func fateOf(seed, nr uint64) fate {
	r := rand.New(rand.NewPCG(seed, nr))
	f := fate{r: r, piece: 64 << r.IntN(12), twin: r.IntN(4) == 0, after: [2]int64{math.MaxInt64, math.MaxInt64}}
	if r.IntN(4) == 0 {
		f.fine = r.IntN(2000)
	}
	if r.IntN(4) == 0 {
		f.hold = rand.N(50 * time.Millisecond)
	}
	if r.IntN(2) == 0 {
		f.pause = rand.N(time.Duration(f.piece)*100*time.Nanosecond + 1)
	}
	switch n := r.IntN(100); {
	case n < 40:
		f.end = endClose
	case n < 85:
		f.end = endReset
	case n < 97:
		f.end = endStall
	}
	if f.end != endNever {
		// From the first byte to some 400000, all magnitudes alike.
		f.after[r.IntN(2)] = int64(math.Exp(r.Float64()*13)) - 1
	}
	return f
}

// link is one connection.
type link struct {
	p     *Proxy
	ends  [2]*net.TCPConn // the client's and the server's
	dead  chan struct{}   // closed with them
	stall atomic.Bool

	mu   sync.Mutex
	fate fate // guarded by mu as far as it changes
	once sync.Once
}

func (l *link) close(reset bool) {
	l.once.Do(func() {
		for _, c := range l.ends {
			if reset {
				_ = c.SetLinger(0)
			}
			_ = c.Close()
		}
		close(l.dead)
	})
}

// serve passes on a connection until one of its ends closes it.
func (p *Proxy) serve(s *proxied, client net.Conn, f fate) {
	defer client.Close()
	if p.bad.Load() && f.hold > 0 {
		p.hit("hold")
		p.sleep(f.hold, p.done)
	}
	server, err := net.Dial("tcp", s.addr)
	if err != nil {
		return
	}
	defer server.Close()
	if p.bad.Load() && f.twin {
		p.hit("twin")
		if twin, err := net.Dial("tcp", s.addr); err == nil {
			defer twin.Close()
		}
	}
	l := &link{p: p, ends: [2]*net.TCPConn{client.(*net.TCPConn), server.(*net.TCPConn)}, dead: make(chan struct{}), fate: f}
	p.mu.Lock()
	p.open[l] = true
	p.mu.Unlock()
	select {
	case <-p.done: // stop may have missed us
		l.close(false)
	default:
	}
	var g sync.WaitGroup
	for dir := range 2 {
		g.Go(func() { l.close(l.pass(dir)) })
	}
	g.Wait()
	p.mu.Lock()
	delete(p.open, l)
	p.mu.Unlock()
}

// pass moves the bytes of one direction and tells how the connection ends.
func (l *link) pass(dir int) (reset bool) {
	from, to := l.ends[dir], l.ends[1-dir]
	buf := make([]byte, l.fate.piece)
	left, fine := l.fate.after[dir], l.fate.fine
	for {
		piece := buf
		if bad := l.p.bad.Load(); bad && fine > 0 {
			piece, fine = buf[:1], fine-1
		}
		n, err := from.Read(piece)
		if l.stall.Load() { // what comes is swallowed
			n = 0
		}
		bad := l.p.bad.Load()
		if bad {
			l.linger()
		}
		last := bad && int64(n) >= left
		if last {
			n = int(max(left, 0))
		}
		left -= int64(n)
		if wasReset(from) { // what it had sent before it is not under way any more
			return true
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return false
			}
		}
		switch {
		case last && l.fate.end == endStall:
			if !l.stall.Swap(true) {
				l.p.hit("stall")
			}
			left = math.MaxInt64
		case last:
			l.p.hit([...]string{endClose: "close", endReset: "reset"}[l.fate.end])
			return l.fate.end == endReset
		}
		if err != nil {
			return errors.Is(err, syscall.ECONNRESET)
		}
	}
}

// wasReset reports whether the other end has broken off c. Read would still
// return what came before.
func wasReset(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	fds := []unix.PollFd{{}}
	err = raw.Control(func(fd uintptr) {
		fds[0].Fd = int32(fd)
		_, _ = unix.Poll(fds, 0)
	})
	return err != nil || fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
}

// linger makes a pause of random length.
func (l *link) linger() {
	if l.fate.pause == 0 {
		return
	}
	l.mu.Lock()
	d := time.Duration(l.fate.r.Int64N(int64(l.fate.pause) + 1))
	l.mu.Unlock()
	l.p.sleep(d, l.dead)
}

func (p *Proxy) sleep(d time.Duration, until <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-until:
	}
}
