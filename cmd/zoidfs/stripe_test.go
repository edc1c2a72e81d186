package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/striping"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

func TestStripeErrorsAreOneClearLine(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	for _, x := range [][2]string{
		{"stripe frob", `zoidfs stripe: "frob" is neither get nor set`},
		{"stripe get", `zoidfs stripe get: which PATH?`},
		{"stripe get " + dir + "/none", `zoidfs stripe get: stat ` + dir + `/none: no such file or directory`},
		{"stripe get " + file, `zoidfs stripe get: ` + file + ` is no file or directory of a zoidfs mount`},
		{"stripe get -R " + dir, `zoidfs stripe get: ` + dir + ` is no file or directory of a zoidfs mount`},
		{"stripe set " + dir, `zoidfs stripe set: nothing to set: give --strip-size, --servers, --dist, --params or --clear`},
		{"stripe set --clear", `zoidfs stripe set: which PATH?`},
		{"stripe set --clear --servers 1 " + dir, `zoidfs stripe set: --clear excludes --strip-size, --servers, --dist and --params`},
		{"stripe set --strip-size 0 " + dir, `zoidfs stripe set: --strip-size "0" is not between 1 and 1G bytes`},
		{"stripe set --strip-size -1 " + dir, `zoidfs stripe set: --strip-size "-1" is not between 1 and 1G bytes`},
		{"stripe set --size 1025M " + dir, `zoidfs stripe set: --strip-size "1025M" is not between 1 and 1G bytes`},
		{"stripe set --size 99999999999G " + dir, `zoidfs stripe set: --strip-size "99999999999G" is not between 1 and 1G bytes`},
		{"stripe set --size K " + dir, `zoidfs stripe set: --strip-size "K" is not between 1 and 1G bytes`},
		{"stripe set --size 1Ki " + dir, `zoidfs stripe set: --strip-size "1Ki" is not between 1 and 1G bytes`},
		{"stripe set --servers 0 " + dir, `zoidfs stripe set: --servers "0" is neither a number of servers nor all`},
		{"stripe set --servers most " + dir, `zoidfs stripe set: --servers "most" is neither a number of servers nor all`},
		{"stripe set --dist raid " + dir, `zoidfs stripe set: --dist "raid": there are simple_stripe, basic_dist, twod_stripe, varstrip_dist`},
		{"stripe set --servers 2 " + dir, `zoidfs stripe set: ` + dir + ` is no file or directory of a zoidfs mount`},
	} {
		r := shell{}.zoidfs(t, strings.Fields(x[0])...)
		require.Equal(t, 1, r.code, x[0])
		require.Equal(t, x[1]+"\n", r.errOut, x[0])
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"1": 1, "512": 512, "64k": 65536, "64K": 65536, "64KiB": 65536, "3M": 3 << 20, "1G": 1 << 30, "2T": 2 << 40, "7b": 7,
	} {
		got, err := parseSize(s)
		require.NoError(t, err, s)
		require.Equal(t, want, got, s)
	}
	for _, s := range []string{"", "0", "-1", "+1", "K", "1.5M", "1MM", "0x10", " 1", "9223372036854775807K", "1 K"} {
		_, err := parseSize(s)
		require.Error(t, err, s)
	}
	require.Equal(t, "64K", sizeText(65536))
	require.Equal(t, "65537", sizeText(65537))
	require.Equal(t, "0", sizeText(0))
	require.Equal(t, "3072T", sizeText(3072<<40))
}

// TestStripeWish checks that what is not given stays.
func TestStripeWish(t *testing.T) {
	for _, x := range []struct {
		name  string
		had   striping.Wish
		flags setFlags
		want  striping.Wish
		err   string
	}{
		{name: "strip size alone", flags: setFlags{size: "1M"}, want: striping.Wish{Dist: "simple_stripe", Params: "strip_size:1048576"}},
		{name: "servers alone", flags: setFlags{servers: "2"}, want: striping.Wish{Servers: 2}},
		{name: "all servers", flags: setFlags{servers: "all"}, want: striping.Wish{Servers: 4}},
		{name: "strip size of what there is", had: striping.Wish{Dist: "twod_stripe", Params: "num_groups:2,strip_size:5", Servers: 3}, flags: setFlags{size: "7"},
			want: striping.Wish{Dist: "twod_stripe", Params: "strip_size:7,num_groups:2", Servers: 3}},
		{name: "another distribution", had: striping.Wish{Dist: "twod_stripe", Params: "num_groups:2", Servers: 3}, flags: setFlags{dist: "simple_stripe"},
			want: striping.Wish{Dist: "simple_stripe", Servers: 3}},
		{name: "the same distribution", had: striping.Wish{Dist: "simple_stripe", Params: "strip_size:5"}, flags: setFlags{dist: "simple_stripe", servers: "1"},
			want: striping.Wish{Dist: "simple_stripe", Params: "strip_size:5", Servers: 1}},
		{name: "to one server", had: striping.Wish{Servers: 3}, flags: setFlags{dist: "basic_dist"}, want: striping.Wish{Dist: "basic_dist"}},
		{name: "pattern", flags: setFlags{params: "strips:0:1K;1:2K"}, want: striping.Wish{Dist: "varstrip_dist", Params: "strips:0:1K;1:2K"}},
		{name: "groups and size", flags: setFlags{params: "num_groups:2", size: "4K"}, want: striping.Wish{Dist: "twod_stripe", Params: "strip_size:4096,num_groups:2"}},
		{name: "size twice", flags: setFlags{params: "strip_size:5", size: "4K"}, err: "given twice"},
		{name: "no strip size", flags: setFlags{dist: "basic_dist", size: "4K"}, err: "has no strip size"},
		{name: "too many servers", flags: setFlags{servers: "5"}, err: "5 servers: the file system has 4"},
		{name: "pattern beyond the servers kept", had: striping.Wish{Servers: 1}, flags: setFlags{params: "strips:0:1;1:1"}, err: "server 1 of 1"},
		{name: "what others have set badly", had: striping.Wish{Dist: "other", Params: "x"}, flags: setFlags{dist: "simple_stripe"}, want: striping.Wish{Dist: "simple_stripe"}},
	} {
		require.NoError(t, x.flags.check(), x.name)
		got, err := x.flags.wish(striping.Info{Type: striping.TypeDirectory, Wish: &x.had, DataServers: 4, DefaultServers: 4})
		if x.err != "" {
			require.ErrorContains(t, err, x.err, x.name)
			continue
		}
		require.NoError(t, err, x.name)
		require.Equal(t, x.want, got, x.name)
	}
}

func TestStripeOutput(t *testing.T) {
	info := striping.Info{Type: striping.TypeFile, Size: 1000, Servers: []striping.Server{{Alias: "s2", Addr: "a:1", Bytes: 500}, {Alias: "s0", Addr: "b:2", Bytes: 500}}}
	info.Describe(&wire.Dist{Name: wire.SimpleStripe, StripSize: 10}, 2)
	all, err := info.Extents()
	require.NoError(t, err)
	text := func(limit int64) []string {
		var b strings.Builder
		require.NoError(t, stripeOfFile(t.Context(), &b, "/zfs/f", &info, all, limit))
		return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	}
	const head = 7
	require.Len(t, text(0), head)
	require.Len(t, text(-1), head+1+100)
	short := text(shortMap)
	require.Equal(t, "/zfs/f: file of 1000 bytes", short[0])
	require.Equal(t, []string{"server", "0", "s2", "a:1", "500", "bytes"}, strings.Fields(short[5]))
	require.Equal(t, []string{"10", "10", "1", "s0", "0"}, strings.Fields(short[head+2]))
	require.Equal(t, "  ...", short[len(short)-1])
	require.Len(t, short, head+1+shortMap+1)

	for limit, want := range map[int64]int{0: 0, -1: 100} {
		var b strings.Builder
		require.NoError(t, stripeJSON(t.Context(), &b, "/zfs/f", &info, all, limit))
		var got struct {
			Path    string            `json:"path"`
			Servers []striping.Server `json:"servers"`
			Map     []striping.Extent `json:"map"`
		}
		require.NoError(t, json.Unmarshal([]byte(b.String()), &got))
		require.Equal(t, "/zfs/f", got.Path)
		require.Equal(t, info.Servers, got.Servers)
		require.Len(t, got.Map, want)
		if want > 0 {
			require.Equal(t, striping.Extent{Off: 990, Len: 10, Server: 1, Phys: 490}, got.Map[99])
		}
		require.Equal(t, 1, strings.Count(b.String(), "\n"), "one line a path")
	}

	var b strings.Builder
	dir := striping.Info{Type: striping.TypeDirectory, Dist: "varstrip_dist", Wish: &striping.Wish{Dist: "varstrip_dist"},
		DistFrom: striping.FromDirectory, ServersFrom: striping.FromFileSystem, Problem: "no strips"}
	require.NoError(t, stripeOfDir(&b, "/zfs/d", &dir))
	require.Contains(t, b.String(), "no file can be made: no strips")
}
