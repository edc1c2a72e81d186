package fs

import (
	"fmt"
	"slices"
	"syscall"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

const (
	maxTreeInodes = 64 // of one history
	maxTreeNames  = 3
)

// treeOp names what a treeCall does or sees.
type treeOp string

const (
	treeLookup  treeOp = "lookup" // a name, as by lookup or in a list: nothing, or inode
	treeList    treeOp = "list"   // fails: the directory is gone. What a list has are lookups
	treeSight   treeOp = "sight"  // attributes of inode
	treeChmod   treeOp = "chmod"
	treeOpen    treeOp = "open"
	treeClose   treeOp = "close"
	treeMake    treeOp = "make"   // inode, of a kind, under a free name
	treeCreate  treeOp = "create" // and open it
	treeUnlink  treeOp = "unlink"
	treeRmdir   treeOp = "rmdir"
	treeReplace treeOp = "rename"
)

// treeCall is a call on names or an inode, or a part of what one has seen. Each is to
// take effect at one moment between call and return.
type treeCall struct {
	op        treeOp
	proc      int
	at, to    place // to of a rename
	inode     inode // that it is about, has found or made
	kind      ionpb.ObjType
	mode      uint32
	nlink     uint32
	flags     uint32 // of a rename
	errno     syscall.Errno
	times     [2]int64 // mtime and ctime; 0: not seen
	call, ret int64    // ns
}

// inode is the number of an inode in a history, from 1; 0 is none.
type inode uint8

// place is a name in a directory.
type place struct {
	dir  inode
	name uint8
}

func (c treeCall) String() string {
	s := fmt.Sprintf("%9d %9d  p%d %s", c.call/1000, c.ret/1000, c.proc, c.op)
	switch c.op {
	case treeSight, treeChmod, treeOpen, treeClose:
		s += fmt.Sprintf(" i%d: mode %o nlink %d", c.inode, c.mode, c.nlink)
	case treeReplace:
		s += fmt.Sprintf(" i%d/%d to i%d/%d, flags %d", c.at.dir, c.at.name, c.to.dir, c.to.name, c.flags)
	case treeMake, treeCreate:
		s += fmt.Sprintf(" i%d/%d: i%d, %v, mode %o", c.at.dir, c.at.name, c.inode, c.kind, c.mode)
	default:
		s += fmt.Sprintf(" i%d/%d: i%d", c.at.dir, c.at.name, c.inode)
	}
	if c.errno != 0 {
		s += " " + c.errno.Error()
	}
	return s
}

// tree is all that there is at a moment, but for the mode bits of inodes.
type tree struct {
	inodes  [maxTreeInodes]treeInode
	entries [maxTreeInodes][maxTreeNames]inode // by directory
}

type treeInode struct {
	life  life
	kind  uint8
	opens uint8
}

// life is what becomes of an inode.
type life uint8

const (
	unborn life = iota
	named
	nameless // it may live on, and does while it is open
	gone
)

// isGoneErrno is what calls on an inode or in a directory that is gone return.
func isGoneErrno(e syscall.Errno) bool { return e == unix.ESTALE || e == unix.ENOENT }

// treeModel is that of a tree in which root and the inodes of its entries are there
// when the history begins.
func treeModel(begin tree) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return begin },
		Step: func(state, in, _ any) (bool, any) {
			t := state.(tree)
			ok := t.step(in.(treeCall))
			return ok, t
		},
		DescribeOperation: func(in, _ any) string { return in.(treeCall).String() },
	}
}

// step carries out a call, and reports whether it may have returned what it did.
func (t *tree) step(c treeCall) bool {
	switch c.op {
	case treeSight, treeChmod, treeOpen, treeClose:
		return t.stepInode(c)
	case treeReplace:
		return t.rename(c)
	}
	if t.inodes[c.at.dir].life != named {
		return isGoneErrno(c.errno)
	}
	is := t.entries[c.at.dir][c.at.name]
	want, what := syscall.Errno(0), t.inodes[is]
	switch c.op {
	case treeList:
		return false
	case treeMake, treeCreate:
		if is != 0 {
			return c.errno == unix.EEXIST
		}
		if c.errno != 0 || t.inodes[c.inode].life != unborn {
			return false
		}
		t.entries[c.at.dir][c.at.name] = c.inode
		t.inodes[c.inode] = treeInode{life: named, kind: uint8(c.kind)}
		if c.op == treeCreate {
			t.inodes[c.inode].opens++
		}
		return true
	}
	dir := what.kind == uint8(ionpb.ObjType_DIR)
	switch {
	case is == 0:
		want = unix.ENOENT
	case c.op == treeLookup:
		return c.errno == 0 && c.inode == is && (c.kind == 0 || uint8(c.kind) == what.kind)
	case c.op == treeUnlink && dir:
		want = unix.EISDIR
	case c.op == treeRmdir && !dir:
		want = unix.ENOTDIR
	case c.op == treeRmdir && !t.empty(is):
		want = unix.ENOTEMPTY
	default:
		if c.errno == 0 {
			t.entries[c.at.dir][c.at.name] = 0
			t.lose(is)
		}
	}
	return c.errno == want
}

// stepInode is step of a call that is about no name.
func (t *tree) stepInode(c treeCall) bool {
	i := &t.inodes[c.inode]
	if c.errno != 0 {
		if !isGoneErrno(c.errno) || i.life == named || i.life == nameless && i.opens > 0 {
			return false
		}
		i.life = gone
		return true
	}
	if c.op == treeClose {
		i.opens--
		return true
	}
	if i.life != named && i.life != nameless {
		return false
	}
	if c.op == treeOpen {
		i.opens++
	}
	return (c.nlink > 0) == (i.life == named)
}

// modeModel is that of the mode bits of one inode.
var modeModel = porcupine.Model{
	Init: func() any { return uint32(0) },
	Step: func(state, in, _ any) (bool, any) {
		switch c := in.(treeCall); c.op {
		case treeMake, treeCreate, treeChmod:
			return true, c.mode
		default:
			return state == c.mode, state
		}
	},
	DescribeOperation: func(in, _ any) string { return in.(treeCall).String() },
}

// lose takes an inode's name away.
func (t *tree) lose(h inode) {
	i := &t.inodes[h]
	i.life = nameless
	if i.kind == uint8(ionpb.ObjType_DIR) {
		i.life = gone
	}
}

func (t *tree) empty(dir inode) bool { return t.entries[dir] == [maxTreeNames]inode{} }

// below reports whether a directory is another one or lies below it.
func (t *tree) below(dir, top inode) bool {
	for dir != 0 {
		if dir == top {
			return true
		}
		up := inode(0)
		for d := range t.entries {
			if slices.Contains(t.entries[d][:], dir) {
				up = inode(d)
			}
		}
		dir = up
	}
	return false
}

func (t *tree) isDir(h inode) bool { return t.inodes[h].kind == uint8(ionpb.ObjType_DIR) }

// rename is step of a rename. Where several errors apply, any may be returned.
func (t *tree) rename(c treeCall) bool {
	if t.inodes[c.at.dir].life != named || t.inodes[c.to.dir].life != named {
		return isGoneErrno(c.errno)
	}
	src, dst := t.entries[c.at.dir][c.at.name], t.entries[c.to.dir][c.to.name]
	exchange := c.flags == unix.RENAME_EXCHANGE
	var may []syscall.Errno
	refuse := func(e syscall.Errno, when bool) {
		if when {
			may = append(may, e)
		}
	}
	refuse(unix.ENOENT, src == 0 || exchange && dst == 0)
	refuse(unix.EEXIST, c.flags == unix.RENAME_NOREPLACE && dst != 0)
	if src != 0 && src != dst {
		refuse(unix.EINVAL, t.isDir(src) && t.below(c.to.dir, src))
		refuse(unix.EINVAL, exchange && dst != 0 && t.isDir(dst) && t.below(c.at.dir, dst))
		if dst != 0 && !exchange {
			refuse(unix.EISDIR, t.isDir(dst) && !t.isDir(src))
			refuse(unix.ENOTDIR, t.isDir(src) && !t.isDir(dst))
			refuse(unix.ENOTEMPTY, t.isDir(dst) && !t.empty(dst))
		}
	}
	if len(may) > 0 || c.errno != 0 {
		return slices.Contains(may, c.errno)
	}
	if src == dst {
		return true
	}
	t.entries[c.to.dir][c.to.name] = src
	if exchange {
		t.entries[c.at.dir][c.at.name] = dst
		return true
	}
	t.entries[c.at.dir][c.at.name] = 0
	if dst != 0 {
		t.lose(dst)
	}
	return true
}
