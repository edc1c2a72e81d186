package ionclient

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store is the file system behind the scripted I/O nodes.
type store struct {
	mu      sync.Mutex
	names   map[string]uint64 // dir/name
	files   map[uint64][]byte
	next    uint64
	applied map[ionpb.Op]int // how often an operation was carried out
}

// ion is a scripted I/O node: what ion.proto promises to a mount, and no more.
type ion struct {
	t     *testing.T
	addr  string
	store *store
	boot  uint64
	grace bool // guarded by mu
	pings atomic.Int64
	mute  atomic.Bool // what is recorded is carried out and not answered

	mu       sync.Mutex
	view     *ionpb.View
	place    *collective.Placement
	sessions map[uint64]*ionSession
	last     uint64               // session id
	locks    map[uint64]lockTable // by handle; Owner is session<<8 | owner
	waiting  map[*rpc.Request]*ionpb.LockReq
}

type ionSession struct {
	id      uint64
	acked   uint64
	replies map[uint64]*rpc.Frame
	running map[uint64][]*rpc.Request
	opens   map[uint64]int
}

func newIon(t *testing.T, addr string, st *store, view *ionpb.View, boot uint64) *ion {
	n := &ion{t: t, addr: addr, store: st, boot: boot, sessions: map[uint64]*ionSession{}, locks: map[uint64]lockTable{}, waiting: map[*rpc.Request]*ionpb.LockReq{}}
	n.setView(view)
	return n
}

func (n *ion) setView(v *ionpb.View) {
	place, err := collective.NewPlacement(v.Members, v.DomainSize)
	require.NoError(n.t, err)
	n.mu.Lock()
	n.view, n.place = v, place
	n.mu.Unlock()
}

func (n *ion) Connect(*rpc.Peer) rpc.Handler { return &ionStream{ion: n} }
func (n *ion) Stats(context.Context, *ionpb.StatsReq) (*ionpb.StatsResp, error) {
	return nil, syscall.ENOSYS
}
func (n *ion) Status(context.Context, *ionpb.StatusReq) (*ionpb.StatusResp, error) {
	return nil, syscall.ENOSYS
}

func (n *ion) Rounds(context.Context, *ionpb.RoundsReq) (*ionpb.RoundsResp, error) {
	return nil, syscall.ENOSYS
}

type ionStream struct {
	*ion
	mu   sync.Mutex
	sess *ionSession
}

func (s *ionStream) Close() {}

func (s *ionStream) Try(*rpc.Request) bool { return false }

func (s *ionStream) Handle(r *rpc.Request) {
	s.mu.Lock()
	sess := s.sess
	s.mu.Unlock()
	switch {
	case r.Op == ionpb.Op_HELLO:
		s.hello(r)
		return
	case sess == nil:
		stale(r, ionpb.Flag_STALE_SESSION)
		return
	}
	n := s.ion
	n.mu.Lock()
	if n.sessions[sess.id] != sess {
		n.mu.Unlock()
		stale(r, ionpb.Flag_STALE_SESSION)
		return
	}
	for id := range sess.replies {
		if id <= r.Acked {
			delete(sess.replies, id)
		}
	}
	if r.Op.Recorded() {
		if f := sess.replies[r.ID]; f != nil {
			n.mu.Unlock()
			g := *f
			r.Reply(&g)
			return
		}
		if q, ok := sess.running[r.ID]; ok {
			sess.running[r.ID] = append(q, r)
			n.mu.Unlock()
			return
		}
		if r.ID <= sess.acked {
			n.t.Errorf("%v with id %d comes again after it was acknowledged", r.Op, r.ID)
		}
		sess.running[r.ID] = []*rpc.Request{r}
	}
	sess.acked = max(sess.acked, r.Acked)
	n.mu.Unlock()
	out := n.carryOut(sess, r)
	if out == nil || r.Op.Recorded() && n.mute.Load() {
		return // answered later, or never
	}
	if !r.Op.Recorded() {
		r.Reply(out)
		return
	}
	n.mu.Lock()
	sess.replies[r.ID] = out
	q := sess.running[r.ID]
	delete(sess.running, r.ID)
	n.mu.Unlock()
	for _, r := range q {
		g := *out
		r.Reply(&g)
	}
}

func stale(r *rpc.Request, flag ionpb.Flag) {
	f := &rpc.Frame{Flags: uint32(flag)}
	f.Failure(errno.New("ion", syscall.ESTALE))
	r.Reply(f)
}

func (s *ionStream) hello(r *rpc.Request) {
	var h ionpb.HelloReq
	if err := r.Decode(&h); err != nil {
		r.Fail(err)
		return
	}
	n := s.ion
	n.mu.Lock()
	defer n.mu.Unlock()
	if h.Fsid != 0 && h.Fsid != n.view.Fsid {
		r.Fail(errno.New("ion: another file system", syscall.ENODEV))
		return
	}
	sess := n.sessions[h.Session]
	resumed := sess != nil
	if h.Attach && !resumed {
		stale(r, ionpb.Flag_STALE_SESSION)
		return
	}
	if !resumed {
		n.last++
		sess = &ionSession{id: n.boot<<16 + n.last, replies: map[uint64]*rpc.Frame{}, running: map[uint64][]*rpc.Request{}, opens: map[uint64]int{}}
		n.sessions[sess.id] = sess
	}
	s.mu.Lock()
	s.sess = sess
	s.mu.Unlock()
	var reclaims []uint64
	if n.grace && !resumed {
		reclaims = []uint64{h.Session}
	}
	r.ReplyMsg(&ionpb.HelloResp{Session: sess.id, Resumed: resumed, Boot: n.boot, LeaseMs: 15000, View: n.view, Reclaims: reclaims})
}

// carryOut returns the reply, or nil if it comes later.
func (n *ion) carryOut(sess *ionSession, r *rpc.Request) *rpc.Frame {
	n.mu.Lock()
	epoch, place, me := n.view.Epoch, n.place, n.view.Members
	n.mu.Unlock()
	reply := func(m proto.Message, err error) *rpc.Frame {
		f := new(rpc.Frame)
		if err != nil {
			f.Failure(err)
		} else if m != nil {
			f.Encode(m)
		}
		return f
	}
	switch r.Op {
	case ionpb.Op_PING:
		n.pings.Add(1)
		return reply(&ionpb.PingResp{Epoch: epoch}, nil)
	case ionpb.Op_BYE:
		n.mu.Lock()
		delete(n.sessions, sess.id)
		n.mu.Unlock()
		return reply(nil, nil)
	}
	to := place.Home(r.Handle)
	if r.Op == ionpb.Op_READ || r.Op == ionpb.Op_WRITE {
		to = place.Owner(r.Handle, r.Off)
	}
	if r.Op != ionpb.Op_CANCEL && (r.Epoch != epoch || me[to] != n.addr) {
		f := reply(nil, errno.New("ion: view", syscall.ESTALE))
		f.Flags = uint32(ionpb.Flag_STALE_VIEW)
		return f
	}
	st := n.store
	st.mu.Lock()
	st.applied[r.Op]++
	st.mu.Unlock()
	switch r.Op {
	case ionpb.Op_CREATE:
		var m ionpb.CreateReq
		if err := r.Decode(&m); err != nil {
			return reply(nil, err)
		}
		e, err := st.create(fmt.Sprintf("%d/%s", r.Handle, m.Name))
		if err != nil {
			return reply(nil, err)
		}
		if e.Opened = m.Open && me[place.Home(e.Handle)] == n.addr; e.Opened {
			n.mu.Lock()
			sess.opens[e.Handle]++
			n.mu.Unlock()
		}
		return reply(e, nil)
	case ionpb.Op_UNLINK:
		var m ionpb.NameReq
		if err := r.Decode(&m); err != nil {
			return reply(nil, err)
		}
		return reply(st.unlink(fmt.Sprintf("%d/%s", r.Handle, m.Name)))
	case ionpb.Op_GETATTR:
		st.mu.Lock()
		defer st.mu.Unlock()
		data, ok := st.files[r.Handle]
		if !ok {
			return reply(nil, errno.New("ion.getattr", syscall.ENOENT))
		}
		return reply(&ionpb.Attr{Handle: r.Handle, Size: int64(len(data)), Type: ionpb.ObjType_FILE}, nil)
	case ionpb.Op_READ:
		return &rpc.Frame{Data: rpc.Static(st.read(r.Handle, r.Off, r.Len))}
	case ionpb.Op_WRITE:
		p := make([]byte, r.Data.Len())
		r.Data.CopyTo(p)
		st.write(r.Handle, r.Off, p)
		return &rpc.Frame{Len: int64(len(p))}
	case ionpb.Op_APPEND:
		p := make([]byte, r.Data.Len())
		r.Data.CopyTo(p)
		return &rpc.Frame{Off: st.write(r.Handle, -1, p), Len: int64(len(p))}
	case ionpb.Op_OPEN:
		var m ionpb.OpenReq
		if err := r.Decode(&m); err != nil {
			return reply(nil, err)
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		if sess.opens[r.Handle]++; m.Reclaim > 0 {
			sess.opens[r.Handle] = int(m.Reclaim)
		}
		return reply(&ionpb.Attr{Handle: r.Handle}, nil)
	case ionpb.Op_CLOSE:
		n.mu.Lock()
		defer n.mu.Unlock()
		sess.opens[r.Handle]--
		return reply(nil, nil)
	case ionpb.Op_LOCK:
		return n.lock(sess, r)
	case ionpb.Op_CANCEL:
		var m ionpb.CancelReq
		if err := r.Decode(&m); err != nil {
			return reply(nil, err)
		}
		return reply(&ionpb.CancelResp{Found: n.cancel(sess, m.Id)}, nil)
	}
	return reply(nil, errno.New("ion", syscall.EOPNOTSUPP))
}

// key is the owner of a lock in the I/O node's table: sessions apart.
func (n *ion) key(sess *ionSession, m *ionpb.LockReq) Lock {
	return Lock{Owner: sess.id<<8 | m.Owner, Start: m.Start, End: m.End, Type: m.Type, Flock: m.Flock}
}

func (n *ion) lock(sess *ionSession, r *rpc.Request) *rpc.Frame {
	var m ionpb.LockReq
	if err := r.Decode(&m); err != nil {
		f := new(rpc.Frame)
		f.Failure(err)
		return f
	}
	n.mu.Lock()
	t := n.locks[r.Handle]
	if !t.conflicts(n.key(sess, &m)) {
		t.apply(n.key(sess, &m))
		n.locks[r.Handle] = t
		n.mu.Unlock()
		n.grant()
		return new(rpc.Frame)
	}
	if m.Wait {
		m.Owner = sess.id<<8 | m.Owner
		for old := range n.waiting { // sent again
			if old.ID == r.ID && n.waiting[old].Owner == m.Owner {
				delete(n.waiting, old)
			}
		}
		n.waiting[r] = &m
		n.mu.Unlock()
		return nil
	}
	n.mu.Unlock()
	f := new(rpc.Frame)
	f.Failure(errno.New("ion.lock", syscall.EAGAIN))
	return f
}

func (t lockTable) conflicts(l Lock) bool {
	if l.Type == ionpb.LockType_UNLOCK {
		return false
	}
	for _, h := range t {
		if h.Owner != l.Owner && h.Flock == l.Flock && h.Start <= l.End && l.Start <= h.End &&
			(h.Type == ionpb.LockType_WRITE_LOCK || l.Type == ionpb.LockType_WRITE_LOCK) {
			return true
		}
	}
	return false
}

// grant answers those who waited for what is free now.
func (n *ion) grant() {
	n.mu.Lock()
	var ready []*rpc.Request
	for r, m := range n.waiting {
		l := Lock{Owner: m.Owner, Start: m.Start, End: m.End, Type: m.Type, Flock: m.Flock}
		t := n.locks[r.Handle]
		if !t.conflicts(l) {
			t.apply(l)
			n.locks[r.Handle] = t
			delete(n.waiting, r)
			ready = append(ready, r)
		}
	}
	n.mu.Unlock()
	for _, r := range ready {
		r.ReplyMsg(nil)
	}
}

func (n *ion) cancel(sess *ionSession, id uint64) bool {
	n.mu.Lock()
	var found *rpc.Request
	for r, m := range n.waiting {
		if r.ID == id && m.Owner>>8 == sess.id {
			found = r
			delete(n.waiting, r)
		}
	}
	n.mu.Unlock()
	if found != nil {
		found.Fail(errno.New("ion.lock", syscall.EINTR))
	}
	return found != nil
}

func (st *store) create(path string) (*ionpb.EntryResp, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if _, ok := st.names[path]; ok {
		return nil, errno.New("ion.create", syscall.EEXIST)
	}
	st.next++
	st.names[path], st.files[st.next] = st.next, []byte{}
	return &ionpb.EntryResp{Handle: st.next, Created: true, Attr: &ionpb.Attr{Handle: st.next, Type: ionpb.ObjType_FILE}}, nil
}

func (st *store) unlink(path string) (proto.Message, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	h, ok := st.names[path]
	if !ok {
		return nil, errno.New("ion.unlink", syscall.ENOENT)
	}
	delete(st.names, path)
	return &ionpb.UnlinkResp{Handle: h}, nil
}

func (st *store) read(h uint64, off, n int64) []byte {
	st.mu.Lock()
	defer st.mu.Unlock()
	data := st.files[h]
	off = min(off, int64(len(data)))
	return append([]byte(nil), data[off:min(off+n, int64(len(data)))]...)
}

// write at off, or at the end if that is negative, which it returns.
func (st *store) write(h uint64, off int64, p []byte) int64 {
	st.mu.Lock()
	defer st.mu.Unlock()
	data := st.files[h]
	if off < 0 {
		off = int64(len(data))
	}
	if need := off + int64(len(p)) - int64(len(data)); need > 0 {
		data = append(data, make([]byte, need)...)
	}
	copy(data[off:], p)
	st.files[h] = data
	return off
}

// rig is a cluster of scripted I/O nodes behind proxies that can be cut.
type rig struct {
	t       *testing.T
	store   *store
	view    *ionpb.View
	proxies []*proxy
	ions    []*ion
	stops   []func()
	boots   uint64
}

func newRig(t *testing.T, n int, domain int64) *rig {
	r := &rig{t: t, store: &store{names: map[string]uint64{}, files: map[uint64][]byte{}, next: 1000, applied: map[ionpb.Op]int{}}}
	r.view = &ionpb.View{Epoch: 1, Fsid: 42, FsName: "test", Root: 1, DomainSize: domain}
	for range n {
		p := newProxy(t)
		r.proxies = append(r.proxies, p)
		r.view.Members = append(r.view.Members, p.addr)
	}
	r.ions, r.stops = make([]*ion, n), make([]func(), n)
	for i := range n {
		r.start(i)
	}
	t.Cleanup(func() {
		for i := range r.stops {
			r.stop(i)
		}
	})
	return r
}

// start starts I/O node i, which remembers nothing.
func (r *rig) start(i int) {
	r.boots++
	r.ions[i] = newIon(r.t, r.proxies[i].addr, r.store, r.view, r.boots)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(r.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rpc.Serve(ctx, lis, r.ions[i], rpc.ServerOptions{}) }()
	r.stops[i] = func() {
		cancel()
		require.NoError(r.t, <-done)
	}
	r.proxies[i].setBackend(lis.Addr().String())
}

func (r *rig) stop(i int) {
	if r.stops[i] != nil {
		r.stops[i]()
		r.stops[i] = nil
	}
}

func (r *rig) dial(t *testing.T) *Client {
	c, err := Dial(t.Context(), Options{Addrs: r.view.Members[:1], DataConns: 2})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, c.Close(ctx))
	})
	return c
}

// until waits for something that comes to pass in its time.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 30*time.Second, time.Millisecond)
}

func (r *rig) applied(op ionpb.Op) int {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	return r.store.applied[op]
}

// opens is how often files are open, at all I/O nodes.
func (r *rig) opens() (all int) {
	for _, n := range r.ions {
		n.mu.Lock()
		for _, s := range n.sessions {
			for _, k := range s.opens {
				all += k
			}
		}
		n.mu.Unlock()
	}
	return all
}

// proxy forwards connections and cuts them on demand, anywhere in a message.
type proxy struct {
	addr string
	mu   sync.Mutex
	to   string
	live map[net.Conn]struct{}
	wg   sync.WaitGroup
}

func newProxy(t *testing.T) *proxy {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{addr: lis.Addr().String(), live: map[net.Conn]struct{}{}}
	p.wg.Go(func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.forward(c) })
		}
	})
	t.Cleanup(func() { lis.Close(); p.cut(); p.wg.Wait() })
	return p
}

func (p *proxy) setBackend(addr string) {
	p.mu.Lock()
	p.to = addr
	p.mu.Unlock()
}

func (p *proxy) forward(c net.Conn) {
	p.mu.Lock()
	to := p.to
	p.mu.Unlock()
	s, err := net.Dial("tcp", to)
	if err != nil {
		c.Close()
		return
	}
	p.mu.Lock()
	p.live[c], p.live[s] = struct{}{}, struct{}{}
	p.mu.Unlock()
	var wg sync.WaitGroup
	for _, ends := range [][2]net.Conn{{c, s}, {s, c}} {
		wg.Go(func() {
			io.Copy(ends[0], ends[1])
			c.Close()
			s.Close()
		})
	}
	wg.Wait()
	p.mu.Lock()
	delete(p.live, c)
	delete(p.live, s)
	p.mu.Unlock()
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.live {
		c.Close()
	}
}

const toEOF = math.MaxInt64

// write writes p at off, one request a piece.
func write(ctx context.Context, c *Client, h uint64, off int64, p []byte) (n int64, err error) {
	for _, e := range c.Split(extent.Extent{Off: off, Len: int64(len(p))}) {
		got, _, err := c.Write(ctx, h, []extent.Extent{e}, [][]byte{p[e.Off-off:][:e.Len]}, 0)
		if n += got; err != nil {
			return n, err
		}
	}
	return n, nil
}

// read reads up to n bytes at off.
func read(ctx context.Context, c *Client, h uint64, off, n int64) (p []byte, err error) {
	for _, e := range c.Split(extent.Extent{Off: off, Len: n}) {
		d, _, err := c.Read(ctx, h, []extent.Extent{e}, 0)
		if err != nil {
			return p, err
		}
		for _, s := range d.Slices() {
			p = append(p, s...)
		}
		got := int64(d.Len())
		d.Release()
		if got < e.Len {
			break
		}
	}
	return p, nil
}
