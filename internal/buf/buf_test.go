package buf

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGetHasLengthAndTierCapacity(t *testing.T) {
	var p Pool
	for _, c := range []struct {
		name   string
		n, cap int
	}{
		{"empty", 0, 1 << 10},
		{"exactly a tier", 16 << 10, 16 << 10},
		{"one more", 16<<10 + 1, 32 << 10},
		{"1 MiB with a header", 1<<20 + 100, 1<<20 + 4<<10},
		{"above the last tier", 4 << 20, 4 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := p.Get(c.n)
			require.Len(t, *b, c.n)
			require.Equal(t, c.cap, cap(*b))
			p.Put(b)
		})
	}
}

func TestPutIgnoresForeignMemory(t *testing.T) {
	var p Pool
	b := make([]byte, 10, 1000)
	p.Put(&b)
	require.Equal(t, 1<<10, cap(*p.Get(10)))
}

func TestBufCounts(t *testing.T) {
	var p Pool
	b := p.New(100)
	require.Equal(t, 100, b.Len())
	b.Truncate(7)
	require.Len(t, b.Bytes(), 7)
	b.Ref()
	b.Release()
	require.Len(t, b.Bytes(), 7, "one holder is left")
	b.Release()
	require.Panics(t, b.Ref)
}

func TestReleaseTooOftenPanics(t *testing.T) {
	var p Pool
	b := p.New(1)
	b.Release()
	require.Panics(t, b.Release)
}

// TestConcurrentHolders: memory never has two owners at once.
func TestConcurrentHolders(t *testing.T) {
	var p Pool
	var wg sync.WaitGroup
	for id := range byte(8) {
		wg.Go(func() {
			for range 500 {
				b := p.New(4096)
				for i := range b.Bytes() {
					b.Bytes()[i] = id
				}
				for _, got := range b.Bytes() {
					if got != id {
						t.Errorf("holder %d sees byte of %d", id, got)
						return
					}
				}
				b.Release()
			}
		})
	}
	wg.Wait()
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	if poisoned {
		t.Skip("sync.Pool drops at random under the race detector")
	}
	var p Pool
	n := testing.AllocsPerRun(200, func() { p.New(1 << 20).Release() })
	require.Less(t, n, 1.0)
}
