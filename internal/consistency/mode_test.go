package consistency

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	for _, m := range All() {
		got, err := Parse(m.String())
		require.NoError(t, err)
		require.Equal(t, m, got)
	}
	for _, s := range []string{"", "default", "Strong", "strong ", "strong\x00", "weak", "Mode(1)"} {
		_, err := Parse(s)
		require.ErrorContains(t, err, "there are strong, commit, session, eventual, laminated", s)
	}
}

func TestModes(t *testing.T) {
	require.Len(t, All(), len(names)-1)
	require.Equal(t, "default", Default.String())
	require.Equal(t, "Mode(6)", Mode(len(names)).String())
	require.False(t, Mode(len(names)).Valid())
	require.True(t, Laminated.Valid())
	require.Equal(t, Commit, Default.Or(Commit))
	require.Equal(t, Session, Session.Or(Commit))
}
