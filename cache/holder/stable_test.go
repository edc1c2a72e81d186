package holder

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// TestStableOfDomains: what STABLE tells of some domains is not true of others,
// and is kept until more is known of all.
func TestStableOfDomains(t *testing.T) {
	var u unstable
	require.Equal(t, stable{}, u.of(100))
	u.learn(ionclient.Stable{Stamp: 5, Domains: []int64{100, 300}})
	u.learn(ionclient.Stable{Stamp: 4, Drop: true, Domains: []int64{300}})
	require.Equal(t, stable{5, 0}, u.of(100))
	require.Equal(t, stable{0, 0}, u.of(200))
	require.Equal(t, stable{5, 4}, u.of(300))
	u.learn(ionclient.Stable{Stamp: 3, Drop: true})
	require.Equal(t, stable{5, 3}, u.of(100))
	require.Equal(t, stable{3, 3}, u.of(200))
	require.Len(t, u.domains, 2)
	u.learn(ionclient.Stable{Stamp: 6})
	require.Equal(t, stable{6, 4}, u.of(300))
	require.Len(t, u.domains, 1, "of the other one nothing more is known")
	u.learn(ionclient.Stable{Stamp: 6, Drop: true})
	require.Equal(t, stable{6, 6}, u.of(300))
	require.Empty(t, u.domains)
}

// TestStableOfCut: of what was written before a truncation only what lies before
// the new end is kept.
func TestStableOfCut(t *testing.T) {
	at := int64(102)
	var u unstable
	u.learn(ionclient.Stable{Stamp: 5, Drop: true, Cut: &at})
	left := func(stamp int64, exts ...extent.Extent) load {
		var pieces [][]byte
		for _, e := range exts {
			pieces = append(pieces, []byte("a"), []byte("bcdefgh")[:e.Len-1])
		}
		return u.left(retained{load: load{exts, pieces}, stamp: stamp}, 0).load
	}
	require.Equal(t, load{[]extent.Extent{{Off: 100, Len: 2}}, [][]byte{{'a'}, {'b'}}}, left(5, extent.Extent{Off: 100, Len: 4}))
	require.Equal(t, load{[]extent.Extent{{Off: 90, Len: 2}, {Off: 101, Len: 1}}, [][]byte{{'a'}, {'b'}, {'a'}}},
		left(5, extent.Extent{Off: 90, Len: 2}, extent.Extent{Off: 101, Len: 4}, extent.Extent{Off: 107, Len: 4}))
	require.EqualValues(t, 4, left(6, extent.Extent{Off: 100, Len: 4}).len(), "written after it")
	require.Zero(t, left(5, extent.Extent{Off: 102, Len: 4}).len())
	require.EqualValues(t, 2, left(5, extent.Extent{Off: 100, Len: 2}).len())
	u.learn(ionclient.Stable{Stamp: 5, Drop: true})
	require.Empty(t, u.cuts)
	require.Zero(t, left(5, extent.Extent{Off: 100, Len: 2}).len())
}
