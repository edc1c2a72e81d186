package history

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

// Mode is a consistency mode.
type Mode = consistency.Mode

// The modes, by short names.
const (
	Strong    = consistency.Strong
	Commit    = consistency.Commit
	Session   = consistency.Session
	Eventual  = consistency.Eventual
	Laminated = consistency.Laminated
)

// Op names a kind of call.
type Op string

// The calls. Those of open files have Event.FD, the others Event.Name.
const (
	Open      Op = "open"      // Name, Flags; FD becomes the new open file
	Dup       Op = "dup"       // FD becomes another name of FD2
	Close     Op = "close"     //
	ForkClose Op = "forkclose" // a child inherits all open files and ends
	Read      Op = "read"      // pread of Len bytes at Off
	Load      Op = "load"      // as Read, through a shared mapping
	Write     Op = "write"     // pwrite of Len bytes of Value at Off
	Store     Op = "store"     // as Write, through a shared mapping, and msync
	Append    Op = "append"    // write by a file open for appending
	Sieve     Op = "sieve"     // pwrite of what the Read before it got, but Own bytes of Value; see Event.Own
	Incr      Op = "incr"      // pwrite of one more than the value that the Read before it got
	Truncate  Op = "truncate"  // ftruncate to Len
	Fsync     Op = "fsync"     //
	Lock      Op = "lock"      // fcntl lock of Len bytes at Off; Flags is F_RDLCK or F_WRLCK
	Unlock    Op = "unlock"    // of Len bytes at Off
	Chmod     Op = "chmod"     // fchmod to Flags
	Fstat     Op = "fstat"     // N is the size
	SeekEnd   Op = "seekend"   // N is the size
	Stat      Op = "stat"      // of Name: N is the size
	Rename    Op = "rename"    // of Name to To; Flags as of renameat2
	Unlink    Op = "unlink"    // of Name
)

// Range is the half-open byte range [Off, Off+Len).
type Range struct {
	Off int64 `json:"off"`
	Len int64 `json:"len"`
}

// Run is a number of adjacent bytes that come from one write.
type Run struct {
	Len   int64 `json:"n"`
	Value uint8 `json:"v"` // 0: nobody wrote them
}

// Event is one call: what was asked, what was answered and when. Times are
// nanoseconds of a monotonic clock.
type Event struct {
	Proc  int    `json:"p"`
	Node  int    `json:"node"` // the node that Proc lives on
	Op    Op     `json:"op"`
	FD    int    `json:"fd,omitempty"` // the program's name of an open file of Proc, not the descriptor
	FD2   int    `json:"fd2,omitempty"`
	Name  string `json:"name,omitempty"`
	To    string `json:"to,omitempty"`
	Flags int    `json:"flags,omitempty"`
	Off   int64  `json:"off,omitempty"`
	Len   int64  `json:"len,omitempty"`
	Own   Range  `json:"own,omitzero"`    // of a Sieve: the bytes that it means to write
	Value uint8  `json:"v,omitempty"`     // of a write: its id, from 1
	After []int  `json:"after,omitempty"` // events of other processes that this one was told of before it was made
	Mark  bool   `json:"mark,omitempty"`  // what it saw is part of the outcome of the program

	Ino    uint64        `json:"ino,omitempty"`  // of Open and Stat: the file
	N      int64         `json:"n,omitempty"`    // bytes read or written, or a size
	Seen   []Run         `json:"seen,omitempty"` // what a Read got or a Sieve wrote, from Off; the end may be missing
	Errno  syscall.Errno `json:"errno,omitempty"`
	Call   int64         `json:"call"`
	Return int64         `json:"return"`
}

// String is the call as a line of a program and what it returned.
func (e Event) String() string {
	s := e.Action()
	if e.Return == 0 {
		return s
	}
	switch {
	case e.Errno != 0:
		return s + ": " + ErrnoName(e.Errno)
	case e.Op == Read || e.Op == Load:
		return s + ": " + formatRuns(e.Seen)
	case e.Op == Fstat || e.Op == SeekEnd || e.Op == Stat:
		return fmt.Sprintf("%s: size %d", s, e.N)
	}
	return s
}

// Action is the call as a line of a program.
func (e Event) Action() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s@%d: %s", ProcName(e.Proc), e.Node, e.Op)
	switch e.Op {
	case Open:
		fmt.Fprintf(&b, " %s as %d %s", e.Name, e.FD, formatFlags(e.Flags))
	case Rename:
		fmt.Fprintf(&b, " %s to %s", e.Name, e.To)
	case Stat, Unlink:
		fmt.Fprintf(&b, " %s", e.Name)
	case Dup:
		fmt.Fprintf(&b, " %d as %d", e.FD2, e.FD)
	default:
		fmt.Fprintf(&b, " %d", e.FD)
	}
	switch e.Op {
	case Read, Load, Write, Store, Sieve, Incr, Lock, Unlock:
		fmt.Fprintf(&b, " [%d,%d)", e.Off, e.Off+e.Len)
	case Append, Truncate:
		fmt.Fprintf(&b, " %d bytes", e.Len)
	case Chmod:
		fmt.Fprintf(&b, " %#o", e.Flags)
	}
	if e.Op == Sieve {
		fmt.Fprintf(&b, " of which [%d,%d)", e.Own.Off, e.Own.Off+e.Own.Len)
	}
	if e.Value != 0 {
		fmt.Fprintf(&b, " = %d", e.Value)
	}
	return b.String()
}

// ProcName is the letter of a process.
func ProcName(p int) string { return string(rune('P' + p)) }

// ErrnoName is the symbol of an errno, "ok" for none.
func ErrnoName(e syscall.Errno) string {
	if e == 0 {
		return "ok"
	}
	if s := unix.ErrnoName(e); s != "" {
		return s
	}
	return fmt.Sprint("errno ", int(e))
}

func formatFlags(flags int) string {
	names := []string{[]string{"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"}[flags&unix.O_ACCMODE]}
	for _, f := range []struct {
		bit  int
		name string
	}{{unix.O_CREAT, "O_CREAT"}, {unix.O_EXCL, "O_EXCL"}, {unix.O_APPEND, "O_APPEND"}, {unix.O_SYNC, "O_SYNC"}} {
		if flags&f.bit == f.bit {
			names = append(names, f.name)
		}
	}
	return strings.Join(names, "|")
}

func formatRuns(runs []Run) string {
	if len(runs) == 0 {
		return "nothing"
	}
	var parts []string
	for i, r := range runs {
		if i == 16 {
			parts = append(parts, "...")
			break
		}
		parts = append(parts, fmt.Sprintf("%d×%d", r.Len, r.Value))
	}
	return strings.Join(parts, " ")
}

// Header says which program a history belongs to and by what it is judged.
type Header struct {
	Program    string        `json:"program"`
	Note       string        `json:"note,omitempty"` // sizes and places that were chosen
	Seed       int64         `json:"seed,omitempty"`
	Round      int           `json:"round,omitempty"`
	Mode       Mode          `json:"mode"`
	Visibility time.Duration `json:"visibility,omitempty"` // of Eventual, in nanoseconds
	Atomic     int64         `json:"atomic,omitempty"`     // of Strong: the unit in which a call takes effect at once; 0: a byte
	Crash      bool          `json:"crash,omitempty"`      // a node died: what was not fsynced may be lost
	Untimed    bool          `json:"untimed,omitempty"`    // times of different processes cannot be compared
}

// History is one run of one program. Events of one process come in its order,
// and no event comes before one that it names in After.
type History struct {
	Header
	Events []Event
}
