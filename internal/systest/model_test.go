package systest

import (
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// model is the exact state of a small file system, for calls made one at a
// time. It knows what Linux answers, errno included.
type model struct {
	root *modelNode
	fds  map[modelFD]*modelOpen
	inos map[uint64]*modelNode // the inode numbers seen, of nodes that still exist
}

type modelNode struct {
	dir   map[string]*modelNode // nil unless a directory
	link  string                // target, of a symbolic link
	data  []byte
	ino   uint64 // as first seen
	nlink uint64
	opens int
}

type modelFD struct{ proc, fd int }

type modelOpen struct {
	node  *modelNode
	flags int
}

func newModel() *model {
	return &model{
		root: &modelNode{dir: map[string]*modelNode{}, nlink: 1},
		fds:  map[modelFD]*modelOpen{}, inos: map[uint64]*modelNode{},
	}
}

// walk finds the directory of a path and what the path names in it, nil if
// nothing.
func (m *model) walk(path string) (dir *modelNode, name string, n *modelNode, e syscall.Errno) {
	if path == "" {
		return nil, "", m.root, 0
	}
	parts := strings.Split(path, "/")
	dir = m.root
	for _, p := range parts[:len(parts)-1] {
		next := dir.dir[p]
		switch {
		case next == nil, next.link != "": // every link of the tests dangles
			return nil, "", nil, unix.ENOENT
		case next.dir == nil:
			return nil, "", nil, unix.ENOTDIR
		}
		dir = next
	}
	name = parts[len(parts)-1]
	return dir, name, dir.dir[name], 0
}

// apply makes a call of process proc in the model and returns what a correct
// file system answers.
func (m *model) apply(proc int, o op) result {
	if o.usesFD() {
		h := m.fds[modelFD{proc, o.FD}]
		if h == nil {
			return result{Errno: unix.EBADF}
		}
		return m.applyFD(proc, o, h)
	}
	dir, name, n, e := m.walk(o.Path)
	if e != 0 {
		return result{Errno: e}
	}
	switch o.Do {
	case "open":
		return m.applyOpen(proc, o, dir, name, n)
	case "mkdir", "symlink":
		if n != nil {
			return result{Errno: unix.EEXIST}
		}
		made := &modelNode{nlink: 1, link: o.To}
		if o.Do == "mkdir" {
			made.dir = map[string]*modelNode{}
		}
		dir.dir[name] = made
		return result{}
	}
	if n == nil {
		if o.Do == "rename" { // the parent of the target is looked up first
			if _, _, _, e := m.walk(o.To); e != 0 {
				return result{Errno: e}
			}
		}
		return result{Errno: unix.ENOENT}
	}
	switch o.Do {
	case "stat":
		return m.statOf(n)
	case "truncate":
		if n.link != "" {
			return result{Errno: unix.ENOENT}
		}
		return result{Errno: n.truncate(o.Len)}
	case "readlink":
		if n.link == "" {
			return result{Errno: unix.EINVAL}
		}
		return result{Text: n.link}
	case "readdir":
		switch {
		case n.link != "":
			return result{Errno: unix.ENOENT}
		case n.dir == nil:
			return result{Errno: unix.ENOTDIR}
		}
		names := []string{}
		for s := range n.dir {
			names = append(names, s)
		}
		slices.Sort(names)
		return result{Names: names, N: int64(len(names))}
	case "unlink":
		if n.dir != nil {
			return result{Errno: unix.EISDIR}
		}
		m.remove(dir, name)
		return result{}
	case "rmdir":
		switch {
		case n.dir == nil:
			return result{Errno: unix.ENOTDIR}
		case len(n.dir) > 0:
			return result{Errno: unix.ENOTEMPTY}
		}
		m.remove(dir, name)
		return result{}
	case "rename":
		return result{Errno: m.rename(o, dir, name, n)}
	case "readall":
		if n.dir != nil {
			return result{Errno: unix.EISDIR}
		}
		return result{N: int64(len(n.data)), Data: n.data}
	}
	panic("model: " + o.Do)
}

func (m *model) applyOpen(proc int, o op, dir *modelNode, name string, n *modelNode) result {
	switch {
	case n == nil && o.Flags&unix.O_CREAT == 0:
		return result{Errno: unix.ENOENT}
	case n != nil && o.Flags&unix.O_CREAT != 0 && o.Flags&unix.O_EXCL != 0:
		return result{Errno: unix.EEXIST}
	case n != nil && n.link != "":
		return result{Errno: unix.ELOOP} // every open of the tests has O_NOFOLLOW
	case n != nil && n.dir != nil:
		return result{Errno: unix.EISDIR}
	case n == nil:
		n = &modelNode{nlink: 1}
		dir.dir[name] = n
	}
	if o.Flags&unix.O_TRUNC != 0 {
		n.data = nil
	}
	n.opens++
	m.fds[modelFD{proc, o.FD}] = &modelOpen{node: n, flags: o.Flags}
	return result{Ino: n.ino}
}

func (m *model) applyFD(proc int, o op, h *modelOpen) result {
	n := h.node
	writable := h.flags&unix.O_ACCMODE != unix.O_RDONLY
	switch o.Do {
	case "pwrite", "write":
		if !writable {
			return result{Errno: unix.EBADF}
		}
		off := o.Off
		if h.flags&unix.O_APPEND != 0 { // Linux appends in pwrite too
			off = int64(len(n.data))
		}
		n.write(fill(o.Fill, o.Len), off)
		return result{N: o.Len}
	case "pread":
		if h.flags&unix.O_ACCMODE == unix.O_WRONLY {
			return result{Errno: unix.EBADF}
		}
		from := min(o.Off, int64(len(n.data)))
		to := min(o.Off+o.Len, int64(len(n.data)))
		return result{N: to - from, Data: n.data[from:to]}
	case "ftruncate":
		if !writable {
			return result{Errno: unix.EINVAL}
		}
		return result{Errno: n.truncate(o.Len)}
	case "fstat":
		return m.statOf(n)
	case "seekend":
		return result{N: int64(len(n.data))}
	case "close":
		delete(m.fds, modelFD{proc, o.FD})
		n.opens--
		m.forget(n)
	}
	return result{}
}

func (n *modelNode) write(b []byte, off int64) {
	if end := off + int64(len(b)); end > int64(len(n.data)) {
		n.data = append(n.data, make([]byte, end-int64(len(n.data)))...)
	}
	copy(n.data[off:], b)
}

func (n *modelNode) truncate(size int64) syscall.Errno {
	switch {
	case n.dir != nil:
		return unix.EISDIR
	case size <= int64(len(n.data)):
		n.data = slices.Clone(n.data[:size])
	default:
		n.data = append(n.data, make([]byte, size-int64(len(n.data)))...)
	}
	return 0
}

func (m *model) statOf(n *modelNode) result {
	size := int64(len(n.data))
	if n.link != "" {
		size = int64(len(n.link))
	}
	return result{N: size, Ino: n.ino, Nlink: n.nlink, Mode: n.fileType()}
}

func (n *modelNode) fileType() uint32 {
	switch {
	case n.dir != nil:
		return unix.S_IFDIR
	case n.link != "":
		return unix.S_IFLNK
	}
	return unix.S_IFREG
}

func (m *model) remove(dir *modelNode, name string) {
	n := dir.dir[name]
	delete(dir.dir, name)
	n.nlink = 0
	m.forget(n)
}

// forget frees the inode number of a node that nothing refers to any more.
func (m *model) forget(n *modelNode) {
	if n.nlink == 0 && n.opens == 0 {
		delete(m.inos, n.ino)
	}
}

// rename checks in the order in which the kernel does.
func (m *model) rename(o op, dir *modelNode, name string, n *modelNode) syscall.Errno {
	toDir, toName, to, e := m.walk(o.To)
	exchange := o.Flags == unix.RENAME_EXCHANGE
	switch {
	case e != 0:
		return e
	case o.Flags == unix.RENAME_NOREPLACE && to != nil:
		return unix.EEXIST
	case exchange && to == nil:
		return unix.ENOENT
	case strings.HasPrefix(o.To, o.Path+"/"):
		return unix.EINVAL
	case strings.HasPrefix(o.Path, o.To+"/") && exchange:
		return unix.EINVAL
	case strings.HasPrefix(o.Path, o.To+"/"):
		return unix.ENOTEMPTY
	case n == to:
		return 0
	case exchange:
		dir.dir[name], toDir.dir[toName] = to, n
		return 0
	case to != nil && n.dir != nil && to.dir == nil:
		return unix.ENOTDIR
	case to != nil && n.dir == nil && to.dir != nil:
		return unix.EISDIR
	case to != nil && len(to.dir) > 0:
		return unix.ENOTEMPTY
	}
	if to != nil {
		m.remove(toDir, toName)
	}
	delete(dir.dir, name)
	toDir.dir[toName] = n
	return 0
}

// rehangs reports whether a rename meets a directory that another node may have
// moved there. Linux looks its names up with the lock of all renames held, and
// cannot move what it still has of that directory elsewhere: ESTALE.
func (m *model) rehangs(o op) bool {
	if o.Do != "rename" {
		return false
	}
	from, _, n, e1 := m.walk(o.Path)
	dir, _, to, e2 := m.walk(o.To)
	isDir := func(n *modelNode) bool { return n != nil && n.dir != nil }
	return e1 == 0 && e2 == 0 && from != dir && (isDir(n) || isDir(to))
}

// check compares what a call returned with what the model says and returns
// what differs, "" if nothing. It learns the inode numbers.
func (m *model) check(proc int, o op, want, got result) string {
	switch {
	case got.Errno != want.Errno:
		return "errno " + errnoName(got.Errno) + ", want " + errnoName(want.Errno) + " " + got.Text
	case want.Errno != 0:
		return ""
	}
	switch o.Do {
	case "open":
		return m.sameIno(m.fds[modelFD{proc, o.FD}].node, got)
	case "stat":
		_, _, n, _ := m.walk(o.Path)
		return m.sameStat(n, want, got)
	case "fstat":
		return m.sameStat(m.fds[modelFD{proc, o.FD}].node, want, got)
	case "pread", "readall":
		if got.N != want.N {
			return "read " + itoa(got.N) + " bytes, want " + itoa(want.N)
		}
		if got.Sum != "" && got.Sum != digest(want.Data) || got.Sum == "" && string(got.Data) != string(want.Data) {
			return "other bytes" + firstDifference(want.Data, got.Data)
		}
	case "readlink":
		if got.Text != want.Text {
			return "target " + got.Text + ", want " + want.Text
		}
	case "readdir":
		if !slices.Equal(got.Names, want.Names) {
			return "names " + strings.Join(got.Names, " ") + ", want " + strings.Join(want.Names, " ")
		}
	case "pwrite", "write", "seekend":
		if got.N != want.N {
			return itoa(got.N) + ", want " + itoa(want.N)
		}
	}
	return ""
}

func (m *model) sameStat(n *modelNode, want, got result) string {
	switch {
	case got.Mode&unix.S_IFMT != want.Mode:
		return "another file type"
	case n.dir == nil && got.N != want.N:
		return "size " + itoa(got.N) + ", want " + itoa(want.N)
	case n.dir == nil && got.Nlink != want.Nlink:
		return "nlink " + itoa(int64(got.Nlink)) + ", want " + itoa(int64(want.Nlink))
	}
	return m.sameIno(n, got)
}

// sameIno checks that a node keeps its inode number and that no two share one.
func (m *model) sameIno(n *modelNode, got result) string {
	if n.ino == 0 {
		if other := m.inos[got.Ino]; other != nil && other != n {
			return "inode number of another file"
		}
		n.ino = got.Ino
		m.inos[n.ino] = n
	}
	if n.ino != got.Ino {
		return "inode number changed"
	}
	return ""
}

func firstDifference(want, got []byte) string {
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			return " from +" + itoa(int64(i)) + " on"
		}
	}
	return ""
}
