package fs

import (
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// lockers is two processes on two nodes with one file open for each.
func lockers(t *testing.T) (r *rig, a, b *worker, fa, fb int) {
	t.Helper()
	r = newRig(t, 2)
	a, b = startWorker(t), startWorker(t)
	fa = a.open(r.path(0, "f"), unix.O_RDWR|unix.O_CREAT)
	fb = b.open(r.path(1, "f"), unix.O_RDWR)
	return
}

func lockReq(cmd, typ, fd int, off, n int64) request {
	return request{Op: "lock", Lock: cmd, Type: typ, FD: fd, Off: off, Len: n}
}

func TestPosixLocks(t *testing.T) {
	r, a, b, fa, fb := lockers(t)
	a.do(lockReq(unix.F_SETLK, unix.F_WRLCK, fa, 100, 100))
	require.Equal(t, syscall.EAGAIN, b.try(lockReq(unix.F_SETLK, unix.F_RDLCK, fb, 199, 1)).Errno)
	require.EqualValues(t, unix.F_WRLCK, b.do(lockReq(unix.F_GETLK, unix.F_RDLCK, fb, 0, 0)).Type)
	require.EqualValues(t, unix.F_UNLCK, b.do(lockReq(unix.F_GETLK, unix.F_WRLCK, fb, 0, 100)).Type)
	b.do(lockReq(unix.F_SETLK, unix.F_WRLCK, fb, 200, 0))
	require.Equal(t, syscall.EAGAIN, a.try(lockReq(unix.F_SETLK, unix.F_WRLCK, fa, 1<<40, 1)).Errno, "to infinity")

	b.start(lockReq(unix.F_SETLKW, unix.F_WRLCK, fb, 150, 1))
	time.Sleep(50 * time.Millisecond)
	a.do(lockReq(unix.F_SETLK, unix.F_UNLCK, fa, 150, 50))
	require.Zero(t, b.wait().Errno, "woken by an unlock of a part")
	require.Equal(t, syscall.EAGAIN, b.try(lockReq(unix.F_SETLK, unix.F_WRLCK, fb, 149, 1)).Errno)

	// A close of any descriptor of the file drops all locks of the process,
	// and nobody else's.
	other := a.open(r.path(0, "f"), unix.O_RDONLY)
	a.do(request{Op: "close", FD: other})
	b.do(lockReq(unix.F_SETLK, unix.F_WRLCK, fb, 100, 50))
	b.do(lockReq(unix.F_SETLK, unix.F_WRLCK, fb, 0, 0))
	require.Equal(t, syscall.EAGAIN, a.try(lockReq(unix.F_SETLK, unix.F_RDLCK, fa, 0, 1)).Errno)
	b.kill()
	eventually(t, func() bool {
		return a.try(lockReq(unix.F_SETLK, unix.F_RDLCK, fa, 0, 1)).Errno == 0
	}, "a killed process holds no locks")
}

// TestLockRequests: a close asks nobody about locks that were dropped before.
func TestLockRequests(t *testing.T) {
	r, a, _, fa, _ := lockers(t)
	before := r.nodes[0].requests(t, "lock")
	a.do(lockReq(unix.F_SETLK, unix.F_WRLCK, fa, 100, 100))
	a.do(lockReq(unix.F_SETLK, unix.F_UNLCK, fa, 0, 0))
	a.do(request{Op: "close", FD: fa})
	require.Equal(t, before+2, r.nodes[0].requests(t, "lock"))
}

func TestLocksOfOpenFileDescriptions(t *testing.T) {
	r, a, b, fa, fb := lockers(t)
	a.do(lockReq(unix.F_OFD_SETLK, unix.F_WRLCK, fa, 0, 10))
	require.Equal(t, syscall.EAGAIN, b.try(lockReq(unix.F_OFD_SETLK, unix.F_WRLCK, fb, 5, 1)).Errno)
	same := a.open(r.path(0, "f"), unix.O_RDWR)
	require.Equal(t, syscall.EAGAIN, a.try(lockReq(unix.F_OFD_SETLK, unix.F_WRLCK, same, 5, 1)).Errno)
	a.do(request{Op: "close", FD: same})
	require.Equal(t, syscall.EAGAIN, b.try(lockReq(unix.F_OFD_SETLK, unix.F_WRLCK, fb, 5, 1)).Errno,
		"a close elsewhere does not drop it")
	a.do(request{Op: "close", FD: fa})
	eventually(t, func() bool {
		return b.try(lockReq(unix.F_OFD_SETLK, unix.F_WRLCK, fb, 5, 1)).Errno == 0
	}, "dropped by the last close")
}

func TestFlock(t *testing.T) {
	_, a, b, fa, fb := lockers(t)
	a.do(request{Op: "flock", FD: fa, Type: unix.LOCK_SH})
	b.do(request{Op: "flock", FD: fb, Type: unix.LOCK_SH})
	require.Equal(t, syscall.EAGAIN, b.try(request{Op: "flock", FD: fb, Type: unix.LOCK_EX | unix.LOCK_NB}).Errno)
	b.do(lockReq(unix.F_SETLK, unix.F_WRLCK, fb, 0, 0)) // the other kind of lock
	b.start(request{Op: "flock", FD: fb, Type: unix.LOCK_EX})
	time.Sleep(50 * time.Millisecond)
	a.do(request{Op: "close", FD: fa})
	require.Zero(t, b.wait().Errno, "granted after a close")
}

func TestLockWaitEndsWithTheProcess(t *testing.T) {
	r, a, b, fa, fb := lockers(t)
	a.do(lockReq(unix.F_SETLK, unix.F_WRLCK, fa, 0, 0))
	b.start(lockReq(unix.F_SETLKW, unix.F_WRLCK, fb, 0, 0))
	time.Sleep(100 * time.Millisecond)
	start := time.Now()
	b.kill()
	require.Less(t, time.Since(start), 30*time.Second, "a waiter can be killed")
	a.do(lockReq(unix.F_SETLK, unix.F_UNLCK, fa, 0, 0))
	c := startWorker(t)
	fc := c.open(r.path(1, "f"), unix.O_RDWR)
	eventually(t, func() bool {
		return c.try(lockReq(unix.F_SETLK, unix.F_WRLCK, fc, 0, 0)).Errno == 0
	}, "the dead waiter was not granted the lock")
}

// TestLocksExclude counts in a file, two processes on each of two nodes.
func TestLocksExclude(t *testing.T) {
	r := newRig(t, 2)
	const rounds = 40
	var wg sync.WaitGroup
	for i := range 4 {
		w := startWorker(t)
		fd := w.open(r.path(i%2, "counter"), unix.O_RDWR|unix.O_CREAT)
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range rounds {
				w.do(lockReq(unix.F_SETLKW, unix.F_WRLCK, fd, 0, 8))
				n := byte(0)
				if s := w.read(fd, 0, 1); s != "" {
					n = s[0]
				}
				w.write(fd, 0, string([]byte{n + 1}))
				w.do(lockReq(unix.F_SETLK, unix.F_UNLCK, fd, 0, 8))
			}
		}()
	}
	wg.Wait()
	w := startWorker(t)
	require.Equal(t, []byte{4 * rounds}, []byte(w.read(w.open(r.path(0, "counter"), unix.O_RDONLY), 0, 8)))
}
