package systest

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestStorms counts what a system of two nodes, two I/O nodes and four servers,
// whose caches are cold, is asked when all processes of a job do the same: next to
// nothing may depend on how many they are. Each bound has room for what comes by
// itself, and none for one request a process.
func TestStorms(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole system")
	}
	needRoot(t, "a job has /zfs in mount namespaces of its own")
	need(t, "gcc", "gcc")
	need(t, "python3", "python3")
	c := newCluster(t, shortTempDir(t))
	c.up(t)
	s := newStorm(t, c)
	s.plant(t)
	c.down(t)
	c.up(t)
	for _, ranks := range []int{8, 64} {
		t.Run(fmt.Sprint(ranks, " ranks"), func(t *testing.T) {
			t.Run("one file", func(t *testing.T) { s.oneFile(t, ranks) })
			t.Run("missing", func(t *testing.T) { s.missing(t, ranks) })
			t.Run("list", func(t *testing.T) { s.list(t, ranks) })
			t.Run("create and unlink", func(t *testing.T) { s.createUnlink(t, ranks) })
			t.Run("sync", func(t *testing.T) { s.sync(t, ranks) })
		})
	}
	t.Run("import", s.imports)
	t.Run("program", s.program)
	t.Run("lost ranks", s.lostRanks)
	c.noPanics(t)
}

// storm runs jobs of testdata/storm.c.
type storm struct {
	c       *cluster
	bin     string
	barrier string
}

func newStorm(t *testing.T, c *cluster) *storm {
	s := &storm{c: c, bin: filepath.Join(t.TempDir(), "storm"), barrier: filepath.Join(t.TempDir(), "barrier")}
	command{}.run(t, "gcc", "-O1", "-Wall", "-Werror", "-o", s.bin, "testdata/storm.c")
	return s
}

const (
	stormFile    = 64 << 20
	stormModules = 200
)

// plant makes what the storms find. What one of so many ranks looks at, no other
// does.
func (s *storm) plant(t *testing.T) {
	top := s.c.rig().dirs[0]
	for _, ranks := range []int{8, 64} {
		for _, dir := range []string{"read", "miss", "list", "make", "sync"} {
			require.NoError(t, os.MkdirAll(filepath.Join(top, fmt.Sprint(dir, ranks)), 0o755))
		}
		require.NoError(t, os.WriteFile(filepath.Join(top, fmt.Sprint("read", ranks), "file"), make([]byte, stormFile), 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(top, fmt.Sprint("sync", ranks), "file"), make([]byte, 1000), 0o644))
		for i := range 20 {
			require.NoError(t, os.WriteFile(filepath.Join(top, fmt.Sprint("list", ranks), fmt.Sprint(i)), nil, 0o644))
		}
	}
	require.NoError(t, os.Mkdir(filepath.Join(top, "modules"), 0o755))
	for i := range stormModules {
		name := filepath.Join(top, "modules", fmt.Sprintf("module%d.py", i))
		require.NoError(t, os.WriteFile(name, fmt.Appendf(nil, "value = %d\n", i), 0o644))
	}
	shell(t, top, `cp /bin/bash program`)
}

// run has a job do it, and returns what that cost: in all, and each node.
func (s *storm) run(t *testing.T, ranks int, argv ...string) (all stats, nodes []stats) {
	t.Helper()
	r := s.c.rig()
	s.c.zoidfs(t, "stats", "--dir", s.c.dir, "--reset")
	out, err := command{env: []string{"PYTHONDONTWRITEBYTECODE=1", "PYTHONPATH=/zfs/modules"}}.try(
		append([]string{s.c.bin, "launch", "--dir", s.c.dir, "-n", fmt.Sprint(ranks), "--"}, argv...)...)
	require.NoError(t, err, out)
	all = s.c.stats(t, "--dir", s.c.dir)
	for _, d := range r.dirs {
		nodes = append(nodes, s.c.stats(t, d))
	}
	t.Logf("calls %v", all.App.Calls)
	t.Logf("requests to I/O nodes %v", all.RPC.Requests)
	t.Logf("requests to servers %v, %d bytes read", all.PVFS.Requests, all.PVFS.BytesRead)
	return all, nodes
}

// together has all ranks do what testdata/storm.c calls actions.
func (s *storm) together(t *testing.T, ranks int, path string, actions ...string) (all stats, nodes []stats) {
	t.Helper()
	require.NoError(t, os.WriteFile(s.barrier, binary.NativeEndian.AppendUint64(nil, 0), 0o644))
	return s.run(t, ranks, append([]string{s.bin, s.barrier, fmt.Sprint(ranks), fmt.Sprintf("/zfs/%s", path)}, actions...)...)
}

// makes are requests of I/O nodes in a storm of creates. The first ones of a storm
// find out how the directory is, which costs the same however many follow.
var makes = []string{"create", "batch_create", "crdirent", "setattr", "tree_setattr", "lookup_path", "getattr", "geteattr", "listattr", "readdir", "getdirent"}

// sum is how many of the requests are of these kinds.
func sum(requests map[string]int64, kinds ...string) (n int64) {
	for _, k := range kinds {
		n += requests[k]
	}
	return n
}

// looks are requests of mounts, and of I/O nodes, that look at names and inodes.
var (
	looks     = []string{"lookup", "getattr", "open", "close", "readdir"}
	pvfsLooks = []string{"lookup_path", "getattr", "geteattr", "getdirent", "readdir", "listattr", "tree_getattr", "tree_get_file_size"}
)

// oneFile: all open, look at and read one file as a whole, and then once more.
func (s *storm) oneFile(t *testing.T, ranks int) {
	path := fmt.Sprintf("read%d/file", ranks)
	all, nodes := s.together(t, ranks, path, "open", "stat", "read", "close", "open", "stat", "close")
	for _, n := range nodes {
		require.LessOrEqual(t, sum(n.RPC.Requests, looks...), int64(12))
		require.LessOrEqual(t, sum(n.RPC.Requests, "open"), int64(2))
		require.LessOrEqual(t, n.RPC.Requests["read"], int64(stormFile/(2<<20)+16), "of 2 MiB each")
		require.Less(t, n.RPC.BytesReceived, int64(stormFile+8<<20), "each byte once")
	}
	require.LessOrEqual(t, sum(all.PVFS.Requests, pvfsLooks...), int64(60))
	require.LessOrEqual(t, sum(all.PVFS.Requests, "io", "small_io"), int64(stormFile/(4<<20)*3), "flows of up to 16 MiB")
	require.EqualValues(t, stormFile, all.PVFS.BytesRead, "each byte once")
}

func (s *storm) missing(t *testing.T, ranks int) {
	all, nodes := s.together(t, ranks, fmt.Sprint("miss", ranks), "missing", "missing", "missing")
	for _, n := range nodes {
		require.LessOrEqual(t, sum(n.RPC.Requests, looks...), int64(6))
	}
	require.LessOrEqual(t, sum(all.PVFS.Requests, pvfsLooks...), int64(30))
}

func (s *storm) list(t *testing.T, ranks int) {
	all, nodes := s.together(t, ranks, fmt.Sprint("list", ranks), "list", "list")
	for _, n := range nodes {
		require.LessOrEqual(t, sum(n.RPC.Requests, looks...), int64(8))
	}
	require.LessOrEqual(t, sum(all.PVFS.Requests, pvfsLooks...), int64(60))
}

// createUnlink: a file of its own for each rank, in one directory.
func (s *storm) createUnlink(t *testing.T, ranks int) {
	dir := fmt.Sprint("make", ranks)
	all, _ := s.together(t, ranks, dir, "create", "fill", "close")
	n := int64(ranks)
	require.EqualValues(t, n, all.RPC.Requests["create"])
	require.EqualValues(t, n, all.RPC.Requests["close"])
	require.LessOrEqual(t, all.RPC.Requests["open"], n/4, "their homes know already")
	require.LessOrEqual(t, sum(all.PVFS.Requests, makes...), 3*n+20, "beyond the data")
	require.LessOrEqual(t, all.RPC.Requests["statfs"], int64(4), "a start of processes asks each node once")
	all, _ = s.together(t, ranks, dir, "unlink")
	require.EqualValues(t, n, all.RPC.Requests["unlink"])
	require.LessOrEqual(t, sum(all.PVFS.Requests, "rmdirent", "tree_remove", "remove"), 2*n)
	require.LessOrEqual(t, sum(all.PVFS.Requests, "rmdirent", "tree_remove", "remove", "getattr", "listattr", "lookup_path", "crdirent"), 3*n+20,
		"who looks before may have to ask")
}

// sync: all write to one file, sync and close it. The kernel hands a mount one fsync
// of a file after the other, so that they cannot become one request; but the servers
// are asked to flush what was written, and no more.
func (s *storm) sync(t *testing.T, ranks int) {
	all, nodes := s.together(t, ranks, fmt.Sprintf("sync%d/file", ranks), "openrw", "write", "sync", "close")
	require.LessOrEqual(t, all.PVFS.Requests["flush"], int64(15), "three times the file and its datafiles")
	for _, n := range nodes {
		require.LessOrEqual(t, sum(n.RPC.Requests, "open"), int64(3))
		require.LessOrEqual(t, sum(n.RPC.Requests, "close"), int64(3))
	}
}

// imports: sixteen processes import all modules.
func (s *storm) imports(t *testing.T) {
	script := fmt.Sprintf("for i in range(%d): assert __import__('module%%d' %% i).value == i", stormModules)
	all, nodes := s.run(t, 16, "python3", "-c", script)
	for _, n := range nodes {
		require.LessOrEqual(t, sum(n.RPC.Requests, "lookup"), int64(stormModules+20), "each name once")
		require.LessOrEqual(t, sum(n.RPC.Requests, "open"), int64(stormModules+20), "each file once")
		require.LessOrEqual(t, sum(n.RPC.Requests, "read"), int64(stormModules+20), "each file once")
		require.LessOrEqual(t, sum(n.RPC.Requests, "close", "readdir"), int64(20))
	}
	size := int64(0)
	for i := range stormModules {
		size += int64(len(fmt.Sprintf("value = %d\n", i)))
	}
	require.LessOrEqual(t, all.PVFS.BytesRead, size, "each byte once")
	require.LessOrEqual(t, sum(all.PVFS.Requests, "io", "small_io"), int64(stormModules+20))
	require.LessOrEqual(t, sum(all.PVFS.Requests, "lookup_path"), int64(2*stormModules+40), "each name once for each node")
}

// program: sixteen processes are one program, of a megabyte.
func (s *storm) program(t *testing.T) {
	st, err := os.Stat(filepath.Join(s.c.rig().dirs[0], "program"))
	require.NoError(t, err)
	all, nodes := s.run(t, 16, "/zfs/program", "-c", ":")
	for _, n := range nodes {
		require.LessOrEqual(t, sum(n.RPC.Requests, looks...), int64(40))
		require.LessOrEqual(t, n.RPC.BytesReceived, st.Size()+1<<20, "each byte once")
	}
	require.LessOrEqual(t, all.PVFS.BytesRead, st.Size(), "each byte once")
}

// lostRanks: ranks that have looked files up, opened, read and synced them together for a
// while are expected; then one of them is stopped, and one goes on elsewhere. The others
// come to their end, and read and write what they should, before anybody wakes the one up.
func (s *storm) lostRanks(t *testing.T) {
	const ranks, epochs = 8, 30
	top, dir := s.c.rig().dirs[0], t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(top, "lost"), 0o755))
	for i := range epochs {
		require.NoError(t, os.WriteFile(filepath.Join(top, "lost", fmt.Sprint("f", i)), fmt.Appendf(nil, "epoch %d\n", i), 0o666))
	}
	script := filepath.Join(dir, "rank")
	require.NoError(t, os.WriteFile(script, fmt.Appendf(nil, `set -e
r=$ZOIDFS_RANK i=0
echo $$ >'%[1]s'/pid.$r
while [ $i -lt %[2]d ]; do
	case $i.$r in
	10.3) kill -STOP $$ ;;
	1[0-9].5) ls /zfs/modules >/dev/null; i=$((i+1)); continue ;;
	esac
	read -r word n </zfs/lost/f$i
	[ "$word $n" = "epoch $i" ]
	echo $r >>/zfs/lost/log
	sync /zfs/lost/log
	i=$((i+1))
done
echo $r >>'%[1]s'/done
if [ $(wc -l <'%[1]s'/done) -eq %[3]d ]; then kill -CONT $(cat '%[1]s'/pid.3); fi
`, dir, epochs, ranks-1), 0o755))
	s.run(t, ranks, "sh", script)
	log, err := os.ReadFile(filepath.Join(s.c.rig().dirs[1], "lost", "log"))
	require.NoError(t, err)
	times := make(map[string]int)
	for _, r := range strings.Fields(string(log)) {
		times[r]++
	}
	for r := range ranks {
		want := epochs
		if r == 5 {
			want -= 10
		}
		require.Equal(t, want, times[fmt.Sprint(r)], "rank %d", r)
	}
}
