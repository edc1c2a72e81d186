//go:build !race

package cache

import "golang.org/x/sys/unix"

// newMemory maps n bytes of zeros outside of the Go heap, where the garbage
// collector neither looks at them nor counts them.
func newMemory(n int) ([]byte, error) {
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err == nil {
		_ = unix.Madvise(mem, unix.MADV_HUGEPAGE) // faster if the kernel can, as good if not
	}
	return mem, err
}

func freeMemory(mem []byte) error { return unix.Munmap(mem) }
