package rpc

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/buf"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// dialed is dialPeer that tells which kind of connection it made.
func dialed(network *string) Options {
	return Options{Dialer: func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := dialPeer(ctx, addr, nil)
		if err == nil {
			*network = conn.RemoteAddr().Network()
		}
		return conn, err
	}}
}

// listens returns when there is a Unix socket besides addr: it is there before
// anything is answered.
func listens(t testing.TB, addr string) { require.NoError(t, dial(t, addr, Options{}).Close()) }

func TestPeerOnTheSameMachine(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", ":0"} {
		t.Run(listen, func(t *testing.T) {
			lis, err := net.Listen("tcp", listen)
			require.NoError(t, err)
			var pool buf.Pool
			stop := serveOn(t, lis, &service{handle: echo(&pool)}, ServerOptions{})
			_, port, err := net.SplitHostPort(lis.Addr().String())
			require.NoError(t, err)

			listens(t, "127.0.0.1:"+port)
			var network string
			c := dial(t, "127.0.0.1:"+port, dialed(&network))
			require.Equal(t, "unix", network)
			for _, n := range []int{0, 1000, 100_000, MaxData} {
				p := make([]byte, n)
				rand.NewChaCha8([32]byte{byte(n)}).Read(p)
				reply, err := c.CallBytes(t.Context(), &Frame{Op: ionpb.Op_WRITE, Body: []byte("body")}, p)
				require.NoError(t, err)
				require.Equal(t, "body", string(reply.Body))
				got := make([]byte, n)
				require.Equal(t, n, reply.Data.CopyTo(got))
				require.Equal(t, p, got)
				reply.Data.Release()
			}

			stop()
			_, err = c.Call(t.Context(), &Frame{Op: ionpb.Op_READ})
			require.ErrorIs(t, err, ErrBroken, "the server's end is noticed")
			_, err = dialPeer(t.Context(), "127.0.0.1:"+port, nil)
			require.ErrorIs(t, err, syscall.ECONNREFUSED, "neither listener is left")
		})
	}
}

func TestNameIsTaken(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	squatter, err := net.ListenUnix("unix", nearAddr(lis.Addr().String()))
	require.NoError(t, err)
	defer squatter.Close()
	require.Nil(t, listenNear(lis), "then there is TCP")
}

// TestListenerOfSomebodyElse: an abstract name may be taken by anybody.
func TestListenerOfSomebodyElse(t *testing.T) {
	if name := os.Getenv("ZOIDFS_TEST_SQUAT"); name != "" {
		squatter, err := net.ListenUnix("unix", nearAddr(name))
		require.NoError(t, err)
		os.Stdout.WriteString("listening\n")
		_, _ = squatter.Accept()
		_, _ = os.Stdin.Read(make([]byte, 1)) // until the test ends
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer lis.Close()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestListenerOfSomebodyElse$")
	cmd.Env = append(os.Environ(), "ZOIDFS_TEST_SQUAT="+lis.Addr().String())
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() {
		require.NoError(t, in.Close())
		_ = cmd.Wait()
	}()
	said := make([]byte, len("listening\n"))
	_, err = out.Read(said)
	require.NoError(t, err)
	require.Equal(t, "listening", strings.TrimSpace(string(said)))

	conn, err := dialPeer(t.Context(), lis.Addr().String(), nil)
	require.NoError(t, err)
	defer conn.Close()
	require.Equal(t, "tcp", conn.RemoteAddr().Network())
}
