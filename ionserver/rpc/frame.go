package rpc

import (
	"errors"
	"strings"
	"syscall"

	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// Limits on what a frame may hold, in bytes. A longer one is refused before
// memory is set aside for it, and breaks the stream.
const (
	MaxBody = 1 << 20
	MaxData = 4 << 20
)

// maxText bounds the text of an error that crosses the wire, in bytes.
const maxText = 4 << 10

// Frame is one request or reply: message Frame of ion.proto. The zero value
// of every field is left out on the wire.
type Frame struct {
	ID     uint64
	Op     ionpb.Op
	Epoch  uint64
	Handle uint64
	Off    int64
	Len    int64
	Flags  uint32
	Errno  syscall.Errno
	Acked  uint64
	Job    uint64
	Age    uint64
	Buffer uint64
	Body   []byte // the operation's message; garbage-collected, never changed again
	Data   Data   // the payload; its holder releases it
}

// Encode makes m the body. It panics if m cannot be encoded, which no message
// of ion.proto can fail to be with text that is UTF-8.
func (f *Frame) Encode(m proto.Message) {
	b, err := proto.Marshal(m)
	if err != nil {
		panic("rpc: " + err.Error())
	}
	f.Body = b
}

// Decode decodes the body into m; a malformed one is an EBADMSG error.
func (f *Frame) Decode(m proto.Message) error {
	if err := proto.Unmarshal(f.Body, m); err != nil {
		return errno.Wrap("rpc.Decode", syscall.EBADMSG, err)
	}
	return nil
}

// Failure makes f a reply that carries err, which must not be nil. Err on
// the other side returns it with the same operation, errno and text.
func (f *Frame) Failure(err error) {
	d := &ionpb.ErrorDetail{}
	var e *errno.Error
	if errors.As(err, &e) {
		d.Op = clip(e.Op)
	}
	switch {
	case e == nil || error(e) != err:
		d.Text = clip(err.Error())
	case e.Err != nil:
		d.Text = clip(e.Err.Error())
	}
	f.Errno = errno.Of(err)
	f.Encode(d)
}

// Err is the *errno.Error that a reply carries, or nil for success. What it
// wraps has the text of the original cause and nothing else of it.
func (f *Frame) Err() error {
	if f.Errno == 0 {
		return nil
	}
	var d ionpb.ErrorDetail
	if err := f.Decode(&d); err != nil || d.Op == "" {
		d.Op = "ion." + f.Op.Key()
	}
	if d.Text == "" {
		return errno.New(d.Op, f.Errno)
	}
	return errno.Wrap(d.Op, f.Errno, errors.New(d.Text))
}

func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "?")
}
