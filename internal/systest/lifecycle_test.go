package systest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestLifecycle starts, uses, breaks and restarts one system. Its parts run in
// order and each finds what the one before left.
func TestLifecycle(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole system")
	}
	t.Parallel()
	if os.Getenv("ZOIDFS_SYSTEST_DIRS") != "" {
		t.Skip("needs a zoidfs system")
	}
	c := newCluster(t, shortTempDir(t))
	c.up(t)
	for _, tt := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"launch", lifeLaunch},
		{"stats", lifeStats},
		{"striped", lifeStriped},
		{"up is idempotent", lifeUpAgain},
		{"down and up", lifeDownUp},
		{"kill a server", lifeKillServer},
		{"kill a mount", lifeKillMount},
		{"kill an I/O node", lifeKillION},
		{"terminate a mount", lifeTerminateMount},
		{"kill everything", lifeKillAll},
	} {
		if !t.Run(tt.name, func(t *testing.T) { tt.run(t, c) }) {
			c.dumpLogs(t)
		}
		c.noPanics(t)
	}
	pids := c.file(t).pids()
	c.down(t)
	requireGone(t, c, pids)
}

// requireGone checks that no process and no mount of a system is left.
func requireGone(t *testing.T, c *cluster, pids []int) {
	t.Helper()
	for _, pid := range pids {
		require.False(t, running(pid), "process %d is left after down", pid)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	require.NotContains(t, string(mounts), c.dir+"/")
}

// running reports whether a process exists and is no zombie.
func running(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	rest := string(b)[strings.LastIndexByte(string(b), ')')+1:]
	return !strings.HasPrefix(strings.TrimSpace(rest), "Z")
}

// kill sends a signal to a process and, if it ends it, waits for that.
func kill(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	require.NoError(t, syscall.Kill(pid, sig))
	for end := time.Now().Add(20 * time.Second); running(pid); time.Sleep(10 * time.Millisecond) {
		require.True(t, time.Now().Before(end), "process %d survives signal %v", pid, sig)
	}
}

func lifeLaunch(t *testing.T, c *cluster) {
	needRoot(t, "mount namespaces")
	c.zoidfs(t, "launch", "--dir", c.dir, "-n", "4", "--", "sh", "-ec",
		`mkdir -p /zfs/launch; echo "$ZOIDFS_SIZE $ZOIDFS_JOB" > /zfs/launch/rank$ZOIDFS_RANK; stat -f -c %T /zfs | grep -q fuse`)
	jobs := map[string]bool{}
	for rank := range 4 {
		b, err := os.ReadFile(filepath.Join(c.rig().dirs[1], "launch", fmt.Sprint("rank", rank)))
		require.NoError(t, err)
		f := strings.Fields(string(b))
		require.Len(t, f, 2)
		require.Equal(t, "4", f[0])
		jobs[f[1]] = true
	}
	require.Len(t, jobs, 1, "one job id for all ranks")
	_, err := c.try("launch", "--dir", c.dir, "-n", "3", "--", "sh", "-c", `test $ZOIDFS_RANK != 1 || exit 7`)
	require.ErrorContains(t, err, "exit status 7")
	// Ranks are spread in blocks: what rank 0 and 3 see at /zfs are different mounts.
	out := c.zoidfs(t, "launch", "--dir", c.dir, "-n", "4", "--", "sh", "-c", `echo "$ZOIDFS_RANK $(stat -c %d /zfs)" > /zfs/launch/dev$ZOIDFS_RANK`)
	require.Empty(t, out)
	dev := func(rank int) string {
		return strings.Fields(shell(t, c.rig().dirs[0], fmt.Sprintf("cat launch/dev%d", rank)))[1]
	}
	require.Equal(t, dev(0), dev(1))
	require.Equal(t, dev(2), dev(3))
	require.NotEqual(t, dev(1), dev(2))
}

// stats is what `zoidfs stats --json` prints.
type stats struct {
	App struct {
		Calls        map[string]int64 `json:"calls"`
		BytesRead    int64            `json:"bytes_read"`
		BytesWritten int64            `json:"bytes_written"`
	} `json:"app"`
	RPC struct {
		Requests      map[string]int64 `json:"requests"`
		BytesSent     int64            `json:"bytes_sent"`
		BytesReceived int64            `json:"bytes_received"`
	} `json:"rpc"`
	PVFS struct {
		Requests     map[string]int64 `json:"requests"`
		BytesRead    int64            `json:"bytes_read"`
		BytesWritten int64            `json:"bytes_written"`
	} `json:"pvfs"`
}

func (c *cluster) stats(t *testing.T, args ...string) (s stats) {
	t.Helper()
	out := c.zoidfs(t, append([]string{"stats", "--json"}, args...)...)
	d := json.NewDecoder(strings.NewReader(out))
	require.NoError(t, d.Decode(&s), out)
	return s
}

func lifeStats(t *testing.T, c *cluster) {
	r := c.rig()
	c.zoidfs(t, "stats", "--dir", c.dir, "--reset")
	const mib = 1 << 20
	shell(t, r.dirs[0], "dd if=/dev/zero of=counted bs=1M count=6 conv=fsync status=none")
	shell(t, r.dirs[1], "dd if=counted of=/dev/null bs=1M status=none")
	all := c.stats(t, "--dir", c.dir)
	require.EqualValues(t, 6*mib, all.App.BytesWritten)
	require.EqualValues(t, 6, all.App.Calls["write"])
	require.EqualValues(t, 6*mib, all.App.BytesRead)
	require.GreaterOrEqual(t, all.App.Calls["read"], int64(6))
	require.GreaterOrEqual(t, all.RPC.BytesSent, int64(6*mib))
	require.Less(t, all.RPC.BytesSent, int64(7*mib))
	require.GreaterOrEqual(t, all.RPC.BytesReceived, int64(6*mib))
	require.EqualValues(t, 6*mib, all.PVFS.BytesWritten)
	require.Zero(t, all.PVFS.BytesRead, "the I/O nodes have it")
	require.NotZero(t, all.PVFS.Requests["io"])
	one := c.stats(t, r.dirs[0])
	require.EqualValues(t, 6*mib, one.App.BytesWritten)
	require.Zero(t, one.App.BytesRead)
	var sum int64
	for _, ion := range c.file(t).IONs {
		sum += c.stats(t, ion.Addr).PVFS.BytesWritten
	}
	require.EqualValues(t, 6*mib, sum, "both I/O nodes together")
	require.NotEmpty(t, c.zoidfs(t, "stats", "--dir", c.dir))
	require.NotEmpty(t, c.zoidfs(t, "status", "--dir", c.dir))
}

// lifeStriped looks at the servers' data directories: a large file lies on all
// of them in equal parts.
func lifeStriped(t *testing.T, c *cluster) {
	usage := func() (out []int64) {
		for _, s := range c.file(t).PVFSD {
			n, err := strconv.ParseInt(strings.Fields(shell(t, "/", "du -s --apparent-size -B1 "+s.Data))[0], 10, 64)
			require.NoError(t, err)
			out = append(out, n)
		}
		return out
	}
	before := usage()
	shell(t, c.rig().dirs[0], "head -c 64M /dev/urandom > striped; sync striped")
	for i, n := range usage() {
		require.InDelta(t, 16<<20, n-before[i], 1<<20, "server %d", i)
	}
	shell(t, c.rig().dirs[1], "rm striped")
	for i, n := range usage() {
		require.InDelta(t, 0, n-before[i], 1<<20, "server %d", i)
	}
}

func lifeUpAgain(t *testing.T, c *cluster) {
	before := c.file(t).pids()
	c.up(t)
	require.Equal(t, before, c.file(t).pids(), "up leaves what runs alone")
}

// plant fills a directory with files of all kinds; census says what is there.
func plant(t *testing.T, dir string) {
	t.Helper()
	shell(t, dir, `
		mkdir -p deep/er; head -c 9000001 /dev/urandom > deep/striped; head -c 100 /dev/urandom > small; : > empty
		ln -s deep/striped link; chmod 600 small; chmod 2755 deep; touch -d '2011-01-01' small
		truncate -s 7G sparse; printf end >> sparse
		for i in $(seq 200); do echo $i > deep/er/$i; done`)
	require.NoError(t, unix.Setxattr(filepath.Join(dir, "small"), "user.color", []byte("blue"), 0))
}

func census(t *testing.T, dir string) string {
	t.Helper()
	var color [16]byte
	n, err := unix.Getxattr(filepath.Join(dir, "small"), "user.color", color[:])
	require.NoError(t, err)
	return shell(t, dir, `find . -mindepth 1 -printf '%P %y %m %U %G %s %l %Ts\n' | sort
		find . -type f -size -1G -print0 | sort -z | xargs -0 sha256sum; tail -c 100 sparse | sha256sum`) + string(color[:n])
}

func lifeDownUp(t *testing.T, c *cluster) {
	r := c.rig().under(t, "downup")
	plant(t, r.dirs[0])
	want := census(t, r.dirs[1])
	for range 2 {
		pids := c.file(t).pids()
		c.down(t)
		requireGone(t, c, pids)
		_, err := os.Stat(r.dirs[0])
		require.ErrorIs(t, err, os.ErrNotExist)
		c.up(t)
		for _, dir := range r.dirs {
			require.Equal(t, want, census(t, dir))
		}
	}
	out, err := c.try("down", "--dir", c.dir)
	require.NoError(t, err, out)
	out, err = c.try("down", "--dir", c.dir)
	require.NoError(t, err, "down of a system that is down: %s", out)
	c.up(t)
}

// traffic is a script that writes and reads back for a while, on files of its
// own and with names of its own, made with O_EXCL if excl is that flag.
func traffic(who string, steps, excl int) (script []op) {
	script = append(script, op{Do: "open", Path: who, FD: 1, Flags: create})
	for i := range steps {
		off := int64(i) * 40_000
		name := fmt.Sprintf("%s-%d", who, i)
		script = append(script,
			op{Do: "pwrite", FD: 1, Off: off, Len: 40_000, Fill: uint64(i + 1)},
			op{Do: "pread", FD: 1, Off: off, Len: 40_000},
			op{Do: "fstat", FD: 1},
			op{Do: "open", Path: name, FD: 2, Flags: create | excl},
			op{Do: "write", FD: 2, Len: 100, Fill: uint64(i)},
			op{Do: "fsync", FD: 2},
			op{Do: "close", FD: 2},
			op{Do: "rename", Path: name, To: name + "x"},
			op{Do: "stat", Path: name + "x"},
			op{Do: "unlink", Path: name + "x"},
			op{Do: "sleep", Len: 15_000})
	}
	return append(script, op{Do: "close", FD: 1})
}

// checkTraffic checks the results of traffic and returns the longest that a
// call took.
func checkTraffic(t *testing.T, script []op, res []result) (longest time.Duration) {
	t.Helper()
	for i, o := range script {
		require.Zerof(t, res[i].Errno, "call %d of %d: %v: %v", i, len(script), o, res[i])
		switch o.Do {
		case "pread":
			require.Equal(t, digest(fill(script[i-1].Fill, o.Len)), res[i].Sum, "%v", o)
		case "fstat":
			require.Equal(t, script[i-2].Off+script[i-2].Len, res[i].N)
		case "stat":
			require.EqualValues(t, 100, res[i].N)
		}
		longest = max(longest, time.Duration(res[i].End-res[i].Start))
	}
	return longest
}

// during runs traffic on both nodes, calls f in the midst of it and requires
// that no call fails.
func during(t *testing.T, r *rig, excl int, f func()) {
	t.Helper()
	ps := startProcs(t, r, 4)
	scripts := make([][]op, len(ps))
	for i := range ps {
		scripts[i] = traffic(fmt.Sprint("p", i), 60, excl)
	}
	done := make(chan [][]result)
	go func() {
		defer close(done)
		done <- runAll(t, ps, scripts)
	}()
	time.Sleep(500 * time.Millisecond)
	f()
	results, ok := <-done
	require.True(t, ok, "the traffic did not end")
	for i, res := range results {
		longest := checkTraffic(t, scripts[i], res)
		t.Logf("%s: longest call %v", ps[i].name, longest.Round(time.Millisecond))
	}
	for _, p := range ps {
		p.stop()
	}
}

func lifeKillServer(t *testing.T, c *cluster) {
	want := census(t, filepath.Join(c.rig().dirs[0], "downup"))
	for victim := range 4 {
		if victim == 2 {
			continue // three of four are enough
		}
		r := c.rig().under(t, fmt.Sprint("killserver", victim))
		during(t, r, unix.O_EXCL, func() {
			kill(t, c.file(t).PVFSD[victim].PID, syscall.SIGKILL)
			time.Sleep(time.Second)
			c.up(t)
		})
	}
	for _, dir := range c.rig().dirs {
		require.Equal(t, want, census(t, filepath.Join(dir, "downup")))
	}
}

func lifeKillMount(t *testing.T, c *cluster) {
	r := c.rig().under(t, "killmount")
	ps := startProcs(t, r, 2)
	for _, p := range ps {
		p.ok(t, op{Do: "open", Path: "x", FD: 1, Flags: create})
	}
	ps[0].ok(t, op{Do: "pwrite", FD: 1, Len: 1000, Fill: 1})
	ps[0].ok(t, op{Do: "lock", FD: 1, Flags: unix.F_WRLCK, Len: 10})
	require.NotZero(t, ps[1].do(t, op{Do: "lock", FD: 1, Flags: unix.F_WRLCK, Len: 10}).Errno)
	kill(t, c.file(t).Nodes[0].PID, syscall.SIGKILL)
	require.NotZero(t, ps[0].do(t, op{Do: "fstat", FD: 1}).Errno, "the mount is dead")
	requireRead(t, ps[1], 0, 1000, 1) // nobody else notices
	// The locks of the dead mount go with its session.
	ps[1].ok(t, op{Do: "lock", FD: 1, Flags: unix.F_WRLCK, Len: 10, Fill: 1})
	ps[0].stop()
	c.up(t)
	p := startProc(t, r, 0)
	p.ok(t, op{Do: "open", Path: "x", FD: 1, Flags: rdwr})
	requireRead(t, p, 0, 1000, 1)
	ps[1].ok(t, op{Do: "pwrite", FD: 1, Len: 1000, Fill: 2})
	requireRead(t, p, 0, 1000, 2)
}

func lifeKillION(t *testing.T, c *cluster) {
	for victim := range 2 {
		r := c.rig().under(t, fmt.Sprint("killion", victim))
		holder := startProc(t, r, 0)
		holder.ok(t, op{Do: "open", Path: "locked", FD: 1, Flags: create})
		holder.ok(t, op{Do: "lock", FD: 1, Flags: unix.F_WRLCK, Len: 10})
		holder.ok(t, op{Do: "open", Path: "gone", FD: 2, Flags: create})
		holder.ok(t, op{Do: "pwrite", FD: 2, Len: 5000, Fill: 5})
		holder.ok(t, op{Do: "unlink", Path: "gone"})
		// Not O_EXCL: whose file it is that was made just before the I/O node
		// died, nobody knows afterwards.
		during(t, r, 0, func() {
			kill(t, c.file(t).IONs[victim].PID, syscall.SIGKILL)
			time.Sleep(time.Second)
			c.up(t)
		})
		// What the mount held at the I/O node it holds again.
		other := startProc(t, r, 1)
		other.ok(t, op{Do: "open", Path: "locked", FD: 1, Flags: rdwr})
		require.NotZero(t, other.do(t, op{Do: "lock", FD: 1, Flags: unix.F_WRLCK, Len: 10}).Errno, "the lock survives the restart of the I/O node")
		require.Equal(t, fill(5, 5000), holder.ok(t, op{Do: "pread", FD: 2, Len: 5000}).Data, "the open file survives it too")
		holder.stop()
		other.ok(t, op{Do: "lock", FD: 1, Flags: unix.F_WRLCK, Len: 10, Fill: 1})
	}
}

func lifeTerminateMount(t *testing.T, c *cluster) {
	node := c.file(t).Nodes[1]
	shell(t, node.Mount, "echo before > terminated")
	kill(t, node.PID, syscall.SIGTERM)
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	require.NotContains(t, string(mounts), node.Mount+" ", "SIGTERM unmounts")
	c.up(t)
	require.Equal(t, "before\n", shell(t, node.Mount, "cat terminated"))
}

// lifeKillAll ends every process at once, as a crash of the machine does, but
// for what the page cache holds.
func lifeKillAll(t *testing.T, c *cluster) {
	r := c.rig().under(t, "killall")
	plant(t, r.dirs[0])
	shell(t, r.dirs[0], "sync deep/striped small deep/er/* sparse")
	want := census(t, r.dirs[1])
	for _, pid := range c.file(t).pids() {
		kill(t, pid, syscall.SIGKILL)
	}
	c.up(t)
	for _, dir := range r.dirs {
		require.Equal(t, want, census(t, dir))
	}
	require.Equal(t, want, strings.ReplaceAll(census(t, r.dirs[0]), "\r", ""))
	n, err := strconv.Atoi(strings.TrimSpace(shell(t, r.dirs[0], "ls deep/er | wc -l")))
	require.NoError(t, err)
	require.Equal(t, 200, n)
}
