package trace

import (
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

// Op is a kind of call. The numbers are part of the format.
type Op uint8

// The calls, as the mount sees them: close(2) is a Flush of each descriptor and
// a Release of the open file after the last one.
const (
	Lookup   Op = 1  // Path
	Getattr  Op = 2  // File, perhaps Open; N is the size
	Setattr  Op = 3  // File: owner or times
	Chmod    Op = 4  // File; Arg is the mode
	Truncate Op = 5  // File; Len is the new size
	Readlink Op = 6  // File
	Symlink  Op = 7  // Path; To is the target
	Mknod    Op = 8  // Path
	Mkdir    Op = 9  // Path; Arg is the mode
	Unlink   Op = 10 // Path
	Rmdir    Op = 11 // Path
	Rename   Op = 12 // Path to To; Arg is the flags of renameat2(2)
	Open     Op = 13 // Path, File; Open is its number from now on; Arg is the flags of open(2); Mode
	Create   Op = 14 // as Open, of a file that was made
	Read     Op = 15 // Open; Len bytes at Off were asked for, N were returned
	Write    Op = 16 // Open; N bytes at Off; Arg is of the Write bits
	Copy     Op = 17 // as Write, by copy_file_range(2), whose reads are Reads
	Flush    Op = 18 // Open
	Fsync    Op = 19 // Open
	Release  Op = 20 // Open; nobody waits for it
	Readdir  Op = 21 // File: a directory, opened to be read
	Lock     Op = 22 // File; Len bytes at Off; Arg is of the Lock bits
	Unlock   Op = 23 // as Lock
	numOps   Op = 24
)

// Bits of Call.Arg.
const (
	WriteAppend = 1 // of Write: at the end of the file, which was at Off
	WriteSync   = 2 // durable when it returns

	LockShared = 1 // others may have it too
	LockFlock  = 2 // flock(2), not fcntl(2)
	LockWait   = 4 // the caller waits for it
)

// MaxOff is beyond every file.
const MaxOff = 1 << 62

var opNames = [numOps]string{
	Lookup: "lookup", Getattr: "getattr", Setattr: "setattr", Chmod: "chmod", Truncate: "truncate", Readlink: "readlink",
	Symlink: "symlink", Mknod: "mknod", Mkdir: "mkdir", Unlink: "unlink", Rmdir: "rmdir", Rename: "rename",
	Open: "open", Create: "create", Read: "read", Write: "write", Copy: "copy", Flush: "flush", Fsync: "fsync",
	Release: "release", Readdir: "readdir", Lock: "lock", Unlock: "unlock",
}

// String is the name of the call.
func (o Op) String() string {
	if o < numOps && opNames[o] != "" {
		return opNames[o]
	}
	return fmt.Sprint("op", uint8(o))
}

// ParseOp returns the call of that name.
func ParseOp(s string) (Op, error) {
	for o := range numOps {
		if opNames[o] == s && s != "" {
			return o, nil
		}
	}
	return 0, fmt.Errorf("there is no call %q, but: %s", s, strings.Join(opNames[1:], " "))
}

// Call is one call of one process. What its Op does not name is zero.
type Call struct {
	Op    Op
	Proc  uint32           // number of the Process; 0 if unknown, as of pages written back from a mapping
	File  uint64           // handle, alike on all mounts of a file system
	Open  uint64           // number of the open file, of this trace
	Start int64            // nanoseconds since 1970
	End   int64            // not before Start
	Off   int64            // bytes
	Len   int64            // bytes
	N     int64            // bytes moved, or a size
	Arg   uint32           // see Op
	Mode  consistency.Mode // of Open and Create
	Errno syscall.Errno    // 0 if it succeeded
	Path  string           // below the mount point, without a leading slash
	To    string
}

// Process is who made calls.
type Process struct {
	ID      uint32 `json:"id"` // from 1; of this trace
	PID     int    `json:"pid"`
	Started uint64 `json:"started,omitempty"` // clock ticks after boot: tells apart who had the same PID
	UID     uint32 `json:"uid"`
	Command string `json:"command,omitempty"`
	Job     string `json:"job,omitempty"` // empty: of no parallel job, and Rank and Size mean nothing
	Rank    int32  `json:"rank,omitempty"`
	Size    int32  `json:"size,omitempty"`
}

// Name is how people call the process.
func (p *Process) Name() string {
	switch {
	case p.Job != "":
		return fmt.Sprint("rank ", p.Rank)
	case p.PID == 0:
		return "unknown"
	case p.Command != "":
		return fmt.Sprintf("%s[%d]", p.Command, p.PID)
	}
	return fmt.Sprintf("pid %d", p.PID)
}

// Header says where a trace was recorded.
type Header struct {
	Node        string           `json:"node"` // name of the host
	Mountpoint  string           `json:"mountpoint"`
	PID         int              `json:"pid"` // of the mount
	Software    string           `json:"software,omitempty"`
	FSName      string           `json:"fs_name,omitempty"`
	FSID        uint32           `json:"fsid"`
	Consistency consistency.Mode `json:"consistency"` // of files for which none is set
	Started     int64            `json:"started"`     // nanoseconds since 1970
}

// Footer says how a trace ended.
type Footer struct {
	Ended   int64  `json:"ended"`
	Calls   uint64 `json:"calls"`
	Dropped uint64 `json:"dropped,omitempty"` // calls that are missing: too many came at once, or the trace was full
	Full    bool   `json:"full,omitempty"`    // the limit was reached
}

// String is the call without times and process.
func (c *Call) String() string {
	var b strings.Builder
	b.WriteString(c.Op.String())
	if c.Path != "" {
		b.WriteString(" " + c.Path)
	}
	switch c.Op {
	case Rename, Symlink:
		b.WriteString(" to " + c.To)
	case Read, Lock, Unlock:
		fmt.Fprintf(&b, " [%d,%d)", c.Off, c.Off+c.Len)
	case Write, Copy:
		fmt.Fprintf(&b, " [%d,%d)", c.Off, c.Off+c.N)
	case Truncate:
		fmt.Fprintf(&b, " to %d", c.Len)
	case Chmod:
		fmt.Fprintf(&b, " %#o", c.Arg)
	case Open, Create:
		b.WriteString(" " + openFlags(c.Arg))
	}
	if c.Errno != 0 {
		b.WriteString(": " + errnoName(c.Errno))
	}
	return b.String()
}

func openFlags(f uint32) string {
	names := []string{[]string{"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"}[f&unix.O_ACCMODE]}
	for _, x := range []struct {
		bit  uint32
		name string
	}{{unix.O_CREAT, "O_CREAT"}, {unix.O_EXCL, "O_EXCL"}, {unix.O_TRUNC, "O_TRUNC"}, {unix.O_APPEND, "O_APPEND"}, {unix.O_SYNC, "O_SYNC"}} {
		if f&x.bit == x.bit {
			names = append(names, x.name)
		}
	}
	return strings.Join(names, "|")
}

func errnoName(e syscall.Errno) string {
	if s := unix.ErrnoName(e); s != "" {
		return s
	}
	return fmt.Sprint("errno ", int(e))
}
