package rpc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/zoidfs/zoidfs/internal/buf"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// Service is what an I/O node offers.
type Service interface {
	// Connect is called at the start of each stream, before its first
	// request. The Handler gets the requests of that stream alone.
	Connect(p *Peer) Handler
	Stats(context.Context, *ionpb.StatsReq) (*ionpb.StatsResp, error)
	Status(context.Context, *ionpb.StatusReq) (*ionpb.StatusResp, error)
}

// Handler carries out the requests of one stream.
type Handler interface {
	// Handle is called for each request, concurrently, in a goroutine of its
	// own; of one stream at most ServerOptions.Workers at once, beyond which
	// the stream is not read. It may return before the request is answered.
	Handle(req *Request)
	// Close is called once, after the stream has ended and every Handle has
	// returned. Requests may still be answered then: nobody hears it.
	Close()
}

// ServerOptions adjusts Serve; the zero value is right for production.
type ServerOptions struct {
	Pool     *buf.Pool    // nil: one of its own
	Logger   *slog.Logger // nil: discard
	Counters *Counters    // nil: nothing is counted
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

// Serve answers on lis until ctx ends or accepting fails. It then breaks all
// streams, closes lis, and returns when every Handler is closed; the error is
// nil if ctx ended.
func Serve(ctx context.Context, lis net.Listener, svc Service, opt ServerOptions) error {
	s := &server{opt: opt.withDefaults(), svc: svc}
	g := grpc.NewServer(serverOptions(s.opt.Pool)...)
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*any)(nil),
		Streams:     []grpc.StreamDesc{{StreamName: "Connect", Handler: connect, ServerStreams: true, ClientStreams: true}},
		Methods:     []grpc.MethodDesc{{MethodName: "Stats", Handler: stats}, {MethodName: "Status", Handler: statusOf}},
		Metadata:    "ion.proto",
	}, s)
	var group errgroup.Group
	done := make(chan struct{})
	group.Go(func() error {
		defer close(done)
		if err := g.Serve(lis); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		select {
		case <-ctx.Done():
		case <-done:
		}
		g.Stop() // ends the streams' contexts and waits for their handlers
		return nil
	})
	err := group.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func connect(srv any, stream grpc.ServerStream) error {
	s := srv.(*server)
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
	return answer(ctx, decode, srv.(*server).svc.Stats)
}

func statusOf(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	return answer(ctx, decode, srv.(*server).svc.Status)
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
