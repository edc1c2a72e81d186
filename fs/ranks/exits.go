package ranks

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// exits tells when processes exit. It waits in Go's poller, not in a thread.
type exits struct {
	file *os.File // an epoll instance
	conn syscall.RawConn
}

func newExits() (*exits, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else Go would not poll it
		return nil, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(fd))
	}
	x := &exits{file: os.NewFile(uintptr(fd), "exits")}
	if x.conn, err = x.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, x.file.Close())
	}
	return x, nil
}

// close makes next return.
func (x *exits) close() { _ = x.file.Close() }

// exit names a process that has exited. A process id is used again, the low
// bits of the time when it was started are not.
type exit struct{ pid, started uint32 }

// watch returns a pidfd of the process pid; next tells when it exits. started
// is when it was, and is told again. The pidfd is -1 if there cannot be one.
func (x *exits) watch(pid uint32, started uint64) int {
	fd, err := unix.PidfdOpen(int(pid), 0)
	if err != nil {
		return -1
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(pid), Pad: int32(uint32(started))}
	bad := x.conn.Control(func(ep uintptr) { err = unix.EpollCtl(int(ep), unix.EPOLL_CTL_ADD, fd, &ev) })
	if err = errors.Join(bad, err); err != nil {
		_ = unix.Close(fd)
		return -1
	}
	return fd
}

// next waits for processes that exit. The error is os.ErrClosed after close.
func (x *exits) next() (out []exit, err error) {
	var events [64]unix.EpollEvent
	bad := x.conn.Read(func(ep uintptr) bool {
		var n int
		n, err = unix.EpollWait(int(ep), events[:], 0)
		if errors.Is(err, syscall.EINTR) {
			n, err = 0, nil
		}
		for _, ev := range events[:max(n, 0)] {
			out = append(out, exit{uint32(ev.Fd), uint32(ev.Pad)})
		}
		return n != 0 || err != nil
	})
	return out, errors.Join(bad, err)
}
