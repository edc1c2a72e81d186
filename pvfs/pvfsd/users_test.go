package pvfsd

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

func TestUsers(t *testing.T) {
	var u users
	begin := time.Unix(1000, 5000)
	require.Empty(t, u.since(time.Time{}))
	for i := range 30 {
		u.saw(uint32(i), begin.Add(time.Duration(i)*time.Second))
	}
	u.saw(7, begin.Add(time.Minute))
	got := u.since(time.Time{})
	require.Len(t, got, maxUsers)
	require.Equal(t, wire.UIDUse{UID: 7, Count: 2, FirstSec: 1007, FirstUs: 5, LastSec: 1060, LastUs: 5}, got[0])
	require.Equal(t, uint32(29), got[1].UID)
	require.Equal(t, uint32(5), got[maxUsers-1].UID, "the first five are forgotten")
	require.Len(t, u.since(begin.Add(29*time.Second)), 2)
}
