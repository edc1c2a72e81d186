package systest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// testStriping asks for striping in every way that users have, and looks on
// the servers whether files lie so.
func testStriping(t *testing.T, r *rig) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, *rig)
	}{
		{"setfattr and cp", stripeSetfattr},
		{"stripe set and get", stripeCommand},
		{"distributions", stripeDistributions},
		{"changes are whole", stripeChanges},
		{"what cannot be", stripeRefusals},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.needCluster(t)
			if n := len(r.servers(t).Servers()); n != 4 {
				t.Skipf("needs four servers, there are %d", n)
			}
			tt.run(t, r.subdir(t))
		})
	}
}

// servers connects to the PVFS2 servers of the system.
func (r *rig) servers(t *testing.T) *pvfs.Client {
	t.Helper()
	var f clusterFile
	b, err := os.ReadFile(filepath.Join(r.cluster.dir, "cluster.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &f))
	c, err := pvfs.Dial(t.Context(), f.PVFS, pvfs.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// layout returns how the file lies that has the same path below the mounts, as
// the servers tell it.
func (r *rig) layout(t *testing.T, path string) *pvfs.Layout {
	t.Helper()
	c := r.servers(t)
	rel, err := filepath.Rel(r.cluster.rig().dirs[0], filepath.Join(r.dirs[0], path))
	require.NoError(t, err)
	h := c.Root()
	for name := range strings.SplitSeq(rel, "/") {
		h, err = c.Lookup(t.Context(), h, name)
		require.NoError(t, err, name)
	}
	a, err := c.GetAttr(t.Context(), h)
	require.NoError(t, err)
	require.NotNil(t, a.Layout)
	return a.Layout
}

// stripeSetfattr uses what works with OrangeFS as well.
func stripeSetfattr(t *testing.T, r *rig) {
	need(t, "setfattr", "attr")
	shell(t, r.dirs[0], `
		mkdir d
		setfattr -n user.pvfs2.num_dfiles -v 3 d
		setfattr -n user.pvfs2.dist_name -v simple_stripe d
		setfattr -n user.pvfs2.dist_params -v strip_size:16384 d
		head -c 1000000 /dev/urandom > f`)
	require.Equal(t, "user.pvfs2.dist_name=\"simple_stripe\"\nuser.pvfs2.dist_params=\"strip_size:16384\"\nuser.pvfs2.num_dfiles=\"3\"\n",
		shell(t, r.dirs[1], `getfattr -d d | grep -v '^#' | grep .`))
	shell(t, r.dirs[1], `cp f d/f; mkdir -p d/sub/sub; cp d/f d/sub/sub/f; cp -a d copy; cp f copy/sub/g; sync f d/f d/sub/sub/f copy/sub/g`)
	shell(t, r.dirs[0], `cmp f d/f; cmp f d/sub/sub/f; cmp f copy/sub/g`)
	for _, path := range []string{"d/f", "d/sub/sub/f", "copy/sub/g"} {
		l := r.layout(t, path)
		require.Equal(t, wire.NewSimpleStripe(16384), l.Dist, path)
		require.Len(t, l.DFiles, 3, path)
		require.False(t, l.Stuffed, path)
	}
	shell(t, r.dirs[0], `
		mkdir few var; setfattr -n user.pvfs2.num_dfiles -v 1 few; setfattr -n user.pvfs2.dist_name -v simple_stripe few
		setfattr -n user.pvfs2.dist_name -v varstrip_dist var; setfattr -n user.pvfs2.dist_params -v 'strips:0:9K;1:5K' var
		setfattr -n user.pvfs2.num_dfiles -v 2 var; cp -a var few; cp f few/var/f`)
	require.Equal(t, wire.Dist{Name: wire.VarstripDist, Strips: "0:9K;1:5K"}, r.layout(t, "few/var/f").Dist, "copied over what was handed down")
	l := r.layout(t, "f")
	require.Equal(t, wire.NewSimpleStripe(65536), l.Dist, "beside it nothing changes")
	require.Len(t, l.DFiles, 4)

	shell(t, r.dirs[1], `
		setfattr -n user.pvfs2.num_dfiles -v 4 d; cp f d/four; sync d/four
		setfattr -x user.pvfs2.num_dfiles d; setfattr -x user.pvfs2.dist_name d; setfattr -x user.pvfs2.dist_params d`)
	shell(t, r.dirs[0], `cp f d/default; sync d/default`)
	require.Len(t, r.layout(t, "d/four").DFiles, 4)
	require.Equal(t, wire.NewSimpleStripe(16384), r.layout(t, "d/four").Dist)
	require.Equal(t, wire.NewSimpleStripe(65536), r.layout(t, "d/default").Dist)
	// The kernel knows powers of two.
	require.Equal(t, "32768 65536 262144 262144\n", shell(t, r.dirs[0], `echo $(stat -c %o d/f d/four d/default f)`), "stripe widths")
}

// stripeInfo is the part of what `zoidfs stripe get --json` prints that the
// tests use.
type stripeInfo struct {
	Path, Type, Dist, Params string
	StripSize                int64 `json:"strip_size"`
	StripeWidth              int64 `json:"stripe_width"`
	NumServers               int   `json:"num_servers"`
	Size                     int64
	Stuffed                  bool
	Servers                  []struct {
		Alias, Addr, Handle string
		Bytes               int64
	}
	DistFrom    string `json:"dist_from"`
	ServersFrom string `json:"servers_from"`
	Map         []struct {
		Off, Len, Phys int64
		Server         int
	}
}

// stripes runs `zoidfs stripe get --json` on paths below node's directory.
func (r *rig) stripes(t *testing.T, node int, args ...string) (out []stripeInfo) {
	t.Helper()
	text, err := command{dir: r.dirs[node]}.try(append([]string{r.cluster.bin, "stripe", "get", "--json"}, args...)...)
	require.NoError(t, err, text)
	for d := json.NewDecoder(strings.NewReader(text)); ; {
		var i stripeInfo
		if err := d.Decode(&i); err == io.EOF {
			return out
		} else {
			require.NoError(t, err, text)
		}
		out = append(out, i)
	}
}

func stripeCommand(t *testing.T, r *rig) {
	zoidfs := func(node int, args ...string) string {
		t.Helper()
		return command{dir: r.dirs[node]}.run(t, append([]string{r.cluster.bin, "stripe"}, args...)...)
	}
	shell(t, r.dirs[0], `mkdir -p d/old`)
	require.Equal(t, "file system", r.stripes(t, 1, "d")[0].DistFrom)
	zoidfs(0, "set", "--strip-size", "128K", "--servers", "2", "d")
	i := r.stripes(t, 1, "d")[0]
	require.Equal(t, []any{"directory", "simple_stripe", "strip_size:131072", int64(131072), 2, "directory", "directory"},
		[]any{i.Type, i.Dist, i.Params, i.StripSize, i.NumServers, i.DistFrom, i.ServersFrom})
	shell(t, r.dirs[1], `mkdir d/new; head -c 1000001 /dev/urandom > d/new/f; cp d/new/f d/old/f; echo small > d/small; cat d/new/f > /dev/null`)

	i = r.stripes(t, 0, "d/new/f")[0]
	l := r.layout(t, "d/new/f")
	require.Len(t, l.DFiles, 2)
	require.Equal(t, int64(131072), l.Dist.StripSize)
	require.EqualValues(t, 1000001, i.Size)
	require.False(t, i.Stuffed)
	sums := make([]int64, 2)
	end := int64(0)
	for _, e := range i.Map {
		require.Equal(t, end, e.Off, "in order, without a gap")
		require.Equal(t, sums[e.Server], e.Phys)
		end, sums[e.Server] = end+e.Len, sums[e.Server]+e.Len
	}
	require.Equal(t, i.Size, end)
	servers := map[string]string{}
	for _, s := range r.servers(t).Servers() {
		servers[s.Alias] = s.Addr
	}
	for k, s := range i.Servers {
		require.Equal(t, fmt.Sprint(uint64(l.DFiles[k])), s.Handle, "in the order of the stripe")
		require.Equal(t, servers[s.Alias], s.Addr)
		require.Equal(t, sums[k], s.Bytes)
	}
	require.Equal(t, "262144\n", shell(t, r.dirs[0], `stat -c %o d/new/f`))
	i = r.stripes(t, 0, "d/small")[0]
	require.Equal(t, 2, i.NumServers)
	if i.Stuffed { // unless the file system is not to
		require.Len(t, i.Servers, 1)
	} else {
		require.Len(t, i.Servers, 2)
	}
	require.Equal(t, 4, r.stripes(t, 0, "d/old/f")[0].NumServers, "what was there already is as it was")

	text := zoidfs(1, "get", "d", "d/new/f")
	require.Contains(t, text, "d: new files\n  distribution  simple_stripe  set on this directory\n")
	require.Contains(t, text, "d/new/f: file of 1000001 bytes\n")
	require.NotContains(t, text, "...")
	shell(t, r.dirs[0], `head -c 4000000 /dev/zero > d/new/long`)
	require.Contains(t, zoidfs(1, "get", "d/new/long"), "\n  ...\n")
	require.NotContains(t, zoidfs(1, "get", "--map", "d/new/long"), "...")

	zoidfs(1, "set", "-R", "--servers", "all", "d")
	all := r.stripes(t, 0, "--map=false", "-R", "d")
	require.Len(t, all, 7)
	for _, i := range all {
		if i.Type == "directory" {
			require.Equal(t, 4, i.NumServers, i.Path)
		}
		require.Empty(t, i.Map, i.Path)
	}
	require.Equal(t, int64(131072), r.stripes(t, 0, "d/new")[0].StripSize, "what was not given stays")
	require.Equal(t, int64(65536), r.stripes(t, 0, "d/old")[0].StripSize)
	zoidfs(0, "set", "--clear", "-R", "d")
	require.Equal(t, "", shell(t, r.dirs[1], `getfattr -R -d d`))
}

// stripeDistributions works on files of every distribution on both nodes and
// compares them with a plain array of bytes.
func stripeDistributions(t *testing.T, r *rig) {
	base := seed(t)
	for k, x := range []struct {
		name, dist, params string
		servers, dfiles    int
	}{
		{"simple", "simple_stripe", "strip_size:10000", 3, 3},
		{"simple1", "simple_stripe", "strip_size:1048576", 1, 1},
		{"basic", "basic_dist", "", 0, 1},
		{"twod", "twod_stripe", "num_groups:2,strip_size:5000,group_strip_factor:3", 0, 4},
		{"twod3", "twod_stripe", "num_groups:2,strip_size:65536,group_strip_factor:2", 3, 3},
		{"twod-groups", "twod_stripe", "num_groups:9,strip_size:4096,group_strip_factor:256", 2, 2},
		{"varstrip", "varstrip_dist", "strips:0:4K;1:10000;3:1;2:64K", 0, 4},
		{"varstrip-later", "varstrip_dist", "strips:1:16K;0:3000;1:1K", 2, 2},
	} {
		t.Run(x.name, func(t *testing.T) {
			args := []string{r.cluster.bin, "stripe", "set", "--dist", x.dist}
			if x.params != "" {
				args = append(args, "--params", x.params)
			}
			if x.servers > 0 {
				args = append(args, "--servers", fmt.Sprint(x.servers))
			}
			require.NoError(t, os.Mkdir(filepath.Join(r.dirs[0], x.name), 0o755))
			command{dir: r.dirs[0]}.run(t, append(args, x.name)...)
			path := filepath.Join(x.name, "f")
			want := exercise(t, rand.New(rand.NewSource(base+int64(k))), r, path)
			l := r.layout(t, path)
			require.Equal(t, x.dist, l.Dist.Name)
			require.Len(t, l.DFiles, x.dfiles)
			require.False(t, l.Stuffed)
			i := r.stripes(t, 1, path)[0]
			require.EqualValues(t, len(want), i.Size)
			require.Equal(t, x.params, i.Params)
			require.NotEmpty(t, i.Map)
			shell(t, r.dirs[1], "cp "+path+" "+path+".copy; cmp "+path+" "+path+".copy")
		})
	}
}

// exercise makes a file and writes, reads and truncates it at random on both
// nodes, and returns what it must hold.
func exercise(t *testing.T, rng *rand.Rand, r *rig, path string) []byte {
	t.Helper()
	const size, steps = 600_000, 80
	var files []*os.File
	for i, dir := range r.dirs {
		f, err := os.OpenFile(filepath.Join(dir, path), os.O_RDWR|os.O_CREATE, 0o644)
		require.NoError(t, err)
		defer f.Close()
		if i < 2 {
			files = append(files, f)
		}
	}
	var want []byte
	resize := func(n int) { want = append(want[:min(n, len(want))], make([]byte, max(0, n-len(want)))...) }
	write := func(f *os.File, off, n int) {
		p := make([]byte, n)
		rng.Read(p)
		_, err := f.WriteAt(p, int64(off))
		require.NoError(t, err)
		resize(max(len(want), off+n))
		copy(want[off:], p)
	}
	for step := range steps {
		f := files[rng.Intn(len(files))]
		switch off := rng.Intn(size); rng.Intn(8) {
		case 0:
			require.NoError(t, f.Truncate(int64(off)))
			resize(off)
		case 1, 2, 3:
			n := 1 + rng.Intn(40_000)
			write(f, off, n)
		default:
			got := make([]byte, 1+rng.Intn(200_000))
			n, err := f.ReadAt(got, int64(off))
			if err != io.EOF {
				require.NoError(t, err)
			}
			off = min(off, len(want))
			require.True(t, bytes.Equal(want[off:min(off+len(got), len(want))], got[:n]), "step %d: %d bytes from %d of %d", step, n, off, len(want))
		}
		st, err := files[rng.Intn(len(files))].Stat()
		require.NoError(t, err)
		require.EqualValues(t, len(want), st.Size(), "step %d", step)
	}
	write(files[0], size, 1000) // so that it is surely spread
	for _, dir := range r.dirs {
		got, err := os.ReadFile(filepath.Join(dir, path))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
	}
	return want
}

// stripeChanges changes what a directory wishes to and fro while files are
// made in it on the other node: each lies as one wish or the other says.
func stripeChanges(t *testing.T, r *rig) {
	wishes := []string{
		`{"dist": "simple_stripe", "params": "strip_size:1000", "servers": 2}`,
		`{"dist": "twod_stripe", "params": "num_groups:1,strip_size:3000", "servers": 3}`,
	}
	set := func(k int) error { return unix.Setxattr(r.dirs[0], "user.zoidfs.stripe", []byte(wishes[k%2]), 0) }
	require.NoError(t, set(0))
	var g errgroup.Group
	const n = 40
	g.Go(func() error {
		for k := range 2 * n {
			if err := set(k + 1); err != nil {
				return err
			}
		}
		return nil
	})
	for k := range n {
		require.NoError(t, os.WriteFile(filepath.Join(r.dirs[1], fmt.Sprint("f", k)), make([]byte, 20000), 0o644))
	}
	require.NoError(t, g.Wait())
	for _, i := range r.stripes(t, 0, "--map=false", "-R", ".") {
		if i.Type == "file" {
			require.Contains(t, []string{"simple_stripe 1000 2", "twod_stripe 3000 3"}, fmt.Sprint(i.Dist, " ", i.StripSize, " ", i.NumServers))
			require.Len(t, i.Servers, i.NumServers)
		}
	}
}

// stripeRefusals asks for what the servers do not have.
func stripeRefusals(t *testing.T, r *rig) {
	shell(t, r.dirs[0], `mkdir d; echo > f`)
	for _, x := range [][3]string{
		{"d", "user.pvfs2.num_dfiles", "0"}, {"d", "user.pvfs2.num_dfiles", "5"}, {"d", "user.pvfs2.num_dfiles", "many"},
		{"d", "user.pvfs2.dist_name", "raid5"}, {"d", "user.pvfs2.dist_params", "strip_size:0"},
		{"d", "user.pvfs2.dist_params", "strip_size:64K"}, {"d", "user.pvfs2.dist_params", "strips:0:1;2:1"},
		{"d", "user.zoidfs.stripe", `{"servers": 5}`}, {"f", "user.pvfs2.num_dfiles", "2"},
	} {
		require.Equal(t, syscall.EINVAL, unix.Setxattr(filepath.Join(r.dirs[1], x[0]), x[1], []byte(x[2]), 0), x)
	}
	for args, want := range map[string]string{
		"set --servers 5 d":                           "zoidfs stripe set: d: 5 servers: the file system has 4\n",
		"set --params strips:0:1;4:1 d":               `zoidfs stripe set: d: varstrip_dist "0:1;4:1": server 1 has no strip` + "\n",
		"set --dist varstrip_dist d":                  "zoidfs stripe set: d: varstrip_dist needs its strips, such as strips:0:64K;1:1M\n",
		"set --dist basic_dist --strip-size 64K d":    "zoidfs stripe set: d: basic_dist has no strip size\n",
		"set --strip-size 64K f":                      "zoidfs stripe set: f is a file, whose striping was fixed when it was made: set that of a directory and copy the file into it\n",
		"set --strip-size 64K --params num_group:1 d": `zoidfs stripe set: d: simple_stripe has no parameter "num_group", only strip_size` + "\n",
	} {
		out, err := command{dir: r.dirs[0]}.try(append([]string{r.cluster.bin, "stripe"}, strings.Fields(args)...)...)
		require.Error(t, err, args)
		require.Equal(t, want, out, args)
	}
	require.Equal(t, "", shell(t, r.dirs[0], `getfattr -d d f`), "nothing of it is left")
}
