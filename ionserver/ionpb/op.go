package ionpb

import "strings"

// Recorded reports whether the server keeps the reply to op and answers a
// repeated request id from the record: the operations marked R in ion.proto.
func (op Op) Recorded() bool {
	switch op {
	case Op_CREATE, Op_MKDIR, Op_SYMLINK, Op_UNLINK, Op_RMDIR, Op_RENAME,
		Op_SETATTR, Op_SETXATTR, Op_REMOVEXATTR, Op_OPEN, Op_CLOSE,
		Op_WRITE, Op_APPEND, Op_FENCED_WRITE, Op_ORPHAN:
		return true
	}
	return false
}

// Key is the lower-case name of op under which it is counted and logged.
func (op Op) Key() string { return strings.ToLower(op.String()) }
