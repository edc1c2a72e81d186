package pvfsd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

func testStore(t *testing.T) *store {
	t.Helper()
	ids := &allocator{meta: []fsconf.Range{{First: 3, Last: 10}, {First: 20, Last: 21}}, data: []fsconf.Range{{First: 100, Last: 1 << 40}}, root: 5}
	s, err := openStore(t.TempDir(), identity{1, "s0"}, ids)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return s.q.run(ctx) })
	t.Cleanup(func() {
		cancel()
		require.NoError(t, g.Wait())
		require.NoError(t, s.close())
	})
	return s
}

// A change that fails halfway takes nobody with it and leaves nothing behind.
func TestSpoiledBatch(t *testing.T) {
	s := testStore(t)
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			err := s.commit(context.Background(), func(tx *txn) error {
				if err := tx.put(bucketTrash, []byte(fmt.Sprint(i)), nil); err != nil {
					return err
				}
				if i%7 == 0 {
					return syscall.EXDEV
				}
				return nil
			})
			if want := i%7 == 0; want != errors.Is(err, syscall.EXDEV) || !want && err != nil {
				t.Errorf("change %d: %v", i, err)
			}
		}()
	}
	wg.Wait()
	n := 0
	require.NoError(t, s.view(func(tx *txn) error {
		for i := range 300 {
			there := tx.get(bucketTrash, []byte(fmt.Sprint(i))) != nil
			require.Equal(t, i%7 != 0, there, i)
			n++
		}
		return nil
	}))
	require.Equal(t, 300, n)
}

// Whoever hears that a name is taken finds it.
func TestFailureIsAnsweredAfterWhatItSaw(t *testing.T) {
	s := testStore(t)
	var g errgroup.Group
	for i := range 2000 {
		g.Go(func() error {
			name := fmt.Append(nil, i/8)
			err := s.commit(context.Background(), func(tx *txn) error {
				if tx.get(bucketTrash, name) != nil {
					return syscall.EEXIST
				}
				return tx.put(bucketTrash, name, []byte{1})
			})
			if !errors.Is(err, syscall.EEXIST) {
				return err
			}
			return s.view(func(tx *txn) error {
				if tx.get(bucketTrash, name) == nil {
					return fmt.Errorf("%s exists and cannot be found", name)
				}
				return nil
			})
		})
	}
	require.NoError(t, g.Wait())
}

func TestAllocator(t *testing.T) {
	s := testStore(t)
	var got []wire.Handle
	take := func(within []wire.HandleRange) error {
		return s.commit(context.Background(), func(tx *txn) error {
			h, err := s.ids.take(tx, wire.TypeDirectory, within)
			if err == nil {
				got = append(got, h)
			}
			return err
		})
	}
	var err error
	for err == nil {
		err = take(nil)
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, []wire.Handle{3, 4, 6, 7, 8, 9, 10, 20, 21}, got, "all but the root, over the gap")
	require.ErrorIs(t, take([]wire.HandleRange{{First: 11, Last: 19}}), syscall.EINVAL)
	require.NoError(t, s.view(func(tx *txn) error {
		free, total := s.ids.left(tx)
		require.Equal(t, free, total, "as no objects were made with them")
		return nil
	}))
}

// What a change writes after it was answered with an error is not there, and
// the queue goes on.
func TestCommitAfterCancel(t *testing.T) {
	s := testStore(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.Error(t, s.commit(ctx, func(*txn) error { return nil }))
	require.NoError(t, s.commit(context.Background(), func(tx *txn) error { return tx.put(bucketTrash, []byte("x"), nil) }))
	require.NoError(t, s.syncAll(context.Background()))
}

func TestSequenceNumbersAreNoTokens(t *testing.T) {
	require.EqualValues(t, wire.TokenStart+1, nextSeq(wire.TokenEnd-1))
	require.EqualValues(t, wire.TokenStart+2, nextSeq(wire.TokenStart+1))
	require.EqualValues(t, 1, nextSeq(0))
}

func objects() []*object {
	return []*object{
		{typ: wire.TypeDatafile},
		{typ: wire.TypeMetafile, uid: 1, gid: 2, perms: 0o7644, atime: 1, mtime: -2, ctime: 3, stuffed: true, flags: 0x10,
			dist: wire.Dist{Name: wire.VarstripDist, Strips: "0:4k;1:8k"}, dfiles: []wire.Handle{1 << 63, 7}, want: 2,
			layout: wire.Layout{Type: wire.LayoutList, Servers: []string{"tcp://a:1", "tcp://b:2"}}},
		{typ: wire.TypeMetafile, dfiles: []wire.Handle{}},
		{typ: wire.TypeDirectory, perms: 0o755, other: 9},
		{typ: wire.TypeDirdata, other: 8, entries: 1 << 40, lastSeq: 1 << 47},
		{typ: wire.TypeSymlink, target: "../x"},
	}
}

func TestObjectRecords(t *testing.T) {
	for _, o := range objects() {
		b := o.encode()
		got, ok := decodeObject(b)
		require.True(t, ok)
		require.Equal(t, o, got)
		for n := range b {
			_, ok := decodeObject(b[:n])
			require.False(t, ok, "cut after %d bytes", n)
		}
		_, ok = decodeObject(append(b, 0))
		require.False(t, ok)
	}
}

func FuzzObject(f *testing.F) {
	for _, o := range objects() {
		f.Add(o.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, ok := decodeObject(b); ok {
			again, ok := decodeObject(o.encode())
			require.True(t, ok)
			require.Equal(t, o, again)
		}
	})
}

// A connection always gets one buffer, whatever the others hold.
func TestQuota(t *testing.T) {
	budget := make(chan struct{}, 2)
	a, b := newQuota(budget), newQuota(budget)
	for range 3 {
		require.True(t, a.tryAcquire())
	}
	require.False(t, a.tryAcquire(), "the budget is spent")
	require.True(t, b.tryAcquire(), "the first is free")
	require.False(t, b.tryAcquire())
	a.release()
	require.True(t, b.tryAcquire())
	for range 2 {
		a.release()
		b.release()
	}
	require.Empty(t, budget)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range maxHeld {
		budget <- struct{}{}
		if len(budget) == cap(budget) {
			break
		}
	}
	require.NoError(t, a.acquire(ctx))
	require.ErrorIs(t, a.acquire(ctx), context.Canceled)
}

// A store that was written before objects were counted is counted when opened.
func TestObjectsAreCounted(t *testing.T) {
	dir := t.TempDir()
	ids := &allocator{meta: []fsconf.Range{{First: 3, Last: 100}}}
	open := func() *store {
		s, err := openStore(dir, identity{1, "s0"}, ids)
		require.NoError(t, err)
		return s
	}
	s := open()
	require.NoError(t, s.update(func(tx *txn) error {
		for h := range wire.Handle(7) {
			if err := tx.putObject(h+3, &object{typ: wire.TypeSymlink}); err != nil {
				return err
			}
		}
		return tx.del(bucketIdentity, keyObjects)
	}))
	require.NoError(t, s.close())
	s = open()
	defer s.close()
	require.NoError(t, s.view(func(tx *txn) error {
		require.EqualValues(t, 7, tx.objects())
		return nil
	}))
}
