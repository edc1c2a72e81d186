package rpc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/zoidfs/zoidfs/internal/buf"
	"github.com/zoidfs/zoidfs/internal/shared"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// Service is what an I/O node offers.
type Service interface {
	// Connect is called at the start of each stream, before its first
	// request. The Handler gets the requests of that stream alone.
	Connect(p *Peer) Handler
	Stats(context.Context, *ionpb.StatsReq) (*ionpb.StatsResp, error)
	Status(context.Context, *ionpb.StatusReq) (*ionpb.StatusResp, error)
	Rounds(context.Context, *ionpb.RoundsReq) (*ionpb.RoundsResp, error)
}

// Handler carries out the requests of one stream.
type Handler interface {
	// Try answers a request that it can answer without waiting for anything,
	// and tells whether it did. It is called for each request by the goroutine
	// that reads the stream; what it leaves goes to Handle.
	Try(req *Request) bool
	// Handle is called concurrently; of one stream at most
	// ServerOptions.Workers times at once, beyond which the stream is not
	// read. It may return before the request is answered.
	Handle(req *Request)
	// Close is called once, after the stream has ended and every other call
	// has returned. Requests may still be answered then: nobody hears it.
	Close()
}

// ServerOptions adjusts Serve; the zero value is right for production.
type ServerOptions struct {
	Pool     *buf.Pool    // nil: one of its own
	Logger   *slog.Logger // nil: discard
	Counters *Counters    // nil: nothing is counted
	// Shared is memory that clients on this machine may be shown, if they show
	// theirs: payloads that lie in it are lent to them. nil: there is none.
	Shared *shared.Region
	// Workers is how many Handle calls of one stream run at once; 0: 64.
	Workers int
	// MaxPending is how many requests of one stream may be unanswered; one
	// more breaks the stream. 0: 65536.
	MaxPending int
	// MaxBytes bounds the payload, in bytes, of the unanswered requests of
	// one stream and of the replies on their way. At the bound the stream is
	// not read. 0: 32 MiB; at least MaxData.
	MaxBytes int64
}

func (o ServerOptions) withDefaults() ServerOptions {
	if o.Pool == nil {
		o.Pool = new(buf.Pool)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Counters == nil {
		o.Counters = new(Counters)
	}
	if o.Workers <= 0 {
		o.Workers = 64
	}
	if o.MaxPending <= 0 {
		o.MaxPending = 1 << 16
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 32 << 20
	}
	o.MaxBytes = max(o.MaxBytes, MaxData)
	return o
}

// server is one Serve call.
type server struct {
	opt ServerOptions
	svc Service
}

// Serve answers on lis, and on a Unix socket if lis is of TCP, until ctx ends or
// accepting fails. It then breaks all streams, closes lis, and returns when every
// Handler is closed; the error is nil if ctx ended.
func Serve(ctx context.Context, lis net.Listener, svc Service, opt ServerOptions) error {
	s := &server{opt: opt.withDefaults(), svc: svc}
	var group errgroup.Group
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, l := range []net.Listener{lis, listenNear(lis)} {
		if l == nil {
			continue
		}
		group.Go(func() error {
			defer cancel()
			return s.accept(ctx, l)
		})
	}
	return group.Wait()
}

// accept answers on lis until ctx ends or accepting fails, and returns when every
// Handler of its connections is closed.
func (s *server) accept(ctx context.Context, lis net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { lis.Close() })
	defer lis.Close() // stop may be faster
	defer stop()
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	for pause := time.Duration(0); ; {
		conn, err := lis.Accept()
		switch {
		case err == nil:
			pause = 0
			enlarge(conn)
			group.Go(func() { s.serve(ctx, conn) })
		case ctx.Err() != nil:
			return nil
		case passing(err):
			pause = min(max(2*pause, minPause), maxPause)
			s.opt.Logger.Warn("accept failed", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		default:
			return err
		}
	}
}

// passing tells whether accept(2) may succeed later.
func passing(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Pauses after a failure to accept a connection.
const (
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

// serve answers on one connection until it or ctx ends. Each has a gRPC server
// of its own, because the pool of a server is a link.
func (s *server) serve(ctx context.Context, conn net.Conn) {
	if near, ok := conn.(*net.UnixConn); ok {
		hurry := context.AfterFunc(ctx, func() { _ = near.Close() })
		var err error
		conn, err = welcome(near, s.opt.Shared, trusted)
		hurry()
		if err != nil {
			return
		}
	}
	c := &served{server: s, link: newLink(conn, s.opt.Pool)}
	g := grpc.NewServer(serverOptions(c.link)...)
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*any)(nil),
		Streams:     []grpc.StreamDesc{{StreamName: "Connect", Handler: accept, ServerStreams: true, ClientStreams: true}},
		Methods: []grpc.MethodDesc{
			{MethodName: "Stats", Handler: stats}, {MethodName: "Status", Handler: statusOf}, {MethodName: "Rounds", Handler: rounds},
		},
		Metadata: "ion.proto",
	}, c)
	stop := context.AfterFunc(ctx, c.link.abort)
	_ = g.Serve(&single{link: c.link, next: c.link}) // ends with the connection
	stop()
	g.Stop() // waits for the handlers
	c.link.abort()
}

// served is one connection.
type served struct {
	*server
	link *link
}

// single is a listener that accepts one connection and ends with it.
type single struct {
	link *link
	next net.Conn
}

func (s *single) Accept() (net.Conn, error) {
	if conn := s.next; conn != nil {
		s.next = nil
		return conn, nil
	}
	s.link.group.Wait()
	return nil, net.ErrClosed
}

func (s *single) Close() error   { return nil }
func (s *single) Addr() net.Addr { return s.link.LocalAddr() }

func accept(srv any, stream grpc.ServerStream) error {
	s := srv.(*served)
	if err := stream.SendHeader(metadata.Pairs(helloKey, helloValue)); err != nil {
		return err
	}
	p := newPeer(s, stream)
	err := p.run()
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func stats(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	return answer(ctx, decode, srv.(*served).svc.Stats)
}

func statusOf(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	return answer(ctx, decode, srv.(*served).svc.Status)
}

func rounds(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	return answer(ctx, decode, srv.(*served).svc.Rounds)
}

func answer[Req, Resp any](ctx context.Context, decode func(any) error, do func(context.Context, *Req) (*Resp, error)) (any, error) {
	req := new(Req)
	if err := decode(req); err != nil {
		return nil, err
	}
	if err := grpc.SetHeader(ctx, metadata.Pairs(helloKey, helloValue)); err != nil {
		return nil, err
	}
	return do(ctx, req)
}
