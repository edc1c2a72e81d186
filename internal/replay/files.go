package replay

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/trace"
)

// table is the open files of a replay.
type table struct {
	mu   sync.Mutex
	open map[[2]uint64]int // descriptors, by trace and open file; guarded by mu
}

// opened notes a descriptor.
func (f *table) opened(s *step, fd int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		f.open = make(map[[2]uint64]int)
	}
	f.open[[2]uint64{uint64(s.Trace), s.Open}] = fd
}

// fd is the descriptor for s. A file that was open before the trace began is
// opened now.
func (f *table) fd(path string, s *step) (int, error) {
	f.mu.Lock()
	fd, ok := f.open[[2]uint64{uint64(s.Trace), s.Open}]
	f.mu.Unlock()
	if ok {
		return fd, nil
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EROFS) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err == nil {
		f.opened(s, fd)
	}
	return fd, err
}

// close closes the descriptor for s for good.
func (f *table) close(s *step) error {
	key := [2]uint64{uint64(s.Trace), s.Open}
	f.mu.Lock()
	fd, ok := f.open[key]
	delete(f.open, key)
	f.mu.Unlock()
	if !ok {
		return nil
	}
	return unix.Close(fd)
}

func (f *table) closeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fd := range f.open {
		_ = unix.Close(fd) // nobody is left who could be told
	}
	f.open = nil
}

// do makes a call and returns how many bytes it moved.
func (f *table) do(dir string, t *trace.Trace, s *step) (int64, error) {
	path := filepath.Join(dir, t.Name(&s.Call))
	switch s.Op {
	case trace.Read, trace.Write, trace.Copy, trace.Flush, trace.Fsync, trace.Lock, trace.Unlock:
		return f.byHandle(path, s)
	case trace.Open, trace.Create:
		flags := int(s.Arg) | unix.O_CLOEXEC
		if s.Op == trace.Create {
			flags |= unix.O_CREAT
		}
		fd, err := unix.Open(path, flags, 0o666)
		if err == nil {
			f.opened(s, fd)
		}
		return 0, err
	case trace.Truncate:
		return 0, unix.Truncate(path, s.Len)
	case trace.Chmod:
		return 0, unix.Chmod(path, s.Arg)
	case trace.Symlink:
		return 0, unix.Symlink(s.To, path)
	case trace.Mknod:
		return 0, unix.Mknod(path, unix.S_IFREG|0o666, 0)
	case trace.Mkdir:
		return 0, unix.Mkdir(path, s.Arg)
	case trace.Unlink:
		return 0, unix.Unlink(path)
	case trace.Rmdir:
		return 0, unix.Rmdir(path)
	case trace.Rename:
		return 0, unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, filepath.Join(dir, s.To), uint(s.Arg))
	case trace.Readdir:
		_, err := os.ReadDir(path)
		return 0, err
	}
	return 0, syscall.ENOSYS
}

// byHandle makes a call by an open file.
func (f *table) byHandle(path string, s *step) (int64, error) {
	fd, err := f.fd(path, s)
	if err != nil {
		return 0, err
	}
	switch s.Op {
	case trace.Read:
		n, err := unix.Pread(fd, make([]byte, s.Len), s.Off)
		return int64(max(n, 0)), err
	case trace.Write, trace.Copy:
		return write(fd, s)
	case trace.Fsync:
		return 0, unix.Fsync(fd)
	case trace.Flush:
		if s.last {
			return 0, f.close(s)
		}
		again, err := unix.Dup(fd)
		if err != nil {
			return 0, err
		}
		return 0, unix.Close(again)
	}
	return 0, lock(fd, s)
}

// write writes as much as was written then, or asked for if that failed.
func write(fd int, s *step) (n int64, err error) {
	length := s.N
	if s.Errno != 0 {
		length = s.Len
	}
	p := make([]byte, length)
	for i := range p {
		p[i] = byte(s.Off) + byte(i)
	}
	var k int
	if s.Arg&trace.WriteAppend != 0 {
		k, err = unix.Write(fd, p)
	} else {
		k, err = unix.Pwrite(fd, p, s.Off)
	}
	return int64(max(k, 0)), err
}

// lock takes or drops a lock of the open file.
func lock(fd int, s *step) error {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: s.Off, Len: s.Len}
	if s.Off+s.Len >= trace.MaxOff || s.Len > math.MaxInt64-s.Off {
		l.Len = 0 // to the end
	}
	switch {
	case s.Op == trace.Unlock:
		l.Type = unix.F_UNLCK
	case s.Arg&trace.LockShared != 0:
		l.Type = unix.F_RDLCK
	}
	cmd := unix.F_OFD_SETLK
	if s.Arg&trace.LockWait != 0 {
		cmd = unix.F_OFD_SETLKW
	}
	return unix.FcntlFlock(uintptr(fd), cmd, &l)
}
