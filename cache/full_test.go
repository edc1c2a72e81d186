package cache

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// TestFullStore: where memory is full of what was read, readers who follow one
// stream at some distance find there what was fetched ahead for all of them,
// though they read each block in many pieces.
func TestFullStore(t *testing.T) {
	const blocks, size, pieces, chunk, ahead, ranks, skew = 4096, 512, 16, 16, 8, 4, 128
	s, err := New(Options{Bytes: blocks * size, BlockSize: size})
	require.NoError(t, err)
	defer s.Close()
	for pass := range 4 {
		f := s.File()
		defer f.Close()
		fetched := new(atomic.Int64)
		read := func(e extent.Extent) {
			v, err := f.Read(t.Context(), []extent.Extent{e}, func(_ context.Context, exts []extent.Extent, _ [][]byte) (int64, error) {
				fetched.Add(extent.Total(exts))
				return extent.Total(exts), nil
			})
			if err != nil {
				panic(err)
			}
			v.Release()
		}
		var all sync.WaitGroup
		var at [ranks]atomic.Int64
		for r := range int64(ranks) {
			all.Go(func() {
				defer at[r].Store(2 * blocks)
				for b := range int64(blocks) {
					at[r].Store(b)
					for i := range at {
						for at[i].Load() < b-skew {
							runtime.Gosched()
						}
					}
					for c := range int64(ahead) {
						e := extent.Extent{Off: (b/chunk + c) * chunk * size, Len: chunk * size}
						if !f.Known(e) && e.Off < blocks*size {
							read(e)
						}
					}
					for p := r; p < pieces; p += ranks {
						read(extent.Extent{Off: b*size + p*size/pieces, Len: size / pieces})
					}
				}
			})
		}
		all.Wait()
		t.Logf("%.3f of the file were fetched", float64(fetched.Load())/(blocks*size))
		if pass > 0 {
			require.LessOrEqual(t, fetched.Load(), int64(blocks*size*11/10))
		}
	}
}
