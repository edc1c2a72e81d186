package fsconf

import (
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// captured is the text of a file system that pvfs2-genconfig made.
func captured(t testing.TB) string {
	b, err := os.ReadFile("testdata/orangefs-4servers.conf")
	require.NoError(t, err)
	return string(b)
}

func TestParseOfOrangeFSText(t *testing.T) {
	c, err := Parse(captured(t))
	require.NoError(t, err)
	require.Empty(t, c.Warnings)
	require.Len(t, c.Aliases, 4)
	require.Equal(t, 30, c.Defaults.ServerJobFlowTimeout)
	require.Equal(t, []int{0, 1024, 1024, 1024, 32, 1024, 0}, c.Defaults.PrecreateBatchSize)
	require.True(t, c.Defaults.TurnOffTimeouts)
	f, ok := c.FileSystem("pvfs2a")
	require.True(t, ok)
	require.Equal(t, int32(305419896), f.ID)
	require.Equal(t, uint64(1048576), f.RootHandle)
	require.True(t, f.FileStuffing)
	require.Equal(t, 262144, f.FlowBufferSize, "the default")
	require.True(t, f.Hints.SyncMeta)
	require.False(t, f.Hints.SyncData)
	require.Equal(t, []string{"s0", "s1", "s2", "s3"}, f.Aliases())
	addr, ok := c.Addr("s2")
	require.True(t, ok)
	require.Equal(t, "127.0.0.1:3336", addr)
	require.Equal(t, "tcp://127.0.0.1:3336", c.URL("s2"))
	s, ok := c.Server("s1")
	require.True(t, ok)
	require.Equal(t, "/srv/ofs/fs1/s1/data", s.DataStorageSpace)
	_, ok = c.FileSystem("other")
	require.False(t, ok)
}

func TestOwner(t *testing.T) {
	c, err := Parse(captured(t))
	require.NoError(t, err)
	f := &c.FileSystems[0]
	for _, x := range []struct {
		h    uint64
		want string
	}{
		{0, ""}, {2, ""}, {3, "s0"}, {1048576, "s0"}, {1152921504606846975, "s0"}, {1152921504606846976, "s1"},
		{4611686018427387903, "s3"}, {4611686018427387904, "s0"}, {math.MaxInt64, "s3"}, {math.MaxInt64 + 1, ""}, {math.MaxUint64, ""},
	} {
		got, ok := f.Owner(x.h)
		require.Equal(t, x.want, got, "handle %d", x.h)
		require.Equal(t, x.want != "", ok)
	}
}

func TestGenerateMatchesGenconfig(t *testing.T) {
	want := captured(t)
	var specs []ServerSpec
	for i, port := range []string{"3334", "3335", "3336", "3337"} {
		a := "s" + string(rune('0'+i))
		specs = append(specs, ServerSpec{Alias: a, Addr: "127.0.0.1:" + port, Dir: "/srv/ofs/fs1/" + a})
	}
	got, err := Generate(GenOptions{FSName: "pvfs2a", FSID: 305419896, Servers: specs, SyncMeta: true})
	require.NoError(t, err)
	_, from, _ := strings.Cut(got, "<Aliases>")
	_, wantFrom, _ := strings.Cut(want, "<Aliases>")
	from, _, _ = strings.Cut(from, "<ServerOptions>")
	wantFrom, _, _ = strings.Cut(wantFrom, "<ServerOptions>")
	require.Equal(t, wantFrom, from, "aliases, handle ranges and hints are those of pvfs2-genconfig")
	c, err := Parse(got)
	require.NoError(t, err)
	require.Empty(t, c.Warnings)
}

func TestGenerateHonoursOptions(t *testing.T) {
	text, err := Generate(GenOptions{
		FSName: "zfs", FSID: -5, Servers: []ServerSpec{{"a", "h:1", "/x y"}, {"b", "tcp://[::1]:2", "/z"}, {"c", "h:3", "/q"}},
		NoStuffing: true, FlowBufferSize: 65536, DefaultNumDFiles: 2, StripSize: 4096,
		DistrDirServersInitial: 2, DistrDirServersMax: 3, DistrDirSplitSize: 7, SyncData: true,
	})
	require.NoError(t, err)
	c, err := Parse(text)
	require.NoError(t, err)
	f := &c.FileSystems[0]
	require.Equal(t, int32(-5), f.ID)
	require.False(t, f.FileStuffing)
	require.Equal(t, 65536, f.FlowBufferSize)
	require.Equal(t, 2, f.DefaultNumDFiles)
	require.Equal(t, []int{2, 3, 7}, []int{f.DistrDirServersInitial, f.DistrDirServersMax, f.DistrDirSplitSize})
	require.True(t, f.Hints.SyncData)
	require.False(t, f.Hints.SyncMeta)
	v, ok := f.Dist.Param("STRIP_size")
	require.True(t, ok)
	require.Equal(t, "4096", v)
	s, _ := c.Server("a")
	require.Equal(t, "/x y/data", s.DataStorageSpace)
	for h := uint64(3); h < 1<<63; h += 1 << 55 {
		_, ok := f.Owner(h)
		require.True(t, ok, "every handle has an owner: %d", h)
	}
	for _, bad := range []GenOptions{
		{}, {FSName: "a b", FSID: 1}, {FSName: "a", FSID: 1},
		{FSName: "a", FSID: 1, Servers: []ServerSpec{{"s", "h:1", "relative"}}},
		{FSName: "a", FSID: 1, Servers: []ServerSpec{{"s", "h:1", "/a"}, {"s", "h:2", "/b"}}},
		{FSName: "a", FSID: 1, Servers: []ServerSpec{{"s", "ib://h", "/a"}}},
	} {
		_, err := Generate(bad)
		require.Error(t, err)
	}
}

const minimal = `
<Aliases>
Alias one tcp://localhost
</Aliases>
<FileSystem>
Name f
ID 7
RootHandle 10
<MetaHandleRanges>
Range one 3-100,200-300
</MetaHandleRanges>
<DataHandleRanges>
Range one 101-199
</DataHandleRanges>
</FileSystem>
`

// TestParseDeployed: the configuration that we hand out.
func TestParseDeployed(t *testing.T) {
	text, err := os.ReadFile("../../deploy/fs.conf")
	require.NoError(t, err)
	c, err := Parse(string(text))
	require.NoError(t, err)
	for _, alias := range []string{"s0", "s1"} {
		s, ok := c.Server(alias)
		require.True(t, ok)
		require.NotEmpty(t, s.DataStorageSpace)
		require.NotEmpty(t, c.FileSystems[0].MetaRanges(alias))
		require.NotEmpty(t, c.FileSystems[0].DataRanges(alias))
	}
}

func TestParseMinimal(t *testing.T) {
	c, err := Parse(minimal)
	require.NoError(t, err)
	addr, _ := c.Addr("one")
	require.Equal(t, "localhost:3334", addr, "the default port")
	f := &c.FileSystems[0]
	require.True(t, f.FileStuffing, "the default")
	require.Equal(t, []Range{{3, 100}, {200, 300}}, f.MetaRanges("one"))
	require.Equal(t, []Range{{101, 199}}, f.DataRanges("one"))
}

func TestParseIsLenientWhereOrangeFSIs(t *testing.T) {
	text := "# a comment\n<DEFAULTS>\r\n  bmimodules bmi_tcp,bmi_ib # why not\n  \tFancyKey 1\n  AttrCacheSize 511\n LogFile \"/a b\"\n</Defaults>\n" +
		"<Odd>\n <Inner>\n junk\n </Inner>\n</Odd>\n" + strings.Replace(minimal, "3-100,200-300", "3-100, \\\n 200-300", 1)
	c, err := Parse(text)
	require.NoError(t, err)
	require.Equal(t, []string{"line 4: key FancyKey in <defaults> is not known and ignored", "line 8: section <odd> is not known and ignored"}, c.Warnings)
	require.Equal(t, "/a b", c.Defaults.LogFile)
	require.Len(t, c.FileSystems[0].MetaRanges("one"), 2)
}

func TestParseErrorsNameTheLine(t *testing.T) {
	for _, x := range []struct{ name, old, new, want string }{
		{"no aliases", "Alias one tcp://localhost", "", "no Alias"},
		{"bad address", "tcp://localhost", "localhost:3334", "line 3: Alias: address"},
		{"twice the same alias", "Alias one tcp://localhost", "Alias one tcp://a\nAlias one tcp://b", "line 4: Alias: \"one\" is an alias already"},
		{"bad id", "ID 7", "ID seven", `line 7: ID: "seven" is not a number`},
		{"two ids", "ID 7", "ID 7 8", "line 7: ID: 2 values instead of one"},
		{"flow buffer too small", "ID 7", "ID 7\nFlowBufferSizeBytes 1", "line 8: FlowBufferSizeBytes: 1 is not between"},
		{"flow buffer too large", "ID 7", "ID 7\nFlowBufferSizeBytes 99999999", "is not between"},
		{"yes or no", "ID 7", "ID 7\nFileStuffing maybe", `"maybe" is neither yes nor no`},
		{"range backwards", "101-199", "199-101", "line 13: Range: handle range \"199-101\" is empty"},
		{"range not a number", "101-199", "x-y", "is not a handle range"},
		{"overlap", "101-199", "90-199", "overlap at 90"},
		{"root outside", "RootHandle 10", "RootHandle 150", "RootHandle 150"},
		{"unknown alias in range", "Range one 101", "Range two 101", `"two"`},
		{"never closed", "</FileSystem>", "", "line 5: section <filesystem> is never closed"},
		{"wrong close", "</FileSystem>", "</Defaults>", "closes <filesystem> of line 5"},
		{"close without open", "<Aliases>", "</Aliases>", "not open"},
		{"wrong place", "<MetaHandleRanges>", "<Defaults>", "must stand in"},
		{"key outside", "<Aliases>", "Name x\n<Aliases>", "outside of any section"},
		{"unclosed quote", "Name f", `Name "f`, "never closed"},
		{"no file system", "<FileSystem>", "<Sth>", "closes"},
		{"unknown server", "<FileSystem>", "<ServerOptions>\nServer x\n</ServerOptions>\n<FileSystem>", "line 5: server \"x\" has no Alias"},
		{"nameless server", "<FileSystem>", "<ServerOptions>\n</ServerOptions>\n<FileSystem>", "names no Server"},
		{"initial above max", "ID 7", "ID 7\nDistrDirServersInitial 2", "above DistrDirServersMax"},
	} {
		t.Run(x.name, func(t *testing.T) {
			text := strings.Replace(minimal, x.old, x.new, 1)
			require.NotEqual(t, minimal, text)
			_, err := Parse(text)
			require.ErrorContains(t, err, x.want)
			var e *Error
			require.ErrorAs(t, err, &e)
		})
	}
	_, err := Parse(strings.Repeat("#", MaxText+1))
	require.ErrorContains(t, err, "more than")
}

// TestParseNeverPanics feeds damaged texts.
func TestParseNeverPanics(t *testing.T) {
	text := captured(t)
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 3))
		b := []byte(text)
		for range 1 + r.IntN(6) {
			i := r.IntN(len(b))
			switch r.IntN(3) {
			case 0:
				b[i] = byte(r.Uint32())
			case 1:
				b = append(b[:i], b[min(len(b), i+r.IntN(200)):]...)
			case 2:
				b = append(b[:i:i], text[i/2:]...)
			}
			if len(b) == 0 {
				break
			}
		}
		if c, err := Parse(string(b)); err == nil {
			c.FileSystems[0].Owner(5)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(minimal)
	f.Add(captured(f))
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(text)
		if err != nil {
			return
		}
		for i := range c.FileSystems {
			fs := &c.FileSystems[i]
			if _, ok := fs.Owner(fs.RootHandle); !ok {
				t.Fatal("the root has no owner")
			}
		}
	})
}

func TestHostPort(t *testing.T) {
	for in, want := range map[string]string{
		"tcp://h": "h:3334", "tcp://h:1": "h:1", "tcp://[::1]:5": "[::1]:5", "tcp://[::1]": "[::1]:3334", "tcp://h:1/": "h:1",
		"h:1": "", "tcp://": "", "tcp://a/b": "", "tcp://:1": "", "tcp://h:": "",
	} {
		got, err := HostPort(in)
		require.Equal(t, want, got, in)
		require.Equal(t, want == "", err != nil, in)
	}
}
