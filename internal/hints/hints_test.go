package hints

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

func values(hints []Hint) map[string]string {
	out := map[string]string{}
	for _, h := range hints {
		out[h.Name] = h.Value
	}
	return out
}

func TestOf(t *testing.T) {
	f := File{StripSize: 64 << 10, StripeWidth: 3 * 64 << 10, Servers: 3, Mode: consistency.Strong}
	v := values(Of(f))
	require.Equal(t, "3", v["cb_nodes"])
	require.Equal(t, "16908288", v["cb_buffer_size"], "86 stripes of 192 KiB")
	require.Equal(t, "65536", v["striping_unit"])
	require.Equal(t, "3", v["striping_factor"])
	require.Equal(t, "disable", v["romio_synchronized_flush"])
	f.Set, f.Mode = map[string]int64{"cb_nodes": 8, "cb_buffer_size": 1 << 20}, consistency.Commit
	v = values(Of(f))
	require.Equal(t, []string{"8", "1048576", "enable"}, []string{v["cb_nodes"], v["cb_buffer_size"], v["romio_synchronized_flush"]})
	_, ok := values(Of(File{}))["striping_unit"]
	require.False(t, ok, "strips of several sizes")
}

func TestParse(t *testing.T) {
	n, err := Parse("cb_nodes", "4")
	require.NoError(t, err)
	require.EqualValues(t, 4, n)
	for _, c := range [][2]string{{"cb_nodes", "0"}, {"cb_nodes", "x"}, {"cb_nodes", "4 "}, {"cb_buffer_size", "-1"}, {"cb_buffer_size", "99999999999"}, {"striping_factor", "0"}, {"romio_ds_write", "1"}} {
		_, err := Parse(c[0], c[1])
		require.ErrorContains(t, err, c[0])
	}
	hint, ok := OfXattr("user.zoidfs.cb_nodes")
	require.True(t, ok)
	require.Equal(t, "cb_nodes", hint)
	_, ok = OfXattr("user.zoidfs.stats")
	require.False(t, ok)
	for _, hint := range Names() {
		got, ok := OfXattr(Xattr(hint))
		require.True(t, ok, hint)
		require.Equal(t, hint, got)
		require.Equal(t, hint[:3] == "str", Stripes(hint), hint)
	}
}

func TestWrite(t *testing.T) {
	var b strings.Builder
	require.NoError(t, Write(&b, "a\nb", []Hint{{"cb_nodes", "2", "because"}}))
	require.Equal(t, "# MPI-IO hints for a?b; use: export ROMIO_HINTS=/path/of/this/file\n# because\ncb_nodes 2\n", b.String())
}
