package litmus

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/history"
)

// request is one line to a worker: a call, or the end of a round.
type request struct {
	Step
	Reset  bool     `json:"reset,omitempty"`  // close all files
	Remove []string `json:"remove,omitempty"` // then remove these names
}

// Serve is the life of a worker: it makes the calls that arrive on r, one a
// line, in directory dir and answers each on w.
func Serve(dir string, r io.Reader, w io.Writer) error {
	k := &worker{dir: dir, files: map[int]*os.File{}}
	dec, enc := json.NewDecoder(bufio.NewReader(r)), json.NewEncoder(w)
	for {
		var q request
		if err := dec.Decode(&q); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if q.Reset {
			k.reset(q.Remove)
		} else {
			k.do(&q.Step)
		}
		if err := enc.Encode(&q.Event); err != nil {
			return err
		}
	}
}

// worker is the state of a worker process. Its files are named by the program.
type worker struct {
	dir   string
	files map[int]*os.File
	last  []byte // what the last read returned
	from  int64  // its offset
}

func (k *worker) reset(remove []string) {
	for fd, f := range k.files {
		f.Close()
		delete(k.files, fd)
	}
	for _, name := range remove {
		os.Remove(k.path(name))
	}
}

func (k *worker) path(name string) string { return filepath.Join(k.dir, name) }

// fd is the descriptor of an open file, -1 if there is none.
func (k *worker) fd(n int) int {
	if f := k.files[n]; f != nil {
		return int(f.Fd())
	}
	return -1
}

// do makes the call of a step and fills in what it returned.
func (k *worker) do(s *Step) {
	e := &s.Event
	call, ok := calls[e.Op]
	if !ok {
		e.Errno = syscall.ENOSYS
		return
	}
	buf := make([]byte, 0)
	switch e.Op {
	case history.Write, history.Store, history.Append:
		buf = make([]byte, e.Len)
		encode(buf, e.Off, e.Value, s.Flat)
	case history.Read, history.Load:
		buf = make([]byte, e.Len)
	case history.Sieve, history.Incr:
		if buf = k.last; k.from != e.Off || int64(len(buf)) != e.Len {
			e.Errno = syscall.EINVAL // the program has no read before it
			return
		}
		k.merge(s)
	}
	pause(s.Delay)
	e.Call = monotonic()
	n, err := call(k, s, buf)
	e.Return = monotonic()
	if err != nil && !errors.As(err, &e.Errno) {
		e.Errno = syscall.EBADE
	}
	if e.N = n; e.Op == history.Read || e.Op == history.Load {
		e.Seen = decode(buf[:n], e.Off, s.Flat)
		k.last, k.from = buf, e.Off
	}
}

// merge puts what a Sieve or an Incr means to write into the bytes that were
// read before.
func (k *worker) merge(s *Step) {
	if s.Op == history.Incr {
		s.Value = 1
		if runs := decode(k.last[:1], s.Off, s.Flat); runs[0].Value < 255 {
			s.Value = runs[0].Value + 1
		}
		encode(k.last, s.Off, s.Value, s.Flat)
		return
	}
	encode(k.last[s.Own.Off-s.Off:][:s.Own.Len], s.Own.Off, s.Value, s.Flat)
	s.Seen = decode(k.last, s.Off, s.Flat)
}

// pause waits without giving up the processor if that would take longer.
func pause(d time.Duration) {
	if d > time.Millisecond {
		time.Sleep(d)
		return
	}
	for end := monotonic() + int64(d); monotonic() < end; {
		runtime.Gosched()
	}
}

// monotonic is a clock that all processes of a machine share.
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // it exists since Linux 2.6
	}
	return ts.Nano()
}

var calls = map[history.Op]func(*worker, *Step, []byte) (int64, error){
	history.Open:      (*worker).open,
	history.Dup:       (*worker).dup,
	history.Close:     (*worker).close,
	history.ForkClose: (*worker).forkClose,
	history.Read:      (*worker).read,
	history.Load:      (*worker).load,
	history.Write:     (*worker).write,
	history.Sieve:     (*worker).write,
	history.Incr:      (*worker).write,
	history.Store:     (*worker).store,
	history.Append: func(k *worker, s *Step, buf []byte) (int64, error) {
		n, err := unix.Write(k.fd(s.FD), buf)
		return int64(max(0, n)), err
	},
	history.Truncate: func(k *worker, s *Step, _ []byte) (int64, error) { return 0, unix.Ftruncate(k.fd(s.FD), s.Len) },
	history.Fsync:    func(k *worker, s *Step, _ []byte) (int64, error) { return 0, unix.Fsync(k.fd(s.FD)) },
	history.Chmod:    func(k *worker, s *Step, _ []byte) (int64, error) { return 0, unix.Fchmod(k.fd(s.FD), uint32(s.Flags)) },
	history.Lock:     func(k *worker, s *Step, _ []byte) (int64, error) { return 0, k.lock(s, unix.F_SETLKW, s.Flags) },
	history.Unlock:   func(k *worker, s *Step, _ []byte) (int64, error) { return 0, k.lock(s, unix.F_SETLK, unix.F_UNLCK) },
	history.Fstat: func(k *worker, s *Step, _ []byte) (int64, error) {
		var st unix.Stat_t
		err := unix.Fstat(k.fd(s.FD), &st)
		return st.Size, err
	},
	history.SeekEnd: func(k *worker, s *Step, _ []byte) (int64, error) { return unix.Seek(k.fd(s.FD), 0, unix.SEEK_END) },
	history.Stat: func(k *worker, s *Step, _ []byte) (int64, error) {
		var st unix.Stat_t
		err := unix.Stat(k.path(s.Name), &st)
		s.Ino = st.Ino
		return st.Size, err
	},
	history.Rename: func(k *worker, s *Step, _ []byte) (int64, error) {
		return 0, unix.Renameat2(unix.AT_FDCWD, k.path(s.Name), unix.AT_FDCWD, k.path(s.To), uint(s.Flags))
	},
	history.Unlink: func(k *worker, s *Step, _ []byte) (int64, error) { return 0, unix.Unlink(k.path(s.Name)) },
}

func (k *worker) open(s *Step, _ []byte) (int64, error) {
	fd, err := unix.Open(k.path(s.Name), s.Flags|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return 0, err
	}
	if old := k.files[s.FD]; old != nil {
		old.Close()
	}
	k.files[s.FD] = os.NewFile(uintptr(fd), s.Name)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	s.Ino = st.Ino
	return 0, err
}

func (k *worker) dup(s *Step, _ []byte) (int64, error) {
	fd, err := unix.FcntlInt(uintptr(k.fd(s.FD2)), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		k.files[s.FD] = os.NewFile(uintptr(fd), "dup")
	}
	return 0, err
}

func (k *worker) close(s *Step, _ []byte) (int64, error) {
	f := k.files[s.FD]
	if f == nil {
		return 0, syscall.EBADF
	}
	delete(k.files, s.FD)
	return 0, f.Close()
}

// forkClose starts a child that inherits the open file and ends at once, so
// that the child's copy is closed while the worker's stays open.
func (k *worker) forkClose(s *Step, _ []byte) (int64, error) {
	f := k.files[s.FD]
	if f == nil {
		return 0, syscall.EBADF
	}
	cmd := exec.Command("true")
	cmd.ExtraFiles = []*os.File{f}
	return 0, cmd.Run()
}

// read and write make one call each, however short: two would not take effect
// at once.
func (k *worker) read(s *Step, buf []byte) (int64, error) {
	n, err := unix.Pread(k.fd(s.FD), buf, s.Off)
	return int64(max(0, n)), err
}

func (k *worker) write(s *Step, buf []byte) (int64, error) {
	n, err := unix.Pwrite(k.fd(s.FD), buf, s.Off)
	return int64(max(0, n)), err
}

func (k *worker) lock(s *Step, cmd, typ int) error {
	l := unix.Flock_t{Type: int16(typ), Start: s.Off, Len: s.Len}
	for {
		if err := unix.FcntlFlock(uintptr(k.fd(s.FD)), cmd, &l); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

func (k *worker) store(s *Step, buf []byte) (int64, error) {
	return k.mapped(s, unix.PROT_READ|unix.PROT_WRITE, func(m []byte) int { return copy(m, buf) })
}

func (k *worker) load(s *Step, buf []byte) (int64, error) {
	return k.mapped(s, unix.PROT_READ, func(m []byte) int { return copy(buf, m) })
}

// mapped calls f with the bytes of a shared mapping. As every program that maps
// a file does, it asks for the size first: what is beyond the size that the
// kernel knows cannot be touched.
func (k *worker) mapped(s *Step, prot int, f func([]byte) int) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(k.fd(s.FD), &st); err != nil {
		return 0, err
	}
	if st.Size < s.Off+s.Len {
		return 0, fmt.Errorf("the mapping ends beyond the file: %w", syscall.EINVAL)
	}
	page := s.Off &^ int64(os.Getpagesize()-1)
	m, err := unix.Mmap(k.fd(s.FD), page, int(s.Off-page+s.Len), prot, unix.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	n := f(m[s.Off-page:])
	if prot&unix.PROT_WRITE != 0 {
		err = unix.Msync(m, unix.MS_SYNC)
	}
	return int64(n), errors.Join(err, unix.Munmap(m))
}
