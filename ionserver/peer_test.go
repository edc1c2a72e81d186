package ionserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
)

// TestViewChange: when I/O nodes with another list start, those of the old one
// stop before the new ones serve; a request under another epoch is refused.
func TestViewChange(t *testing.T) {
	const interval = 100 * time.Millisecond
	edit := func(_ int, o *Options) { o.ViewInterval = interval }
	s := startSystem(t, 2, 1, edit)
	m := s.mount(t)
	h := m.file(m.root, "f")
	old := m.view.Epoch
	require.EqualValues(t, 1, old)
	m.view.Epoch++
	r, err := m.call(t.Context(), m.place.Home(h), rpc.Frame{Op: ionpb.Op_GETATTR, Handle: h}, nil, nil)
	require.ErrorIs(t, err, syscall.ESTALE)
	require.EqualValues(t, ionpb.Flag_STALE_VIEW, r.Flags)
	m.view.Epoch = old

	// A third node whose list is another.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.addrs = append(s.addrs, l.Addr().String())
	s.nodes = append(s.nodes, nil)
	s.start(2, l, func(i int, o *Options) { edit(i, o); o.Peers, o.TakeOver = []string{o.Self}, true })
	hello := make(chan error, 1)
	var resp ionpb.HelloResp
	go func() {
		c, err := rpc.Dial(context.Background(), s.addrs[2], rpc.Options{})
		if err == nil {
			defer c.Close()
			f := &rpc.Frame{Op: ionpb.Op_HELLO}
			f.Encode(&ionpb.HelloReq{Version: 1})
			var r *rpc.Frame
			if r, err = c.Call(context.Background(), f); err == nil {
				err = errors.Join(r.Err(), r.Decode(&resp))
			}
		}
		hello <- err
	}()
	served := true
	for served { // the old view answers until it refuses, and then the new one has not begun
		_, err := m.stat(h)
		served = err == nil
		select {
		case <-hello:
			require.False(t, served, "two views at once")
		default:
		}
		require.True(t, served || errors.Is(err, syscall.ESTALE), "%v", err)
	}
	require.NoError(t, <-hello)
	require.Greater(t, resp.View.Epoch, old)
	require.Equal(t, s.addrs[2:], resp.View.Members)
	until(t, "all nodes of the old view refuse", func() bool {
		a, _ := s.nodes[0].Status(t.Context(), nil)
		b, _ := s.nodes[1].Status(t.Context(), nil)
		return a.Refusing != "" && b.Refusing != ""
	})
}

// TestPeersOfOtherViewsAreRefused: an I/O node with another list, domain size
// or file system cannot fence or announce here.
func TestPeersOfOtherViewsAreRefused(t *testing.T) {
	s := startSystem(t, 2, 1, nil)
	m := s.mount(t)
	good := func() *ionpb.PeerHelloReq {
		return &ionpb.PeerHelloReq{Version: 1, From: s.addrs[1], View: &ionpb.View{
			Epoch: m.view.Epoch, Members: m.view.Members, Fsid: m.view.Fsid, DomainSize: m.view.DomainSize}}
	}
	for _, c := range []struct {
		name string
		edit func(*ionpb.PeerHelloReq)
		want syscall.Errno
	}{
		{"as it should be", func(*ionpb.PeerHelloReq) {}, 0},
		{"epoch", func(r *ionpb.PeerHelloReq) { r.View.Epoch++ }, syscall.ESTALE},
		{"members", func(r *ionpb.PeerHelloReq) { r.View.Members = s.addrs[1:] }, syscall.ESTALE},
		{"domain size", func(r *ionpb.PeerHelloReq) { r.View.DomainSize++ }, syscall.ESTALE},
		{"file system", func(r *ionpb.PeerHelloReq) { r.View.Fsid++ }, syscall.ESTALE},
		{"no view", func(r *ionpb.PeerHelloReq) { r.View = nil }, syscall.ESTALE},
		{"stranger", func(r *ionpb.PeerHelloReq) { r.From = "nobody:1" }, syscall.EPERM},
		{"version", func(r *ionpb.PeerHelloReq) { r.Version = 9 }, syscall.EPROTONOSUPPORT},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := rpc.Dial(t.Context(), s.addrs[0], rpc.Options{})
			require.NoError(t, err)
			defer conn.Close()
			req := good()
			c.edit(req)
			f := &rpc.Frame{Op: ionpb.Op_PEER_HELLO}
			f.Encode(req)
			r, err := conn.Call(t.Context(), f)
			require.NoError(t, err)
			require.Equal(t, c.want, errno.Of(r.Err()), "%v", r.Err())
		})
	}
}

// asPeer speaks to an owner as the I/O node with index 1 does.
func (s *system) asPeer(t *testing.T, m *mount, h uint64) (call func(op ionpb.Op, fill func(*rpc.Frame), reply proto.Message) error, end func()) {
	conn, err := rpc.Dial(t.Context(), s.addrs[0], rpc.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	call = func(op ionpb.Op, fill func(*rpc.Frame), reply proto.Message) error {
		f := &rpc.Frame{Op: op, Epoch: m.view.Epoch, Handle: h}
		fill(f)
		r, err := conn.Call(t.Context(), f)
		if err := errors.Join(err, r.Err()); err != nil || reply == nil {
			return err
		}
		return r.Decode(reply)
	}
	require.NoError(t, call(ionpb.Op_PEER_HELLO, func(f *rpc.Frame) {
		f.Encode(&ionpb.PeerHelloReq{Version: 1, From: s.addrs[1], View: m.view})
	}, nil))
	return call, func() { conn.Close() }
}

func withToken(token uint64) func(*rpc.Frame) {
	return func(f *rpc.Frame) { f.Encode(&ionpb.TokenReq{Token: token}) }
}

// TestCutInTwoSteps: as long as not all owners are fenced, what is to be cut
// off still counts for those who ask where the file ends.
func TestCutInTwoSteps(t *testing.T) {
	s := startSystem(t, 2, 1, func(_ int, o *Options) { o.DomainSize = 1 << 20 })
	m := s.mount(t)
	h := m.file(m.root, "f")
	at := int64(0)
	for m.place.Owner(h, at) != 0 {
		at += 1 << 20
	}
	require.NoError(t, m.write(h, at, []byte("what is cut"), 0))
	call, _ := s.asPeer(t, m, h)
	reach := func() int64 {
		var r ionpb.CollectResp
		require.NoError(t, call(ionpb.Op_REACH, func(f *rpc.Frame) { f.Off, f.Len = at+100, 1; f.Encode(&ionpb.SessionReq{}) }, &r))
		return r.End
	}
	var fence ionpb.FenceResp
	require.NoError(t, call(ionpb.Op_FENCE, func(f *rpc.Frame) {
		f.Off, f.Len, f.Flags = at+4, extent.ToEnd(at+4).Len, uint32(ionpb.Flag_CUT)
	}, &fence))
	require.Equal(t, at+11, reach())
	cut := func(token uint64, off int64) error {
		return call(ionpb.Op_FENCED_CUT, func(f *rpc.Frame) { f.Off = off; withToken(token)(f) }, nil)
	}
	require.ErrorIs(t, cut(fence.Token+1, at+4), syscall.ESTALE)
	require.ErrorIs(t, cut(fence.Token, at), syscall.ESTALE)
	require.ErrorIs(t, cut(fence.Token, -1), syscall.EINVAL)
	require.Equal(t, at+11, reach())
	require.NoError(t, cut(fence.Token, at+4))
	require.Equal(t, at+4, reach())
	require.NoError(t, call(ionpb.Op_UNFENCE, withToken(fence.Token), nil))
}

// TestFenceEndsWithItsStream: a peer that dies while it fences a file holds
// nobody up.
func TestFenceEndsWithItsStream(t *testing.T) {
	s := startSystem(t, 2, 1, nil)
	m := s.mount(t)
	h, _ := m.fileHomedAt(m.root, "f", 0)
	call, end := s.asPeer(t, m, h)
	require.NoError(t, call(ionpb.Op_FENCE, func(f *rpc.Frame) { f.Len = maxLockEnd }, nil))
	require.ErrorIs(t, call(ionpb.Op_FENCED_WRITE, func(f *rpc.Frame) { withToken(99)(f); f.Data = rpc.Static([]byte("x")) }, nil), syscall.ESTALE)
	require.ErrorIs(t, call(ionpb.Op_UNFENCE, withToken(99), nil), syscall.ENOENT)
	wrote := make(chan error, 1)
	go func() { wrote <- m.write(h, 0, []byte("x"), 0) }()
	select {
	case err := <-wrote:
		t.Fatalf("the fence does not hold: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	end()
	require.NoError(t, <-wrote)
}

// TestAnnouncedToANewLife: an owner tells a home that may have started again what it
// owes it, and does not take it that the home has heard it.
func TestAnnouncedToANewLife(t *testing.T) {
	s := startSystem(t, 2, 1, lazy)
	m := s.mount(t)
	h, _ := m.fileHomedAt(m.root, "f", 1)
	off := m.offOwnedBy(h, 0)
	require.NoError(t, m.write(h, off, []byte("x"), 0))
	o := s.nodes[0].owner
	f := o.get(h)
	defer o.put(f)
	announced := func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.announced
	}
	require.True(t, announced())
	require.Equal(t, []uint64{h}, o.owed(1))
	require.False(t, announced())
	require.NoError(t, m.write(h, off, []byte("x"), 0))
	require.True(t, announced())
	require.Empty(t, o.owed(0))
}

// TestWritersOutliveTheHome: a home that was killed knows how far other owners' bytes
// reach before it tells anybody, though they have not found out that it is back.
func TestWritersOutliveTheHome(t *testing.T) {
	var cutOff atomic.Bool
	edit := func(i int, o *Options) {
		lazy(i, o)
		o.PeerDialer = func(ctx context.Context, addr string) (net.Conn, error) {
			if i == 0 && cutOff.Load() {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	}
	s := startSystem(t, 2, 1, edit)
	m := s.mount(t)
	h, _ := m.fileHomedAt(m.root, "f", 1)
	off := m.offOwnedBy(h, 0)
	_, err := m.open(h, 0)
	require.NoError(t, err)
	require.NoError(t, m.write(h, off, []byte("x"), 0))
	cutOff.Store(true)
	s.crash(1)
	s.restart(1, edit)
	require.NotEmpty(t, m.resume(1, true).Reclaims)
	m.reclaimed(1)
	a, err := m.stat(h)
	require.NoError(t, err)
	require.Equal(t, off+1, a.Size)
	got, err := m.read(h, 0, 10) // this home owns it
	require.NoError(t, err)
	require.Equal(t, make([]byte, 10), got)
}

// TestBytesOfAViewThatEnded: an I/O node whose view has been taken over writes nothing
// back, and tells no mount that it need not retain what others are to get.
func TestBytesOfAViewThatEnded(t *testing.T) {
	edit := func(_ int, o *Options) { o.ViewInterval, o.WriteBack = 100*time.Millisecond, time.Hour }
	s := startSystem(t, 1, 1, edit)
	m := s.mount(t)
	h := m.file(m.root, "f")
	require.NoError(t, m.write(h, 0, []byte("unstable"), 0))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.addrs = append(s.addrs, l.Addr().String())
	s.nodes = append(s.nodes, nil)
	s.start(1, l, func(i int, o *Options) { edit(i, o); o.Peers, o.TakeOver = []string{o.Self}, true })
	until(t, "the node of the old view refuses", func() bool {
		st, _ := s.nodes[0].Status(t.Context(), nil)
		return st.Refusing != ""
	})
	o := s.nodes[0].owner
	f := o.get(h)
	defer o.put(f)
	require.ErrorIs(t, o.writeBack(background{}, t.Context(), f, extent.ToEnd(0)), syscall.ESTALE)
	dirty, _, _ := f.data.Dirty()
	require.EqualValues(t, len("unstable"), dirty)
	require.Empty(t, m.stables(h))
}

// TestWrongList: an I/O node with another list than those that serve ends with a clear
// error and leaves nothing behind; they go on.
func TestWrongList(t *testing.T) {
	s := startSystem(t, 2, 1, nil)
	m := s.mount(t)
	addrs := s.addrs
	l := pvfsdtest.Listen(t)
	s.addrs, s.nodes = append(addrs, l.Addr().String()), append(s.nodes, nil)
	s.start(2, l, func(_ int, o *Options) { o.Peers, o.ViewInterval = []string{o.Self}, 100*time.Millisecond })
	n := s.nodes[2]
	s.nodes[2], s.addrs = nil, addrs
	err := <-n.done
	require.ErrorContains(t, err, "serves with the list "+fmt.Sprint(addrs))
	require.NoError(t, n.client.Close())
	require.EqualValues(t, 1, s.mount(t).view.Epoch)
	m.file(m.root, "f")
	others, err := s.nodes[0].others(t.Context(), view{members: addrs, domainSize: s.domain})
	require.NoError(t, err)
	require.Empty(t, others)
}

// TestViewChangeAfterOrderlyEnd: nobody waits for a view whose nodes have all
// ended in good order, but for one whose node crashed.
func TestViewChangeAfterOrderlyEnd(t *testing.T) {
	s := startSystem(t, 2, 1, nil)
	m := s.mount(t)
	require.EqualValues(t, 1, m.view.Epoch)
	s.stop(0)
	s.stop(1)
	alone := func(interval time.Duration) func(i int, o *Options) {
		return func(_ int, o *Options) { o.Peers, o.ViewInterval = []string{o.Self}, interval }
	}
	begin := time.Now()
	s.restart(0, alone(time.Hour))
	addrs := s.addrs
	s.addrs = addrs[:1]
	require.EqualValues(t, 2, s.mount(t).view.Epoch)
	require.Less(t, time.Since(begin), 30*time.Second)
	s.crash(0)
	s.addrs = addrs
	begin = time.Now()
	s.restart(1, alone(200*time.Millisecond))
	s.addrs = addrs[1:]
	require.EqualValues(t, 3, s.mount(t).view.Epoch)
	require.GreaterOrEqual(t, time.Since(begin), 600*time.Millisecond)
	s.addrs = addrs
}
