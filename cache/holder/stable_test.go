package holder

import (
	"testing"

	"github.com/stretchr/testify/require"

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
