package ionclient

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/test/bufconn"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// diary is a Keeper that writes down what it is told.
type diary struct {
	mu   sync.Mutex
	said []string // guarded by mu

	retained [][]byte // for every I/O node, of file 77 from 0 on
	refuse   bool     // the first Reclaim fails as by a broken connection
}

func (d *diary) note(format string, args ...any) {
	d.mu.Lock()
	d.said = append(d.said, fmt.Sprintf(format, args...))
	d.mu.Unlock()
}

func (d *diary) take() (out []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out, d.said = d.said, nil
	return out
}

func (d *diary) Revoke(_ context.Context, h uint64, e extent.Extent, leases uint32) {
	d.note("revoke %d %v %#x", h, e, leases)
}

func (d *diary) Publish(_ context.Context, h uint64, e extent.Extent) bool {
	d.note("publish %d %v", h, e)
	return h == 77
}

func (d *diary) Stable(_, h uint64, s Stable) {
	d.note("stable %d %d %v %v", h, s.Stamp, s.Drop, s.Err)
}

func (d *diary) Lost(_ uint64, livedOn bool) { d.note("lost %v", livedOn) }

func (d *diary) Reclaim(ctx context.Context, r *Reclaim) error {
	if len(r.waits) == 0 {
		return nil
	}
	d.note("reclaim")
	d.mu.Lock()
	refuse := d.refuse
	d.refuse = false
	d.mu.Unlock()
	if refuse {
		return rpc.ErrBroken
	}
	_, err := r.Replay(ctx, 77, []extent.Extent{{Len: 8}}, d.retained, 5, true)
	return err
}

func (d *diary) Holds(h uint64) bool { return h == 77 }

func (d *diary) Retains(uint64) bool { return len(d.retained) > 0 }

// calling is an I/O node that gives its streams to the test, and is in grace.
type calling struct {
	*ion
	peers chan *rpc.Peer
	got   chan *rpc.Frame // what carryOut does not know: REPLAY, RECLAIMED, reclaiming OPEN
	grace bool
}

func (c *calling) Connect(p *rpc.Peer) rpc.Handler {
	c.peers <- p
	return &callingStream{c, c.ion.Connect(p).(*ionStream)}
}

type callingStream struct {
	*calling
	to *ionStream
}

func (s *callingStream) Close() { s.to.Close() }

func (*callingStream) Try(*rpc.Request) bool { return false }

func (s *callingStream) Handle(r *rpc.Request) {
	switch r.Op {
	case ionpb.Op_HELLO:
		s.ion.mu.Lock()
		s.ion.grace = s.grace
		s.ion.mu.Unlock()
	case ionpb.Op_REPLAY, ionpb.Op_RECLAIMED, ionpb.Op_OPEN:
		f := *r.Frame
		p := make([]byte, r.Data.Len())
		r.Data.CopyTo(p)
		f.Data = rpc.Static(p)
		s.got <- &f
		r.ReplyMsg(new(ionpb.Attr))
		return
	}
	s.to.Handle(r)
}

// bubble runs f with an I/O node that has one client.
func bubble(t *testing.T, f func(t *testing.T, n *calling, c *Client)) {
	synctest.Test(t, func(t *testing.T) {
		st := &store{names: map[string]uint64{}, files: map[uint64][]byte{}, applied: map[ionpb.Op]int{}}
		n := &calling{
			ion:   newIon(t, "ion0", st, &ionpb.View{Epoch: 1, Fsid: 42, Members: []string{"ion0"}, DomainSize: 4096, Root: 1}, 1),
			peers: make(chan *rpc.Peer, 100), got: make(chan *rpc.Frame, 100),
		}
		lis := bufconn.Listen(1 << 20)
		ctx, cancel := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- rpc.Serve(ctx, lis, n, rpc.ServerOptions{}) }()
		c, err := Dial(ctx, Options{Addrs: []string{"ion0"}, Dialer: func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }})
		require.NoError(t, err)
		<-n.peers // that asked for the view
		f(t, n, c)
		require.NoError(t, c.Close(ctx))
		cancel()
		require.NoError(t, <-served)
	})
}

// TestCallbacks: what an I/O node asks reaches the Keeper, and the answer it.
func TestCallbacks(t *testing.T) {
	bubble(t, func(t *testing.T, n *calling, c *Client) {
		call := func(p *rpc.Peer, f rpc.Frame) *rpc.Frame {
			r, err := p.Call(t.Context(), &f)
			require.NoError(t, err)
			return r
		}
		control := <-n.peers
		synctest.Wait()
		require.NoError(t, call(control, rpc.Frame{Op: ionpb.Op_REVOKE, Handle: 1, Flags: LeaseData}).Err(), "nobody keeps anything")
		d := new(diary)
		c.SetKeeper(d)
		require.NoError(t, call(control, rpc.Frame{Op: ionpb.Op_REVOKE, Handle: 77, Off: 4096, Len: 4096, Flags: LeaseWrite}).Err())
		for _, h := range []uint64{77, 78} {
			var m ionpb.PublishResp
			require.NoError(t, call(control, rpc.Frame{Op: ionpb.Op_PUBLISH, Handle: h, Len: 10}).Decode(&m))
			require.Equal(t, h == 77, m.Clean)
		}
		f := rpc.Frame{Op: ionpb.Op_STABLE, Handle: 77}
		f.Encode(&ionpb.StableReq{Stamp: 9, Drop: true, Errno: uint32(syscall.ENOSPC), Text: "full"})
		require.NoError(t, call(control, f).Err())
		require.Equal(t, syscall.EOPNOTSUPP, call(control, rpc.Frame{Op: ionpb.Op_READ}).Errno)
		require.Equal(t, []string{
			"revoke 77 {4096 4096} 0x40", "publish 77 {0 10}", "publish 78 {0 10}",
			"stable 77 9 true ion.write_back: no space left on device: full",
		}, d.take())
	})
}

// TestReclaim: an I/O node that was restarted gets opens, then what is retained,
// then RECLAIMED, from the start again if the connection breaks in between.
func TestReclaim(t *testing.T) {
	for _, breaks := range []bool{false, true} {
		bubble(t, func(t *testing.T, n *calling, c *Client) {
			synctest.Wait()
			d := &diary{retained: [][]byte{[]byte("re"), []byte("tained")}, refuse: breaks}
			c.SetKeeper(d)
			_, err := c.Open(t.Context(), 77, 0, false)
			require.NoError(t, err)
			<-n.got
			n.ion.mu.Lock()
			clear(n.sessions)
			n.boot++
			n.ion.mu.Unlock()
			n.grace = true
			require.True(t, c.LeaseOK(77, 0))
			c.current.Load().sessions[0].link.control.Close()
			_, err = write(t.Context(), c, 77, 0, []byte("x"))
			require.NoError(t, err)
			var ops []ionpb.Op
			for len(n.got) > 0 {
				f := <-n.got
				ops = append(ops, f.Op)
				switch f.Op {
				case ionpb.Op_OPEN:
					var m ionpb.OpenReq
					require.NoError(t, f.Decode(&m))
					require.True(t, m.Hold)
					require.EqualValues(t, 1, m.Reclaim)
				case ionpb.Op_REPLAY:
					var m ionpb.ReplayReq
					require.NoError(t, f.Decode(&m))
					require.EqualValues(t, 5, m.Stamp)
					require.True(t, m.Prepared)
					p := make([]byte, f.Data.Len())
					f.Data.CopyTo(p)
					require.Equal(t, "retained", string(p))
				}
			}
			want := []ionpb.Op{ionpb.Op_OPEN, ionpb.Op_REPLAY, ionpb.Op_RECLAIMED}
			said := []string{"lost false", "reclaim"}
			if breaks {
				want = append([]ionpb.Op{ionpb.Op_OPEN}, want...)
				said = append(said, "reclaim")
			}
			require.Equal(t, want, ops)
			require.Equal(t, said, d.take())
		})
	}
}

// TestTenure: leases hold for as long as the session surely lives, and not
// under another session.
func TestTenure(t *testing.T) {
	bubble(t, func(t *testing.T, n *calling, c *Client) {
		var g Grant
		var err error
		_, g, err = c.Write(t.Context(), 77, []extent.Extent{{Len: 1}}, [][]byte{[]byte("x")}, LeaseWrite)
		require.NoError(t, err)
		require.False(t, Tenure{}.Valid())
		require.True(t, g.Tenure.Valid())
		require.True(t, g.Tenure.Lives())
		time.Sleep(time.Hour)
		require.True(t, g.Tenure.Valid(), "pings are answered")
		s := c.current.Load().sessions[0]
		s.mu.Lock()
		l := s.link
		s.mu.Unlock()
		l.lose() // pings end, and a new link resumes the session
		time.Sleep(time.Second)
		require.True(t, g.Tenure.Valid())
		n.ion.mu.Lock()
		clear(n.sessions)
		n.ion.mu.Unlock()
		_, again, err := c.Write(t.Context(), 77, []extent.Extent{{Len: 1}}, [][]byte{[]byte("x")}, LeaseWrite)
		require.NoError(t, err)
		require.False(t, g.Tenure.Valid(), "the I/O node has forgotten what it gave")
		require.False(t, g.Tenure.Lives())
		require.True(t, again.Tenure.Valid())
	})
}

// TestSilenceEndsTenures: without answers they end before the lease does, which
// counts from when the last ping that was answered was sent.
func TestSilenceEndsTenures(t *testing.T) {
	bubble(t, func(t *testing.T, _ *calling, c *Client) {
		synctest.Wait()
		s := c.current.Load().sessions[0]
		sent := time.Since(c.began)
		time.Sleep(time.Second) // until the answer
		s.renewed(&link{id: s.lastID(), lease: 4 * time.Second}, sent)
		time.Sleep(2100 * time.Millisecond)
		require.True(t, c.LeaseOK(77, 0))
		time.Sleep(200 * time.Millisecond)
		require.False(t, c.LeaseOK(77, 0))
	})
}
