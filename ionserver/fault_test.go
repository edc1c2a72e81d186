package ionserver

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// lazy makes an I/O node that writes nothing back of its own accord.
func lazy(_ int, o *Options) {
	o.WriteBack, o.Persist, o.Drain = time.Hour, time.Hour, 200*time.Millisecond
}

// sealedLips has m hear callbacks but not answer those of this op.
func (m *mount) sealedLips(op ionpb.Op) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answer = func(f *rpc.Frame) *rpc.Frame {
		if f.Op == op {
			return nil
		}
		return new(rpc.Frame)
	}
}

// put writes data and returns the reply.
func (m *mount) put(h uint64, off int64, data string, flags uint32) *rpc.Frame {
	m.t.Helper()
	r, err := m.call(context.Background(), m.place.Owner(h, off),
		rpc.Frame{Op: ionpb.Op_WRITE, Handle: h, Off: off, Flags: flags, Data: rpc.Static([]byte(data))}, nil, nil)
	require.NoError(m.t, err)
	require.EqualValues(m.t, len(data), r.Len)
	require.Positive(m.t, r.Off, "the stamp")
	return r
}

// resume connects m again with an I/O node that was restarted.
func (m *mount) resume(at int, holds bool) *ionpb.HelloResp {
	m.t.Helper()
	l := m.links[at]
	l.control.Close()
	l.data.Close()
	addr := m.view.Members[at]
	var err error
	until(m.t, "the I/O node is back", func() bool {
		l.control, err = rpc.Dial(m.t.Context(), addr, rpc.Options{Callback: m.callback})
		return err == nil
	})
	l.data, err = rpc.Dial(m.t.Context(), addr, rpc.Options{})
	require.NoError(m.t, err)
	r := new(ionpb.HelloResp)
	m.hello(l.control, l, &ionpb.HelloReq{Version: 1, Session: l.session, Mount: m.id, Holds: holds}, r)
	l.session = r.Session
	m.hello(l.data, l, &ionpb.HelloReq{Version: 1, Session: l.session, Attach: true}, new(ionpb.HelloResp))
	return r
}

func (m *mount) replay(h uint64, off int64, data string, stamp int64, prepared bool) {
	m.t.Helper()
	_, err := m.call(context.Background(), m.place.Owner(h, off),
		rpc.Frame{Op: ionpb.Op_REPLAY, Handle: h, Off: off, Data: rpc.Static([]byte(data))}, &ionpb.ReplayReq{Stamp: stamp, Prepared: prepared}, nil)
	require.NoError(m.t, err)
}

func (m *mount) reclaimed(at int) {
	m.t.Helper()
	_, err := m.call(context.Background(), at, rpc.Frame{Op: ionpb.Op_RECLAIMED}, nil, nil)
	require.NoError(m.t, err)
}

func (m *mount) commit(h uint64) error {
	_, err := m.call(context.Background(), m.place.Owner(h, 0), rpc.Frame{Op: ionpb.Op_COMMIT, Handle: h}, nil, nil)
	return err
}

// reads requires that data is what the file has at off.
func (m *mount) reads(h uint64, off int64, data string) {
	m.t.Helper()
	got, err := m.read(h, off, len(data))
	require.NoError(m.t, err)
	require.Equal(m.t, data, string(got))
}

// stables are the STABLEs about h so far.
func (m *mount) stables(h uint64) (out []*ionpb.StableReq) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.called {
		if f.Op == ionpb.Op_STABLE && f.Handle == h {
			r := new(ionpb.StableReq)
			require.NoError(m.t, f.Decode(r))
			out = append(out, r)
		}
	}
	return out
}

// stored reports how many bytes of h the PVFS2 servers have.
func (s *system) stored(h uint64) int64 {
	s.t.Helper()
	n := s.nodes[0]
	f := n.owner.get(h)
	defer n.owner.put(f)
	file, err := n.owner.file(context.Background(), f)
	require.NoError(s.t, err)
	size, err := file.Size(context.Background())
	require.NoError(s.t, err)
	return size
}

// TestReplayInWrongOrder: of bytes that two mounts wrote, the later ones come
// back, though the mount that wrote them replays first.
func TestReplayInWrongOrder(t *testing.T) {
	s := startSystem(t, 1, 2, lazy)
	a, b := s.mount(t), s.mount(t)
	h := a.file(a.root, "f")
	first := a.put(h, 0, "aaaaaaaaaa", 0).Off
	second := b.put(h, 3, "bbbb", 0).Off
	third := a.put(h, 5, "AA", 0).Off
	require.Less(t, first, second)
	require.Less(t, second, third)
	s.crash(0)
	s.restart(0, lazy)
	require.NotEmpty(t, b.resume(0, true).Reclaims)
	require.NotEmpty(t, a.resume(0, true).Reclaims)
	b.replay(h, 3, "bbbb", second, false)
	b.reclaimed(0)
	a.replay(h, 0, "aaaaaaaaaa", first, false)
	a.replay(h, 5, "AA", third, false)
	a.reclaimed(0)
	a.reads(h, 0, "aaabbAAaaa")
	require.Greater(t, b.put(h, 0, "x", 0).Off, third, "stamps go on")
}

// TestReplayPrepared: the older bytes of a mount that has not heard that newer
// ones are stable do not take their place.
func TestReplayPrepared(t *testing.T) {
	s := startSystem(t, 1, 2, lazy)
	a, b := s.mount(t), s.mount(t)
	h := a.file(a.root, "f")
	first := a.put(h, 0, "aaaa", 0).Off
	second := b.put(h, 0, "bb", 0).Off
	a.sealedLips(ionpb.Op_STABLE)
	require.NoError(t, b.commit(h))
	until(t, "b hears of it", func() bool { return len(b.stables(h)) == 1 })
	require.Equal(t, second, b.stables(h)[0].Stamp)
	require.False(t, b.stables(h)[0].Drop, "a may replay older bytes")
	s.crash(0)
	s.restart(0, lazy)
	a.sealedLips(ionpb.Op_INVALID)
	a.resume(0, true)
	b.resume(0, true)
	a.replay(h, 0, "aaaa", first, false)
	a.reclaimed(0)
	b.replay(h, 0, "bb", second, true)
	b.reclaimed(0)
	b.reads(h, 0, "bbaa")
}

// TestStableInTwoSteps: no mount may drop its bytes before all know that theirs
// are stable.
func TestStableInTwoSteps(t *testing.T) {
	s := startSystem(t, 1, 1, lazy)
	a, b, c := s.mount(t), s.mount(t), s.mount(t)
	h := a.file(a.root, "f")
	a.put(h, 0, "a", 0)
	stamp := b.put(h, 0, "b", 0).Off
	c.reads(h, 0, "b")
	require.NoError(t, c.commit(h))
	for _, m := range []*mount{a, b} {
		until(t, "it may drop", func() bool { return len(m.stables(h)) == 2 })
		for i, r := range m.stables(h) {
			require.Equal(t, stamp, r.Stamp)
			require.Equal(t, i == 1, r.Drop)
		}
	}
	require.Empty(t, c.stables(h), "it keeps nothing")
}

// TestGraceEndsWithTheLastMount: meanwhile nobody reads or writes.
func TestGraceEndsWithTheLastMount(t *testing.T) {
	s := startSystem(t, 1, 1, lazy)
	a, b := s.mount(t), s.mount(t)
	h := a.file(a.root, "f")
	a.put(h, 0, "old", 0)
	stamp := a.put(h, 0, "new", 0).Off
	b.put(h, 100, "x", 0)
	s.crash(0)
	begin := time.Now()
	s.restart(0, lazy)
	a.resume(0, true)
	b.resume(0, true)
	c := s.mount(t)
	type answer struct {
		data []byte
		err  error
	}
	read, wrote := make(chan answer, 1), make(chan error, 1)
	go func() {
		p, err := c.read(h, 0, 3)
		read <- answer{p, err}
	}()
	go func() { wrote <- c.write(h, 50, []byte("later"), 0) }()
	b.reclaimed(0)
	select {
	case r := <-read:
		t.Fatalf("read %q, %v", r.data, r.err)
	case err := <-wrote:
		t.Fatalf("written: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	a.replay(h, 0, "new", stamp, false)
	a.reclaimed(0)
	r := <-read
	require.NoError(t, r.err)
	require.Equal(t, "new", string(r.data))
	require.NoError(t, <-wrote)
	require.Less(t, time.Since(begin), 30*time.Second, "the lease is longer")
	_, err := a.call(t.Context(), 0, rpc.Frame{Op: ionpb.Op_REPLAY, Handle: h, Data: rpc.Static([]byte("x"))}, &ionpb.ReplayReq{Stamp: stamp}, nil)
	require.ErrorIs(t, err, syscall.ESTALE, "too late")
}

// TestOnlookersAreNotWaitedFor: a mount that has looked, and holds nothing, has
// nothing to say after a crash.
func TestOnlookersAreNotWaitedFor(t *testing.T) {
	s := startSystem(t, 1, 1, lazy)
	a := s.mount(t)
	_, err := a.stat(a.root)
	require.NoError(t, err)
	s.crash(0)
	begin := time.Now()
	s.restart(0, lazy)
	b := s.mount(t)
	h := b.file(b.root, "f") // does not wait
	stamp := b.put(h, 0, "b", 0).Off
	require.False(t, s.nodes[0].unclean)
	s.mount(t) // looks only
	s.crash(0)
	s.restart(0, lazy)
	require.NotEmpty(t, b.resume(0, true).Reclaims)
	s.crash(0) // again, before it has said anything
	s.restart(0, lazy)
	require.NotEmpty(t, b.resume(0, true).Reclaims)
	b.replay(h, 0, "b", stamp, false)
	b.reclaimed(0)
	s.mount(t).reads(h, 0, "b")
	require.Less(t, time.Since(begin), 30*time.Second, "none of b's earlier sessions is waited for")
}

// TestRevokeOfASilentMount: it ends with the session, and not later.
func TestRevokeOfASilentMount(t *testing.T) {
	const lease = time.Second
	s := startSystem(t, 1, 1, func(i int, o *Options) {
		lazy(i, o)
		o.Lease = lease
	})
	a, b := s.mount(t), s.alive(t)
	silent := a.pingAll()
	h := a.file(a.root, "f")
	require.NotZero(t, a.put(h, 0, "a", leaseWrite).Flags&leaseWrite)
	a.sealedLips(ionpb.Op_REVOKE)
	// a pings no more: its session ends within a lease and a fifth, and then
	// the fence of a truncation, a read and a write get on.
	begin := time.Now()
	silent()
	done := make(chan error, 2)
	go func() { done <- b.truncate(h, 0) }()
	go func() { done <- b.write(h, 10, []byte("b"), 0) }()
	for range 2 {
		require.NoError(t, <-done)
	}
	took := time.Since(begin)
	require.Greater(t, took, lease/2)
	require.Less(t, took, 10*lease)
}

// TestRevokedBytesComeFirst: what was kept back is written before who waits
// for it reads, and a mount whose session lives is waited for.
func TestRevokedBytesComeFirst(t *testing.T) {
	s := startSystem(t, 1, 1, lazy)
	a, b := s.mount(t), s.mount(t)
	h := a.file(a.root, "f")
	require.NotZero(t, a.put(h, 0, "old", leaseWrite).Flags&leaseWrite)
	a.mu.Lock()
	a.answer = func(f *rpc.Frame) *rpc.Frame {
		r := new(rpc.Frame)
		if f.Op == ionpb.Op_REVOKE {
			time.Sleep(50 * time.Millisecond)
			if err := a.write(h, 0, []byte("new"), uint32(ionpb.Flag_RECALLED)); err != nil {
				r.Failure(err)
			}
		}
		return r
	}
	a.mu.Unlock()
	b.reads(h, 0, "new")
	require.NoError(t, b.truncate(h, 2))
	b.reads(h, 0, "ne")
}

// TestReplayGivesWayToWhatWasKeptBack: bytes that were kept back are later than all
// that was written there, also if an older write is replayed after them.
func TestReplayGivesWayToWhatWasKeptBack(t *testing.T) {
	s := startSystem(t, 1, 2, lazy)
	a, b := s.mount(t), s.mount(t)
	h := a.file(a.root, "f")
	stamp := b.put(h, 0, "bbbbbbbb", 0).Off
	require.NotZero(t, a.put(h, 20, "a", leaseWrite).Flags&leaseWrite)
	s.crash(0)
	s.restart(0, lazy)
	a.resume(0, true)
	b.resume(0, true)
	require.NoError(t, a.write(h, 2, []byte("AA"), uint32(ionpb.Flag_RECALLED)))
	a.reclaimed(0)
	b.replay(h, 0, "bbbbbbbb", stamp, false)
	b.reclaimed(0)
	b.reads(h, 0, "bbAAbbbb")
}

// TestWriteOutlivesItsSession: a write that is at work when its session ends leaves
// nothing behind that is kept for a replay by nobody.
func TestWriteOutlivesItsSession(t *testing.T) {
	s := startSystem(t, 2, 1, func(i int, o *Options) {
		lazy(i, o)
		o.WriteBack = 50 * time.Millisecond
	})
	m := s.mount(t)
	h, _ := m.fileHomedAt(m.root, "f", 0)
	call, end := s.asPeer(t, m, h)
	require.NoError(t, call(ionpb.Op_FENCE, func(f *rpc.Frame) { f.Len = 10 }, nil))
	n := s.nodes[0]
	sess := n.sessions.get(m.links[0].session)
	go m.write(h, 0, []byte("x"), 0) // it is not answered
	until(t, "it waits for the fence", func() bool {
		sess.mu.Lock()
		defer sess.mu.Unlock()
		return sess.running == 1
	})
	n.endSession(sess)
	end()
	f := n.owner.get(h)
	defer n.owner.put(f)
	until(t, "it is written", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.stamp != 0
	})
	until(t, "nobody is thought to keep it", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.unstable.none()
	})
}
