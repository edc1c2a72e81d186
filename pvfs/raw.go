package pvfs

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxRaw is how many bytes of a socket that does not block one system call may
// move without telling Go's scheduler. Telling it costs an idle program more
// than the call: it wakes the thread that looks for calls that take long.
const maxRaw = 64 << 10

// readv is readv(2).
func readv(fd uintptr, vec [][]byte) (int, error) {
	if iov, ok := rawVec(vec); ok {
		return raw(unix.SYS_READV, fd, &iov, len(vec))
	}
	return unix.Readv(int(fd), vec)
}

// writev is writev(2).
func writev(fd uintptr, vec [][]byte) (int, error) {
	if iov, ok := rawVec(vec); ok {
		return raw(unix.SYS_WRITEV, fd, &iov, len(vec))
	}
	return unix.Writev(int(fd), vec)
}

type iovecs [maxVec + 1]unix.Iovec

// rawVec returns vec as the kernel wants it, if it is short.
func rawVec(vec [][]byte) (iov iovecs, ok bool) {
	if len(vec) > len(iov) {
		return iov, false
	}
	left := maxRaw
	for i, p := range vec {
		if left -= len(p); left < 0 {
			return iov, false
		}
		iov[i].Base = unsafe.SliceData(p)
		iov[i].SetLen(len(p))
	}
	return iov, true
}

func raw(trap, fd uintptr, iov *iovecs, n int) (int, error) {
	m, _, errno := unix.RawSyscall(trap, fd, uintptr(unsafe.Pointer(iov)), uintptr(n))
	if errno != 0 {
		return -1, errno
	}
	return int(m), nil
}
