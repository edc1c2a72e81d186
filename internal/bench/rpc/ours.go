package main

import (
	"context"
	"errors"
	"net"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// listenAll starts the servers of all variants in group and returns their
// addresses in the order of variants. They end with ctx.
func listenAll(ctx context.Context, group *errgroup.Group) ([]string, error) {
	b := &backend{slab: newSlab(), block: newSlab().mem[:8<<20]}
	var addrs []string
	for _, serve := range []func(context.Context, net.Listener, *backend) error{serveRaw, serveOurs, serveTutorial} {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, lis.Addr().String())
		group.Go(func() error { return serve(ctx, lis, b) })
	}
	return addrs, nil
}

// backend takes what is written and has what is read.
type backend struct {
	slab  *slab
	block []byte
}

// --- zoidfs ---

func serveOurs(ctx context.Context, lis net.Listener, b *backend) error {
	return rpc.Serve(ctx, lis, b, rpc.ServerOptions{})
}

func (b *backend) Connect(*rpc.Peer) rpc.Handler { return b }
func (b *backend) Close()                        {}

func (b *backend) Stats(context.Context, *ionpb.StatsReq) (*ionpb.StatsResp, error) {
	return &ionpb.StatsResp{}, nil
}

func (b *backend) Status(context.Context, *ionpb.StatusReq) (*ionpb.StatusResp, error) {
	return &ionpb.StatusResp{}, nil
}

func (b *backend) Rounds(context.Context, *ionpb.RoundsReq) (*ionpb.RoundsResp, error) {
	return &ionpb.RoundsResp{}, nil
}

func (b *backend) Try(r *rpc.Request) bool {
	b.Handle(r)
	return true
}

func (b *backend) Handle(r *rpc.Request) {
	switch r.Op {
	case ionpb.Op_WRITE:
		n := r.Data.Len()
		r.Data.CopyTo(b.slab.next(n))
		r.Reply(&rpc.Frame{Len: int64(n)})
	case ionpb.Op_READ:
		r.Reply(&rpc.Frame{Len: r.Len, Data: rpc.Static(b.block[:r.Len])})
	default:
		r.Reply(&rpc.Frame{Body: r.Body})
	}
}

func connectOurs(ctx context.Context, addr string, w workload) (func() error, func(), error) {
	c, err := rpc.Dial(ctx, addr, rpc.Options{})
	if err != nil {
		return nil, nil, err
	}
	payload, dst := make([]byte, w.size), newSlab()
	do := func() error {
		var reply *rpc.Frame
		var err error
		switch w.op {
		case opWrite:
			reply, err = c.CallBytes(ctx, &rpc.Frame{Op: ionpb.Op_WRITE, Handle: 1 << 40, Off: 1 << 30}, payload)
		case opRead:
			reply, err = c.Call(ctx, &rpc.Frame{Op: ionpb.Op_READ, Handle: 1 << 40, Off: 1 << 30, Len: int64(w.size)})
		case opEcho:
			reply, err = c.Call(ctx, &rpc.Frame{Op: ionpb.Op_GETATTR, Handle: 1 << 40, Body: payload})
		}
		if err != nil {
			return err
		}
		if w.op == opRead {
			reply.Data.CopyTo(dst.next(w.size))
			reply.Data.Release()
		}
		return reply.Err()
	}
	return do, func() { c.Close() }, nil
}

// --- gRPC as tutorials show it ---

const tutorialMethod = "/tutorial.IO/Do"

func serveTutorial(ctx context.Context, lis net.Listener, b *backend) error {
	g := grpc.NewServer(grpc.MaxRecvMsgSize(16 << 20)) // without it 4 MiB writes would not pass
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "tutorial.IO", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Do", Handler: b.tutorial}},
	}, b)
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	err := g.Serve(lis)
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

func (b *backend) tutorial(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var r ionpb.Frame
	if err := decode(&r); err != nil {
		return nil, err
	}
	switch ionpb.Op(r.Op) {
	case ionpb.Op_WRITE:
		copy(b.slab.next(len(r.Data)), r.Data)
		return &ionpb.Frame{Len: int64(len(r.Data))}, nil
	case ionpb.Op_READ:
		return &ionpb.Frame{Data: b.block[:r.Len]}, nil
	}
	return &ionpb.Frame{Body: r.Body}, nil
}

func connectTutorial(ctx context.Context, addr string, w workload) (func() error, func(), error) {
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	payload, dst := make([]byte, w.size), newSlab()
	do := func() error {
		req := &ionpb.Frame{Op: uint32(ionpb.Op_GETATTR), Handle: 1 << 40}
		switch w.op {
		case opWrite:
			req.Op, req.Off, req.Data = uint32(ionpb.Op_WRITE), 1<<30, payload
		case opRead:
			req.Op, req.Off, req.Len = uint32(ionpb.Op_READ), 1<<30, int64(w.size)
		case opEcho:
			req.Body = payload
		}
		var resp ionpb.Frame
		if err := cc.Invoke(ctx, tutorialMethod, req, &resp, grpc.MaxCallRecvMsgSize(16<<20)); err != nil {
			return err
		}
		if w.op == opRead {
			copy(dst.next(w.size), resp.Data)
		}
		return nil
	}
	return do, func() { cc.Close() }, nil
}
