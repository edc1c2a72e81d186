package ionserver

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testLogger(t testing.TB) *slog.Logger {
	if os.Getenv("ZOIDFS_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("test", t.Name())
}

// system is a PVFS2 file system with I/O nodes on it.
type system struct {
	t      testing.TB
	pvfs   *pvfsdtest.Cluster
	addrs  []string
	nodes  []*node
	domain int64
}

// node is one I/O node that runs.
type node struct {
	*Server
	client *pvfs.Client
	stop   context.CancelFunc
	done   chan error
}

// startSystem runs I/O nodes over servers. edit changes the options of each.
func startSystem(t testing.TB, ions, servers int, edit func(i int, o *Options)) *system {
	t.Helper()
	return startSystemOn(t, pvfsdtest.Start(t, servers, pvfsdtest.Options{}), ions, edit)
}

func startSystemOn(t testing.TB, servers *pvfsdtest.Cluster, ions int, edit func(i int, o *Options)) *system {
	t.Helper()
	s := &system{t: t, pvfs: servers, domain: 256 << 10}
	var listeners []net.Listener
	for range ions {
		l := pvfsdtest.Listen(t)
		listeners = append(listeners, l)
		s.addrs = append(s.addrs, l.Addr().String())
	}
	for i := range ions {
		s.nodes = append(s.nodes, nil)
		s.start(i, listeners[i], edit)
	}
	t.Cleanup(func() {
		for i := range s.nodes {
			s.stop(i)
		}
	})
	return s
}

func (s *system) start(i int, l net.Listener, edit func(i int, o *Options)) {
	s.t.Helper()
	client, err := pvfs.Dial(context.Background(), s.pvfs.URL(), pvfs.Options{Timeout: 20 * time.Second})
	require.NoError(s.t, err)
	// Mounts of tests do not ping: without another lease none ends on a machine that is busy.
	o := Options{PVFS: client, Listener: l, Peers: s.addrs, Self: s.addrs[i], DomainSize: s.domain, Lease: time.Hour, Logger: testLogger(s.t)}
	if edit != nil {
		edit(i, &o)
	}
	srv, err := New(o)
	require.NoError(s.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{Server: srv, client: client, stop: cancel, done: make(chan error, 1)}
	go func() { n.done <- srv.Run(ctx) }()
	s.nodes[i] = n
}

// stop ends node i in good order.
func (s *system) stop(i int) {
	n := s.nodes[i]
	if n == nil {
		return
	}
	s.nodes[i] = nil
	n.stop()
	require.NoError(s.t, <-n.done)
	require.NoError(s.t, n.client.Close())
}

// mount is the least that a compute node has to do: one session with each I/O
// node, no reconnecting.
type mount struct {
	t     testing.TB
	place *collective.Placement
	view  *ionpb.View
	links []*testLink
	root  uint64
	id    uint64 // HelloReq.mount
	job   uint64 // of its reads

	buffer uint64 // the hint of what it reads and writes

	mu     sync.Mutex
	called []*rpc.Frame // callbacks so far
	// answer, if not nil, is asked how to answer a callback; nil is never.
	answer func(f *rpc.Frame) *rpc.Frame
}

type testLink struct {
	control, data *rpc.Conn
	session       uint64

	mu   sync.Mutex
	next uint64
	open map[uint64]bool // recorded requests that are not answered yet
}

func (s *system) mount(t testing.TB) *mount {
	t.Helper()
	m := &mount{t: t, id: rand.Uint64()}
	for _, addr := range s.addrs {
		l := &testLink{open: make(map[uint64]bool)}
		l.control = dial(t, addr, rpc.Options{Callback: m.callback})
		l.data = dial(t, addr, rpc.Options{})
		var r ionpb.HelloResp
		m.hello(l.control, l, &ionpb.HelloReq{Version: 1, Name: t.Name(), Mount: m.id}, &r)
		l.session, m.view = r.Session, r.View
		m.hello(l.data, l, &ionpb.HelloReq{Version: 1, Session: l.session, Attach: true}, &r)
		m.links = append(m.links, l)
	}
	var err error
	m.place, err = collective.NewPlacement(m.view.Members, m.view.DomainSize)
	require.NoError(t, err)
	m.root = m.view.Root
	t.Cleanup(m.close)
	return m
}

// dial connects, however slow the machine is: it tries again, as mounts do, when an
// I/O node did not answer within the time that gRPC gives it for its first word.
func dial(t testing.TB, addr string, o rpc.Options) *rpc.Conn {
	t.Helper()
	for try := 1; ; try++ {
		c, err := rpc.Dial(t.Context(), addr, o)
		if err == nil {
			return c
		}
		require.Less(t, try, 10, "%v", err)
	}
}

func (m *mount) callback(ctx context.Context, f *rpc.Frame) *rpc.Frame {
	m.mu.Lock()
	m.called = append(m.called, f)
	answer := m.answer
	m.mu.Unlock()
	if answer == nil {
		return new(rpc.Frame)
	}
	if r := answer(f); r != nil {
		return r
	}
	<-ctx.Done()
	return new(rpc.Frame)
}

// callbacks returns the callbacks since it was last asked.
func (m *mount) callbacks() []*rpc.Frame {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.called
	m.called = nil
	return out
}

// close is the sudden death of the mount.
func (m *mount) close() {
	for _, l := range m.links {
		l.control.Close()
		l.data.Close()
	}
}

func (m *mount) hello(c *rpc.Conn, l *testLink, req *ionpb.HelloReq, resp *ionpb.HelloResp) {
	m.t.Helper()
	l.mu.Lock()
	l.next++
	f := &rpc.Frame{ID: l.next, Op: ionpb.Op_HELLO}
	l.mu.Unlock()
	f.Encode(req)
	r, err := c.Call(context.Background(), f)
	require.NoError(m.t, err)
	require.NoError(m.t, r.Err())
	require.NoError(m.t, r.Decode(resp))
}

// call sends f to I/O node at and returns the reply; an error that it carries
// is the error.
func (m *mount) call(ctx context.Context, at int, f rpc.Frame, req, resp proto.Message) (*rpc.Frame, error) {
	l := m.links[at]
	l.mu.Lock()
	l.next++
	f.ID = l.next
	if f.Op.Recorded() {
		l.open[f.ID] = true
	}
	f.Acked = f.ID - 1
	for id := range l.open {
		f.Acked = min(f.Acked, id-1)
	}
	l.mu.Unlock()
	f.Epoch = m.view.Epoch
	if req != nil {
		f.Encode(req)
	}
	c := l.control
	switch f.Op {
	case ionpb.Op_READ, ionpb.Op_WRITE, ionpb.Op_APPEND:
		c = l.data
	}
	r, err := c.Call(ctx, &f)
	l.mu.Lock()
	delete(l.open, f.ID)
	l.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := r.Err(); err != nil {
		r.Data.Release()
		return r, err
	}
	if resp != nil {
		return r, r.Decode(resp)
	}
	return r, nil
}

func (m *mount) atHome(op ionpb.Op, handle uint64, req, resp proto.Message) error {
	_, err := m.call(context.Background(), m.place.Home(handle), rpc.Frame{Op: op, Handle: handle}, req, resp)
	return err
}

func (m *mount) create(dir uint64, name string, excl bool) (uint64, bool, error) {
	var r ionpb.EntryResp
	err := m.atHome(ionpb.Op_CREATE, dir, &ionpb.CreateReq{Name: []byte(name), Mode: 0o644, Excl: excl}, &r)
	return r.Handle, r.Created, err
}

func (m *mount) mkdir(dir uint64, name string) uint64 {
	m.t.Helper()
	var r ionpb.EntryResp
	require.NoError(m.t, m.atHome(ionpb.Op_MKDIR, dir, &ionpb.MkdirReq{Name: []byte(name), Mode: 0o755}, &r))
	return r.Handle
}

func (m *mount) file(dir uint64, name string) uint64 {
	m.t.Helper()
	h, _, err := m.create(dir, name, true)
	require.NoError(m.t, err)
	return h
}

func (m *mount) lookup(dir uint64, name string) (uint64, error) {
	var r ionpb.EntryResp
	err := m.atHome(ionpb.Op_LOOKUP, dir, &ionpb.NameReq{Name: []byte(name)}, &r)
	return r.Handle, err
}

func (m *mount) unlink(dir uint64, name string) (*ionpb.UnlinkResp, error) {
	var r ionpb.UnlinkResp
	err := m.atHome(ionpb.Op_UNLINK, dir, &ionpb.NameReq{Name: []byte(name)}, &r)
	return &r, err
}

func (m *mount) rename(od uint64, on string, nd uint64, nn string, flags uint32) (*ionpb.RenameResp, error) {
	var r ionpb.RenameResp
	err := m.atHome(ionpb.Op_RENAME, nd, &ionpb.RenameReq{OldDir: od, OldName: []byte(on), NewName: []byte(nn), Flags: flags}, &r)
	return &r, err
}

func (m *mount) stat(h uint64) (*ionpb.Attr, error) {
	var r ionpb.Attr
	err := m.atHome(ionpb.Op_GETATTR, h, nil, &r)
	return &r, err
}

func (m *mount) open(h uint64, flags uint32) (*ionpb.Attr, error) {
	var r ionpb.Attr
	err := m.atHome(ionpb.Op_OPEN, h, &ionpb.OpenReq{Flags: flags}, &r)
	return &r, err
}

func (m *mount) closeFile(h uint64) {
	m.t.Helper()
	require.NoError(m.t, m.atHome(ionpb.Op_CLOSE, h, &ionpb.CloseReq{Count: 1}, nil))
}

func (m *mount) setAttr(h uint64, req *ionpb.SetAttrReq) (*ionpb.Attr, error) {
	var r ionpb.Attr
	err := m.atHome(ionpb.Op_SETATTR, h, req, &r)
	return &r, err
}

func (m *mount) truncate(h uint64, size int64) error {
	_, err := m.setAttr(h, &ionpb.SetAttrReq{Size: &size})
	return err
}

func (m *mount) write(h uint64, off int64, p []byte, flags uint32) error {
	for _, e := range m.place.Split(extent.Extent{Off: off, Len: int64(len(p))}) {
		part := p[e.Off-off : e.End()-off]
		r, err := m.call(context.Background(), m.place.Owner(h, e.Off), rpc.Frame{Op: ionpb.Op_WRITE, Handle: h, Off: e.Off, Flags: flags, Buffer: m.buffer, Data: rpc.Static(part)}, nil, nil)
		if err != nil {
			return err
		}
		if r.Len != e.Len {
			return fmt.Errorf("wrote %d of %d", r.Len, e.Len)
		}
	}
	return nil
}

func (m *mount) read(h uint64, off int64, n int) ([]byte, error) {
	var out []byte
	for _, e := range m.place.Split(extent.Extent{Off: off, Len: int64(n)}) {
		r, err := m.call(context.Background(), m.place.Owner(h, e.Off), rpc.Frame{Op: ionpb.Op_READ, Handle: h, Off: e.Off, Len: e.Len, Job: m.job, Buffer: m.buffer}, nil, nil)
		if err != nil {
			return out, err
		}
		for _, p := range r.Data.Append(nil) {
			out = append(out, p...)
		}
		got := int64(r.Data.Len())
		r.Data.Release()
		if got < e.Len {
			break
		}
	}
	return out, nil
}

func (m *mount) append(h uint64, p []byte) (int64, error) {
	r, err := m.call(context.Background(), m.place.Home(h), rpc.Frame{Op: ionpb.Op_APPEND, Handle: h, Data: rpc.Static(p)}, nil, nil)
	if err != nil {
		return 0, err
	}
	if r.Len != int64(len(p)) {
		return 0, fmt.Errorf("appended %d of %d", r.Len, len(p))
	}
	return r.Off, nil
}

func (m *mount) lock(ctx context.Context, h, owner uint64, typ ionpb.LockType, wait bool) error {
	_, err := m.call(ctx, m.place.Home(h), rpc.Frame{Op: ionpb.Op_LOCK, Handle: h},
		&ionpb.LockReq{Owner: owner, End: math.MaxInt64, Type: typ, Wait: wait, Pid: uint32(owner)}, nil)
	return err
}

// fileHomedAt makes a file whose home is I/O node at.
func (m *mount) fileHomedAt(dir uint64, prefix string, at int) (uint64, string) {
	m.t.Helper()
	for i := range 1000 {
		name := fmt.Sprintf("%s%d", prefix, i)
		h := m.file(dir, name)
		if m.place.Home(h) == at {
			return h, name
		}
		_, err := m.unlink(dir, name)
		require.NoError(m.t, err)
	}
	m.t.Fatal("no file is homed there")
	return 0, ""
}
