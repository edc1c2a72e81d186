// Package shared is memory that processes of one machine have in common.
//
// A Region belongs to one process, which writes to it, and shows it to others,
// which map it and can only read it. Who may read what when is not its
// business. It is safe for concurrent use; the bytes are as safe as their users
// make them.
package shared

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// seals are what a region promises to whoever maps it: that its size stays, so
// that reading it never fails, and that others cannot write to it.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_FUTURE_WRITE | unix.F_SEAL_SEAL

// Region is memory of this process, outside of Go's heap, that can be shown.
type Region struct {
	mem    []byte
	file   *os.File
	closed atomic.Bool
}

// New returns n bytes of zeros, to be closed. It fails where the kernel cannot
// promise what others rely on.
func New(n int64) (*Region, error) {
	fd, err := unix.MemfdCreate("zoidfs", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("shared memory: %w", err)
	}
	r := &Region{file: os.NewFile(uintptr(fd), "zoidfs")}
	if err = unix.Ftruncate(fd, n); err == nil {
		r.mem, err = unix.Mmap(fd, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err == nil {
		_ = unix.Madvise(r.mem, unix.MADV_HUGEPAGE) // faster if the kernel can, as good if not
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("shared memory of %d bytes: %w", n, err), r.Close())
	}
	return r, nil
}

// Bytes is the memory, valid until Close.
func (r *Region) Bytes() []byte { return r.mem }

// Offset is where in the region p lies; false if it does not.
func (r *Region) Offset(p []byte) (off int64, ok bool) {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	start := uintptr(unsafe.Pointer(unsafe.SliceData(r.mem)))
	if r.closed.Load() || at < start || at+uintptr(len(p)) > start+uintptr(len(r.mem)) {
		return 0, false
	}
	return int64(at - start), true
}

// Show calls fn with what Map wants, which is good until fn returns. It reports
// false if the region is closed, and fn was not called.
func (r *Region) Show(fn func(fd int)) bool {
	raw, err := r.file.SyscallConn()
	return err == nil && raw.Control(func(fd uintptr) { fn(int(fd)) }) == nil
}

// Close gives the memory back. Others keep what they have mapped.
func (r *Region) Close() error {
	r.closed.Store(true)
	err := r.file.Close()
	if r.mem != nil {
		err = errors.Join(err, unix.Munmap(r.mem))
	}
	return err
}

// errUnsealed tells that somebody else could take the memory away.
var errUnsealed = errors.New("shared memory that is not sealed")

// Map makes the region of another process visible, for reading only, until
// Unmap. fd remains the caller's.
func Map(fd int) ([]byte, error) {
	has, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err == nil && has&seals != seals {
		err = errUnsealed
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	var mem []byte
	if err == nil {
		mem, err = unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ, unix.MAP_SHARED)
	}
	if err != nil {
		return nil, fmt.Errorf("shared memory of another process: %w", err)
	}
	return mem, nil
}

// Unmap ends what Map began.
func Unmap(mem []byte) error { return unix.Munmap(mem) }
