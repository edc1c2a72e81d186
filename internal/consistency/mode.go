// Package consistency names the consistency modes: what one node must see of
// what another has written, and from when on. docs/consistency.md defines them.
//
// It only names them, and knows which files' mode is not for anybody to choose;
// what a mode means is carried out by the rooms that hold data. It has no
// state. Safe for concurrent use.
package consistency

import (
	"fmt"
	"slices"
	"strings"
)

// Xattr is the extended attribute that sets the mode of a file, or of what
// will be made in a directory. Its value is the mode's name.
const Xattr = "user.zoidfs.consistency"

// Mode is a consistency mode. The numbers go over the wire and never change.
type Mode uint8

// The modes. Default, the zero value, is no mode but the absence of a choice:
// that of the mount holds.
const (
	Default   Mode = iota
	Strong         // what a write left is seen once it has returned
	Commit         // once fsync, close or unlock of the writer has returned
	Session        // the same, by whoever opens or locks after that
	Eventual       // some time later
	Laminated      // as Commit, until the file is sealed and never changes again
)

var names = [...]string{"default", "strong", "commit", "session", "eventual", "laminated"}

// All returns the modes that can be chosen, from the strongest on.
func All() []Mode { return []Mode{Strong, Commit, Session, Eventual, Laminated} }

// Valid reports whether m is Default or a mode.
func (m Mode) Valid() bool { return int(m) < len(names) }

// String is the mode's name, as in options and attributes; "default" for
// Default.
func (m Mode) String() string {
	if !m.Valid() {
		return fmt.Sprintf("Mode(%d)", uint8(m))
	}
	return names[m]
}

// Or is m, or the mode def if m is Default.
func (m Mode) Or(def Mode) Mode {
	if m == Default {
		return def
	}
	return m
}

// Parse returns the mode with a name. The error lists all names; "default" is
// none of them.
func Parse(name string) (Mode, error) {
	if i := slices.Index(names[1:], name); i >= 0 {
		return Mode(i + 1), nil
	}
	return Default, fmt.Errorf("unknown consistency mode %q: there are %s", name, strings.Join(names[1:], ", "))
}
