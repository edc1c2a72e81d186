package fsck

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

func TestState(t *testing.T) {
	types := []wire.ObjType{wire.TypeNone, wire.TypeMetafile, wire.TypeDatafile, wire.TypeDirectory, wire.TypeSymlink, wire.TypeDirdata, wire.TypeInternal}
	for _, typ := range types {
		st := state(0).withType(wire.TypeSymlink) | reserved
		for range 5 {
			st = st.withRef(asDirdata)
		}
		st = st.withRef(asEntry).withType(typ)
		require.Equal(t, typ, st.objType())
		require.Equal(t, []int{1, 0, 2}, []int{st.refs(asEntry), st.refs(asDatafile), st.refs(asDirdata)})
		require.Equal(t, 3, st.anyRefs())
		require.NotZero(t, st&reserved)
		require.Zero(t, st&mute)
	}
}

func TestRings(t *testing.T) {
	for _, c := range []struct {
		name   string
		parent map[pvfs.Handle]pvfs.Handle // 1 is the root
		want   []pvfs.Handle
	}{
		{"tree", map[pvfs.Handle]pvfs.Handle{1: 0, 2: 1, 3: 1, 4: 3, 5: 4}, nil},
		{"orphaned subtree", map[pvfs.Handle]pvfs.Handle{1: 0, 2: 0, 3: 2, 4: 3}, nil},
		{"below itself", map[pvfs.Handle]pvfs.Handle{1: 0, 2: 2}, []pvfs.Handle{2}},
		{"ring with a tail", map[pvfs.Handle]pvfs.Handle{1: 0, 2: 4, 3: 2, 4: 3, 5: 4, 6: 5, 7: 1}, []pvfs.Handle{2}},
		{"tail before the ring", map[pvfs.Handle]pvfs.Handle{1: 0, 2: 6, 3: 2, 5: 6, 6: 5}, []pvfs.Handle{5}},
		{"two rings", map[pvfs.Handle]pvfs.Handle{1: 0, 2: 3, 3: 2, 8: 9, 9: 8}, []pvfs.Handle{2, 8}},
		{"parent that is no directory", map[pvfs.Handle]pvfs.Handle{1: 0, 2: 77}, nil},
		{"root below itself", map[pvfs.Handle]pvfs.Handle{1: 2, 2: 1}, []pvfs.Handle{1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var dirs []pvfs.Handle
			for h := range c.parent {
				dirs = append(dirs, h)
			}
			tr := newTree(dirs)
			for h, p := range c.parent {
				tr.setParent(h, p)
			}
			require.Equal(t, c.want, tr.rings())
			require.True(t, slices.IsSorted(tr.dirs))
		})
	}
}
