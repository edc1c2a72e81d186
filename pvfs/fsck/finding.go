package fsck

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// Kind is what is wrong.
type Kind string

// The kinds of findings. Repair knows what to do about the first two.
const (
	Orphan       Kind = "orphan"        // an object that nothing refers to
	Dangling     Kind = "dangling"      // an entry whose object does not exist
	LostDatafile Kind = "lost-datafile" // a file's datafile does not exist: its bytes are gone
	LostDirdata  Kind = "lost-dirdata"  // a directory's dirdata does not exist: its entries are gone
	Shared       Kind = "shared"        // an object that is referred to twice
	WrongType    Kind = "wrong-type"    // an object that is not what it is referred to as
	WrongCount   Kind = "wrong-count"   // a dirdata object with fewer or more entries than it says
	Misfiled     Kind = "misfiled"      // an entry in another bucket than lookups look in
	Misplaced    Kind = "misplaced"     // an object on a server that does not own its handle
	Detached     Kind = "detached"      // directories that contain each other and hang on nothing
	Unreadable   Kind = "unreadable"    // an object whose server lists it and cannot say what it is
)

// Finding is one thing that is wrong.
type Finding struct {
	Kind   Kind        `json:"kind"`
	Handle pvfs.Handle `json:"handle"` // of the object that is too much, missing or wrong
	Type   string      `json:"type,omitempty"`
	Server string      `json:"server,omitempty"` // where the object is or should be
	From   pvfs.Handle `json:"from,omitempty"`   // the directory or file that refers to it
	Name   string      `json:"name,omitempty"`   // of the entry in From
	Path   string      `json:"path,omitempty"`   // of the entry or file concerned, where known
	Detail string      `json:"detail"`
	Bytes  int64       `json:"bytes,omitempty"` // that an orphan holds
	Ctime  int64       `json:"ctime,omitempty"` // of an orphan, in seconds; datafiles of some servers have none

	Repaired bool   `json:"repaired"`
	Repair   string `json:"repair,omitempty"` // what was done, or why it was not
}

type key struct {
	kind   Kind
	handle pvfs.Handle
	from   pvfs.Handle
	name   string
}

func (f *Finding) key() key { return key{f.Kind, f.Handle, f.From, f.Name} }

// String is the finding in one line.
func (f *Finding) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: handle %d", f.Kind, f.Handle)
	if f.Type != "" {
		b.WriteString(" " + f.Type)
	}
	if f.Server != "" {
		b.WriteString(" server " + f.Server)
	}
	if f.Path != "" {
		fmt.Fprintf(&b, " path %q", f.Path)
	} else if f.Name != "" {
		fmt.Fprintf(&b, " entry %q of %d", f.Name, f.From)
	}
	b.WriteString(": " + f.Detail)
	if f.Kind == Orphan {
		if f.Bytes > 0 {
			fmt.Fprintf(&b, ", %d bytes", f.Bytes)
		}
		if f.Ctime > 0 {
			b.WriteString(", changed " + time.Unix(f.Ctime, 0).UTC().Format(time.RFC3339))
		}
	}
	if f.Repair != "" {
		b.WriteString(" - " + f.Repair)
	}
	return b.String()
}

// role is as what an object is referred to.
type role uint8

const (
	asEntry role = iota
	asDatafile
	asDirdata
	roles
)

func (r role) String() string {
	return [...]string{"an entry", "a datafile", "a dirdata object"}[r]
}

// fits reports whether an object of type t may be referred to as r.
func (r role) fits(t wire.ObjType) bool {
	switch t {
	case wire.TypeMetafile, wire.TypeDirectory, wire.TypeSymlink:
		return r == asEntry
	case wire.TypeDatafile:
		return r == asDatafile
	case wire.TypeDirdata:
		return r == asDirdata
	}
	return false
}

// ref is one reference to an object.
type ref struct {
	from pvfs.Handle
	name string // of an entry
	role role
}

func (r ref) String() string {
	if r.role == asEntry {
		return fmt.Sprintf("entry %q of directory %d", r.name, r.from)
	}
	return fmt.Sprintf("%v of %d", r.role, r.from)
}

// isGone reports whether an object or entry does not exist.
func isGone(err error) bool { return errors.Is(err, syscall.ENOENT) }
