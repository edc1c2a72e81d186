package ionclient

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/test/bufconn"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// mute is an I/O node that can be made to swallow every request.
type mute struct {
	*ion
	silent  atomic.Bool
	streams atomic.Int64
}

func (m *mute) Connect(p *rpc.Peer) rpc.Handler {
	m.streams.Add(1)
	return &muteStream{m, m.ion.Connect(p)}
}

type muteStream struct {
	*mute
	to rpc.Handler
}

func (s *muteStream) Close() { s.to.Close() }

func (*muteStream) Try(*rpc.Request) bool { return false }

func (s *muteStream) Handle(r *rpc.Request) {
	if !s.silent.Load() {
		s.to.Handle(r)
	}
}

// TestLease: in the bubble's time, the lease is renewed every third of it, and
// an I/O node that takes requests without answering is left and found again.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &store{names: map[string]uint64{}, files: map[uint64][]byte{}, applied: map[ionpb.Op]int{}}
		n := &mute{ion: newIon(t, "ion0", st, &ionpb.View{Epoch: 1, Fsid: 42, Members: []string{"ion0"}, DomainSize: 4096, Root: 1}, 1)}
		lis := bufconn.Listen(1 << 20)
		ctx, cancel := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- rpc.Serve(ctx, lis, n, rpc.ServerOptions{}) }()
		c, err := Dial(ctx, Options{Addrs: []string{"ion0"}, Dialer: func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }})
		require.NoError(t, err)
		_, err = write(ctx, c, 77, 0, []byte("x"))
		require.NoError(t, err)
		streams := n.streams.Load()

		time.Sleep(time.Minute)
		require.InDelta(t, 12, n.pings.Load(), 1, "every 5 s of a lease of 15 s")
		require.Equal(t, streams, n.streams.Load(), "the session stayed up")

		n.silent.Store(true)
		wrote := make(chan error, 1)
		go func() {
			_, err := write(ctx, c, 77, 0, []byte("y"))
			wrote <- err
		}()
		time.Sleep(11 * time.Second) // a ping and its third of the lease
		require.False(t, c.Sessions()[0].Up)
		require.Error(t, c.Sessions()[0].Err)
		n.silent.Store(false)
		require.NoError(t, <-wrote, "sent again")

		require.NoError(t, c.Close(ctx))
		cancel()
		require.NoError(t, <-served)
	})
}
