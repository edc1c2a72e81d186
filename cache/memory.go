package cache

import (
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/shared"
)

// NewMemory returns n bytes of memory for a store that other processes may be shown;
// nil where that is not possible, or no use.
func NewMemory(n int64) *shared.Region {
	if n <= 0 || onHeap(int(n)) {
		return nil
	}
	r, err := shared.New(n)
	if err != nil {
		return nil // the store gets other memory
	}
	return r
}

func (o Options) memory(n int) ([]byte, error) {
	if o.Memory != nil {
		return o.Memory.Bytes()[:n], nil
	}
	return newMemory(n)
}

func (s *Store) freeMemory() error {
	if s.region != nil {
		return s.region.Close()
	}
	return freeMemory(s.memory)
}

// newMemory maps n bytes of zeros outside of the Go heap, where the garbage
// collector neither looks at them nor counts them. The race detector sees
// nothing but the heap, but pays for all of it, used or not: it gets slabs that
// are small.
func newMemory(n int) ([]byte, error) {
	if onHeap(n) {
		return make([]byte, n), nil
	}
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err == nil {
		_ = unix.Madvise(mem, unix.MADV_HUGEPAGE) // faster if the kernel can, as good if not
	}
	return mem, err
}

func freeMemory(mem []byte) error {
	if onHeap(len(mem)) {
		return nil
	}
	return unix.Munmap(mem)
}

// maxRaceable bounds, in bytes, the slabs that the race detector gets.
const maxRaceable = 16 << 20

func onHeap(n int) bool { return poisoned && n <= maxRaceable }
