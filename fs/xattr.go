package fs

import (
	"context"
	"strings"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/hints"
)

// Attributes of ours on the root that only the servers' side may see: the view
// of the I/O nodes lives in PVFS2.
const viewXattr = "user.zoidfs.view"

// xattrErrno says whether an application may know of an attribute: ENODATA if
// it is internal, EOPNOTSUPP if its class is not stored. Only user, trusted
// and security attributes are; POSIX ACLs (system.posix_acl_access) are not.
func xattrErrno(name string) syscall.Errno {
	switch {
	case name == viewXattr, strings.HasPrefix(name, "system.pvfs2."):
		return syscall.ENODATA
	case strings.HasPrefix(name, "user."), strings.HasPrefix(name, "trusted."), strings.HasPrefix(name, "security."):
		return 0
	}
	return syscall.EOPNOTSUPP
}

func (n *node) Getxattr(ctx context.Context, name string, dest []byte) (uint32, syscall.Errno) {
	if v, ok := n.control(name); ok {
		if len(dest) == 0 {
			return uint32(len(v) + controlSlack), 0
		}
		return copyXattr(dest, v)
	}
	if e := xattrErrno(name); e != 0 {
		return 0, e
	}
	c := n.begin(ctx, opGetxattr)
	defer c.end()
	var v []byte
	var err error
	if name == consistency.HereXattr {
		v, err = n.modeHere(c)
	} else {
		v, err = n.m.known.GetXattr(c, n.handle, name)
	}
	if err != nil {
		return 0, n.failGone(c, opGetxattr, err)
	}
	return copyXattr(dest, v)
}

// copyXattr answers getxattr(2) and listxattr(2): with the size alone, and
// ERANGE, if dest is too small. go-fuse turns that into success for an empty
// dest, by which an application asks for the size.
func copyXattr[T ~string | ~[]byte](dest []byte, v T) (uint32, syscall.Errno) {
	if len(dest) < len(v) {
		return uint32(len(v)), syscall.ERANGE
	}
	return uint32(copy(dest, v)), 0
}

func (n *node) Setxattr(ctx context.Context, name string, value []byte, flags uint32) syscall.Errno {
	if n.IsRoot() && name == resetXattr {
		return n.resetStats(ctx)
	}
	if n.IsRoot() && name == jobsXattr {
		return n.setJob(ctx, value)
	}
	if n.IsRoot() && name == TraceXattr {
		return n.setTrace(ctx, value)
	}
	if e := writableXattr(name); e != 0 {
		return e
	}
	if hint, ok := hints.OfXattr(name); ok {
		if _, err := hints.Parse(hint, string(value)); err != nil {
			return syscall.EINVAL
		}
	}
	c := n.begin(ctx, opSetxattr)
	defer c.end()
	if e := n.publishBefore(c, name); e != 0 {
		return e
	}
	if err := n.m.known.changeXattr(c, n.handle, func(ctx context.Context) error {
		return n.m.client.SetXattr(ctx, n.handle, name, value, flags)
	}); err != nil {
		return n.failGone(c, opSetxattr, err)
	}
	return 0
}

func (n *node) Removexattr(ctx context.Context, name string) syscall.Errno {
	if e := writableXattr(name); e != 0 {
		return e
	}
	c := n.begin(ctx, opRemovexattr)
	defer c.end()
	if e := n.publishBefore(c, name); e != 0 {
		return e
	}
	if err := n.m.known.changeXattr(c, n.handle, func(ctx context.Context) error {
		return n.m.client.RemoveXattr(ctx, n.handle, name)
	}); err != nil {
		return n.failGone(c, opRemovexattr, err)
	}
	return 0
}

// writableXattr is xattrErrno for a change.
func writableXattr(name string) syscall.Errno {
	switch name {
	case viewXattr, statsXattr, statusXattr, resetXattr, jobsXattr, TraceXattr, RoundsXattr, consistency.HereXattr:
		return syscall.EPERM
	}
	if strings.HasPrefix(name, jobXattr) {
		return syscall.EPERM
	}
	e := xattrErrno(name)
	if e == syscall.ENODATA {
		return syscall.EPERM
	}
	return e
}

func (n *node) Listxattr(ctx context.Context, dest []byte) (uint32, syscall.Errno) {
	c := n.begin(ctx, opListxattr)
	defer c.end()
	names, err := n.m.client.ListXattr(c, n.handle)
	if err != nil {
		return 0, n.failGone(c, opListxattr, err)
	}
	uid, _ := caller(ctx)
	var list []byte
	for _, name := range names {
		if xattrErrno(name) != 0 || uid != 0 && strings.HasPrefix(name, "trusted.") {
			continue
		}
		list = append(append(list, name...), 0)
	}
	return copyXattr(dest, list)
}

// publishBefore publishes what this node has written to n before a change of
// its consistency mode, which may seal it.
func (n *node) publishBefore(c *call, name string) syscall.Errno {
	if name != consistency.Xattr {
		return 0
	}
	if err := n.m.held.PublishAll(c, n.handle); err != nil {
		return n.failGone(c, opSetxattr, err)
	}
	return 0
}
