package ionserver

import (
	"context"
	"net"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

func TestSessionTableExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newSessionTable(15 * time.Second)
		s := table.open(&ionpb.HelloReq{Name: "node", Mountpoint: "/zfs", Pid: 1}, "addr")
		time.Sleep(14 * time.Second)
		none, next := table.expired(time.Now())
		require.Empty(t, none)
		require.Equal(t, time.Second, next)
		r := &rpc.Request{Frame: &rpc.Frame{ID: 1, Op: ionpb.Op_PING}}
		_, _, alive := s.begin(r, time.Now())
		require.True(t, alive)
		time.Sleep(14 * time.Second)
		none, next = table.expired(time.Now())
		require.Empty(t, none, "any request renews")
		time.Sleep(next)
		one, next := table.expired(time.Now())
		require.Equal(t, []*session{s}, one)
		require.Equal(t, 15*time.Second, next, "there is no other")
	})
}

// TestSessionSettles: who comes back under a new session waits until what the
// old one had running is over.
func TestSessionSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newSessionTable(time.Second)
		s := table.open(&ionpb.HelloReq{Name: "node", Mountpoint: "/zfs", Pid: 1}, "addr")
		v, _, _ := s.begin(&rpc.Request{Frame: &rpc.Frame{ID: 1, Op: ionpb.Op_WRITE}}, time.Now())
		require.Equal(t, runIt, v)
		require.True(t, table.kill(s))
		require.False(t, table.kill(s), "once only")
		_, _, alive := s.begin(&rpc.Request{Frame: &rpc.Frame{ID: 2, Op: ionpb.Op_WRITE}}, time.Now())
		require.False(t, alive)
		settled := make(chan error, 1)
		go func() { settled <- table.settle(t.Context(), s.id) }()
		synctest.Wait()
		require.Empty(t, settled)
		s.end(1, &rpc.Frame{})
		require.NoError(t, <-settled)
		table.expired(time.Now())
		require.Empty(t, table.dead)
	})
}

// until polls for what another goroutine is about to do.
func until(t testing.TB, what string, ok func() bool, explain ...func()) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().Before(deadline) {
			continue
		}
		for _, fn := range explain {
			fn()
		}
		require.FailNow(t, "never: "+what)
	}
}

// TestSessionDeath: a mount that falls silent loses its locks and opens; what
// it kept from being destroyed is destroyed.
func TestSessionDeath(t *testing.T) {
	s := startSystem(t, 2, 2, func(_ int, o *Options) { o.Lease = time.Second })
	a, b := s.mount(t), s.alive(t)
	silent := a.pingAll()
	h, name := a.fileHomedAt(a.root, "f", 0)
	_, err := a.open(h, 0)
	require.NoError(t, err)
	require.NoError(t, a.lock(t.Context(), h, 1, ionpb.LockType_WRITE_LOCK, false))
	require.ErrorIs(t, b.lock(t.Context(), h, 1, ionpb.LockType_READ_LOCK, false), syscall.EAGAIN)
	_, err = b.unlink(b.root, name)
	require.NoError(t, err)

	silent()
	require.NoError(t, b.lock(t.Context(), h, 1, ionpb.LockType_READ_LOCK, true), "granted when the holder's lease ends")
	until(t, "the orphan is destroyed", func() bool { return !s.exists(h) })
	_, err = a.call(t.Context(), 0, rpc.Frame{Op: ionpb.Op_PING}, nil, nil)
	require.ErrorIs(t, err, syscall.ESTALE)
	trace := s.nodes[0].mark(&session{id: a.links[0].session, mount: a.id}).String()
	until(t, "its trace is gone", func() bool {
		return !slices.Contains(s.leftovers(), trace)
	})
}

func TestBye(t *testing.T) {
	s := startSystem(t, 1, 1, nil)
	a, b := s.mount(t), s.mount(t)
	h := a.file(a.root, "f")
	trace := s.nodes[0].mark(&session{id: a.links[0].session, mount: a.id}).String()
	require.Contains(t, s.leftovers(), trace)
	require.NoError(t, a.lock(t.Context(), h, 1, ionpb.LockType_WRITE_LOCK, false))
	_, err := a.call(t.Context(), 0, rpc.Frame{Op: ionpb.Op_BYE}, nil, nil)
	require.NoError(t, err)
	require.NoError(t, b.lock(t.Context(), h, 1, ionpb.LockType_WRITE_LOCK, false))
	require.NotContains(t, s.leftovers(), trace)
}

// TestLocksAcrossMounts: conflict, GETLOCK, blocking, cancel, deadlock.
func TestLocksAcrossMounts(t *testing.T) {
	s := startSystem(t, 2, 1, nil)
	a, b := s.mount(t), s.mount(t)
	h, _ := a.fileHomedAt(a.root, "f", 0)
	h2, _ := a.fileHomedAt(a.root, "g", 0)
	const read, write = ionpb.LockType_READ_LOCK, ionpb.LockType_WRITE_LOCK
	require.NoError(t, a.lock(t.Context(), h, 1, write, false))
	var g ionpb.GetLockResp
	require.NoError(t, b.atHome(ionpb.Op_GETLOCK, h, &ionpb.LockReq{Owner: 1, Start: 5, End: 9, Type: read}, &g))
	require.Equal(t, write, g.Type)
	require.EqualValues(t, 1, g.Pid)

	// Blocked, then granted by an unlock.
	got := make(chan error, 1)
	go func() { got <- b.lock(context.Background(), h, 7, read, true) }()
	until(t, "the request waits", func() bool { return s.nodes[0].locks.waits() == 1 })
	require.NoError(t, a.lock(t.Context(), h, 1, ionpb.LockType_UNLOCK, false))
	require.NoError(t, <-got)

	// Cancelled.
	l := a.links[0]
	go func() { got <- a.lock(context.Background(), h, 1, write, true) }()
	until(t, "the request waits", func() bool { return s.nodes[0].locks.waits() == 1 })
	l.mu.Lock()
	id := l.next
	l.mu.Unlock()
	var c ionpb.CancelResp
	_, err := a.call(t.Context(), 0, rpc.Frame{Op: ionpb.Op_CANCEL}, &ionpb.CancelReq{Id: id}, &c)
	require.NoError(t, err)
	require.True(t, c.Found)
	require.ErrorIs(t, <-got, syscall.EINTR)

	// b holds h, a holds h2, b waits for h2: a must not wait for h.
	require.NoError(t, a.lock(t.Context(), h2, 1, write, false))
	go func() { got <- b.lock(context.Background(), h2, 7, write, true) }()
	until(t, "the request waits", func() bool { return s.nodes[0].locks.waits() == 1 })
	require.ErrorIs(t, a.lock(t.Context(), h, 1, write, true), syscall.EDEADLK)
	require.NoError(t, a.lock(t.Context(), h2, 1, ionpb.LockType_UNLOCK, false))
	require.NoError(t, <-got)
}

func (l *lockService) waits() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.table.waiters {
		n += k
	}
	return n
}

// reconnect opens a new control stream for the same session.
func (m *mount) reconnect(t *testing.T, s *system, at int) {
	t.Helper()
	l := m.links[at]
	l.control.Close()
	var err error
	l.control, err = rpc.Dial(t.Context(), s.addrs[at], rpc.Options{})
	require.NoError(t, err)
	var r ionpb.HelloResp
	m.hello(l.control, l, &ionpb.HelloReq{Version: 1, Session: l.session}, &r)
	require.True(t, r.Resumed)
	require.Equal(t, l.session, r.Session)
}

// TestResend: a request sent again, on the same or another connection, while
// it runs or afterwards, is carried out once.
func TestResend(t *testing.T) {
	s := startSystem(t, 1, 1, nil)
	m := s.mount(t)
	l := m.links[0]
	send := func(id uint64, op ionpb.Op, name string, acked uint64) (*rpc.Frame, error) {
		f := &rpc.Frame{ID: id, Op: op, Handle: m.root, Epoch: m.view.Epoch, Acked: acked}
		if op == ionpb.Op_CREATE {
			f.Encode(&ionpb.CreateReq{Name: []byte(name), Excl: true, Open: true})
		} else {
			f.Encode(&ionpb.NameReq{Name: []byte(name)})
		}
		r, err := l.control.Call(t.Context(), f)
		require.NoError(t, err)
		return r, r.Err()
	}
	const base = 1000
	first, err := send(base, ionpb.Op_CREATE, "once", base-1)
	require.NoError(t, err)
	again, err := send(base, ionpb.Op_CREATE, "once", base-1)
	require.NoError(t, err)
	require.Equal(t, first.Body, again.Body)
	m.reconnect(t, s, 0)
	again, err = send(base, ionpb.Op_CREATE, "once", base-1)
	require.NoError(t, err)
	require.Equal(t, first.Body, again.Body)

	var made ionpb.EntryResp
	require.NoError(t, first.Decode(&made))
	require.True(t, made.Opened)
	_, err = send(base+1, ionpb.Op_UNLINK, "once", base)
	require.NoError(t, err)
	_, err = send(base+1, ionpb.Op_UNLINK, "once", base)
	require.NoError(t, err, "not ENOENT")
	require.True(t, s.exists(made.Handle))
	l.next = base + 10
	m.closeFile(made.Handle)
	require.False(t, s.exists(made.Handle), "it was open once")
	_, err = send(base+20, ionpb.Op_CREATE, "once", base+1)
	require.NoError(t, err)
	_, err = send(base+1, ionpb.Op_UNLINK, "once", base)
	require.ErrorIs(t, err, syscall.EINVAL, "a stray duplicate of what was acknowledged changes nothing")
	_, err = m.lookup(m.root, "once")
	require.NoError(t, err)
}

// TestBlockedLockSurvivesReconnect: the wait ends with the stream, and begins
// again when the request is sent again.
func TestBlockedLockSurvivesReconnect(t *testing.T) {
	s := startSystem(t, 1, 1, nil)
	a, b := s.mount(t), s.mount(t)
	h := a.file(a.root, "f")
	require.NoError(t, a.lock(t.Context(), h, 1, ionpb.LockType_WRITE_LOCK, false))
	got := make(chan error, 1)
	go func() { got <- b.lock(context.Background(), h, 1, ionpb.LockType_WRITE_LOCK, true) }()
	until(t, "the request waits", func() bool { return s.nodes[0].locks.waits() == 1 })
	b.reconnect(t, s, 0)
	require.ErrorIs(t, <-got, rpc.ErrBroken)
	until(t, "the wait ends", func() bool { return s.nodes[0].locks.waits() == 0 })
	go func() { got <- b.lock(context.Background(), h, 1, ionpb.LockType_WRITE_LOCK, true) }()
	until(t, "the request waits", func() bool { return s.nodes[0].locks.waits() == 1 })
	require.NoError(t, a.lock(t.Context(), h, 1, ionpb.LockType_UNLOCK, false))
	require.NoError(t, <-got)
}

// crash ends node i without the good order of stop: for PVFS2 and mounts it is
// as if it had been killed.
func (s *system) crash(i int) {
	n := s.nodes[i]
	s.nodes[i] = nil
	n.client.Close() // from now on nothing it does has an effect
	n.home.mu.Lock()
	n.home.inodes = make(map[uint64]*inode) // nothing to save in good order
	n.home.mu.Unlock()
	n.stop()
	<-n.done
}

func (s *system) restart(i int, edit func(i int, o *Options)) {
	s.t.Helper()
	l, err := net.Listen("tcp", s.addrs[i])
	require.NoError(s.t, err)
	s.start(i, l, edit)
}

// TestRestartAfterCrash: the orphan waits to be reclaimed, other locks wait
// for those that are reclaimed, and what nobody reclaims is destroyed.
func TestRestartAfterCrash(t *testing.T) {
	const lease = 2 * time.Second
	edit := func(_ int, o *Options) { o.Lease, o.Drain = lease, 50*time.Millisecond }
	s := startSystem(t, 1, 1, edit)
	a := s.alive(t)
	kept, lost, locked := a.file(a.root, "kept"), a.file(a.root, "lost"), a.file(a.root, "locked")
	for _, h := range []uint64{kept, lost} {
		_, err := a.open(h, 0)
		require.NoError(t, err)
	}
	require.NoError(t, a.lock(t.Context(), locked, 1, ionpb.LockType_WRITE_LOCK, false))
	require.NoError(t, a.write(kept, 0, []byte("bytes"), 0))
	require.NoError(t, a.atHome(ionpb.Op_FSYNC, kept, &ionpb.FsyncReq{}, nil))
	for _, n := range []string{"kept", "lost"} {
		r, err := a.unlink(a.root, n)
		require.NoError(t, err)
		require.True(t, r.Open)
	}
	s.crash(0)
	begin := time.Now()
	s.restart(0, edit)
	a, b := s.alive(t), s.alive(t)
	tried := make(chan error, 1) // does not wait for a, but until it is known that a has the lock
	go func() { tried <- b.lock(context.Background(), locked, 2, ionpb.LockType_WRITE_LOCK, false) }()
	require.NoError(t, a.atHome(ionpb.Op_OPEN, kept, &ionpb.OpenReq{Reclaim: 1}, nil))
	require.NoError(t, a.atHome(ionpb.Op_LOCK, locked, &ionpb.LockReq{Owner: 1, End: maxLockEnd, Type: ionpb.LockType_WRITE_LOCK, Reclaim: true}, nil))
	got := make(chan error, 1)
	go func() { got <- b.lock(context.Background(), locked, 1, ionpb.LockType_WRITE_LOCK, true) }()
	until(t, "what nobody reclaimed is destroyed", func() bool { return !s.exists(lost) })
	require.GreaterOrEqual(t, time.Since(begin), lease)
	require.ErrorIs(t, <-tried, syscall.EAGAIN)
	until(t, "the grace is over and the lock is waited for", func() bool { return s.nodes[0].locks.waits() == 1 })
	require.NoError(t, a.lock(t.Context(), locked, 1, ionpb.LockType_UNLOCK, false))
	require.NoError(t, <-got)
	p, err := a.read(kept, 0, 10)
	require.NoError(t, err)
	require.Equal(t, "bytes", string(p))
	a.closeFile(kept)
	require.False(t, s.exists(kept))
}

// TestUnlinkedInTheGrace: what loses its name while its home does not know yet who
// has it open lives on for those who have, and no longer.
func TestUnlinkedInTheGrace(t *testing.T) {
	brief := briefGrace(fast)
	s := startSystem(t, 2, 1, fast)
	a := s.mount(t)
	other := 1 - a.place.Home(a.root)
	open, openName := a.fileHomedAt(a.root, "open", other)
	_, leftName := a.fileHomedAt(a.root, "left", other)
	left, err := a.lookup(a.root, leftName)
	require.NoError(t, err)
	for _, h := range []uint64{open, left} {
		_, err := a.open(h, 0)
		require.NoError(t, err)
	}
	made := &s.nodes[1-other].made
	made.mu.Lock()
	clear(made.when) // it was not made just now
	made.mu.Unlock()
	s.crash(other)
	s.restart(other, brief)
	a, b := s.alive(t), s.alive(t)
	for _, name := range []string{openName, leftName} {
		_, err := b.unlink(b.root, name)
		require.NoError(t, err)
	}
	require.NoError(t, a.atHome(ionpb.Op_OPEN, open, &ionpb.OpenReq{Reclaim: 1}, nil))
	until(t, "what nobody reclaimed is destroyed", func() bool { return !s.exists(left) })
	require.True(t, s.exists(open))
	a.closeFile(open)
	until(t, "the last close destroys", func() bool { return !s.exists(open) })
}

// TestOrderlyRestartHasNoGrace: after a good end with no mounts left, new
// locks are given at once.
func TestOrderlyRestartHasNoGrace(t *testing.T) {
	s := startSystem(t, 1, 1, nil)
	a := s.mount(t)
	h := a.file(a.root, "f")
	_, err := a.call(t.Context(), 0, rpc.Frame{Op: ionpb.Op_BYE}, nil, nil)
	require.NoError(t, err)
	s.stop(0)
	s.restart(0, nil)
	a = s.mount(t)
	require.NoError(t, a.lock(t.Context(), h, 1, ionpb.LockType_WRITE_LOCK, false))
}

// TestStatus: what an operator sees.
func TestStatus(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	m := s.mount(t)
	h, _ := m.fileHomedAt(m.root, "f", 1)
	_, err := m.open(h, 0)
	require.NoError(t, err)
	require.NoError(t, m.lock(t.Context(), h, 1, ionpb.LockType_WRITE_LOCK, false))
	until(t, "peers are up", func() bool {
		r, err := s.nodes[1].Status(t.Context(), nil)
		require.NoError(t, err)
		return r.Peers[0].Up
	})
	r, err := rpc.Status(t.Context(), s.addrs[1], rpc.Options{})
	require.NoError(t, err)
	require.Equal(t, s.addrs[1], r.Address)
	require.Empty(t, r.Refusing)
	require.Len(t, r.Sessions, 1)
	require.EqualValues(t, 1, r.Sessions[0].Opens)
	require.EqualValues(t, 1, r.Sessions[0].Locks)
	require.EqualValues(t, 2, r.Sessions[0].Connections)
	require.Len(t, r.Servers, 2)
	require.True(t, r.Servers[0].Up)
	st, err := rpc.Stats(t.Context(), s.addrs[1], &ionpb.StatsReq{Reset_: true}, rpc.Options{})
	require.NoError(t, err)
	require.NotZero(t, st.RpcRequests["open"])
	require.NotZero(t, st.PvfsRequests["getattr"])
	st, err = rpc.Stats(t.Context(), s.addrs[1], &ionpb.StatsReq{}, rpc.Options{})
	require.NoError(t, err)
	require.Zero(t, st.RpcRequests["open"])
}

// TestStopWhileLocksWait: the end of a node does not wait for those who wait.
func TestStopWhileLocksWait(t *testing.T) {
	s := startSystem(t, 1, 1, nil)
	a, b := s.mount(t), s.mount(t)
	h := a.file(a.root, "f")
	require.NoError(t, a.lock(t.Context(), h, 1, ionpb.LockType_WRITE_LOCK, false))
	got := make(chan error, 1)
	go func() { got <- b.lock(context.Background(), h, 1, ionpb.LockType_WRITE_LOCK, true) }()
	until(t, "the request waits", func() bool { return s.nodes[0].locks.waits() == 1 })
	begin := time.Now()
	s.stop(0)
	require.Less(t, time.Since(begin), 30*time.Second)
	require.ErrorIs(t, <-got, rpc.ErrBroken, "no answer: the request is sent again to the next life")
}
