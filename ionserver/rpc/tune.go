package rpc

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"
)

// The transport's settings. gRPC cuts messages into HTTP/2 frames of 16 KiB.
// With its default buffers each costs a system call on both sides, with large
// ones a copy; a link needs none. Both windows must be static and set
// together: one alone leaves the other at 64 KiB. Two of the largest messages
// fit: with 1 MiB a stream of 1 MiB payloads waits for window updates and
// reaches 0.6 of a plain connection's rate, with 8 MiB 0.75. It is also what a
// stream that is not read may make the other side hold.
const (
	windowSize = 8 << 20

	connectTimeout   = 5 * time.Second
	keepaliveTime    = 10 * time.Second // gRPC refuses less on the client
	keepaliveTimeout = 5 * time.Second
)

func dialOptions(l *link, probe time.Duration) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(windowSize),
		grpc.WithStaticConnWindowSize(windowSize),
		grpc.WithWriteBufferSize(0),
		grpc.WithReadBufferSize(0),
		grpc.WithDisableRetry(),
		grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: probe, Timeout: keepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxMessage),
			grpc.MaxCallSendMsgSize(maxMessage),
			grpc.ForceCodecV2(newCodec()),
		),
		experimental.WithBufferPool(l),
	}
}

func serverOptions(l *link) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.StaticStreamWindowSize(windowSize),
		grpc.StaticConnWindowSize(windowSize),
		grpc.WriteBufferSize(0),
		grpc.ReadBufferSize(0),
		grpc.MaxConcurrentStreams(64), // of one connection; ours has one
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.ConnectionTimeout(connectTimeout),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
		experimental.BufferPool(l),
	}
}
