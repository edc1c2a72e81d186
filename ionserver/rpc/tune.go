package rpc

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"

	"github.com/zoidfs/zoidfs/internal/buf"
)

// The transport's settings. gRPC cuts messages into HTTP/2 frames of 16 KiB;
// with its default buffers each costs a system call on both sides, so large
// buffers are what makes bulk data cheap. Both windows must be static and set
// together: one alone leaves the other at 64 KiB, and windows beyond the
// processor's cache make every byte a miss. On a network of more than
// 100 Gbit/s x 80 us the window would have to grow.
const (
	windowSize = 1 << 20
	bufferSize = 1 << 20

	connectTimeout   = 5 * time.Second
	keepaliveTime    = 10 * time.Second // gRPC refuses less on the client
	keepaliveTimeout = 5 * time.Second
)

func dialOptions(pool *buf.Pool, probe time.Duration) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(windowSize),
		grpc.WithStaticConnWindowSize(windowSize),
		grpc.WithWriteBufferSize(bufferSize),
		grpc.WithReadBufferSize(bufferSize),
		grpc.WithDisableRetry(),
		grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: probe, Timeout: keepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxMessage),
			grpc.MaxCallSendMsgSize(maxMessage),
			grpc.ForceCodecV2(newCodec()),
		),
		experimental.WithBufferPool(pool),
	}
}

func serverOptions(pool *buf.Pool) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.StaticStreamWindowSize(windowSize),
		grpc.StaticConnWindowSize(windowSize),
		grpc.WriteBufferSize(bufferSize),
		grpc.ReadBufferSize(bufferSize),
		grpc.MaxConcurrentStreams(64), // of one connection; ours has one
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.ConnectionTimeout(connectTimeout),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
		experimental.BufferPool(pool),
	}
}
