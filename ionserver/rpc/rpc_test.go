package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/zoidfs/zoidfs/internal/buf"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service answers with handle and counts streams.
type service struct {
	handle  func(*Request)
	streams atomic.Int64
	closed  atomic.Int64
}

func (s *service) Connect(p *Peer) Handler {
	s.streams.Add(1)
	return stream{s}
}

func (s *service) Stats(_ context.Context, r *ionpb.StatsReq) (*ionpb.StatsResp, error) {
	if r.Reset_ {
		return nil, errors.New("no")
	}
	return &ionpb.StatsResp{RpcBytesSent: 7}, nil
}

func (s *service) Status(context.Context, *ionpb.StatusReq) (*ionpb.StatusResp, error) {
	return &ionpb.StatusResp{Address: "here"}, nil
}

func (s *service) Rounds(_ context.Context, m *ionpb.RoundsReq) (*ionpb.RoundsResp, error) {
	return &ionpb.RoundsResp{Records: fmt.Appendf(nil, "%d %d", m.Handle, m.Job)}, nil
}

type stream struct{ *service }

func (stream) Try(*Request) bool { return false }

func (s stream) Handle(r *Request) { s.handle(r) }
func (s stream) Close()            { s.closed.Add(1) }

// echo sends body and data back, in a pooled buffer as an I/O node would.
func echo(pool *buf.Pool) func(*Request) {
	return func(r *Request) {
		b := pool.New(r.Data.Len())
		r.Data.CopyTo(b.Bytes())
		r.Reply(&Frame{Body: r.Body, Off: r.Off, Data: Pooled(b)})
	}
}

// serve runs s on a loopback address until the test ends.
func serve(t testing.TB, s *service, opt ServerOptions) (addr string) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	serveOn(t, lis, s, opt)
	return lis.Addr().String()
}

func serveOn(t testing.TB, lis net.Listener, s *service, opt ServerOptions) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, lis, s, opt) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
		require.Equal(t, s.streams.Load(), s.closed.Load(), "every stream's handler is closed")
	})
	t.Cleanup(stop)
	return stop
}

// dial connects over TCP, unless opt says otherwise.
func dial(t testing.TB, addr string, opt Options) *Conn {
	if opt.Dialer == nil {
		opt.Dialer = func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	}
	c, err := Dial(t.Context(), addr, opt)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestEchoOfAllSizes(t *testing.T) {
	var pool buf.Pool
	c := dial(t, serve(t, &service{handle: echo(&pool)}, ServerOptions{}), Options{})
	for _, n := range []int{0, 1, 1000, 1024, 1025, 16 << 10, 100_000, 1 << 20, MaxData} {
		p := make([]byte, n)
		rand.NewChaCha8([32]byte{byte(n)}).Read(p)
		reply, err := c.CallBytes(t.Context(), &Frame{Op: ionpb.Op_WRITE, Off: int64(n), Body: []byte("body")}, p)
		require.NoError(t, err)
		require.NoError(t, reply.Err())
		require.Equal(t, ionpb.Op_WRITE, reply.Op)
		require.EqualValues(t, n, reply.Off)
		require.Equal(t, "body", string(reply.Body))
		require.True(t, bytes.Equal(p, bytes.Join(reply.Data.Append(nil), nil)), "%d bytes", n)
		reply.Data.Release()
	}
}

// TestPieces: a payload in pieces of any size arrives whole, and the memory is
// the caller's again after the call.
func TestPieces(t *testing.T) {
	var pool buf.Pool
	c := dial(t, serve(t, &service{handle: echo(&pool)}, ServerOptions{}), Options{})
	for seed := range byte(20) {
		rnd := rand.New(rand.NewChaCha8([32]byte{seed}))
		var pieces [][]byte
		for n := 0; n < MaxData-1<<17 && len(pieces) < 40; {
			p := make([]byte, rnd.IntN(1<<rnd.IntN(18)))
			for i := range p {
				p[i] = byte(rnd.Uint32())
			}
			n += len(p)
			pieces = append(pieces, p)
		}
		want := bytes.Join(pieces, nil)
		reply, err := c.CallPieces(t.Context(), &Frame{Op: ionpb.Op_WRITE}, pieces)
		require.NoError(t, err)
		for _, p := range pieces {
			clear(p)
		}
		require.True(t, bytes.Equal(want, bytes.Join(reply.Data.Append(nil), nil)), "seed %d", seed)
		reply.Data.Release()
	}
}

// TestRepliesInAnyOrder: many callers on one stream, answered in the opposite
// order of their arrival, each get their own.
func TestRepliesInAnyOrder(t *testing.T) {
	const n = 50
	var mu sync.Mutex
	var got []*Request
	s := &service{handle: func(r *Request) {
		mu.Lock()
		defer mu.Unlock()
		if got = append(got, r); len(got) == n {
			for i := range got {
				r := got[n-1-i]
				r.Reply(&Frame{Handle: r.Handle})
			}
		}
	}}
	c := dial(t, serve(t, s, ServerOptions{Workers: 4}), Options{})
	var wg sync.WaitGroup
	for i := range uint64(n) {
		wg.Go(func() {
			reply, err := c.Call(context.Background(), &Frame{Handle: i})
			if err != nil || reply.Handle != i {
				t.Errorf("call %d: %v, %v", i, reply, err)
			}
		})
	}
	wg.Wait()
}

// TestErrnoCrossesUnchanged walks every errno that Linux has.
func TestErrnoCrossesUnchanged(t *testing.T) {
	s := &service{handle: func(r *Request) {
		e := errno.New("pvfs.Lookup", syscall.Errno(r.Handle))
		if len(r.Body) > 0 {
			e.Err = errors.New(string(r.Body))
		}
		r.Fail(e)
	}}
	c := dial(t, serve(t, s, ServerOptions{}), Options{})
	for n := syscall.Errno(1); n <= 133; n++ {
		for _, text := range []string{"", "server fs3 says no"} {
			reply, err := c.Call(t.Context(), &Frame{Handle: uint64(n), Body: []byte(text)})
			require.NoError(t, err)
			want := errno.New("pvfs.Lookup", n)
			if text != "" {
				want.Err = errors.New(text)
			}
			require.Equal(t, error(want), reply.Err())
			require.ErrorIs(t, reply.Err(), n)
		}
	}
}

func TestFailureKeepsWhatItCan(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want error
	}{
		{"wrapped", errors.Join(errno.New("a.B", syscall.ENOENT)), errno.Wrap("a.B", syscall.ENOENT, errors.New("a.B: no such file or directory"))},
		{"plain", errors.New("odd"), errno.Wrap("ion.read", syscall.EIO, errors.New("odd"))},
		{"cancelled", context.Canceled, errno.Wrap("ion.read", syscall.EINTR, errors.New("context canceled"))},
		{"not UTF-8", errno.Wrap("a.B", syscall.EPERM, errors.New("x\xff")), errno.Wrap("a.B", syscall.EPERM, errors.New("x?"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := Frame{Op: ionpb.Op_READ}
			f.Failure(c.err)
			require.Equal(t, c.want, f.Err())
		})
	}
}

func TestCancelFreesTheCallerAndNobodyElse(t *testing.T) {
	release := make(chan struct{})
	s := &service{handle: func(r *Request) {
		if r.Op == ionpb.Op_LOCK {
			<-release
		}
		r.ReplyMsg(nil)
	}}
	c := dial(t, serve(t, s, ServerOptions{}), Options{})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err := c.Call(ctx, &Frame{Op: ionpb.Op_LOCK})
	require.Equal(t, syscall.EINTR, errno.Of(err))
	close(release)
	for range 3 {
		_, err = c.Call(t.Context(), &Frame{Op: ionpb.Op_PING})
		require.NoError(t, err)
	}
}

// TestBrokenFailsAllPending: the server goes away under waiting calls.
func TestBrokenFailsAllPending(t *testing.T) {
	arrived := make(chan struct{}, 10)
	s := &service{handle: func(r *Request) { arrived <- struct{}{} }} // never answers
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	stop := serveOn(t, lis, s, ServerOptions{})
	c := dial(t, lis.Addr().String(), Options{})
	errs := make(chan error, 10)
	p := make([]byte, 1<<20)
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			f := &Frame{Op: ionpb.Op_WRITE}
			if i%2 == 0 {
				_, err := c.Call(context.Background(), f)
				errs <- err
				return
			}
			_, err := c.CallBytes(context.Background(), f, p)
			errs <- err
		})
	}
	for range 10 {
		<-arrived
	}
	stop()
	wg.Wait()
	for range 10 {
		err := <-errs
		require.ErrorIs(t, err, ErrBroken)
		require.Equal(t, syscall.ECONNRESET, errno.Of(err))
	}
	<-c.Broken()
	_, err = c.CallBytes(t.Context(), new(Frame), p)
	require.ErrorIs(t, err, ErrBroken, "later calls too")
}

// TestMemoryIsBackAfterCallBytes: the caller scribbles over its buffer as soon
// as the call returns, however it ended; no answered call saw the scribbling.
func TestMemoryIsBackAfterCallBytes(t *testing.T) {
	var bad atomic.Int64
	s := &service{handle: func(r *Request) {
		for _, p := range r.Data.Append(nil) {
			if i := bytes.IndexByte(p, 0xee); i >= 0 {
				bad.Add(1)
			}
		}
		r.ReplyMsg(nil)
	}}
	c := dial(t, serve(t, s, ServerOptions{}), Options{})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			p := make([]byte, 1<<20)
			for range 30 {
				clear(p)
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(3000))*time.Microsecond)
				c.CallBytes(ctx, &Frame{Op: ionpb.Op_WRITE}, p)
				cancel()
				for i := range p {
					p[i] = 0xee
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, bad.Load())
	require.NoError(t, c.Err())
}

// TestStalledPeerGivesMemoryBack: a peer that stops reading cannot keep a
// cancelled caller for ever.
func TestStalledPeerGivesMemoryBack(t *testing.T) {
	block := make(chan struct{})
	s := &service{handle: func(r *Request) { <-block; r.ReplyMsg(nil) }}
	addr := serve(t, s, ServerOptions{Workers: 1, MaxBytes: 1})
	t.Cleanup(func() { close(block) })
	c := dial(t, addr, Options{})
	c.stall = 100 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var errs [12]error
	for i := range errs { // more than windows, socket buffers and server take
		wg.Go(func() { _, errs[i] = c.CallBytes(ctx, new(Frame), make([]byte, MaxData)) })
	}
	time.Sleep(200 * time.Millisecond)
	start := time.Now()
	cancel()
	wg.Wait()
	require.Less(t, time.Since(start), stallTime, "the connection was broken earlier")
	for _, err := range errs {
		require.Error(t, err)
	}
}

// TestParkedRequestsDoNotBlockTheStream: locks that wait do not stop the stream,
// because a handler may return and answer later.
func TestParkedRequestsDoNotBlockTheStream(t *testing.T) {
	parked := make(chan *Request, 500)
	s := &service{handle: func(r *Request) {
		if r.Op == ionpb.Op_LOCK {
			parked <- r
			return
		}
		r.ReplyMsg(nil)
	}}
	c := dial(t, serve(t, s, ServerOptions{Workers: 2}), Options{})
	var wg sync.WaitGroup
	for range 500 {
		wg.Go(func() { c.Call(context.Background(), &Frame{Op: ionpb.Op_LOCK}) })
	}
	_, err := c.Call(t.Context(), &Frame{Op: ionpb.Op_PING})
	require.NoError(t, err)
	for range 500 {
		(<-parked).ReplyMsg(nil)
	}
	wg.Wait()
}

// TestTooManyUnansweredBreakTheStream: and leave other streams alone.
func TestTooManyUnansweredBreakTheStream(t *testing.T) {
	s := &service{handle: func(r *Request) {
		if r.Op == ionpb.Op_PING {
			r.ReplyMsg(nil)
		}
	}}
	addr := serve(t, s, ServerOptions{MaxPending: 10})
	greedy, modest := dial(t, addr, Options{}), dial(t, addr, Options{})
	var wg sync.WaitGroup
	for range 11 {
		wg.Go(func() {
			_, err := greedy.Call(context.Background(), &Frame{Op: ionpb.Op_LOCK})
			if !errors.Is(err, ErrBroken) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	_, err := modest.Call(t.Context(), &Frame{Op: ionpb.Op_PING})
	require.NoError(t, err)
}

// TestBytesAreBounded: a client that asks for much and reads nothing makes the
// server hold no more than MaxBytes.
func TestBytesAreBounded(t *testing.T) {
	var pool buf.Pool
	var running, most atomic.Int64
	gate := make(chan struct{})
	s := &service{handle: func(r *Request) {
		most.Store(max(most.Load(), running.Add(1)))
		<-gate
		running.Add(-1)
		r.Reply(&Frame{Data: Pooled(pool.New(1 << 20))})
	}}
	c := dial(t, serve(t, s, ServerOptions{MaxBytes: 4 << 20}), Options{})
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			reply, err := c.Call(context.Background(), &Frame{Op: ionpb.Op_READ, Len: 1 << 20})
			if err != nil {
				t.Error(err)
				return
			}
			reply.Data.Release()
		})
	}
	time.Sleep(50 * time.Millisecond)
	close(gate)
	wg.Wait()
	require.LessOrEqual(t, most.Load(), int64(4))
}

func TestOversizeReplyIsAnError(t *testing.T) {
	s := &service{handle: func(r *Request) { r.Reply(&Frame{Body: make([]byte, MaxBody+1)}) }}
	c := dial(t, serve(t, s, ServerOptions{}), Options{})
	reply, err := c.Call(t.Context(), new(Frame))
	require.NoError(t, err)
	require.ErrorIs(t, reply.Err(), syscall.EMSGSIZE)
}

func TestSecondAnswerIsIgnored(t *testing.T) {
	s := &service{handle: func(r *Request) {
		r.ReplyMsg(&ionpb.PingResp{Epoch: 1})
		r.Fail(syscall.EIO)
	}}
	c := dial(t, serve(t, s, ServerOptions{}), Options{})
	for range 3 {
		reply, err := c.Call(t.Context(), new(Frame))
		require.NoError(t, err)
		require.NoError(t, reply.Err())
	}
}

func TestStatsAndStatus(t *testing.T) {
	addr := serve(t, &service{}, ServerOptions{})
	st, err := Stats(t.Context(), addr, &ionpb.StatsReq{}, Options{})
	require.NoError(t, err)
	require.EqualValues(t, 7, st.RpcBytesSent)
	status, err := Status(t.Context(), addr, Options{})
	require.NoError(t, err)
	require.Equal(t, "here", status.Address)
	rounds, err := Rounds(t.Context(), addr, &ionpb.RoundsReq{Handle: 3, Job: 4}, Options{})
	require.NoError(t, err)
	require.Equal(t, "3 4", string(rounds.Records))
	_, err = Stats(t.Context(), addr, &ionpb.StatsReq{Reset_: true}, Options{})
	require.ErrorContains(t, err, "no")
}

// TestDialTellsWhatIsWrong: one clear error for each wrong address.
func TestDialTellsWhatIsWrong(t *testing.T) {
	listen := func(t *testing.T, handle func(net.Conn)) string {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				conn, err := lis.Accept()
				if err != nil {
					return
				}
				handle(conn)
			}
		}()
		t.Cleanup(func() { lis.Close(); <-done })
		return lis.Addr().String()
	}
	for _, c := range []struct {
		name string
		addr func(t *testing.T) string
		want syscall.Errno
		text string
	}{
		{"nobody listens", func(t *testing.T) string {
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			lis.Close()
			return lis.Addr().String()
		}, syscall.ECONNREFUSED, "connection refused"},
		{"a name that does not resolve", func(t *testing.T) string { return "no port" }, syscall.EIO, "missing port"},
		{"garbage", func(t *testing.T) string {
			return listen(t, func(c net.Conn) {
				io.WriteString(c, "hello, who are you? I am no such server, go away\n")
				time.Sleep(10 * time.Millisecond)
				c.Close()
			})
		}, syscall.EPROTO, "is not a zoidfs I/O node"},
		{"hangs up", func(t *testing.T) string {
			return listen(t, func(c net.Conn) { c.Close() })
		}, syscall.EPROTO, "is not a zoidfs I/O node"},
		{"a web server", func(t *testing.T) string {
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			srv := &http.Server{}
			go srv.Serve(lis)
			t.Cleanup(func() { srv.Close() })
			return lis.Addr().String()
		}, syscall.EPROTO, "is not a zoidfs I/O node"},
		{"some other gRPC server", func(t *testing.T) string {
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			srv := grpc.NewServer()
			go srv.Serve(lis)
			t.Cleanup(srv.Stop)
			return lis.Addr().String()
		}, syscall.EPROTO, "unknown service zoidfs.v1.ION"},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := c.addr(t)
			_, err := Dial(t.Context(), addr, Options{})
			require.ErrorContains(t, err, c.text)
			require.Equal(t, c.want, errno.Of(err), "%v", err)
			_, err = Status(t.Context(), addr, Options{})
			require.ErrorContains(t, err, c.text)
		})
	}
}

func TestDialGivesUpWithItsContext(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0") // accepts, by its backlog, and is silent
	require.NoError(t, err)
	defer lis.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = Dial(ctx, lis.Addr().String(), Options{})
	require.Equal(t, syscall.ETIMEDOUT, errno.Of(err), "%v", err)
	require.Less(t, time.Since(start), 30*time.Second)
}

// TestGarbageDoesNotHurtTheServer: others go on.
func TestGarbageDoesNotHurtTheServer(t *testing.T) {
	addr := serve(t, &service{handle: func(r *Request) { r.ReplyMsg(nil) }}, ServerOptions{})
	c := dial(t, addr, Options{})
	r := rand.NewChaCha8([32]byte{1})
	for i := range 20 {
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		p := make([]byte, 4096)
		r.Read(p)
		if i%2 == 0 {
			copy(p, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		}
		conn.Write(p)
		conn.Close()
	}
	_, err := c.Call(t.Context(), new(Frame))
	require.NoError(t, err)
}

func TestCounters(t *testing.T) {
	var pool buf.Pool
	var server, client Counters
	c := dial(t, serve(t, &service{handle: echo(&pool)}, ServerOptions{Counters: &server}), Options{Counters: &client})
	reply, err := c.CallBytes(t.Context(), &Frame{Op: ionpb.Op_WRITE, Body: []byte("12")}, make([]byte, 1000))
	require.NoError(t, err)
	reply.Data.Release()
	want := Snapshot{Requests: map[string]uint64{"write": 1}, BytesSent: 1002, BytesReceived: 1002}
	require.Equal(t, want, server.Snapshot())
	require.Equal(t, want, client.Snapshot())
	client.Reset()
	require.Equal(t, Snapshot{Requests: map[string]uint64{}}, client.Snapshot())
}

// TestReplyInPieces: a reply whose payload lies in several places, which are
// given back once, when it is out or never will be.
func TestReplyInPieces(t *testing.T) {
	var given, back atomic.Int64
	s := &service{handle: func(r *Request) {
		p := make([]byte, r.Len)
		rand.NewChaCha8([32]byte{byte(r.Len)}).Read(p)
		var pieces [][]byte
		for n := int(r.Off); len(p) > 0; p = p[n:] {
			n = min(n, len(p))
			pieces = append(pieces, p[:n:n])
		}
		given.Add(1)
		r.Reply(&Frame{Data: Lent(pieces, func() { back.Add(1) })})
	}}
	c := dial(t, serve(t, s, ServerOptions{}), Options{})
	for _, n := range []int64{0, 1, 100, 5000, 8 << 10, 100_000, 1 << 20} {
		for _, piece := range []int64{17, 4 << 10, 64 << 10} {
			want := make([]byte, n)
			rand.NewChaCha8([32]byte{byte(n)}).Read(want)
			reply, err := c.Call(t.Context(), &Frame{Op: ionpb.Op_READ, Len: n, Off: max(piece, n/500)})
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, bytes.Join(reply.Data.Append(nil), nil)), "%d bytes in pieces of %d", n, piece)
			reply.Data.Release()
		}
	}
	require.Eventually(t, func() bool { return back.Load() == given.Load() }, 5*time.Second, time.Millisecond)
}
