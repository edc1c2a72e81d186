// Package errno carries a Linux errno through layers of Go errors.
//
// The place that knows the cause picks the errno, once, in an *Error; outer
// layers add context with %w, and callers ask errors.Is(err, syscall.ENOENT).
// It knows nothing of any wire format. Safe for concurrent use: an Error is
// never changed after it was made.
package errno

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// Error is an operation that failed for a reason the kernel has a number for.
type Error struct {
	Op    string        // room and operation, such as "pvfs.Lookup"
	Errno syscall.Errno // never 0
	Err   error         // the cause, or nil when the errno says it all
}

// New returns an *Error without a further cause.
func New(op string, e syscall.Errno) *Error { return &Error{Op: op, Errno: e} }

// Wrap returns an *Error whose cause is err.
func Wrap(op string, e syscall.Errno, err error) *Error {
	return &Error{Op: op, Errno: e, Err: err}
}

// Error gives the operation, the errno's text and the cause.
func (e *Error) Error() string {
	s := e.Op + ": " + e.Errno.Error()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the errno and the cause, so that errors.Is sees both.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Errno}
	}
	return []error{e.Errno, e.Err}
}

// Of maps err to what the kernel is told: 0 for nil, the outermost errno in
// the tree, EINTR for a cancelled context, ETIMEDOUT for a deadline, else EIO.
func Of(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Errno
	}
	var n syscall.Errno
	if errors.As(err, &n) {
		if n == 0 {
			return syscall.EIO
		}
		return n
	}
	switch {
	case errors.Is(err, context.Canceled):
		return syscall.EINTR
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return syscall.ETIMEDOUT
	}
	return syscall.EIO
}

// AskMount asks a mount something, and again while it answers ECANCELED, for a second:
// over io_uring those may get that who ask while its process ends.
func AskMount(ask func() error) error {
	err := ask()
	for wait := time.Millisecond; errors.Is(err, syscall.ECANCELED) && wait < time.Second; wait *= 2 {
		time.Sleep(wait)
		err = ask()
	}
	return err
}

// DeadMount reports whether err is what a FUSE mount answers whose process has ended, see
// AskMount.
func DeadMount(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED)
}
