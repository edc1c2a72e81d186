package wire

import (
	"fmt"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
)

// Status is the outcome of an operation as it goes over the wire: 0 for
// success, else minus a PVFS error: number in bits 0..6, class in bits 7..9,
// bit 29 for those that are no errno, bit 30 always.
type Status int32

const (
	statusBit    = 1 << 30
	statusNonErr = 1 << 29
	statusNumber = 1<<7 - 1
)

// pvfsErrnos[n] is the Linux errno of PVFS error n.
var pvfsErrnos = [...]syscall.Errno{
	1: syscall.EPERM, 2: syscall.ENOENT, 3: syscall.EINTR, 4: syscall.EIO, 5: syscall.ENXIO,
	6: syscall.EBADF, 7: syscall.EAGAIN, 8: syscall.ENOMEM, 9: syscall.EFAULT, 10: syscall.EBUSY,
	11: syscall.EEXIST, 12: syscall.ENODEV, 13: syscall.ENOTDIR, 14: syscall.EISDIR, 15: syscall.EINVAL,
	16: syscall.EMFILE, 17: syscall.EFBIG, 18: syscall.ENOSPC, 19: syscall.EROFS, 20: syscall.EMLINK,
	21: syscall.EPIPE, 22: syscall.EDEADLK, 23: syscall.ENAMETOOLONG, 24: syscall.ENOLCK, 25: syscall.ENOSYS,
	26: syscall.ENOTEMPTY, 27: syscall.ELOOP, 28: syscall.EWOULDBLOCK, 29: syscall.ENOMSG, 30: syscall.EUNATCH,
	31: syscall.EBADR, 32: syscall.EDEADLOCK, 33: syscall.ENODATA, 34: syscall.ETIME, 35: syscall.ENONET,
	36: syscall.EREMOTE, 37: syscall.ECOMM, 38: syscall.EPROTO, 39: syscall.EBADMSG, 40: syscall.EOVERFLOW,
	41: syscall.ERESTART, 42: syscall.EMSGSIZE, 43: syscall.EPROTOTYPE, 44: syscall.ENOPROTOOPT, 45: syscall.EPROTONOSUPPORT,
	46: syscall.EOPNOTSUPP, 47: syscall.EADDRINUSE, 48: syscall.EADDRNOTAVAIL, 49: syscall.ENETDOWN, 50: syscall.ENETUNREACH,
	51: syscall.ENETRESET, 52: syscall.ENOBUFS, 53: syscall.ETIMEDOUT, 54: syscall.ECONNREFUSED, 55: syscall.EHOSTDOWN,
	56: syscall.EHOSTUNREACH, 57: syscall.EALREADY, 58: syscall.EACCES, 59: syscall.ECONNRESET, 60: syscall.ERANGE,
}

// nonErrno is a PVFS error that has no errno of its own, and the closest one.
type nonErrno struct {
	name  string
	errno syscall.Errno
}

var nonErrnos = [...]nonErrno{
	1: {"operation cancelled", syscall.ECANCELED},
	2: {"device initialisation failed", syscall.ENODEV},
	3: {"see the detailed per-server errors", syscall.EIO},
	4: {"unknown host", syscall.EHOSTUNREACH},
	5: {"unknown address", syscall.EADDRNOTAVAIL},
	6: {"no receiver", syscall.ECONNREFUSED},
	7: {"try again", syscall.EAGAIN},
	8: {"not a PVFS object", syscall.EINVAL},
	9: {"security check failed", syscall.EACCES},
}

// StatusOf is the status for an errno: Status(0) for 0, EIO for an errno that
// PVFS has no number for.
func StatusOf(e syscall.Errno) Status {
	switch e {
	case 0:
		return 0
	case syscall.ECANCELED:
		return -(statusBit | statusNonErr | 1)
	}
	for n, x := range pvfsErrnos {
		if x == e {
			return Status(-(n | statusBit))
		}
	}
	return StatusOf(syscall.EIO)
}

// StatusFor is the status for an error as errno.Of sees it.
func StatusFor(err error) Status { return StatusOf(errno.Of(err)) }

// Errno is the errno that s stands for, 0 for success. The class is ignored;
// a small number without the PVFS bit is taken as a Linux errno, as servers
// send those by mistake; what is none of these is EIO.
func (s Status) Errno() syscall.Errno {
	if s == 0 {
		return 0
	}
	v := int64(s)
	if v < 0 {
		v = -v
	}
	n := int(v & statusNumber)
	switch {
	case v < 4096:
		return syscall.Errno(v)
	case v&statusBit == 0:
		return syscall.EIO
	case v&statusNonErr != 0 && n > 0 && n < len(nonErrnos):
		return nonErrnos[n].errno
	case v&statusNonErr == 0 && n > 0 && n < len(pvfsErrnos):
		return pvfsErrnos[n]
	}
	return syscall.EIO
}

// Err is nil for success, else an *errno.Error of operation op.
func (s Status) Err(op string) error {
	if s == 0 {
		return nil
	}
	if v := -int64(s); v&statusBit != 0 && v&statusNonErr != 0 {
		if n := v & statusNumber; n > 0 && int(n) < len(nonErrnos) {
			return errno.Wrap(op, s.Errno(), fmt.Errorf("pvfs2: %s", nonErrnos[n].name))
		}
	}
	return errno.New(op, s.Errno())
}

// String is the errno's text and the number on the wire.
func (s Status) String() string {
	if s == 0 {
		return "success"
	}
	return fmt.Sprintf("%v (%d)", s.Errno(), int32(s))
}
