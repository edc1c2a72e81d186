package holder

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/ionserver"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	kib = 1 << 10
	mib = 1 << 20
)

func testLogger(name string) *slog.Logger {
	if os.Getenv("ZOIDFS_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("of", name)
}

// rig is I/O nodes over a PVFS2 file system.
type rig struct {
	t     testing.TB
	pvfs  *pvfsdtest.Cluster
	addrs []string
	peers []string          // the list of each I/O node that is started from now on
	ions  []*ionNode        // nil of one that does not run
	opt   ionserver.Options // Lease and WriteBack of each
	files int

	nodesUp []*node
	between wire    // between I/O nodes
	servers swallow // between them and the PVFS2 servers
}

// swallow loses what servers answer over a connection once something was sent over it.
type swallow struct{ what atomic.Pointer[string] }

func (s *swallow) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	return &swallowed{Conn: c, by: s}, err
}

type swallowed struct {
	net.Conn
	by   *swallow
	lost atomic.Bool
}

func (c *swallowed) Write(p []byte) (int, error) {
	if what := c.by.what.Load(); what != nil && bytes.Contains(p, []byte(*what)) {
		c.lost.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *swallowed) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.lost.Load() {
			return n, err
		}
	}
}

type ionNode struct {
	client *pvfs.Client
	stop   context.CancelFunc
	done   chan error
}

// newRig runs two I/O nodes with domains of 1 MiB.
func newRig(t testing.TB, opt ionserver.Options) *rig {
	t.Helper()
	r := &rig{t: t, pvfs: pvfsdtest.Start(t, 2, pvfsdtest.Options{}), ions: make([]*ionNode, 2), opt: opt}
	var listeners []net.Listener
	for range r.ions {
		l := pvfsdtest.Listen(t)
		listeners = append(listeners, l)
		r.addrs = append(r.addrs, l.Addr().String())
	}
	r.peers = r.addrs
	for i, l := range listeners {
		r.start(i, l)
	}
	t.Cleanup(func() {
		for _, n := range r.ions {
			if n != nil {
				n.stop()
				require.NoError(t, <-n.done)
				require.NoError(t, n.client.Close())
			}
		}
	})
	return r
}

func (r *rig) start(i int, l net.Listener) {
	client, err := pvfs.Dial(context.Background(), r.pvfs.URL(), pvfs.Options{Timeout: 20 * time.Second, Dial: r.servers.dial})
	require.NoError(r.t, err)
	o := r.opt
	o.PVFS, o.Listener, o.Peers, o.Self, o.DomainSize = client, l, r.peers, r.addrs[i], mib
	o.PeerDialer = r.between.dial
	o.Logger = testLogger(fmt.Sprint("ion", i))
	srv, err := ionserver.New(o)
	require.NoError(r.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	n := &ionNode{client: client, stop: cancel, done: make(chan error, 1)}
	go func() { n.done <- srv.Run(ctx) }()
	r.ions[i] = n
}

// crash ends I/O node i as if it had been killed, and runs it again.
func (r *rig) crash(i int) {
	r.t.Helper()
	r.kill(i)
	r.restart(i)
}

// kill ends I/O nodes: nothing that they had in memory only reaches the PVFS2
// servers or a node.
func (r *rig) kill(which ...int) {
	r.t.Helper()
	r.between.set(true)
	defer r.between.set(false)
	for _, n := range r.nodesUp {
		n.wire.set(true)
		defer n.wire.set(false)
	}
	for _, i := range which {
		n := r.ions[i]
		r.ions[i] = nil
		require.NoError(r.t, n.client.Close())
		n.stop()
		<-n.done
	}
}

func (r *rig) restart(i int) {
	r.t.Helper()
	l, err := net.Listen("tcp", r.addrs[i])
	require.NoError(r.t, err)
	r.start(i, l)
}

// node is a compute node.
type node struct {
	r      *rig
	client *ionclient.Client
	held   *Holder
	wire   *wire
}

// wire is the network of a node, which can be cut.
type wire struct {
	mu    sync.Mutex
	cut   bool
	deaf  atomic.Bool // what comes is lost
	conns []net.Conn
}

// conn is a connection over a wire.
type conn struct {
	net.Conn
	w *wire
}

func (c *conn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.w.deaf.Load() {
			return n, err
		}
	}
}

func (w *wire) dial(ctx context.Context, addr string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		return nil, syscall.ENETUNREACH
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err == nil {
		w.conns = append(w.conns, c)
		c = &conn{c, w}
	}
	return c, err
}

// set cuts the wire or mends it.
func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

func (r *rig) node(opt Options) *node {
	r.t.Helper()
	opt.Logger = testLogger("node")
	wire := new(wire)
	client, err := ionclient.Dial(context.Background(), ionclient.Options{Addrs: r.addrs, Logger: opt.Logger, Dialer: wire.dial})
	require.NoError(r.t, err)
	held, err := New(client, nil, opt)
	require.NoError(r.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- held.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		require.NoError(r.t, <-done)
		bye, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.NoError(r.t, client.Close(bye))
	})
	n := &node{r, client, held, wire}
	r.nodesUp = append(r.nodesUp, n)
	return n
}

// nodes are two compute nodes.
func (r *rig) nodes() (p, q *node) {
	return r.node(Options{}), r.node(Options{})
}

// file makes a file.
func (n *node) file() uint64 {
	n.r.t.Helper()
	n.r.files++
	a, err := n.client.Create(context.Background(), n.client.View().Root, fmt.Sprint("f", n.r.files), 0o644, 0, 0)
	require.NoError(n.r.t, err)
	return a.Handle
}

// fd is a file descriptor.
type fd struct {
	*Handle
	n    *node
	t    testing.TB
	rank collective.Member // that reads; zero: of no job
}

func (n *node) open(h uint64, m consistency.Mode, flags uint32) *fd {
	n.r.t.Helper()
	a, err := n.client.Open(context.Background(), h, flags, false)
	require.NoError(n.r.t, err)
	return &fd{n.held.Open(&a, m, flags&syscall.O_ACCMODE != syscall.O_RDONLY), n, n.r.t, collective.Member{}}
}

func (f *fd) write(off int64, s string) {
	f.t.Helper()
	require.NoError(f.t, f.Write(context.Background(), off, []byte(s), 0))
}

func (f *fd) read(off int64, n int) string {
	f.t.Helper()
	return f.readIn(collective.WithCaller(context.Background(), collective.Caller{Member: f.rank}), off, n)
}

func (f *fd) readIn(ctx context.Context, off int64, n int) string {
	f.t.Helper()
	b, err := f.Read(ctx, off, n)
	require.NoError(f.t, err)
	defer b.Release()
	p := make([]byte, b.Len())
	require.Equal(f.t, b.Len(), b.CopyTo(p))
	return string(p)
}

func (f *fd) fsync() {
	f.t.Helper()
	require.NoError(f.t, f.Fsync(context.Background(), false))
}

func (f *fd) flush() {
	f.t.Helper()
	require.NoError(f.t, f.Flush(context.Background()))
}

// close is close(2) of the last descriptor.
func (f *fd) close() {
	f.t.Helper()
	f.flush()
	f.release()
}

func (f *fd) release() {
	f.t.Helper()
	require.NoError(f.t, f.Release(context.Background(), func(clean bool) error {
		return f.n.client.CloseFile(context.Background(), f.file.handle, ionclient.Closing{Count: 1, Clean: clean})
	}))
}

// size is what fstat(2) says.
func (f *fd) size() int64 {
	f.t.Helper()
	a, err := Overlaid(func() Glimpse { return f.n.held.Glimpse(f.file.handle) },
		func() (ionclient.Attr, error) { return f.n.client.GetAttr(context.Background(), f.file.handle) })
	require.NoError(f.t, err)
	return a.Size
}

func (f *fd) truncate(size int64) {
	f.t.Helper()
	require.NoError(f.t, f.n.held.Truncate(context.Background(), f.file.handle, size, func() error {
		_, err := f.n.client.SetAttr(context.Background(), f.file.handle, ionclient.SetAttr{Size: &size})
		return err
	}))
}

// sent is how many requests of a kind a node sends while f runs.
func (n *node) sent(kind string, f func()) int {
	before := n.client.Stats().Requests[kind]
	f()
	return int(n.client.Stats().Requests[kind] - before)
}

// eventually waits for something that another goroutine does.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, 20*time.Second, time.Millisecond, what)
}

// grantFor is the answer that gave the leases that d has.
func grantFor(d *domain) ionclient.Grant {
	return ionclient.Grant{Leases: d.leases, Tenure: d.tenure}
}
