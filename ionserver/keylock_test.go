package ionserver

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestKeyLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l keyLock[string]
		r1, ok := l.TryLock("a", false)
		require.True(t, ok)
		r2, ok := l.TryLock("a", false)
		require.True(t, ok, "shared")
		_, ok = l.TryLock("a", true)
		require.False(t, ok)
		other, ok := l.TryLock("b", true)
		require.True(t, ok, "keys are apart")
		other()

		var order []string
		take := func(name string, exclusive bool) {
			go func() {
				release, err := l.Lock(t.Context(), "a", exclusive)
				require.NoError(t, err)
				order = append(order, name)
				release()
			}()
			synctest.Wait()
		}
		take("writer", true)
		take("reader", false) // waits behind the writer
		require.Empty(t, order)
		r1()
		synctest.Wait()
		require.Empty(t, order)
		r2()
		synctest.Wait()
		require.Equal(t, []string{"writer", "reader"}, order)
		require.Empty(t, l.queues)
	})
}

func TestKeyLockCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l keyLock[int]
		release, _ := l.TryLock(1, false)
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, err := l.Lock(ctx, 1, true)
			failed <- err
		}()
		synctest.Wait()
		granted := make(chan struct{})
		go func() {
			r, err := l.Lock(t.Context(), 1, false)
			require.NoError(t, err)
			close(granted)
			r()
		}()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-failed, context.Canceled)
		<-granted // who waited only for the one that gave up goes on
		release()
		synctest.Wait()
		require.Empty(t, l.queues)
	})
}
