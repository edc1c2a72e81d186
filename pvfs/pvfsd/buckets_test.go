package pvfsd

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

func someHandles(n int) []wire.Handle {
	hs := make([]wire.Handle, n)
	for i := range hs {
		hs[i] = wire.Handle(1000 + i)
	}
	return hs
}

// The vectors are those of PROTOCOL.md §9.1.
func TestHashOf(t *testing.T) {
	for name, want := range map[string]uint64{
		"f00004": 0x425ac272fcbbf70e, "lost+found": 0x3d237504b4cc7d57, "a": 0x61267769e299c331,
	} {
		require.Equal(t, want, hashOf(name), name)
	}
}

func TestBucketTree(t *testing.T) {
	b := newBuckets(someHandles(6), 1, 8)
	require.Equal(t, 3, b.height())
	// Who splits into whom, each as long as it can.
	var got [][2]int
	for i := 0; i < 6; i++ {
		for {
			child, ok := b.at(i).child()
			if !ok {
				break
			}
			got = append(got, [2]int{i, child})
			b.activate(child)
		}
	}
	require.Equal(t, [][2]int{{0, 1}, {0, 2}, {0, 4}, {1, 3}, {1, 5}}, got, "6 and 7 do not exist")
	_, ok := newBuckets(someHandles(4), 1, 8).at(1).child()
	require.False(t, ok, "an inactive bucket does not split")
	require.Len(t, newBuckets(someHandles(65), 1, 8).active, 4, "room for the leaves of the whole tree")
}

// A name is in exactly one bucket, and a split moves names of the bucket that
// splits, to its child, and no others.
func TestSplitMovesNames(t *testing.T) {
	for _, n := range []int{2, 3, 4, 7, 40} {
		b := newBuckets(someHandles(n), 1, 8)
		for step := 0; step < n-1; step++ {
			for i := range n {
				own := b.at(i)
				child, ok := own.child()
				if !ok {
					continue
				}
				after := b.clone()
				after.activate(child)
				sp := &split{splitCopying, child}
				for k := range 300 {
					name := fmt.Sprint(k)
					was, is := b.find(name), after.find(name)
					require.True(t, was == is || was == i && is == child)
					if was == i {
						require.Equal(t, is == child, sp.moves(own, name))
					}
				}
				b = after
				break
			}
		}
		for i := range n {
			require.True(t, b.isActive(i), "%d of %d", i, n)
		}
	}
}

func TestBucketRecords(t *testing.T) {
	b := newBuckets(someHandles(40), 3, 100)
	b.activate(38)
	for _, o := range []*object{
		{typ: wire.TypeDirectory, uid: 1, perms: 0o700, other: 1000, buckets: b},
		{typ: wire.TypeDirdata, other: 7, entries: 9, lastSeq: 10, buckets: b.at(38)},
		{typ: wire.TypeDirdata, other: 7, entries: 9, lastSeq: 10},
	} {
		rec := o.encode()
		got, ok := decodeObject(rec)
		require.True(t, ok)
		require.Equal(t, o, got)
		for n := range rec {
			_, ok := decodeObject(rec[:n])
			require.False(t, ok, "cut at %d", n)
		}
	}
	w := b.at(38).wire()
	require.Equal(t, []int32{6, 100, 38, 6}, []int32{w.TreeHeight, w.SplitSize, w.ServerNo, w.BranchLevel})
	require.Equal(t, []uint32{7, 1 << 6}, w.Bitmap)
	require.Equal(t, int32(-1), b.wire().BranchLevel)
}
