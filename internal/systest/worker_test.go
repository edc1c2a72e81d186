package systest

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxInlineData is the longest read that a worker answers with the bytes
// themselves; longer ones are answered with their digest.
const maxInlineData = 8 << 10

// op is one call that a worker makes. Paths are relative to the directory of
// the worker. FD is a name that the driver chooses for an open file.
type op struct {
	Do    string `json:"do"`
	Path  string `json:"path,omitempty"`
	To    string `json:"to,omitempty"`
	FD    int    `json:"fd,omitempty"`
	FD2   int    `json:"fd2,omitempty"`
	Flags int    `json:"flags,omitempty"`
	Off   int64  `json:"off,omitempty"`
	Len   int64  `json:"len,omitempty"`
	Fill  uint64 `json:"fill,omitempty"` // what to write: see fill
	Raw   bool   `json:"raw,omitempty"`  // reads: answer with the bytes, however many
}

func (o op) String() string {
	s := o.Do
	if o.Path != "" {
		s += " " + o.Path
	}
	if o.To != "" {
		s += " to " + o.To
	}
	if o.usesFD() || o.Do == "open" {
		s += fmt.Sprintf(" fd%d", o.FD)
	}
	return s + fmt.Sprintf(" flags=%#x off=%d len=%d fill=%d", o.Flags, o.Off, o.Len, o.Fill)
}

// usesFD reports whether the call works on an open file.
func (o op) usesFD() bool {
	switch o.Do {
	case "close", "dup", "pwrite", "write", "pread", "preadids", "readids",
		"ftruncate", "fstat", "seekend", "fsync", "lock", "incr", "forkexit", "store", "load":
		return true
	}
	return false
}

// result is what one call returned. Start and End are CLOCK_MONOTONIC in
// nanoseconds, comparable among the processes of one machine.
type result struct {
	N     int64         `json:"n,omitempty"`
	Errno syscall.Errno `json:"errno,omitempty"`
	Data  []byte        `json:"data,omitempty"`
	Sum   string        `json:"sum,omitempty"`
	Text  string        `json:"text,omitempty"`
	Names []string      `json:"names,omitempty"`
	IDs   []uint32      `json:"ids,omitempty"`
	Ino   uint64        `json:"ino,omitempty"`
	Nlink uint64        `json:"nlink,omitempty"`
	Mode  uint32        `json:"mode,omitempty"`
	Mtime int64         `json:"mtime,omitempty"`
	Start int64         `json:"start"`
	End   int64         `json:"end"`
}

func (r result) String() string {
	if r.Errno != 0 {
		return errnoName(r.Errno) + " " + r.Text
	}
	return fmt.Sprintf("n=%d ino=%d", r.N, r.Ino)
}

// fill returns n bytes that repeat the eight bytes of v. They are aligned to
// the beginning of the buffer.
func fill(v uint64, n int64) []byte {
	b := make([]byte, n+8)
	for i := int64(0); i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], v)
	}
	return b[:n]
}

// digest is how long reads are compared.
func digest(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:12])
}

func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

// serveWorker carries out the scripts that arrive on r, one JSON array of ops
// a line, and answers each with one array of results.
func serveWorker(dir string, r io.Reader, w io.Writer) error {
	k := &worker{dir: dir, fds: map[int]int{}}
	dec, enc := json.NewDecoder(bufio.NewReader(r)), json.NewEncoder(w)
	for {
		var script []op
		if err := dec.Decode(&script); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		out := make([]result, len(script))
		for i, o := range script {
			out[i] = k.timed(o)
		}
		if err := enc.Encode(out); err != nil {
			return err
		}
	}
}

type worker struct {
	dir string
	fds map[int]int // the driver's name of an open file to the descriptor
}

func (k *worker) timed(o op) result {
	call, ok := calls[o.Do]
	if !ok {
		return result{Errno: syscall.ENOSYS, Text: "unknown op " + o.Do}
	}
	var buf []byte
	if o.Do == "pwrite" || o.Do == "write" || o.Do == "store" {
		buf = fill(o.Fill, o.Len)
	}
	start := monotonic()
	res, err := call(k, o, buf)
	res.Start, res.End = start, monotonic()
	if err != nil {
		if !errors.As(err, &res.Errno) {
			res.Errno, res.Text = syscall.EBADE, err.Error()
		}
	}
	if int64(len(res.Data)) > maxInlineData && !o.Raw {
		res.Sum, res.Data = digest(res.Data), nil
	}
	return res
}

func (k *worker) path(p string) string { return filepath.Join(k.dir, p) }

func (k *worker) fd(n int) int {
	if fd, ok := k.fds[n]; ok {
		return fd
	}
	return -1
}

var calls = map[string]func(*worker, op, []byte) (result, error){
	"open":      (*worker).open,
	"close":     (*worker).close,
	"dup":       (*worker).dup,
	"pwrite":    (*worker).pwrite,
	"write":     (*worker).write,
	"pread":     (*worker).pread,
	"preadids":  (*worker).preadIDs,
	"readids":   (*worker).readIDs,
	"touch":     (*worker).touch,
	"readall":   (*worker).readAll,
	"truncate":  func(k *worker, o op, _ []byte) (result, error) { return result{}, unix.Truncate(k.path(o.Path), o.Len) },
	"ftruncate": func(k *worker, o op, _ []byte) (result, error) { return result{}, unix.Ftruncate(k.fd(o.FD), o.Len) },
	"stat":      (*worker).stat,
	"fstat":     (*worker).fstat,
	"seekend":   (*worker).seekEnd,
	"rename": func(k *worker, o op, _ []byte) (result, error) {
		return result{}, unix.Renameat2(unix.AT_FDCWD, k.path(o.Path), unix.AT_FDCWD, k.path(o.To), uint(o.Flags))
	},
	"unlink":   func(k *worker, o op, _ []byte) (result, error) { return result{}, unix.Unlink(k.path(o.Path)) },
	"mkdir":    func(k *worker, o op, _ []byte) (result, error) { return result{}, unix.Mkdir(k.path(o.Path), 0o755) },
	"rmdir":    func(k *worker, o op, _ []byte) (result, error) { return result{}, unix.Rmdir(k.path(o.Path)) },
	"symlink":  func(k *worker, o op, _ []byte) (result, error) { return result{}, unix.Symlink(o.To, k.path(o.Path)) },
	"readlink": (*worker).readlink,
	"readdir":  (*worker).readdir,
	"fsync":    func(k *worker, o op, _ []byte) (result, error) { return result{}, unix.Fsync(k.fd(o.FD)) },
	"chmod": func(k *worker, o op, _ []byte) (result, error) {
		return result{}, unix.Chmod(k.path(o.Path), uint32(o.Flags))
	},
	"utime":    (*worker).utime,
	"lock":     (*worker).lock,
	"incr":     (*worker).incr,
	"forkexit": (*worker).forkExit,
	"store":    (*worker).store,
	"load":     (*worker).load,
	"waituntil": func(_ *worker, o op, _ []byte) (result, error) {
		time.Sleep(time.Duration(o.Off - monotonic()))
		return result{}, nil
	},
	"sleep": func(_ *worker, o op, _ []byte) (result, error) {
		time.Sleep(time.Duration(o.Len) * time.Microsecond)
		return result{}, nil
	},
}

func (k *worker) open(o op, _ []byte) (result, error) {
	fd, err := unix.Open(k.path(o.Path), o.Flags|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return result{}, err
	}
	k.fds[o.FD] = fd
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return result{Text: "fstat after open"}, err
	}
	return result{Ino: st.Ino}, nil
}

func (k *worker) close(o op, _ []byte) (result, error) {
	fd := k.fd(o.FD)
	delete(k.fds, o.FD)
	return result{}, unix.Close(fd)
}

func (k *worker) dup(o op, _ []byte) (result, error) {
	fd, err := unix.FcntlInt(uintptr(k.fd(o.FD)), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		k.fds[o.FD2] = fd
	}
	return result{}, err
}

func (k *worker) pwrite(o op, buf []byte) (result, error) {
	n, err := unix.Pwrite(k.fd(o.FD), buf, o.Off)
	return result{N: int64(n)}, err
}

func (k *worker) write(o op, buf []byte) (result, error) {
	n, err := unix.Write(k.fd(o.FD), buf)
	return result{N: int64(n)}, err
}

func (k *worker) pread(o op, _ []byte) (result, error) {
	buf := make([]byte, o.Len)
	n, err := unix.Pread(k.fd(o.FD), buf, o.Off)
	if err != nil {
		return result{}, err
	}
	return result{N: int64(n), Data: buf[:n]}, nil
}

// readAll opens, reads and closes a file as cat does.
func (k *worker) readAll(o op, _ []byte) (result, error) {
	b, err := os.ReadFile(k.path(o.Path))
	return result{N: int64(len(b)), Data: b}, err
}

func statResult(st *unix.Stat_t) result {
	return result{N: st.Size, Ino: st.Ino, Nlink: uint64(st.Nlink), Mode: st.Mode, Mtime: st.Mtim.Sec}
}

func (k *worker) stat(o op, _ []byte) (result, error) {
	var st unix.Stat_t
	err := unix.Lstat(k.path(o.Path), &st)
	return statResult(&st), err
}

func (k *worker) fstat(o op, _ []byte) (result, error) {
	var st unix.Stat_t
	err := unix.Fstat(k.fd(o.FD), &st)
	return statResult(&st), err
}

func (k *worker) seekEnd(o op, _ []byte) (result, error) {
	n, err := unix.Seek(k.fd(o.FD), 0, io.SeekEnd)
	return result{N: n}, err
}

func (k *worker) readlink(o op, _ []byte) (result, error) {
	s, err := os.Readlink(k.path(o.Path))
	return result{Text: s}, err
}

func (k *worker) readdir(o op, _ []byte) (result, error) {
	d, err := os.Open(k.path(o.Path))
	if err != nil {
		return result{}, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return result{Names: names, N: int64(len(names))}, err
}

func (k *worker) utime(o op, _ []byte) (result, error) {
	ts := []unix.Timespec{{Sec: o.Off}, {Sec: o.Len}}
	return result{}, unix.UtimesNanoAt(unix.AT_FDCWD, k.path(o.Path), ts, unix.AT_SYMLINK_NOFOLLOW)
}

// lock makes one fcntl call: Flags is F_RDLCK, F_WRLCK or F_UNLCK; Fill not
// zero waits for the lock.
func (k *worker) lock(o op, _ []byte) (result, error) {
	cmd := unix.F_SETLK
	if o.Fill != 0 {
		cmd = unix.F_SETLKW
	}
	return result{}, setLock(k.fd(o.FD), cmd, o.Flags, o.Off, o.Len)
}

func setLock(fd, cmd, typ int, off, length int64) error {
	l := unix.Flock_t{Type: int16(typ), Start: off, Len: length}
	return unix.FcntlFlock(uintptr(fd), cmd, &l)
}

// incr adds one to a counter of eight bytes under a lock, Len times: an fcntl
// lock of the counter's bytes, or with Flags 1 a flock of the file.
func (k *worker) incr(o op, _ []byte) (result, error) {
	fd := k.fd(o.FD)
	acquire := func() error { return setLock(fd, unix.F_SETLKW, unix.F_WRLCK, o.Off, 8) }
	release := func() error { return setLock(fd, unix.F_SETLK, unix.F_UNLCK, o.Off, 8) }
	if o.Flags == 1 {
		acquire = func() error { return unix.Flock(fd, unix.LOCK_EX) }
		release = func() error { return unix.Flock(fd, unix.LOCK_UN) }
	}
	var b [8]byte
	for i := int64(0); i < o.Len; i++ {
		if err := acquire(); err != nil {
			return result{N: i, Text: "lock"}, err
		}
		clear(b[:])
		if _, err := unix.Pread(fd, b[:], o.Off); err != nil {
			return result{N: i, Text: "pread"}, err
		}
		binary.LittleEndian.PutUint64(b[:], binary.LittleEndian.Uint64(b[:])+1)
		if _, err := unix.Pwrite(fd, b[:], o.Off); err != nil {
			return result{N: i, Text: "pwrite"}, err
		}
		if err := release(); err != nil {
			return result{N: i, Text: "unlock"}, err
		}
	}
	return result{N: o.Len}, nil
}

// forkExit starts a child that inherits the open file and ends at once, so
// that the child's copy is closed while the worker's stays open.
func (k *worker) forkExit(o op, _ []byte) (result, error) {
	fd, err := unix.FcntlInt(uintptr(k.fd(o.FD)), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return result{}, err
	}
	f := os.NewFile(uintptr(fd), "inherited")
	defer f.Close()
	cmd := exec.Command("true")
	cmd.ExtraFiles = []*os.File{f}
	return result{}, cmd.Run()
}

// store writes through a shared mapping and msyncs it; load reads through one.
func (k *worker) store(o op, buf []byte) (result, error) {
	return mapped(k.fd(o.FD), o, unix.PROT_READ|unix.PROT_WRITE, func(m []byte) result {
		copy(m, buf)
		return result{N: int64(len(buf))}
	})
}

func (k *worker) load(o op, _ []byte) (result, error) {
	return mapped(k.fd(o.FD), o, unix.PROT_READ, func(m []byte) result {
		return result{N: int64(len(m)), Data: slices.Clone(m)}
	})
}

// mapped calls f with the bytes [o.Off, o.Off+o.Len) of a shared mapping. As
// every program that maps a file does, it asks for the size first: what is
// beyond the size that the kernel knows cannot be touched.
func mapped(fd int, o op, prot int, f func([]byte) result) (result, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return result{Text: "fstat"}, err
	}
	if st.Size < o.Off+o.Len {
		return result{Text: "beyond the end of the file"}, unix.EINVAL
	}
	page := o.Off &^ int64(os.Getpagesize()-1)
	m, err := unix.Mmap(fd, page, int(o.Off-page+o.Len), prot, unix.MAP_SHARED)
	if err != nil {
		return result{Text: "mmap"}, err
	}
	res := f(m[o.Off-page:])
	if prot&unix.PROT_WRITE != 0 {
		if err := unix.Msync(m, unix.MS_SYNC); err != nil {
			return result{Text: "msync"}, err
		}
	}
	if err := unix.Munmap(m); err != nil {
		return result{}, fmt.Errorf("munmap: %w", err)
	}
	return res, nil
}
