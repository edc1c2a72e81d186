package ionpb

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

func TestModesOverTheWire(t *testing.T) {
	for m, want := range map[consistency.Mode]Consistency{
		consistency.Default: Consistency_DEFAULT, consistency.Strong: Consistency_STRONG, consistency.Commit: Consistency_COMMIT_MODE,
		consistency.Session: Consistency_SESSION, consistency.Eventual: Consistency_EVENTUAL, consistency.Laminated: Consistency_LAMINATED,
	} {
		require.Equal(t, want, ConsistencyOf(m), m)
		require.Equal(t, m, want.Mode(), m)
	}
	require.Len(t, Consistency_name, len(consistency.All())+1)
	require.Equal(t, consistency.Strong, Consistency(99).Mode())
	require.Equal(t, consistency.Strong, Consistency(-1).Mode())
}
