package fs

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// workerEnv makes the test binary a worker.
const workerEnv = "ZOIDFS_FS_TEST_WORKER"

// request is one system call that a worker is asked for.
type request struct {
	Op         string
	Path, To   string
	FD         int
	Flags      int
	Mode       uint32
	Off, Len   int64
	Data       []byte
	Type, Lock int // F_RDLCK ... or LOCK_SH ...; F_SETLK ...
}

// reply is what came of it.
type reply struct {
	N     int64
	Data  []byte
	Size  int64
	Nlink uint64
	Mode  uint32
	GID   uint32
	Type  int
	Errno syscall.Errno
}

// worker is another process, as an application on a node would be. Locks and
// mappings belong to processes, and a mapping of our own mount in our own
// process could deadlock the Go runtime.
type worker struct {
	t    testing.TB
	cmd  *exec.Cmd
	in   *json.Encoder
	out  chan reply
	pipe io.Closer
}

func startWorker(t testing.TB) *worker {
	t.Helper()
	return startWorkerAs(t, nil)
}

// startWorkerAs starts a worker that runs as another user.
func startWorkerAs(t testing.TB, cred *syscall.Credential) *worker {
	t.Helper()
	cmd := exec.Command("/proc/self/exe") // which other users may execute wherever it lies
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	cmd.Env = append(os.Environ(), workerEnv+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	w := &worker{t: t, cmd: cmd, in: json.NewEncoder(stdin), out: make(chan reply), pipe: stdin}
	go func() {
		defer close(w.out)
		for d := json.NewDecoder(bufio.NewReader(stdout)); ; {
			var r reply
			if d.Decode(&r) != nil {
				return
			}
			w.out <- r
		}
	}()
	t.Cleanup(w.stop)
	return w
}

// stop ends the process as if it had called exit.
func (w *worker) stop() {
	w.pipe.Close()
	for range w.out {
	}
	w.cmd.Wait()
}

// kill ends the process by SIGKILL.
func (w *worker) kill() {
	w.cmd.Process.Kill()
	w.stop()
}

// start sends a request; wait gets its reply.
func (w *worker) start(r request) {
	w.t.Helper()
	require.NoError(w.t, w.in.Encode(r))
}

func (w *worker) wait() reply {
	w.t.Helper()
	select {
	case r, ok := <-w.out:
		require.True(w.t, ok, "worker died")
		return r
	case <-time.After(30 * time.Second):
		require.FailNow(w.t, "worker hangs")
		panic("unreachable")
	}
}

// try returns the reply of one request, which may have failed.
func (w *worker) try(r request) reply {
	w.t.Helper()
	w.start(r)
	return w.wait()
}

// do is try for what must succeed.
func (w *worker) do(r request) reply {
	w.t.Helper()
	got := w.try(r)
	require.Zero(w.t, got.Errno, "%s %s: %v", r.Op, r.Path, got.Errno)
	return got
}

func (w *worker) open(path string, flags int) int {
	w.t.Helper()
	return int(w.do(request{Op: "open", Path: path, Flags: flags, Mode: 0o666}).N)
}

func (w *worker) read(fd int, off, n int64) string {
	w.t.Helper()
	return string(w.do(request{Op: "pread", FD: fd, Off: off, Len: n}).Data)
}

func (w *worker) write(fd int, off int64, s string) {
	w.t.Helper()
	w.do(request{Op: "pwrite", FD: fd, Off: off, Data: []byte(s)})
}

// workerMain carries out requests until in ends.
func workerMain(in io.Reader, out io.Writer) int {
	maps := map[int][]byte{}
	enc := json.NewEncoder(out)
	for d := json.NewDecoder(in); ; {
		var r request
		if d.Decode(&r) != nil {
			return 0
		}
		got, err := carryOut(r, maps)
		errors.As(err, &got.Errno)
		if enc.Encode(got) != nil {
			return 1
		}
	}
}

func carryOut(r request, maps map[int][]byte) (out reply, err error) {
	n := 0
	switch r.Op {
	case "open":
		n, err = unix.Open(r.Path, r.Flags|unix.O_CLOEXEC, r.Mode)
	case "close":
		err = unix.Close(r.FD)
	case "pread":
		out.Data = make([]byte, r.Len)
		n, err = unix.Pread(r.FD, out.Data, r.Off)
		out.Data = out.Data[:max(n, 0)]
	case "pwrite":
		n, err = unix.Pwrite(r.FD, r.Data, r.Off)
	case "write":
		n, err = unix.Write(r.FD, r.Data)
	case "setfl":
		_, err = unix.FcntlInt(uintptr(r.FD), unix.F_SETFL, r.Flags)
	case "truncate":
		err = unix.Truncate(r.Path, r.Len)
	case "fsync":
		err = unix.Fsync(r.FD)
	case "rename":
		err = unix.Rename(r.Path, r.To)
	case "unlink":
		err = unix.Unlink(r.Path)
	case "chmod":
		err = unix.Chmod(r.Path, r.Mode)
	case "setxattr":
		err = unix.Setxattr(r.Path, r.To, r.Data, 0)
	case "mkdir":
		err = unix.Mkdir(r.Path, r.Mode)
	case "umask":
		unix.Umask(int(r.Mode))
	case "stat", "fstat":
		var st unix.Stat_t
		if r.Op == "stat" {
			err = unix.Stat(r.Path, &st)
		} else {
			err = unix.Fstat(r.FD, &st)
		}
		out.Size, out.Nlink, out.Mode, out.GID = st.Size, uint64(st.Nlink), st.Mode, st.Gid
	case "lock":
		l := unix.Flock_t{Type: int16(r.Type), Start: r.Off, Len: r.Len}
		err = unix.FcntlFlock(uintptr(r.FD), r.Lock, &l)
		out.Type = int(l.Type)
	case "flock":
		err = unix.Flock(r.FD, r.Type)
	case "mmap":
		maps[r.FD], err = unix.Mmap(r.FD, 0, int(r.Len), unix.PROT_READ|unix.PROT_WRITE, r.Flags)
	case "mget":
		out.Data = append([]byte(nil), maps[r.FD][r.Off:r.Off+r.Len]...)
	case "mset":
		copy(maps[r.FD][r.Off:], r.Data)
	case "msync":
		err = unix.Msync(maps[r.FD], unix.MS_SYNC)
	case "munmap":
		err = unix.Munmap(maps[r.FD])
		delete(maps, r.FD)
	default:
		err = unix.ENOSYS
	}
	out.N = int64(n)
	return out, err
}
