package fs

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/ionserver"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
)

// ions is the rest of the system: I/O nodes over a new PVFS2 file system.
type ions struct {
	t     testing.TB
	pvfs  *pvfsdtest.Cluster
	addrs []string
	edit  func(*ionserver.Options)
	stops []func()       // nil of one that does not run
	to    []*pvfs.Client // of each to the servers
}

// startIONs runs two I/O nodes over two servers, with file domains so small
// that every larger file has several owners.
func startIONs(t testing.TB) *ions {
	t.Helper()
	return startIONsWith(t, func(*ionserver.Options) {})
}

// startIONsWith is startIONs with options that edit changes.
func startIONsWith(t testing.TB, edit func(*ionserver.Options)) *ions {
	t.Helper()
	x := &ions{t: t, pvfs: pvfsdtest.Start(t, 2, pvfsdtest.Options{}), edit: edit, stops: make([]func(), 2), to: make([]*pvfs.Client, 2)}
	listeners := make([]net.Listener, len(x.stops))
	for i := range listeners {
		listeners[i] = pvfsdtest.Listen(t)
		x.addrs = append(x.addrs, listeners[i].Addr().String())
	}
	for i, l := range listeners {
		x.serve(i, l)
	}
	t.Cleanup(func() {
		for i := range x.stops {
			x.stop(i)
		}
	})
	return x
}

func (x *ions) serve(i int, l net.Listener) {
	x.t.Helper()
	client, err := pvfs.Dial(context.Background(), x.pvfs.URL(), pvfs.Options{Timeout: 20 * time.Second})
	require.NoError(x.t, err)
	opt := ionserver.Options{PVFS: client, Listener: l, Peers: x.addrs, Self: x.addrs[i], DomainSize: 1 << 20}
	x.edit(&opt)
	srv, err := ionserver.New(opt)
	require.NoError(x.t, err)
	x.to[i] = client
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	x.stops[i] = func() {
		cancel()
		require.NoError(x.t, <-done)
		require.NoError(x.t, client.Close())
	}
}

// asked is how many requests of a kind the I/O nodes have sent to servers.
func (x *ions) asked(kind string) (n int64) {
	for _, c := range x.to {
		n += int64(c.Stats().Requests[kind])
	}
	return n
}

// stop ends I/O node i.
func (x *ions) stop(i int) {
	if f := x.stops[i]; f != nil {
		x.stops[i] = nil
		f()
	}
}

// start runs I/O node i again at its old address.
func (x *ions) start(i int) {
	x.t.Helper()
	l, err := net.Listen("tcp", x.addrs[i])
	require.NoError(x.t, err)
	x.serve(i, l)
}
