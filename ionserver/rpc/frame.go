package rpc

import (
	"syscall"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// Limits on what a frame may hold, in bytes. A longer one is refused before
// memory is set aside for it, and breaks the stream.
const (
	MaxBody = 1 << 20
	MaxData = 4 << 20

	maxHeader  = 256 // of the encoded fields before the body's bytes
	maxMessage = maxHeader + MaxBody + MaxData
)

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
	Body   []byte // the operation's message; garbage-collected memory
	Data   Data   // the payload; its holder releases it
}
