package rpc

import (
	"context"
	"log/slog"
	"net"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/internal/buf"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// --- data.go ---

// Data is a payload in one or more pieces of counted memory. The zero value
// is an empty payload. A Data has one holder, who calls Release once; Ref
// makes another.
type Data struct{}

// Static is a payload of memory that is garbage collected and never changes again.
func Static(p []byte) Data { return Data{} }

// Pooled is the payload b; the caller's reference goes with it.
func Pooled(b *buf.Buf) Data { return Data{} }

// Len is the number of bytes.
func (d Data) Len() int { return 0 }

// Append adds the pieces in order to dst. They must not be written to and are valid until Release.
func (d Data) Append(dst [][]byte) [][]byte { return dst }

// CopyTo copies to dst and returns the number of bytes.
func (d Data) CopyTo(dst []byte) int { return 0 }

// Ref adds a holder.
func (d Data) Ref() {}

// Release ends the caller's hold.
func (d Data) Release() {}

// --- errors.go ---

// ErrBroken is what pending and later calls on a broken connection get; the errno is ECONNRESET.
var ErrBroken error = errno.New("rpc", syscall.ECONNRESET)

// Failure makes f the reply that carries err: errno and text arrive on the other side as they are.
func (f *Frame) Failure(err error) { f.Errno = errno.Of(err) }

// Err is the *errno.Error that a reply carries, or nil.
func (f *Frame) Err() error { return nil }

// --- conn.go ---

// Options adjusts a connection; the zero value is right for production.
type Options struct {
	Dialer    func(ctx context.Context, addr string) (net.Conn, error) // nil: TCP
	Pool      *buf.Pool                                                // nil: one of its own
	Logger    *slog.Logger                                             // nil: discard
	Counters  *Counters                                                // nil: not counted
	Keepalive time.Duration                                            // silence after which the peer is probed; 0: 10 s
}

// Conn is the requesting side of one stream.
type Conn struct{}

// Dial connects and makes sure that an I/O node answers.
func Dial(ctx context.Context, addr string, opt Options) (*Conn, error) {
	return nil, errno.New("rpc.Dial", syscall.ENOSYS)
}

// Call sends f and waits for the reply, whose Data the caller releases. f.Data is released by Call in any case.
// f.ID 0: the Conn numbers the request; a caller that numbers one numbers all.
// The error is nil (then the reply's Err tells the outcome), ErrBroken, or an EINTR when ctx ended first.
func (c *Conn) Call(ctx context.Context, f *Frame) (*Frame, error) { return nil, ErrBroken }

// CallBytes is Call with payload p, sent without a copy. It returns only once the transport has let go of p.
func (c *Conn) CallBytes(ctx context.Context, f *Frame, p []byte) (*Frame, error) {
	return nil, ErrBroken
}

// Broken is closed when the stream has ended.
func (c *Conn) Broken() <-chan struct{} { return nil }

// Close ends the connection; pending calls get ErrBroken.
func (c *Conn) Close() error { return nil }

// Stats and Status ask any I/O node at addr (unary calls).
func Stats(ctx context.Context, addr string, req *ionpb.StatsReq, opt Options) (*ionpb.StatsResp, error) {
	return nil, errno.New("rpc.Stats", syscall.ENOSYS)
}

// Status asks the I/O node at addr what it does.
func Status(ctx context.Context, addr string, opt Options) (*ionpb.StatusResp, error) {
	return nil, errno.New("rpc.Status", syscall.ENOSYS)
}

// --- server.go ---

// Service is what an I/O node offers.
type Service interface {
	// Connect is called at the start of each stream; the Handler gets its requests.
	Connect(p *Peer) Handler
	Stats(context.Context, *ionpb.StatsReq) (*ionpb.StatsResp, error)
	Status(context.Context, *ionpb.StatusReq) (*ionpb.StatusResp, error)
}

// Handler carries out the requests of one stream.
type Handler interface {
	// Handle is called for every request, each in its own goroutine, at most
	// ServerOptions.Workers of a stream at once. It may return before the request is answered.
	Handle(req *Request)
	// Close is called once, after the stream has ended and every Handle has returned.
	Close()
}

// Peer is the other end of one stream.
type Peer struct{}

// Addr is the peer's network address.
func (p *Peer) Addr() string { return "" }

// Context ends with the stream.
func (p *Peer) Context() context.Context { return nil }

// Disconnect breaks the stream.
func (p *Peer) Disconnect() {}

// Request is a frame to be answered exactly once, by Reply or Fail, from any goroutine.
// The answer ends the request and releases its Data.
type Request struct {
	*Frame
}

// Reply answers with f, whose ID and Op are set here and whose Data goes with it. It does not block.
func (r *Request) Reply(f *Frame) {}

// ReplyMsg answers success with body m, which may be nil.
func (r *Request) ReplyMsg(m proto.Message) {}

// Fail answers with an error.
func (r *Request) Fail(err error) {}

// Decode decodes the body into m; a malformed one is an EBADMSG error.
func (f *Frame) Decode(m proto.Message) error { return nil }

// ServerOptions adjusts Serve; the zero value is right for production.
type ServerOptions struct {
	Pool       *buf.Pool
	Logger     *slog.Logger
	Counters   *Counters
	Workers    int   // Handle calls of one stream at once; 0: 64
	MaxPending int   // unanswered requests of one stream; more break it; 0: 65536
	MaxBytes   int64 // payload of one stream's unanswered requests and their replies; at it, reading pauses; 0: 32 MiB
}

// Serve answers on lis until ctx ends, then closes lis and all streams, and returns when every Handler is closed.
func Serve(ctx context.Context, lis net.Listener, svc Service, opt ServerOptions) error { return nil }

// Counters counts requests and bytes; the zero value is ready.
type Counters struct{}

// Snapshot is the counts since the start or the last Reset.
type Snapshot struct {
	Requests      map[string]uint64 // by ionpb.Op.Key; only those that occurred
	BytesSent     uint64
	BytesReceived uint64
}

// Snapshot reads the counters.
func (c *Counters) Snapshot() Snapshot { return Snapshot{} }

// Reset starts counting anew.
func (c *Counters) Reset() {}
