// Package pvfs is a client of PVFS2 file systems: OrangeFS 2.9 and 2.10, or the
// embedded server, over the same wire protocol.
//
// It speaks for uid 0: permissions are the caller's business. It keeps one TCP
// connection to each server, shared by all goroutines, and sends the requests
// of all of them without waiting for one another's replies. File data go from
// and into the caller's memory without being copied. It caches only what does
// not change: where a directory's entries live and what new files in it look
// like. It knows nothing of consistency modes, blocks or locks; concurrent
// reads and writes of the same bytes are the caller's to order.
//
// # Failures
//
// A call waits for a server that cannot be reached and sends its request again
// when the connection was lost, for up to Options.Timeout; then it fails with
// EIO and names the server. As long it waits for a server that puts off
// changes, as while a repair tool is at work, and then fails with EAGAIN.
// Requests that cannot simply be repeated are repaired after the loss: an entry
// that exists already and names our own new object was made by the first
// attempt, an entry or object that is gone was removed by it. An object made by
// an attempt whose reply was lost stays behind unnamed. A connection that is
// given up is reset, which discards what was not delivered. More the protocol
// cannot do to fence off a lost attempt: what a living server had received, or
// something between that goes on delivering after a reset, may be carried out
// after the second attempt, with the same bytes, over what was written since.
//
// Dial does not wait for what is no server or speaks another protocol; it fails
// with EPROTO and names both. A server that has made sense once and then sends
// what does not is treated like a lost connection. Capabilities and credentials
// are made anew for each request and hold for a week, so the clocks of clients
// and servers need not agree.
//
// Cancelling a context frees the caller at once, and none of its memory is
// touched afterwards. Bytes of a write that are under way are still written;
// operations of several requests, such as Create, run to their end.
//
// All methods are safe for concurrent use. Lock order: Client.mu, server.mu,
// conn.mu; no two of one kind are held together, and none during I/O.
//
// Sources: the protocol description in wire/PROTOCOL.md; OrangeFS
// src/client/sysint/*.sm for the order of requests.
package pvfs

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// Handle names an object; it is meaningful with the file system's FSID.
type Handle = wire.Handle

// DefaultTimeout is how long a call waits for a server before it gives up.
const DefaultTimeout = 60 * time.Second

// Options of a Client. The zero value is useful.
type Options struct {
	// Timeout is how long a call waits for a server that cannot be reached or
	// makes no progress; 0 means DefaultTimeout.
	Timeout time.Duration
	// Logger gets connection losses and retries; nil discards them.
	Logger *slog.Logger
	// Dial opens connections; nil means TCP. Tests put faults here.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Validate names the first field that is wrong.
func (o Options) Validate() error {
	if o.Timeout < 0 {
		return errors.New("pvfs: Options.Timeout is negative")
	}
	return nil
}

// Server is one server of the file system.
type Server struct {
	Alias string
	Addr  string // host:port
	Meta  bool   // serves metadata
	Data  bool   // serves datafiles
}

// Attr is an object's attributes. Times are in seconds since the epoch, as
// PVFS2 keeps no more.
type Attr struct {
	Handle              Handle
	Type                wire.ObjType
	Mode                uint32 // rwxrwxrwx, setuid and setgid as in stat(2); no type bits
	UID, GID            uint32
	Atime, Mtime, Ctime int64
	Size                int64   // bytes: of a metafile's data or a symlink's target; 0 for a directory
	Target              string  // of a symlink
	Entries             int64   // of a directory
	StripeSize          int64   // bytes of one stripe of a metafile: strip size times datafiles
	Layout              *Layout // of a metafile, else nil; must not be changed
}

// Layout is where a file's data lie.
type Layout struct {
	Dist    wire.Dist
	DFiles  []Handle // in the distribution's order, at least one
	Stuffed bool     // all data are on DFiles[0]; more datafiles come when it grows
}

// SetAttr says what to change; nil and false leave things as they are.
type SetAttr struct {
	Mode         *uint32 // rwxrwxrwx, setuid, setgid; other bits are dropped
	UID, GID     *uint32
	Atime, Mtime *int64 // seconds since the epoch
	AtimeNow     bool   // the server's clock; ignored if Atime is set
	MtimeNow     bool   // the server's clock; ignored if Mtime is set
	CtimeNow     bool
}

// CreateOptions describe a new object. Zero NumDFiles and StripSize mean what
// the directory wishes, else what the file system has by default.
type CreateOptions struct {
	UID, GID  uint32
	Mode      uint32 // rwxrwxrwx, setuid, setgid; other bits are dropped
	NumDFiles int
	StripSize int64 // bytes, selects simple_stripe
	Dist      *wire.Dist
	Xattrs    []Xattr // set before the object has its name, all in one request
}

// Xattr is an extended attribute and its value. Names and values are those of
// Client.SetXattr; in CreateOptions, wishes of directories are none of them.
type Xattr struct {
	Name  string
	Value []byte
}

// Dirent is an entry of a directory; never "." or "..".
type Dirent struct {
	Name   string
	Handle Handle
}

// DirToken is a place in a directory. The zero value is its start; all others
// come from ReadDir and are good as long as the directory exists.
type DirToken uint64

// DirentPlus is an entry with its object's attributes, or the reason why there
// are none, such as ENOENT for an object that was just removed.
type DirentPlus struct {
	Dirent
	Attr Attr
	Err  error
}

// StatFS is the state of the file system.
type StatFS struct {
	Total, Free            int64 // bytes that can be stored
	Handles, HandlesFree   uint64
	Servers, ServersOfData int
}

// XattrFlags restrict SetXattr.
type XattrFlags int

// The restrictions of SetXattr.
const (
	XattrCreate  XattrFlags = 1 // EEXIST if the attribute exists
	XattrReplace XattrFlags = 2 // ENODATA if it does not
)

// Snapshot is what a client has done since its start or ResetStats.
type Snapshot struct {
	Requests     map[string]int64 `json:"requests"` // sent, by operation; only those sent at all
	BytesRead    int64            `json:"bytes_read"`
	BytesWritten int64            `json:"bytes_written"`
	Retries      int64            `json:"retries"`  // requests sent again
	Connects     int64            `json:"connects"` // connections opened
}
