package fs

import "sync/atomic"

// op is a kind of call that an application makes, as counted in Stats.
type op uint8

const (
	opLookup op = iota
	opGetattr
	opSetattr
	opReadlink
	opSymlink
	opMknod
	opMkdir
	opUnlink
	opRmdir
	opRename
	opLink
	opOpen
	opCreate
	opRead
	opWrite
	opCopyFileRange
	opLseek
	opFlush
	opFsync
	opRelease
	opOpendir
	opReaddir
	opStatfs
	opGetxattr
	opSetxattr
	opListxattr
	opRemovexattr
	opGetlk
	opSetlk
	opSetlkw
	numOps
)

var opNames = [numOps]string{
	opLookup: "lookup", opGetattr: "getattr", opSetattr: "setattr",
	opReadlink: "readlink", opSymlink: "symlink", opMknod: "mknod",
	opMkdir: "mkdir", opUnlink: "unlink", opRmdir: "rmdir", opRename: "rename",
	opLink: "link", opOpen: "open", opCreate: "create", opRead: "read",
	opWrite: "write", opCopyFileRange: "copy_file_range", opLseek: "lseek",
	opFlush: "flush", opFsync: "fsync", opRelease: "release",
	opOpendir: "opendir", opReaddir: "readdir", opStatfs: "statfs",
	opGetxattr: "getxattr", opSetxattr: "setxattr", opListxattr: "listxattr",
	opRemovexattr: "removexattr", opGetlk: "getlk", opSetlk: "setlk",
	opSetlkw: "setlkw",
}

func (o op) String() string { return opNames[o] }

// stats counts what reached the mount. The counters only grow.
type stats struct {
	calls        [numOps]atomic.Uint64
	bytesRead    atomic.Uint64
	bytesWritten atomic.Uint64
}

// AppStats counts the calls of applications that reached a mount, by kind and
// since the mount or the last reset. Calls that failed count too.
type AppStats struct {
	Calls        map[string]uint64 `json:"calls"` // every kind is there, even with 0
	BytesRead    uint64            `json:"bytes_read"`
	BytesWritten uint64            `json:"bytes_written"`
}

// RPCStats counts what a mount asked of the I/O nodes.
type RPCStats struct {
	Requests      map[string]uint64 `json:"requests"`
	BytesSent     uint64            `json:"bytes_sent"`
	BytesReceived uint64            `json:"bytes_received"`
}

// Snapshot is the statistics of one mount.
type Snapshot struct {
	App AppStats `json:"app"`
	RPC RPCStats `json:"rpc"`
}

func (s *stats) snapshot() AppStats {
	out := AppStats{
		Calls:        make(map[string]uint64, numOps),
		BytesRead:    s.bytesRead.Load(),
		BytesWritten: s.bytesWritten.Load(),
	}
	for o := range numOps {
		out.Calls[o.String()] = s.calls[o].Load()
	}
	return out
}

// since returns s less base, an earlier snapshot of the same counters.
func (s AppStats) since(base AppStats) AppStats {
	s.BytesRead -= base.BytesRead
	s.BytesWritten -= base.BytesWritten
	for k, n := range base.Calls {
		s.Calls[k] -= n
	}
	return s
}
