package cache

import (
	"context"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/maypok86/otter/v2"
	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// TestHitRatio compares with a good cache that is not bound by the slab, on the
// same reads one after the other.
func TestHitRatio(t *testing.T) {
	if poisoned {
		t.Skip("the figures are of the product, not of the race detector")
	}
	const blocks, reads, warm = 4096, 400000, 100000
	zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 1)), 1.1, 1, 1<<16)
	for _, c := range []struct {
		name  string
		ratio float64 // of otter's
		next  func(r *rand.Rand, i int) (file, block int64)
	}{
		{"zipf over 64 files", 0.95, func(*rand.Rand, int) (int64, int64) { x := int64(zipf.Uint64()); return x % 64, x / 64 }},
		{"half of the reads in 4 of 64 files", 0.80, func(r *rand.Rand, i int) (int64, int64) {
			if i%2 == 0 {
				return r.Int64N(4), r.Int64N(900)
			}
			return 4 + r.Int64N(60), r.Int64N(1024)
		}},
		{"hot set and a scan", 0.80, func(r *rand.Rand, i int) (int64, int64) {
			if i%2 == 0 {
				x := r.Int64N(2048)
				return x % 8, x / 8
			}
			return 63, int64(i)
		}},
		{"16 readers follow one stream", 0.95, func(_ *rand.Rand, i int) (int64, int64) { return 0, int64(i / 16) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := New(Options{Bytes: blocks * 512, BlockSize: 512})
			require.NoError(t, err)
			defer s.Close()
			var files [64]*File
			for i := range files {
				files[i] = s.File()
				defer files[i].Close()
			}
			other := otter.Must(&otter.Options[int64, struct{}]{MaximumSize: blocks})
			r := rand.New(rand.NewPCG(7, 7))
			missed := false
			fetch := func(_ context.Context, exts []extent.Extent, _ [][]byte) (int64, error) {
				missed = true
				return extent.Total(exts), nil
			}
			var ours, theirs float64
			for i := range reads {
				file, block := c.next(r, i)
				missed = false
				v, err := files[file].Read(t.Context(), []extent.Extent{{Off: block * 512, Len: 512}}, fetch)
				require.NoError(t, err)
				v.Release()
				_, found := other.GetIfPresent(file<<32 | block)
				if !found {
					other.Set(file<<32|block, struct{}{})
				}
				if i >= warm && !missed {
					ours++
				}
				if i >= warm && found {
					theirs++
				}
				if i%64 == 0 {
					runtime.Gosched()
				}
			}
			t.Logf("hits %.1f %%, otter %.1f %%, ratio %.3f, %+v", ours/(reads-warm)*100, theirs/(reads-warm)*100, ours/theirs, s.Snapshot())
			require.GreaterOrEqual(t, ours/theirs, c.ratio)
		})
	}
}
