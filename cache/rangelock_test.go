package cache

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

func mustLock(t *testing.T, l *RangeLock, e extent.Extent, excl bool) func() {
	t.Helper()
	hold, err := l.Lock(context.Background(), e, excl)
	require.NoError(t, err)
	return hold.Release
}

func TestRangeLockSharesAndExcludes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l RangeLock
		r1 := mustLock(t, &l, extent.Extent{Off: 0, Len: 10}, false)
		r2 := mustLock(t, &l, extent.Extent{Off: 5, Len: 10}, false) // readers overlap
		w2 := mustLock(t, &l, extent.Extent{Off: 15, Len: 5}, true)  // touches, does not overlap
		var got atomic.Bool
		go func() {
			defer mustLock(t, &l, extent.Extent{Off: 9, Len: 2}, true)()
			got.Store(true)
		}()
		synctest.Wait()
		require.False(t, got.Load(), "a writer ran beside two readers")
		r1()
		synctest.Wait()
		require.False(t, got.Load())
		r2()
		synctest.Wait()
		require.True(t, got.Load())
		w2()
		require.True(t, l.Idle())
	})
}

// TestRangeLockWriterDoesNotStarve: a reader that comes after a waiting writer
// waits behind it.
func TestRangeLockWriterDoesNotStarve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l RangeLock
		e := extent.Extent{Off: 0, Len: 1}
		r := mustLock(t, &l, e, false)
		var mu sync.Mutex
		var order []string
		enter := func(name string, excl bool) {
			defer mustLock(t, &l, e, excl)()
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
			time.Sleep(time.Second)
		}
		go enter("writer", true)
		synctest.Wait()
		go enter("reader", false)
		synctest.Wait()
		r()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"writer", "reader"}, order)
	})
}

func TestRangeLockCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l RangeLock
		e := extent.Extent{Off: 0, Len: 1}
		r := mustLock(t, &l, e, false)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := l.Lock(ctx, e, true)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		mustLock(t, &l, e, false)() // the writer that gave up blocks nobody
		r()
		require.True(t, l.Idle())
	})
}

// TestRangeLockRandom runs many accesses and checks, byte by byte, that no
// exclusive holder ever shares a byte.
func TestRangeLockRandom(t *testing.T) {
	var l RangeLock
	var holders [64]atomic.Int64 // readers count 1, a writer 1<<32
	var wg sync.WaitGroup
	for w := range uint64(8) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(w, 3))
			for range 2000 {
				e := extent.Extent{Off: r.Int64N(60), Len: r.Int64N(4)}
				excl := r.IntN(3) == 0
				n := int64(1)
				if excl {
					n = 1 << 32
				}
				hold, err := l.Lock(context.Background(), e, excl)
				if err != nil {
					t.Error(err)
					return
				}
				for i := e.Off; i < e.End(); i++ {
					v := holders[i].Add(n)
					if (excl && v != n) || (!excl && v >= 1<<32) {
						t.Errorf("byte %d held by %#x", i, v)
					}
				}
				for i := e.Off; i < e.End(); i++ {
					holders[i].Add(-n)
				}
				hold.Release()
			}
		})
	}
	wg.Wait()
	require.True(t, l.Idle())
}
