package striping

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

var four = Limits{Servers: 4, Default: 4}

func TestCheck(t *testing.T) {
	for _, x := range []struct {
		name string
		w    Wish
		l    Limits
		want string // part of the error; "": none
	}{
		{"nothing", Wish{}, four, ""},
		{"servers alone", Wish{Servers: 4}, four, ""},
		{"one server too many", Wish{Servers: 5}, four, "5 servers: the file system has 4"},
		{"negative servers", Wish{Servers: -1}, four, "at least one"},
		{"simple without parameters", Wish{Dist: "simple_stripe"}, four, ""},
		{"strip of one byte", Wish{Dist: "simple_stripe", Params: "strip_size:1"}, four, ""},
		{"largest strip", Wish{Dist: "simple_stripe", Params: "strip_size:1073741824"}, four, ""},
		{"strip too large to be stuffed", Wish{Dist: "simple_stripe", Params: "strip_size:1073741825"}, four, "out of range"},
		{"strip 0", Wish{Dist: "simple_stripe", Params: "strip_size:0"}, four, "out of range"},
		{"negative strip", Wish{Dist: "simple_stripe", Params: "strip_size:-5"}, four, "out of range"},
		{"suffix, which OrangeFS would drop", Wish{Dist: "simple_stripe", Params: "strip_size:64K"}, four, "out of range"},
		{"not a pair", Wish{Dist: "simple_stripe", Params: "strip_size"}, four, "not name:value"},
		{"twice", Wish{Dist: "simple_stripe", Params: "strip_size:1,strip_size:2"}, four, "twice"},
		{"parameter of another", Wish{Dist: "simple_stripe", Params: "num_groups:2"}, four, "only strip_size"},
		{"trailing comma", Wish{Dist: "simple_stripe", Params: "strip_size:1,"}, four, "not name:value"},
		{"unknown distribution", Wish{Dist: "striped"}, four, `unknown distribution "striped": there are simple_stripe`},
		{"parameters of nothing", Wish{Params: "strip_size:4096"}, four, "no distribution"},
		{"basic", Wish{Dist: "basic_dist", Servers: 1}, four, ""},
		{"basic on two", Wish{Dist: "basic_dist", Servers: 2}, four, "one server"},
		{"basic with parameters", Wish{Dist: "basic_dist", Params: "strip_size:1"}, four, "it takes none"},
		{"twod", Wish{Dist: "twod_stripe", Params: "num_groups:2,strip_size:4096,group_strip_factor:3"}, four, ""},
		{"twod of defaults", Wish{Dist: "twod_stripe"}, four, ""},
		{"twod without groups", Wish{Dist: "twod_stripe", Params: "num_groups:0"}, four, "out of range"},
		{"twod with too many groups", Wish{Dist: "twod_stripe", Params: "num_groups:1025"}, four, "out of range"},
		{"twod that never repeats", Wish{Dist: "twod_stripe", Params: "strip_size:1073741824,group_strip_factor:1073741824"}, four, "too long"},
		{"varstrip", Wish{Dist: "varstrip_dist", Params: "strips:0:4k;1:64K;0:1m"}, four, ""},
		{"varstrip without strips", Wish{Dist: "varstrip_dist"}, four, "needs its strips"},
		{"varstrip beyond the servers", Wish{Dist: "varstrip_dist", Params: "strips:0:1;1:1;2:1", Servers: 2}, four, "server 2 of 2"},
		{"varstrip beyond the default", Wish{Dist: "varstrip_dist", Params: "strips:0:1;1:1;2:1"}, Limits{Servers: 4, Default: 2}, "server 2 of 2"},
		{"varstrip with a hole", Wish{Dist: "varstrip_dist", Params: "strips:0:1;2:1"}, four, "server 1 has no strip"},
		{"varstrip that could not be stuffed", Wish{Dist: "varstrip_dist", Params: "strips:0:2g;1:1"}, four, "first strip"},
		{"parameters too long", Wish{Dist: "varstrip_dist", Params: "strips:" + strings.Repeat("0:1;", 300)}, four, "at most 1000"},
	} {
		err := x.w.Check(x.l)
		if x.want == "" {
			require.NoError(t, err, x.name)
		} else {
			require.ErrorContains(t, err, x.want, x.name)
		}
	}
}

func TestCheckXattr(t *testing.T) {
	varstrip := Wish{Dist: "varstrip_dist", Params: "strips:0:1;1:1;2:1"}
	for _, x := range []struct {
		name       string
		had        Wish
		key, value string
		want       string
	}{
		{"servers", Wish{}, KeyServers, "2", ""},
		{"servers with NUL", Wish{}, KeyServers, "2\x00", ""},
		{"servers as OrangeFS writes them", Wish{}, KeyServers, "00002\x00", ""},
		{"no servers", Wish{}, KeyServers, "0", "at least one"},
		{"more than there are", Wish{}, KeyServers, "5", "the file system has 4"},
		{"no number", Wish{}, KeyServers, "two", "not a number"},
		{"empty", Wish{}, KeyServers, "", "not a number"},
		{"sign", Wish{}, KeyServers, "+2", "not a number"},
		{"more digits than servers read", Wish{}, KeyServers, "0000000002", "not a number"},
		{"two lines", Wish{}, KeyServers, "2\n", "not a number"},
		{"fewer than the pattern names", varstrip, KeyServers, "2", "server 2 of 2"},
		{"as many as the pattern names", varstrip, KeyServers, "3", ""},
		{"distribution", Wish{}, KeyDist, "twod_stripe", ""},
		{"distribution before its parameters", Wish{}, KeyDist, "varstrip_dist", ""},
		{"unknown distribution", Wish{}, KeyDist, "simple_stripe2", "unknown"},
		{"empty distribution", Wish{}, KeyDist, "", "unknown"},
		{"NUL within", Wish{}, KeyDist, "simple_stripe\x00x", "unknown"},
		{"parameters", Wish{Dist: "simple_stripe"}, KeyParams, "strip_size:4096", ""},
		{"parameters before their distribution", Wish{}, KeyParams, "strips:0:1;1:1", ""},
		{"pattern for more servers than now", Wish{Dist: "varstrip_dist", Servers: 1}, KeyParams, "strips:0:1;1:1", ""},
		{"pattern for more servers than there are", Wish{}, KeyParams, "strips:0:1;1:1;2:1;3:1;4:1", "server 4 of 4"},
		{"groups before their distribution", Wish{}, KeyParams, "num_groups:2,strip_size:5", ""},
		{"strip 0 before its distribution", Wish{}, KeyParams, "strip_size:0", "out of range"},
		{"parameters of another", Wish{Dist: "simple_stripe"}, KeyParams, "strips:0:1", "only strip_size"},
		{"no parameters", Wish{Dist: "simple_stripe"}, KeyParams, "", "no parameters"},
		{"something else", Wish{}, "user.pvfs2.meta_hint", "\x00", ""},
	} {
		err := x.had.CheckXattr(x.key, x.value, four)
		if x.want == "" {
			require.NoError(t, err, x.name)
		} else {
			require.ErrorContains(t, err, x.want, x.name)
		}
	}
}

func TestStrip(t *testing.T) {
	w, err := Wish{Servers: 2}.WithStrip(8192)
	require.NoError(t, err)
	require.Equal(t, Wish{"simple_stripe", "strip_size:8192", 2}, w)
	require.EqualValues(t, 8192, w.Strip())
	require.Equal(t, Wish{Servers: 2}, w.WithoutStrip())
	w, err = Wish{Dist: "twod_stripe", Params: "num_groups:2,strip_size:4096"}.WithStrip(512)
	require.NoError(t, err)
	require.EqualValues(t, 512, w.Strip())
	require.Equal(t, Wish{Dist: "twod_stripe", Params: "num_groups:2"}, w.WithoutStrip())
	_, err = Wish{Dist: "basic_dist"}.WithStrip(512)
	require.ErrorContains(t, err, "no strip size")
	for _, none := range []Wish{{}, {Dist: "basic_dist"}, {Dist: "varstrip_dist", Params: "strips:0:1"}, {Params: "strip_size:x"}} {
		require.Zero(t, none.Strip(), "%+v", none)
	}
}

// TestParamsAndBack checks that what is shown is what was asked for.
func TestParamsAndBack(t *testing.T) {
	for _, d := range []wire.Dist{
		wire.NewSimpleStripe(12345), {Name: wire.BasicDist}, {Name: wire.VarstripDist, Strips: "0:4k;1:8k"},
		{Name: wire.TwodStripe, StripSize: 9, NumGroups: 3, GroupStripFactor: 4},
	} {
		got, err := Parse(d.Name, SplitParams(Params(&d)))
		require.NoError(t, err)
		require.Equal(t, d, got)
	}
}

func TestWidth(t *testing.T) {
	require.EqualValues(t, 3*65536, Width(&wire.Dist{Name: wire.SimpleStripe, StripSize: 65536}, 3))
	require.EqualValues(t, 4*100, Width(&wire.Dist{Name: wire.TwodStripe, StripSize: 100, NumGroups: 2, GroupStripFactor: 7}, 4))
	require.EqualValues(t, 24<<10, Width(&wire.Dist{Name: wire.VarstripDist, Strips: "0:8k;1:16k"}, 4))
	require.EqualValues(t, 65536, Width(&wire.Dist{Name: wire.BasicDist}, 1))
	require.Positive(t, Width(&wire.Dist{Name: wire.SimpleStripe}, 4), "never 0, as programs divide by it")
	require.Positive(t, Width(&wire.Dist{Name: wire.VarstripDist, Strips: "nonsense"}, 4))
}

func TestExtents(t *testing.T) {
	servers := make([]Server, 2)
	for _, x := range []struct {
		name string
		info Info
		want []Extent
	}{
		{"empty", Info{Dist: "simple_stripe", Params: "strip_size:10", Servers: servers}, nil},
		{"striped", Info{Size: 25, Dist: "simple_stripe", Params: "strip_size:10", Servers: servers},
			[]Extent{{0, 10, 0, 0}, {10, 10, 1, 0}, {20, 5, 0, 10}}},
		{"one server", Info{Size: 25, Dist: "simple_stripe", Params: "strip_size:10", Servers: servers[:1]}, []Extent{{0, 25, 0, 0}}},
		{"stuffed", Info{Size: 7, Stuffed: true, Dist: "simple_stripe", Params: "strip_size:10", Servers: servers[:1]}, []Extent{{0, 7, 0, 0}}},
		{"basic", Info{Size: 1 << 40, Dist: "basic_dist", Servers: servers[:1]}, []Extent{{0, 1 << 40, 0, 0}}},
		{"varstrip", Info{Size: 9, Dist: "varstrip_dist", Params: "strips:1:2;0:1;0:1", Servers: servers},
			[]Extent{{0, 2, 1, 0}, {2, 2, 0, 0}, {4, 2, 1, 2}, {6, 2, 0, 2}, {8, 1, 1, 4}}},
		{"twod, groups of one server", Info{Size: 9, Dist: "twod_stripe", Params: "num_groups:2,strip_size:2,group_strip_factor:2", Servers: servers},
			[]Extent{{0, 4, 0, 0}, {4, 4, 1, 0}, {8, 1, 0, 4}}},
	} {
		seq, err := x.info.Extents()
		require.NoError(t, err, x.name)
		require.Equal(t, x.want, slices.Collect(seq), x.name)
	}
	_, err := (&Info{Dist: "other", Servers: servers}).Extents()
	require.Error(t, err)
	_, err = (&Info{Dist: "simple_stripe", Params: "strip_size:0", Servers: servers}).Extents()
	require.Error(t, err)
	seq, err := (&Info{Size: 1 << 50, Dist: "simple_stripe", Params: "strip_size:1", Servers: servers}).Extents()
	require.NoError(t, err)
	for e := range seq { // one can stop
		require.Zero(t, e.Off)
		break
	}
}

// TestJSON keeps the names that scripts read.
func TestJSON(t *testing.T) {
	i := Info{Type: TypeFile, Size: 5, Servers: []Server{{"s0", "h:1", 7, 5}}, DataServers: 4, DefaultServers: 4}
	i.Describe(&wire.Dist{Name: wire.SimpleStripe, StripSize: 10}, 2)
	b, err := json.Marshal(i)
	require.NoError(t, err)
	require.JSONEq(t, `{"type": "file", "dist": "simple_stripe", "params": "strip_size:10", "strip_size": 10, "stripe_width": 20,
		"num_servers": 2, "size": 5, "stuffed": false, "servers": [{"alias": "s0", "addr": "h:1", "handle": "7", "bytes": 5}],
		"data_servers": 4, "default_servers": 4}`, string(b))
	b, err = json.Marshal(Info{Type: TypeDirectory, Dist: "basic_dist", StripeWidth: 1, NumServers: 1,
		Wish: &Wish{Dist: "basic_dist", Servers: 1}, DistFrom: FromDirectory, ServersFrom: FromDirectory})
	require.NoError(t, err)
	require.JSONEq(t, `{"type": "directory", "dist": "basic_dist", "stripe_width": 1, "num_servers": 1, "size": 0, "stuffed": false,
		"hints": {"dist": "basic_dist", "servers": 1}, "dist_from": "directory", "servers_from": "directory",
		"data_servers": 0, "default_servers": 0}`, string(b))
}

func TestMaxSize(t *testing.T) {
	for _, x := range []struct {
		d    wire.Dist
		want int64
	}{
		{wire.NewSimpleStripe(1), math.MaxInt64},
		{wire.Dist{Name: wire.BasicDist}, math.MaxInt64},
		{wire.Dist{Name: wire.TwodStripe, StripSize: 1, NumGroups: 2, GroupStripFactor: 3}, 1 << 32},
		{wire.Dist{Name: wire.TwodStripe, StripSize: 1 << 40, NumGroups: 2, GroupStripFactor: 3}, math.MaxInt64},
		{wire.Dist{Name: wire.VarstripDist, Strips: "0:1;1:2"}, 3 << 32},
	} {
		require.Equal(t, x.want, MaxSize(&x.d), x.d.Name)
	}
}
