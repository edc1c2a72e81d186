package local

import (
	"cmp"
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/cluster"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/proc"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
)

// made returns a system that has addresses; its first I/O node runs if asked
// for (it is this process).
func made(t *testing.T, runs bool) *cluster.File {
	t.Helper()
	f, err := plan(nil, Want{})
	require.NoError(t, err)
	require.NoError(t, addresses(f))
	if runs {
		f.IONs[0].ID, err = proc.Of(os.Getpid())
		require.NoError(t, err)
	}
	return f
}

func TestNewSystem(t *testing.T) {
	f := made(t, false)
	require.Len(t, f.PVFSD, 4)
	require.Len(t, f.IONs, 2)
	require.Len(t, f.Nodes, 2)
	require.Positive(t, f.FSID)
	require.Equal(t, "tcp://"+f.PVFSD[0].Addr+"/zoidfs", f.PVFS)
	require.Equal(t, []string{"pvfsd0", "pvfsd3", "node1"}, []string{f.PVFSD[0].Alias, f.PVFSD[3].Alias, f.Nodes[1].Name})

	f, err := plan(nil, Want{PVFS: "tcp://h:1/fs", Nodes: 3, IONs: 1, Consistency: "session"})
	require.NoError(t, err)
	require.Equal(t, "session", f.Consistency)
	require.Empty(t, f.PVFSD)
	require.Equal(t, "tcp://h:1/fs", f.PVFS)
	require.Zero(t, f.FSID)
}

func TestPlanKeepsWhatIsThere(t *testing.T) {
	for _, tt := range []struct {
		name    string
		runs    bool
		want    Want
		err     string
		nodes   int
		ions    int
		servers int
	}{
		{"nothing asked", true, Want{}, "", 2, 2, 4},
		{"the same asked", true, Want{Nodes: 2, IONs: 2, Servers: 4, Consistency: "strong"}, "", 2, 2, 4},
		{"another mode while it runs", true, Want{Consistency: "commit"}, "runs with consistency strong; take it down first", 0, 0, 0},
		{"another mode while it is down", false, Want{Consistency: "commit"}, "", 2, 2, 4},
		{"another visibility while it runs", true, Want{Visibility: "9s"}, "runs with visibility 5s; take it down first", 0, 0, 0},
		{"another engine while it runs", true, Want{Collective: "off"}, "runs with collective on; take it down first", 0, 0, 0},
		{"another engine while it is down", false, Want{Collective: "off"}, "", 2, 2, 4},
		{"a node more while it runs", true, Want{Nodes: 3}, "", 3, 2, 4},
		{"a node less while it runs", true, Want{Nodes: 1}, "runs with 2 nodes, not 1; take it down first", 0, 0, 0},
		{"a node less while it is down", false, Want{Nodes: 1}, "", 1, 2, 4},
		{"an I/O node more while it runs", true, Want{IONs: 3}, "runs with 2 I/O nodes, not 3; take it down first", 0, 0, 0},
		{"an I/O node more while it is down", false, Want{IONs: 3}, "", 2, 3, 4},
		{"other servers", false, Want{Servers: 2}, "kept on 4 embedded servers, not 2", 0, 0, 0},
		{"servers of others", false, Want{PVFS: "tcp://h:1/fs"}, "not tcp://h:1/fs; use another --dir", 0, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := plan(made(t, tt.runs), tt.want)
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, []int{tt.nodes, tt.ions, tt.servers}, []int{len(f.Nodes), len(f.IONs), len(f.PVFSD)})
			require.Equal(t, cmp.Or(tt.want.Consistency, "strong"), f.Consistency)
			require.Equal(t, cmp.Or(tt.want.Visibility, "5s"), f.Visibility)
			require.Equal(t, cmp.Or(tt.want.Collective, "on"), f.Collective)
		})
	}
}

func TestAddressesStayUnlessTaken(t *testing.T) {
	f := made(t, false)
	before := *f
	before.PVFSD = append([]cluster.Server(nil), f.PVFSD...)
	require.NoError(t, addresses(f))
	require.Equal(t, before.PVFSD, f.PVFSD)

	l, err := net.Listen("tcp", f.PVFSD[0].Addr)
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, addresses(f))
	require.NotEqual(t, before.PVFSD[0].Addr, f.PVFSD[0].Addr, "nobody runs, so a new address does no harm")
	require.Equal(t, before.PVFSD[1:], f.PVFSD[1:])
	require.Equal(t, "tcp://"+f.PVFSD[0].Addr+"/zoidfs", f.PVFS)
}

func TestTakenAddressThatOthersKnow(t *testing.T) {
	f := made(t, true)
	l, err := net.Listen("tcp", f.PVFSD[2].Addr)
	require.NoError(t, err)
	defer l.Close()
	require.ErrorContains(t, addresses(f), f.PVFSD[2].Addr+", the address of pvfsd2, is taken by another process")
}

func TestMetricsAddresses(t *testing.T) {
	f := made(t, false)
	f.Metrics = true
	require.NoError(t, addresses(f))
	seen := map[string]bool{}
	for _, r := range roles(f) {
		require.NotEmpty(t, r.Metrics)
		require.False(t, seen[r.Metrics])
		seen[r.Metrics] = true
	}
	f.Metrics = false
	require.NoError(t, addresses(f))
	require.Empty(t, f.Nodes[0].Metrics)
}

func TestConf(t *testing.T) {
	d, err := cluster.NewDir(t.TempDir())
	require.NoError(t, err)
	f := made(t, false)
	require.NoError(t, writeConf(d, f))
	text, err := os.ReadFile(d.Conf())
	require.NoError(t, err)
	conf, err := fsconf.Parse(string(text))
	require.NoError(t, err)
	require.Equal(t, f.FSID, conf.FileSystems[0].ID)
	addr, found := conf.Addr("pvfsd3")
	require.True(t, found)
	require.Equal(t, f.PVFSD[3].Addr, addr)
}

func TestTail(t *testing.T) {
	name := t.TempDir() + "/log"
	require.Empty(t, tail(name, 2))
	require.NoError(t, os.WriteFile(name, []byte("a\nb\nc\n"), 0o644))
	require.Equal(t, "b\nc", tail(name, 2))
	require.Equal(t, "a\nb\nc", tail(name, 9))
}

func TestVerdict(t *testing.T) {
	d, err := cluster.NewDir(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(string(d)+"/log", 0o755))
	r := stoppable{name: "ion0", role: &cluster.Role{Log: "LOG"}}
	for _, tt := range []struct {
		name string
		end  func() error
		want string
	}{
		{"clean", func() error { return WriteExit(d.Exit("ion0"), nil) }, ""},
		{"not flushed", func() error { return WriteExit(d.Exit("ion0"), errors.New("no space")) }, "no space (log: LOG)"},
		{"long", func() error { return WriteExit(d.Exit("ion0"), errors.New(strings.Repeat("x", 2*exitSize))) },
			strings.Repeat("x", exitSize) + " (log: LOG)"},
		{"crashed", func() error { return nil }, "ended without saying that it flushed (log: LOG)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.NoError(t, PrepareExit(d.Exit("ion0")))
			require.NoError(t, tt.end())
			err := stopper{dir: d}.verdict(r)
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, tt.want)
		})
	}
}
