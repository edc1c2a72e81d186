package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

// TestOutageIsAPause stops the I/O nodes under a process: what it asks for
// waits, signals that it handles do not disturb it, and it can be killed.
func TestOutageIsAPause(t *testing.T) {
	r := newRig(t, 1)
	w, victim := startWorker(t), startWorker(t)
	fd := w.open(r.path(0, "f"), unix.O_RDWR|unix.O_CREAT)
	w.write(fd, 0, "before")
	fv := victim.open(r.path(0, "f"), unix.O_RDWR)
	for i := range r.ions.addrs {
		r.ions.stop(i)
	}

	w.start(request{Op: "pwrite", FD: fd, Off: 6, Data: []byte(" after")})
	victim.start(request{Op: "pread", FD: fv, Len: 1})
	for range 20 {
		require.NoError(t, w.cmd.Process.Signal(syscall.SIGURG)) // which the Go runtime handles
		time.Sleep(25 * time.Millisecond)
	}
	start := time.Now()
	victim.kill()
	require.Less(t, time.Since(start), 30*time.Second, "a process can be killed while I/O nodes are away")

	for i := range r.ions.addrs {
		r.ions.start(i)
	}
	got := w.wait()
	require.Zero(t, got.Errno)
	require.EqualValues(t, len(" after"), got.N)
	require.Equal(t, "before after", w.read(fd, 0, 100))
}

// TestKilledWhileDropping kills a mount that has the kernel drop pages, for which
// the kernel waits until a page is read that the I/O nodes, which are away, should send.
func TestKilledWhileDropping(t *testing.T) { bothWays(t, testKilledWhileDropping) }

// bothWays runs a test with mounts over io_uring, if the kernel offers that, and without.
func bothWays(t *testing.T, test func(t *testing.T, noIOURing bool)) {
	t.Run("io_uring", func(t *testing.T) { test(t, false) })
	t.Run("device", func(t *testing.T) { test(t, true) })
}

func testKilledWhileDropping(t *testing.T, noIOURing bool) {
	const size = 64 << 20
	r := newRig(t, 1)
	m := r.startMount(t, mountArgs{Consistency: consistency.Eventual, NoIOURing: noIOURing})
	path := filepath.Join(m.Mountpoint(), filepath.Base(r.dirs[0]), "f")
	w := startWorker(t)
	require.NoError(t, os.WriteFile(path, []byte("some"), 0o644))
	require.NoError(t, os.Truncate(path, size))
	fd := w.mapFile(path, size, unix.O_RDONLY, unix.MAP_PRIVATE)
	require.Equal(t, "some", w.load(fd, 0, 4))
	for i := range r.ions.addrs {
		r.ions.stop(i)
	}
	w.start(request{Op: "mget", FD: fd, Off: size / 2, Len: 1})
	tasks := fmt.Sprintf("/proc/%d/task/*/stat", m.cmd.Process.Pid)
	eventually(t, func() bool {
		files, _ := filepath.Glob(tasks)
		return slices.ContainsFunc(files, func(f string) bool {
			b, _ := os.ReadFile(f)
			_, state, _ := strings.Cut(string(b), ") ")
			return strings.HasPrefix(state, "D")
		})
	}, "a thread waits for the page")
	w.kill() // or it would die of SIGBUS
	m.killed(t)
	require.NoError(t, unmount(t.Context(), m.Mountpoint(), true))
	for i := range r.ions.addrs {
		r.ions.start(i)
	}
}

// killed kills the mount process, which dies and leaves nothing that cannot be removed.
func (m *mountProc) killed(t *testing.T) {
	t.Helper()
	require.NoError(t, m.cmd.Process.Kill())
	done := make(chan error, 1)
	go func() { done <- m.stop() }()
	select {
	case err := <-done:
		require.Error(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("the process does not die")
	}
	requireDead(t, m.Mountpoint())
}

// TestKilledWhileFlushing kills a mount that hangs in its last flush because
// the I/O nodes are away: it dies, and leaves nothing that cannot be removed.
func TestKilledWhileFlushing(t *testing.T) { bothWays(t, testKilledWhileFlushing) }

func testKilledWhileFlushing(t *testing.T, noIOURing bool) {
	r := newRig(t, 1)
	m := r.startMount(t, mountArgs{NoIOURing: noIOURing})
	w := startWorker(t)
	fd := w.open(filepath.Join(m.Mountpoint(), filepath.Base(r.dirs[0]), "f"), unix.O_RDWR|unix.O_CREAT)
	w.write(fd, 0, "0123456789")
	w.do(request{Op: "mmap", FD: fd, Len: 10, Flags: unix.MAP_SHARED})
	w.do(request{Op: "mset", FD: fd, Data: []byte("dirty")})
	for i := range r.ions.addrs {
		r.ions.stop(i)
	}
	m.stdin.Close()
	time.Sleep(300 * time.Millisecond)
	m.killed(t)
	require.NoError(t, unmount(t.Context(), m.Mountpoint(), true))
	for i := range r.ions.addrs {
		r.ions.start(i)
	}
}
