package cache

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// residentBytes is what the process has in memory.
func residentBytes(t *testing.T) int64 {
	t.Helper()
	stat, err := os.ReadFile("/proc/self/statm")
	require.NoError(t, err)
	var size, resident int64
	_, err = fmt.Sscan(string(stat), &size, &resident)
	require.NoError(t, err)
	return resident * int64(os.Getpagesize())
}

// TestMemoryIsWhatWasConfigured: eight times as much as the cache holds passes
// through it, read and written, and the process never has more than 1.25 times
// the configured size.
func TestMemoryIsWhatWasConfigured(t *testing.T) {
	if poisoned {
		t.Skip("the race detector has the slab on the heap")
	}
	const size, step = 128 << 20, 1 << 20
	debug.FreeOSMemory()
	before := residentBytes(t)
	s, err := New(Options{Bytes: size})
	require.NoError(t, err)
	defer s.Close()
	f := s.File()
	defer f.Close()
	fetch := func(_ context.Context, exts []extent.Extent, bufs [][]byte) (int64, error) {
		for _, b := range bufs {
			for i := range b {
				b[i] = 1
			}
		}
		return extent.Total(exts), nil
	}
	p := [][]byte{bytes.Repeat([]byte{2}, step)}
	most := int64(0)
	for off := int64(0); off < 8*size; off += 2 * step {
		v, err := f.Read(t.Context(), []extent.Extent{{Off: off, Len: step}}, fetch)
		require.NoError(t, err)
		v.Release()
		if !f.TryWrite(off+step, p) {
			writtenOut(f)
			require.NoError(t, f.Write(t.Context(), off+step, p))
		}
		most = max(most, residentBytes(t)-before)
	}
	t.Logf("%.2f of the configured size, %+v", float64(most)/size, s.Snapshot())
	require.LessOrEqual(t, float64(most), 1.25*size)
	require.GreaterOrEqual(t, float64(most), 0.8*size, "the cache was not filled: this test proves nothing")
}
