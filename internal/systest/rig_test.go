package systest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// rig is what most tests need: directories that show the same files, one a
// node. cluster is nil if they do not belong to a zoidfs system.
type rig struct {
	dirs    []string
	cluster *cluster
}

// newRig starts a system of two nodes, two I/O nodes and four servers for the
// test, or uses the directories that the environment names.
func newRig(t *testing.T) *rig {
	t.Helper()
	if s := os.Getenv("ZOIDFS_SYSTEST_DIRS"); s != "" {
		return &rig{dirs: strings.Split(s, ":")}
	}
	c := newCluster(t, shortTempDir(t))
	c.up(t)
	return c.rig()
}

// subdir makes a directory of its own for a test and returns a rig that sees
// nothing else.
func (r *rig) subdir(t *testing.T) *rig {
	t.Helper()
	return r.under(t, strings.NewReplacer("/", "_", " ", "_").Replace(t.Name()))
}

// under makes a directory and returns a rig that sees nothing else.
func (r *rig) under(t *testing.T, name string) *rig {
	t.Helper()
	sub := &rig{cluster: r.cluster}
	for _, d := range r.dirs {
		sub.dirs = append(sub.dirs, filepath.Join(d, name))
	}
	require.NoError(t, os.Mkdir(sub.dirs[0], 0o755))
	return sub
}

// needCluster skips the test on directories that are not a zoidfs system.
func (r *rig) needCluster(t *testing.T) *cluster {
	t.Helper()
	if r.cluster == nil {
		t.Skip("needs a zoidfs system, ZOIDFS_SYSTEST_DIRS names directories of something else")
	}
	return r.cluster
}

// enter returns the command line that runs a program with the directory of a
// node at /zfs.
func (r *rig) enter(node int, argv ...string) []string {
	if r.cluster != nil {
		return append([]string{r.cluster.bin, "enter", "--dir", r.cluster.dir, "--node", fmt.Sprint(node), "--"}, argv...)
	}
	script := `mkdir -p /zfs && mount --bind "$0" /zfs && exec "$@"`
	return append([]string{"unshare", "--mount", "sh", "-c", script, r.dirs[node]}, argv...)
}

// clusterFile is the part of cluster.json that the tests use.
type clusterFile struct {
	PVFS  string `json:"pvfs"`
	PVFSD []struct {
		Alias   string `json:"alias"`
		Addr    string `json:"addr"`
		PID     int    `json:"pid"`
		Data    string `json:"data"`
		Log     string `json:"log"`
		Metrics string `json:"metrics"`
	} `json:"pvfsd"`
	IONs []struct {
		Addr string `json:"addr"`
		PID  int    `json:"pid"`
		Log  string `json:"log"`
	} `json:"ions"`
	Nodes []struct {
		Name  string `json:"name"`
		Mount string `json:"mount"`
		PID   int    `json:"pid"`
		Log   string `json:"log"`
	} `json:"nodes"`
}

// pids returns the process ids of the whole system.
func (f clusterFile) pids() []int {
	var out []int
	for _, s := range f.PVFSD {
		out = append(out, s.PID)
	}
	for _, s := range f.IONs {
		out = append(out, s.PID)
	}
	for _, s := range f.Nodes {
		out = append(out, s.PID)
	}
	return out
}

// cluster is a system made by `zoidfs up`.
type cluster struct {
	bin, dir string
	args     []string // of up, besides --dir
}

// newCluster prepares a system of two nodes, two I/O nodes and four servers
// under dir. It is taken down when the test ends.
func newCluster(t *testing.T, dir string) *cluster {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		skipOrFail(t, "no /dev/fuse: %v", err)
	}
	c := &cluster{bin: zoidfsBinary(t), dir: dir, args: []string{"--nodes", "2", "--ions", "2", "--servers", "4"}}
	t.Cleanup(func() {
		out, err := c.try("down", "--dir", c.dir)
		if err != nil {
			t.Errorf("zoidfs down: %v: %s", err, out)
		}
		if t.Failed() {
			c.dumpLogs(t)
		}
	})
	return c
}

// try runs a subcommand of zoidfs and returns its output and error output.
func (c *cluster) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.bin, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 2 * time.Second // what up starts may keep the pipe open
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("zoidfs %s hangs: %w", args[0], ctx.Err())
	}
	return out.String(), err
}

// zoidfs runs a subcommand that must succeed and returns its output.
func (c *cluster) zoidfs(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.try(args...)
	require.NoErrorf(t, err, "zoidfs %s: %s", strings.Join(args, " "), out)
	return out
}

// visibility is that of the mounts.
const visibility = 500 * time.Millisecond

func (c *cluster) up(t *testing.T) {
	t.Helper()
	out, err := c.try(append([]string{"up", "--dir", c.dir, "--visibility", visibility.String()}, c.args...)...)
	if err != nil {
		c.dumpLogs(t)
	}
	require.NoErrorf(t, err, "zoidfs up: %s", out)
}

func (c *cluster) down(t *testing.T) {
	t.Helper()
	c.zoidfs(t, "down", "--dir", c.dir)
}

// file reads cluster.json.
func (c *cluster) file(t *testing.T) clusterFile {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, "cluster.json"))
	require.NoError(t, err)
	var f clusterFile
	require.NoError(t, json.Unmarshal(b, &f))
	if !slices.Contains(c.args, "--pvfs") { // else the servers are those of others
		require.Len(t, f.PVFSD, 4)
	}
	require.Len(t, f.IONs, 2)
	require.Len(t, f.Nodes, 2)
	return f
}

func (c *cluster) rig() *rig {
	return &rig{cluster: c, dirs: []string{filepath.Join(c.dir, "node0", "zfs"), filepath.Join(c.dir, "node1", "zfs")}}
}

// dumpLogs prints the end of every log of the system.
func (c *cluster) dumpLogs(t *testing.T) {
	logs, _ := filepath.Glob(filepath.Join(c.dir, "*", "*.log"))
	more, _ := filepath.Glob(filepath.Join(c.dir, "*.log"))
	for _, name := range append(logs, more...) {
		b, err := os.ReadFile(name)
		if err != nil || len(b) == 0 {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		t.Logf("%s:\n%s", name, strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
}

// noPanics fails the test if a process of the system logged a panic, a fatal
// error of the runtime or a data race.
func (c *cluster) noPanics(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(c.dir, func(p string, d os.DirEntry, err error) error {
		if d != nil && d.IsDir() && d.Name() == "zfs" {
			return filepath.SkipDir
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".log") {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		for _, bad := range []string{"panic:", "fatal error:", "WARNING: DATA RACE"} {
			if i := strings.Index(string(b), bad); i >= 0 {
				t.Errorf("%s: %s", p, string(b[i:min(len(b), i+3000)]))
			}
		}
		return nil
	})
	require.NoError(t, err)
}
