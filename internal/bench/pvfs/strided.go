package main

import (
	"context"
	"time"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// strided writes pieces of 4 KiB that lie evenly apart, in one call or in one
// call each. The file has all its datafiles before, which the C client needs:
// it looks at the length of the memory to see whether a file outgrows its first.
func strided(ctx context.Context, c *config, s *site, v string) (float64, time.Duration, error) {
	calls := max(1, c.ops/pieces)
	mib := float64(calls*pieces*smallSize) / (1 << 20)
	if v == clib {
		took, err := c.clibFile(ctx, s, unstuffed, "strided", int64(calls), pieces, smallSize, stride)
		return mib, took, err
	}
	f, end, err := s.newFile(ctx)
	if err != nil {
		return 0, 0, err
	}
	if _, err := f.WriteAt(ctx, [][]byte{make([]byte, unstuffed)}, 0); err != nil {
		return 0, 0, err
	}
	buf := make([]byte, pieces*smallSize)
	start := time.Now()
	for i := range calls {
		exts := stridedExtents(i)
		if v == ours {
			_, err = f.WriteExtents(ctx, exts, [][]byte{buf})
		}
		for k := 0; v == apart && k < pieces && err == nil; k++ {
			_, err = f.WriteAt(ctx, [][]byte{buf[k*smallSize:][:smallSize]}, exts[k].Off)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	took := time.Since(start)
	return mib, took, end()
}

// stridedExtents is what the i-th strided write writes.
func stridedExtents(i int) []extent.Extent {
	exts := make([]extent.Extent, pieces)
	for k := range exts {
		exts[k] = extent.Extent{Off: int64(i*pieces+k) * stride, Len: smallSize}
	}
	return exts
}
