package ionclient

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/shared"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// Options says whom to talk to. Only Addrs is needed.
type Options struct {
	Addrs      []string     // at least one I/O node; the view names the others
	FSID       uint32       // the file system expected; 0: any
	Name       string       // of this host, shown in status; "": os.Hostname
	Mountpoint string       // shown in status
	Logger     *slog.Logger // nil: discard
	DataConns  int          // data connections to each I/O node; 0: 1
	// DialWait is how long Dial goes on trying before it gives up; 0: 5 s.
	DialWait time.Duration
	Dialer   func(ctx context.Context, addr string) (net.Conn, error) // nil: TCP
	// Memory is what I/O nodes of this machine may be shown, and Shared data lie in;
	// nil: there is none.
	Memory *shared.Region
}

// Validate names the field that makes no sense.
func (o Options) Validate() error {
	switch {
	case len(o.Addrs) == 0:
		return errno.Wrap("ionclient.Dial", syscall.EINVAL, errors.New("no address of an I/O node is given"))
	case o.DataConns < 0 || o.DataConns > maxDataConns:
		return errno.Wrap("ionclient.Dial", syscall.EINVAL, errors.New("DataConns is not between 0 and 16"))
	}
	return nil
}

const maxDataConns = 16

func (o Options) withDefaults() Options {
	if o.Name == "" {
		o.Name, _ = os.Hostname() // shown only
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.DataConns == 0 {
		o.DataConns = 1
	}
	if o.DialWait == 0 {
		o.DialWait = 5 * time.Second
	}
	return o
}

// View is the set of I/O nodes as last learned.
type View struct {
	Epoch      uint64
	Members    []string // addresses; callers must not change it
	FSID       uint32
	FSName     string
	Root       uint64 // handle of the root directory
	DomainSize int64  // bytes of a file domain
}

// Session tells how one I/O node is doing.
type Session struct {
	Addr    string
	ID      uint64
	Up      bool
	Pending int   // requests that wait for their answer
	Err     error // why it is not up; nil if it is
}

// Attr is the attributes of one inode, as message Attr of ion.proto.
type Attr struct {
	Handle                uint64
	Type                  ionpb.ObjType
	Mode, UID, GID, Nlink uint32
	Size                  int64            // bytes
	Blocks                int64            // of 512 bytes
	Blksize               int64            // bytes
	Atime, Mtime, Ctime   int64            // s
	Consistency           consistency.Mode // set on it; Default if none is, or if not ModeKnown
	CBBufferSize          int64            // MPI-IO's hint, in bytes, as was set; 0 if none was, or if not ModeKnown
	ModeKnown             bool             // the answer did tell
	Sealed                bool             // laminated, and without any write permission
	Version               uint64           // changes whenever the content may have; 0: not known
	Quiet                 bool             // no other mount holds unpublished bytes, for as long as Leased
	Leased                bool             // the home has given LeaseAttr
	Tenure                Tenure           // if Leased: on which the lease hangs
}

func attrOf(a *ionpb.Attr) Attr {
	return Attr{
		Handle: a.GetHandle(), Type: a.GetType(), Mode: a.GetMode(), UID: a.GetUid(), GID: a.GetGid(), Nlink: a.GetNlink(),
		Size: a.GetSize(), Blocks: a.GetBlocks(), Blksize: a.GetBlksize(),
		Atime: a.GetAtime(), Mtime: a.GetMtime(), Ctime: a.GetCtime(),
		Consistency: a.GetConsistency().Mode(), CBBufferSize: a.GetCbBufferSize(), ModeKnown: a.GetModeKnown(), Sealed: a.GetSealed(), Version: a.GetVersion(), Quiet: a.GetQuiet(), Leased: a.GetLeased(),
	}
}

// SetAttr changes what is not nil (or true) and nothing else.
type SetAttr struct {
	Mode, UID, GID     *uint32
	Size, Atime, Mtime *int64
	AtimeNow, MtimeNow bool
	KillSUID           bool // clear setuid and setgid along with the change
}

// Dirent is one directory entry. Type may be NONE.
type Dirent struct {
	Name   string
	Handle uint64
	Type   ionpb.ObjType
}

// StatFS is the state of the file system, in blocks of BlockSize bytes.
type StatFS struct {
	BlockSize                       uint32
	Blocks, BlocksFree, BlocksAvail uint64
	Files, FilesFree                uint64
	NameMax                         uint32
}

// Renamed tells what a rename did.
type Renamed struct {
	Moved, Replaced uint64 // handles; Replaced is 0 if the new name was free
	Open            bool   // the replaced file lives on until its last close
}

// Lock is an fcntl or flock lock of the bytes Start to End, both included.
type Lock struct {
	Owner      uint64 // unique within this mount
	Start, End uint64 // End math.MaxInt64: to the end of any file
	Type       ionpb.LockType
	Flock      bool
	PID        uint32
}

// Flags of Write and Append, to be or-ed.
const (
	KillPriv = uint32(ionpb.Flag_KILL_PRIV)
	Sync     = uint32(ionpb.Flag_SYNC)
	Recalled = uint32(ionpb.Flag_RECALLED)
)

// Leases to ask for with Read and Write, to be or-ed.
const (
	LeaseData  = uint32(ionpb.Flag_LEASE_DATA)
	LeaseWrite = uint32(ionpb.Flag_LEASE_WRITE)
	// LeasePieces lets writes of some bytes be kept back, see Grant.
	LeasePieces = uint32(ionpb.Flag_LEASE_PIECES)
	// DataLeases is all of them.
	DataLeases = LeaseData | LeaseWrite | LeasePieces
)

// Stats returns requests by operation, as sent to the I/O nodes, and bytes
// since the start or the last ResetStats.
func (c *Client) Stats() rpc.Snapshot { return c.counters.Snapshot() }

// ResetStats starts counting anew.
func (c *Client) ResetStats() { c.counters.Reset() }

// Changed is what a change of a name has led to.
type Changed struct {
	Attr       // of what was made
	Dir  *Attr // of the directory, if its home knows them
}

// changedDir is what an answer says of the directory.
func changedDir(dir *ionpb.Attr, t Tenure) *Attr {
	if dir == nil {
		return nil
	}
	a := leasedAttr(dir, t)
	return &a
}
