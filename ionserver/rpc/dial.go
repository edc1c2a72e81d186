package rpc

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// Names of the service on the wire.
const (
	serviceName   = "zoidfs.v1.ION"
	connectMethod = "/" + serviceName + "/Connect"
	statsMethod   = "/" + serviceName + "/Stats"
	statusMethod  = "/" + serviceName + "/Status"
	roundsMethod  = "/" + serviceName + "/Rounds"

	// An I/O node sends this header at once, so that Dial knows it found one.
	helloKey   = "zoidfs-protocol"
	helloValue = "1"
)

// Dial connects to addr and returns once an I/O node has answered. The error
// has the errno of connect(2) if that failed, EPROTO if whoever listens there
// is no I/O node that we can talk to, EINTR or ETIMEDOUT if ctx ended first.
// ctx bounds the dialling only.
func Dial(ctx context.Context, addr string, opt Options) (*Conn, error) {
	c := &Conn{
		opt:     opt.withDefaults(),
		stall:   stallTime,
		broken:  make(chan struct{}),
		pending: make(map[uint64]*call),
	}
	var err error
	if c.link, c.cc, err = connect(ctx, addr, c.opt); err != nil {
		return nil, err
	}
	streamCtx, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, cancel)
	c.ctx, c.cancel = streamCtx, cancel
	c.stream, err = openStream(streamCtx, c.cc)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		c.link.abort()
		c.cc.Close()
		return nil, dialError(ctx, addr, err)
	}
	c.out = newSender(c.link, c.stream.SendMsg)
	c.start()
	return c, nil
}

// connect makes a gRPC client of one connection, which is its caller's to
// abort.
func connect(ctx context.Context, addr string, opt Options) (*link, *grpc.ClientConn, error) {
	conn, err := opt.Dialer(ctx, addr)
	if err != nil {
		return nil, nil, errno.Wrap("rpc.Dial", errno.Of(cmp.Or(context.Cause(ctx), err)), err)
	}
	l := newLink(conn, opt.Pool)
	first := make(chan *link, 1)
	first <- l
	dial := func(context.Context, string) (net.Conn, error) {
		select {
		case l := <-first:
			return l, nil
		default:
			return nil, net.ErrClosed
		}
	}
	cc, err := grpc.NewClient("passthrough:///"+addr, append(dialOptions(l, opt.Keepalive), grpc.WithContextDialer(dial))...)
	if err != nil {
		l.abort()
		return nil, nil, errno.Wrap("rpc.Dial", syscall.EINVAL, err)
	}
	return l, cc, nil
}

// openStream opens the stream of frames and waits for the peer's hello.
func openStream(ctx context.Context, cc *grpc.ClientConn) (grpc.ClientStream, error) {
	s, err := cc.NewStream(ctx, &grpc.StreamDesc{StreamName: "Connect", ServerStreams: true, ClientStreams: true}, connectMethod)
	if err != nil {
		return nil, err
	}
	md, err := s.Header()
	if err == nil && len(md.Get(helloKey)) == 0 {
		if err = s.RecvMsg(new(Frame)); err == nil {
			err = status.Error(codes.Unimplemented, "it does not say hello")
		}
	}
	if err == nil && md.Get(helloKey)[0] != helloValue {
		err = status.Errorf(codes.Unimplemented, "it speaks version %q of the protocol, we speak %s", md.Get(helloKey)[0], helloValue)
	}
	return s, err
}

// dialError finds out what err, from gRPC, means to the user.
func dialError(ctx context.Context, addr string, err error) error {
	if e := context.Cause(ctx); e != nil {
		return errno.Wrap("rpc.Dial", errno.Of(e), fmt.Errorf("%s: %w", addr, e))
	}
	return errno.Wrap("rpc.Dial", syscall.EPROTO, fmt.Errorf("%s is not a zoidfs I/O node: %s", addr, status.Convert(err).Message()))
}

// Stats asks the I/O node at addr for its counters.
func Stats(ctx context.Context, addr string, req *ionpb.StatsReq, opt Options) (*ionpb.StatsResp, error) {
	resp := new(ionpb.StatsResp)
	return resp, unary(ctx, addr, statsMethod, req, resp, opt)
}

// Status asks the I/O node at addr what it is doing.
func Status(ctx context.Context, addr string, opt Options) (*ionpb.StatusResp, error) {
	resp := new(ionpb.StatusResp)
	return resp, unary(ctx, addr, statusMethod, new(ionpb.StatusReq), resp, opt)
}

// Rounds asks the I/O node at addr which rounds it remembers.
func Rounds(ctx context.Context, addr string, req *ionpb.RoundsReq, opt Options) (*ionpb.RoundsResp, error) {
	resp := new(ionpb.RoundsResp)
	return resp, unary(ctx, addr, roundsMethod, req, resp, opt)
}

func unary(ctx context.Context, addr, method string, req, resp any, opt Options) error {
	l, cc, err := connect(ctx, addr, opt.withDefaults())
	if err != nil {
		return err
	}
	defer l.abort()
	defer cc.Close()
	var md metadata.MD
	if err := cc.Invoke(ctx, method, req, resp, grpc.Header(&md)); err != nil {
		if len(md.Get(helloKey)) > 0 { // an I/O node, and it refused
			return errno.Wrap("rpc"+method, syscall.EIO, err)
		}
		return dialError(ctx, addr, err)
	}
	return nil
}
