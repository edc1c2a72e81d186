package ionclient

import (
	"context"
	"log/slog"
	"net"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// Options says whom to talk to. Only Addrs is needed.
type Options struct {
	Addrs      []string // at least one I/O node; the others come from the view
	FSID       uint32   // the file system expected; 0: any
	Name       string   // of this host, shown in status; "": os.Hostname
	Mountpoint string   // shown in status
	Logger     *slog.Logger
	DataConns  int                                                      // data connections to each I/O node; 0: 1
	DialWait   time.Duration                                            // how long Dial tries before it gives up; 0: 5 s
	Dialer     func(ctx context.Context, addr string) (net.Conn, error) // nil: TCP
}

// Client speaks for one mount.
type Client struct{}

// Dial learns the view from the first of Addrs that answers. It fails with one
// clear error if none does, if it is no zoidfs I/O node or serves another file system.
func Dial(ctx context.Context, opt Options) (*Client, error) {
	return nil, errno.New("ionclient.Dial", syscall.ENOSYS)
}

// Close ends all sessions, which drops this mount's locks and opens. Calls under way get an error.
func (c *Client) Close(ctx context.Context) error { return nil }

// View is the set of I/O nodes as last learned.
type View struct {
	Epoch      uint64
	Members    []string
	FSID       uint32
	FSName     string
	Root       uint64
	DomainSize int64
}

// View returns the current view.
func (c *Client) View() View { return View{} }

// Session tells how one I/O node is doing, for status.
type Session struct {
	Addr    string
	ID      uint64
	Up      bool
	Pending int
	Err     error // why it is not up
}

// Sessions lists the sessions in the order of the view's members.
func (c *Client) Sessions() []Session { return nil }

// Stats returns requests by operation and bytes since the start or the last ResetStats.
func (c *Client) Stats() rpc.Snapshot { return rpc.Snapshot{} }

// ResetStats starts counting anew.
func (c *Client) ResetStats() {}

// Attr is the attributes of one inode; fields as in message Attr of ion.proto.
type Attr struct {
	Handle                uint64
	Type                  ionpb.ObjType
	Mode, UID, GID, Nlink uint32
	Size, Blocks, Blksize int64 // bytes, 512-byte blocks, bytes
	Atime, Mtime, Ctime   int64 // s
}

// SetAttr changes what is not nil (or true) and nothing else.
type SetAttr struct {
	Mode, UID, GID     *uint32
	Size, Atime, Mtime *int64
	AtimeNow, MtimeNow bool
	KillSUID           bool
}

// Dirent is one directory entry; Type may be NONE.
type Dirent struct {
	Name   string
	Handle uint64
	Type   ionpb.ObjType
}

// StatFS is the state of the file system; sizes in blocks of BlockSize bytes.
type StatFS struct {
	BlockSize                                         uint32
	Blocks, BlocksFree, BlocksAvail, Files, FilesFree uint64
	NameMax                                           uint32
}

// Lock is an fcntl or flock lock of the bytes Start to End, both included.
type Lock struct {
	Owner      uint64 // unique within this mount
	Start, End uint64 // End math.MaxInt64: to the end of any file
	Type       ionpb.LockType
	Flock      bool
	PID        uint32
}

// Write and Append flags, to be or-ed.
const (
	KillPriv = uint32(ionpb.Flag_KILL_PRIV)
	Sync     = uint32(ionpb.Flag_SYNC)
)

func (c *Client) Lookup(ctx context.Context, dir uint64, name string) (Attr, error) {
	return Attr{}, errNotYet
}
func (c *Client) GetAttr(ctx context.Context, h uint64) (Attr, error) { return Attr{}, errNotYet }
func (c *Client) SetAttr(ctx context.Context, h uint64, s SetAttr) (Attr, error) {
	return Attr{}, errNotYet
}

// Create makes or, unless excl, finds a file; created tells which.
func (c *Client) Create(ctx context.Context, dir uint64, name string, mode, uid, gid uint32, excl bool) (a Attr, created bool, err error) {
	return Attr{}, false, errNotYet
}
func (c *Client) Mkdir(ctx context.Context, dir uint64, name string, mode, uid, gid uint32) (Attr, error) {
	return Attr{}, errNotYet
}
func (c *Client) Symlink(ctx context.Context, dir uint64, name, target string, uid, gid uint32) (Attr, error) {
	return Attr{}, errNotYet
}

// Unlink returns the handle of what the name meant and whether it lives on because it is open.
func (c *Client) Unlink(ctx context.Context, dir uint64, name string) (h uint64, open bool, err error) {
	return 0, false, errNotYet
}
func (c *Client) Rmdir(ctx context.Context, dir uint64, name string) (h uint64, err error) {
	return 0, errNotYet
}

// Renamed tells what a rename did.
type Renamed struct {
	Moved, Replaced uint64 // handles; Replaced is 0 if the new name was free
	Open            bool   // the replaced file lives on until its last close
}

func (c *Client) Rename(ctx context.Context, oldDir uint64, oldName string, newDir uint64, newName string, flags uint32) (Renamed, error) {
	return Renamed{}, errNotYet
}

// ReadDir returns up to max entries from token on (nil: the start), and where to go on.
func (c *Client) ReadDir(ctx context.Context, dir uint64, token []byte, max int) (ents []Dirent, next []byte, eof bool, err error) {
	return nil, nil, false, errNotYet
}
func (c *Client) Readlink(ctx context.Context, h uint64) (string, error) { return "", errNotYet }
func (c *Client) GetXattr(ctx context.Context, h uint64, name string) ([]byte, error) {
	return nil, errNotYet
}
func (c *Client) SetXattr(ctx context.Context, h uint64, name string, value []byte, flags uint32) error {
	return errNotYet
}
func (c *Client) ListXattr(ctx context.Context, h uint64) ([]string, error)    { return nil, errNotYet }
func (c *Client) RemoveXattr(ctx context.Context, h uint64, name string) error { return errNotYet }
func (c *Client) StatFS(ctx context.Context) (StatFS, error)                   { return StatFS{}, errNotYet }

// Open counts one more open of h at its home; flags are those of open(2), O_TRUNC is carried out there.
func (c *Client) Open(ctx context.Context, h uint64, flags uint32) (Attr, error) {
	return Attr{}, errNotYet
}

// CloseFile ends one open of h.
func (c *Client) CloseFile(ctx context.Context, h uint64) error { return errNotYet }

// Flush is for each close(2) of a descriptor; owner is its lock owner.
func (c *Client) Flush(ctx context.Context, h, owner uint64) error         { return errNotYet }
func (c *Client) Fsync(ctx context.Context, h uint64, dataOnly bool) error { return errNotYet }

// SetLock takes or drops (Type UNLOCK) a lock; with wait it waits for a conflicting one, else EAGAIN.
// When ctx ends the wait is cancelled at the I/O node: EINTR, and the lock is not held.
func (c *Client) SetLock(ctx context.Context, h uint64, l Lock, wait bool) error { return errNotYet }

// GetLock returns a lock in the way of l, or one of Type UNLOCK.
func (c *Client) GetLock(ctx context.Context, h uint64, l Lock) (Lock, error) {
	return Lock{}, errNotYet
}

// UnlockOwner drops all fcntl (or flock) locks of owner on h. Costs nothing if it has none.
func (c *Client) UnlockOwner(ctx context.Context, h, owner uint64, flock bool) error {
	return errNotYet
}

// Data is what Read returned: Len bytes in pieces that stay valid until Release, which must be called once.
type Data struct{}

func (d *Data) Len() int { return 0 }

// Slices is the pieces in order; they must not be written to.
func (d *Data) Slices() [][]byte    { return nil }
func (d *Data) CopyTo(p []byte) int { return 0 }
func (d *Data) Release()            {}

// Read reads n bytes at off; fewer only at the end of the file.
func (c *Client) Read(ctx context.Context, h uint64, off int64, n int) (*Data, error) {
	return nil, errNotYet
}

// Write writes p at off and returns when it is visible to all nodes. p is not touched after it returned.
// n < len(p) only with an error; then the first n bytes are written.
func (c *Client) Write(ctx context.Context, h uint64, off int64, p []byte, flags uint32) (n int, err error) {
	return 0, errNotYet
}

// Append writes p at the end of the file and returns where that was.
func (c *Client) Append(ctx context.Context, h uint64, p []byte, flags uint32) (off int64, n int, err error) {
	return 0, 0, errNotYet
}

var errNotYet = errno.New("ionclient", syscall.ENOSYS)
