package rpc

import (
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
		out:     newSender(),
		stall:   stallTime,
		broken:  make(chan struct{}),
		pending: make(map[uint64]*call),
	}
	cc, dialErr, err := newClient(addr, c.opt, c.connected)
	if err != nil {
		return nil, err
	}
	streamCtx, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, cancel)
	c.cc, c.cancel = cc, cancel
	c.stream, err = openStream(streamCtx, cc)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		cc.Close()
		return nil, dialError(ctx, addr, err, dialErr())
	}
	c.start()
	return c, nil
}

// newClient makes a gRPC client for addr. connected gets each connection;
// dialErr tells how the last attempt to make one failed.
func newClient(addr string, opt Options, connected func(net.Conn)) (cc *grpc.ClientConn, dialErr func() error, err error) {
	failed := make(chan error, 1)
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := opt.Dialer(ctx, addr)
		select {
		case <-failed:
		default:
		}
		failed <- err
		if err == nil && connected != nil {
			connected(conn)
		}
		return conn, err
	}
	cc, err = grpc.NewClient("passthrough:///"+addr, append(dialOptions(opt.Pool, opt.Keepalive), grpc.WithContextDialer(dial))...)
	if err != nil {
		return nil, nil, errno.Wrap("rpc.Dial", syscall.EINVAL, err)
	}
	return cc, func() error {
		select {
		case err := <-failed:
			return err
		default:
			return nil
		}
	}, nil
}

func (c *Conn) connected(conn net.Conn) {
	c.mu.Lock()
	c.net = conn
	c.mu.Unlock()
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

// dialError finds out what err, from gRPC, and dialErr, from the last attempt
// to connect, mean to the user.
func dialError(ctx context.Context, addr string, err, dialErr error) error {
	if e := context.Cause(ctx); e != nil {
		return errno.Wrap("rpc.Dial", errno.Of(e), fmt.Errorf("%s: %w", addr, e))
	}
	if dialErr != nil {
		return errno.Wrap("rpc.Dial", errno.Of(dialErr), dialErr)
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

func unary(ctx context.Context, addr, method string, req, resp any, opt Options) error {
	cc, dialErr, err := newClient(addr, opt.withDefaults(), nil)
	if err != nil {
		return err
	}
	defer cc.Close()
	var md metadata.MD
	if err := cc.Invoke(ctx, method, req, resp, grpc.Header(&md)); err != nil {
		if len(md.Get(helloKey)) > 0 { // an I/O node, and it refused
			return errno.Wrap("rpc"+method, syscall.EIO, err)
		}
		return dialError(ctx, addr, err, dialErr())
	}
	return nil
}
