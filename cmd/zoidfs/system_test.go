package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/cluster"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/counters"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/local"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
)

// system is a directory in which a test brings a system up.
type system struct {
	shell
	t   *testing.T
	dir string
}

// newSystem returns a directory for a system that is taken down at the end of
// the test, after which nothing of it may be left.
func newSystem(t *testing.T) *system {
	t.Helper()
	needMounts(t)
	dir, err := os.MkdirTemp("", "zsys")
	require.NoError(t, err)
	dir, err = filepath.EvalSymlinks(dir)
	require.NoError(t, err)
	s := &system{t: t, dir: dir}
	t.Cleanup(func() {
		if t.Failed() {
			s.dumpLogs()
		}
		r := s.zoidfs(t, "down", "--dir", dir)
		require.Zero(t, r.code, r.errOut)
		s.nothingLeft()
		require.NoError(t, os.RemoveAll(dir))
	})
	return s
}

func (s *system) dumpLogs() {
	logs, _ := filepath.Glob(s.dir + "/log/*.log")
	for _, name := range logs {
		b, _ := os.ReadFile(name)
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		s.t.Logf("%s:\n%s", name, strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
}

// nothingLeft fails the test if a mount or a process of the system is left.
func (s *system) nothingLeft() {
	s.t.Helper()
	nothingMounted(s.t, s.dir)
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(s.t, err)
	for _, name := range lines {
		if b, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(b), "zoidfs\x00") {
			require.NotContains(s.t, string(b), s.dir, "a process is left: %s", name)
		}
	}
}

// do runs a command on the system, which must succeed, and returns what it
// printed.
func (s *system) do(command string, args ...string) string {
	s.t.Helper()
	r := s.try(command, args...)
	require.Zero(s.t, r.code, "zoidfs %s %v: %s%s", command, args, r.out, r.errOut)
	return r.out
}

func (s *system) try(command string, args ...string) result {
	s.t.Helper()
	return s.zoidfs(s.t, append([]string{command, "--dir", s.dir}, args...)...)
}

func (s *system) file() *cluster.File {
	s.t.Helper()
	f, err := cluster.Dir(s.dir).Load()
	require.NoError(s.t, err)
	return f
}

func (s *system) path(node int, name string) string {
	return filepath.Join(s.dir, cluster.NodeName(node), "zfs", name)
}

func (s *system) write(node int, name, content string) {
	s.t.Helper()
	require.NoError(s.t, os.WriteFile(s.path(node, name), []byte(content), 0o644))
}

func (s *system) wantContent(node int, name, content string) {
	s.t.Helper()
	b, err := os.ReadFile(s.path(node, name))
	require.NoError(s.t, err)
	require.Equal(s.t, content, string(b))
}

// kill ends a process of the system as a crash would.
func (s *system) kill(r cluster.Role) {
	s.t.Helper()
	require.NoError(s.t, r.Signal(syscall.SIGKILL))
	require.NoError(s.t, r.Wait(s.t.Context()))
}

// same is the part of the cluster file that restarts must not change.
func same(f *cluster.File) []string {
	out := []string{f.PVFS}
	for _, p := range f.PVFSD {
		out = append(out, p.Alias+" "+p.Addr)
	}
	for _, i := range f.IONs {
		out = append(out, i.Addr)
	}
	return out
}

func TestSystem(t *testing.T) {
	s := newSystem(t)
	out := s.do("up")
	require.Equal(t, fmt.Sprintf("zoidfs is up in %s: 4 servers, 2 I/O nodes, 2 nodes\n  node0  %s\n  node1  %s\n",
		s.dir, s.path(0, ""), s.path(1, "")), out)
	for _, step := range []struct {
		name string
		run  func(*testing.T, *system)
	}{
		{"UpAgainSaysSo", testUpAgain},
		{"Status", testStatus},
		{"Stats", testStats},
		{"Consistency", testConsistency},
		{"Launch", testLaunch},
		{"LaunchSignals", testLaunchSignals},
		{"Enter", testEnter},
		{"RepairedAfterACrash", testRepair},
		{"PartsAreStarted", testMoreNodes},
		{"DataSurvives", testDownUp},
		{"TakenPort", testTakenPort},
		{"DownWithAJobRunning", testDownWithJob},
		{"DownTwice", testDownTwice},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, &system{shell: s.shell, t: t, dir: s.dir}) }) {
			return // the steps share the system
		}
	}
}

func testUpAgain(t *testing.T, s *system) {
	before := s.file()
	require.Contains(t, s.do("up"), "zoidfs is already up in "+s.dir)
	require.Equal(t, before, s.file())
	r := s.try("up", "--ions", "3")
	require.Equal(t, 1, r.code)
	require.Equal(t, "zoidfs up: the system runs with 2 I/O nodes, not 3; take it down first\n", r.errOut)
}

func testStatus(t *testing.T, s *system) {
	var st local.Status
	require.NoError(t, json.Unmarshal([]byte(s.do("status", "--json")), &st))
	require.True(t, st.OK)
	require.Len(t, st.Servers, 4)
	require.Len(t, st.IONs, 2)
	require.Len(t, st.Nodes, 2)
	for _, h := range append(append(st.Servers, st.IONs...), st.Nodes...) {
		require.True(t, h.OK, h)
		require.Positive(t, h.PID, h)
		require.Positive(t, h.LatencyUS, h)
	}
	human := s.do("status")
	for _, want := range []string{"pvfsd3", "ion1", "node1", " ok ", "calls/s", s.path(1, "")} {
		require.Contains(t, human, want)
	}
	require.NotContains(t, human, "DOWN")
}

func testStats(t *testing.T, s *system) {
	s.do("stats", "--reset")
	const writes, size = 10, 4096
	f, err := os.Create(s.path(0, "counted"))
	require.NoError(t, err)
	for i := range int64(writes) {
		_, err := f.WriteAt(make([]byte, size), i*size)
		require.NoError(t, err)
	}
	require.NoError(t, f.Sync())
	require.NoError(t, f.Close())

	stats := func(args ...string) (c counters.Stats, keys map[string]map[string]any) {
		r := s.zoidfs(t, append([]string{"stats", "--json"}, args...)...)
		require.Zero(t, r.code, r.errOut)
		require.NoError(t, json.Unmarshal([]byte(r.out), &c))
		require.NoError(t, json.Unmarshal([]byte(r.out), &keys))
		return c, keys
	}
	all, keys := stats("--dir", s.dir)
	require.EqualValues(t, writes, all.App.Calls["write"])
	require.EqualValues(t, writes*size, all.App.BytesWritten)
	require.NotZero(t, all.RPC.Requests["write"])
	require.LessOrEqual(t, all.RPC.Requests["write"], uint64(writes))
	require.GreaterOrEqual(t, all.RPC.BytesSent, uint64(writes*size))
	require.GreaterOrEqual(t, all.PVFS.BytesWritten, uint64(writes*size))
	require.Positive(t, counters.Total(all.PVFS.Requests))
	for level, want := range map[string][]string{
		"app": {"calls", "bytes_read", "bytes_written"}, "rpc": {"requests", "bytes_sent", "bytes_received"},
		"pvfs": {"requests", "bytes_read", "bytes_written"},
	} {
		for _, key := range want {
			require.Contains(t, keys[level], key)
		}
	}
	one, _ := stats(s.path(0, ""))
	require.EqualValues(t, writes, one.App.Calls["write"])
	other, _ := stats(s.path(1, ""))
	require.Zero(t, other.App.Calls["write"])
	var pvfs uint64
	for _, ion := range s.file().IONs {
		c, _ := stats(ion.Addr)
		pvfs += c.PVFS.BytesWritten
	}
	require.Equal(t, all.PVFS.BytesWritten, pvfs)
	require.Contains(t, s.do("stats"), "for each call")

	s.do("stats", "--reset")
	again, _ := stats("--dir", s.dir)
	require.Zero(t, again.App.Calls["write"])
	require.Zero(t, again.PVFS.BytesWritten)
}

func testRepair(t *testing.T, s *system) {
	s.write(0, "kept", "kept\n")
	for _, tt := range []struct {
		name string
		role func(*cluster.File) cluster.Role
	}{
		{"pvfsd0", func(f *cluster.File) cluster.Role { return f.PVFSD[0].Role }},
		{"pvfsd2", func(f *cluster.File) cluster.Role { return f.PVFSD[2].Role }},
		{"ion1", func(f *cluster.File) cluster.Role { return f.IONs[1].Role }},
		{"node0", func(f *cluster.File) cluster.Role { return f.Nodes[0].Role }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.t = t
			before := s.file()
			s.kill(tt.role(before))
			r := s.try("status")
			require.Equal(t, 1, r.code)
			require.Contains(t, r.errOut, "zoidfs status: not well: ")
			require.Contains(t, r.errOut, tt.name)
			require.Regexp(t, tt.name+` .* DOWN `, r.out)

			require.Contains(t, s.do("up"), "started 1 of 8 processes that were missing")
			after := s.file()
			require.Equal(t, same(before), same(after))
			require.NotEqual(t, tt.role(before).ID, tt.role(after).ID)
			s.wantContent(0, "kept", "kept\n")
			s.wantContent(1, "kept", "kept\n")
			s.write(0, "after-"+tt.name, "x")
		})
	}
	// The status settles once the I/O nodes have found each other again.
	require.Eventually(t, func() bool { return s.try("status").code == 0 }, 20*time.Second, 500*time.Millisecond)
}

func testMoreNodes(t *testing.T, s *system) {
	require.Contains(t, s.do("up", "--nodes", "3"), "started 1 of 9 processes that were missing")
	s.wantContent(2, "kept", "kept\n")
}

func testDownUp(t *testing.T, s *system) {
	before := s.file()
	s.write(0, "persistent", strings.Repeat("zoid", 100000))
	require.Contains(t, s.do("down"), "stopped 9 processes in "+s.dir)
	s.nothingLeft()
	for _, p := range s.file().PVFSD {
		require.Zero(t, p.PID)
		require.False(t, cluster.InUse(p.Addr))
	}
	names, err := os.ReadDir(s.path(0, ""))
	require.NoError(t, err)
	require.Empty(t, names, "the mount point is an empty directory again")

	s.do("up", "--nodes", "2")
	require.Equal(t, same(before), same(s.file()))
	s.wantContent(1, "persistent", strings.Repeat("zoid", 100000))
}

func testTakenPort(t *testing.T, s *system) {
	f := s.file()
	s.do("down")
	for _, addr := range []string{f.PVFSD[0].Addr, f.IONs[0].Addr} {
		l, err := net.Listen("tcp", addr)
		require.NoError(t, err)
		defer l.Close()
	}
	s.do("up")
	after := s.file()
	require.NotEqual(t, f.PVFSD[0].Addr, after.PVFSD[0].Addr)
	require.NotEqual(t, f.IONs[0].Addr, after.IONs[0].Addr)
	require.Equal(t, f.PVFSD[1:], withIDs(after.PVFSD[1:], f.PVFSD[1:]))
	s.wantContent(0, "kept", "kept\n")
	s.wantContent(1, "persistent", strings.Repeat("zoid", 100000))
}

// withIDs returns a with the process ids of b.
func withIDs(a, b []cluster.Server) []cluster.Server {
	out := append([]cluster.Server(nil), a...)
	for i := range out {
		out[i].ID = b[i].ID
	}
	return out
}

func testDownWithJob(t *testing.T, s *system) {
	cmd := s.startJob(`ready; exec 3>/zfs/held.$ZOIDFS_RANK; while echo x >&3; do sleep 0.1; done 2>/dev/null; exit 5`)
	pids := s.waitForRanks(2)
	start := time.Now()
	s.do("down")
	require.Less(t, time.Since(start), 40*time.Second)
	_ = cmd.Wait() // its status is looked at next
	s.nothingLeft()
	require.NotZero(t, cmd.ProcessState.ExitCode(), "the ranks have lost their file system")
	s.wantGone(pids)
}

func testDownTwice(t *testing.T, s *system) {
	require.Equal(t, "nothing was running in "+s.dir+"\n", s.do("down"))
}

func TestFailureStopsWhatWasStarted(t *testing.T) {
	s := newSystem(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	url := "tcp://" + l.Addr().String() + "/zoidfs"
	require.NoError(t, l.Close())
	r := s.try("up", "--pvfs", url, "--timeout", "20s")
	require.Equal(t, 1, r.code)
	lines := strings.Split(strings.TrimSpace(r.errOut), "\n")
	require.Regexp(t, `^zoidfs up: ion[01]: .*`+l.Addr().String()+`.*\(log: .*/log/ion[01]\.log\)$`, lines[len(lines)-1])
	s.nothingLeft()
	require.Equal(t, "nothing was running in "+s.dir+"\n", s.do("down"))
}

// TestServersOfOthers brings a system up on servers that run already.
func TestServersOfOthers(t *testing.T) {
	s := newSystem(t)
	others := pvfsdtest.Start(t, 3, pvfsdtest.Options{})
	out := s.do("up", "--pvfs", others.URL(), "--ions", "1", "--nodes", "1")
	require.Equal(t, fmt.Sprintf("zoidfs is up in %s: 3 external servers, 1 I/O nodes, 1 nodes\n  node0  %s\n", s.dir, s.path(0, "")), out)
	s.write(0, "file", "content")
	s.do("down")
	s.nothingLeft()
}

// TestDemo is what `make run` shows, with a smaller file, twice.
func TestDemo(t *testing.T) {
	s := newSystem(t)
	for range 2 {
		out := s.do("demo", "--mib", "4")
		for _, want := range []string{"node0 reads the same, 4194304 bytes", "node1 reads the same, 4194304 bytes",
			"pvfsd0  1048576 bytes", "pvfsd3  1048576 bytes"} {
			require.Contains(t, out, want)
		}
		require.Regexp(t, `(?s)calls from applications .*write +1024\n.*requests to I/O nodes .*write +\d+\n`, out)
		require.Regexp(t, `(?s)Try:\n.* cp -a .*status --dir.*down --dir`, out)
	}
	require.Contains(t, s.do("up"), "already up", "the system is left running")
}

// everybodysFuse gives /dev/fuse the mode that it usually has, for the test.
func everybodysFuse(t *testing.T) {
	t.Helper()
	st, err := os.Stat("/dev/fuse")
	require.NoError(t, err)
	if st.Mode().Perm() != 0o666 {
		require.NoError(t, os.Chmod("/dev/fuse", 0o666))
		t.Cleanup(func() { require.NoError(t, os.Chmod("/dev/fuse", st.Mode().Perm())) })
	}
}

// TestWithoutRoot brings a system up as a user who can only use fusermount3
// and user namespaces.
func TestWithoutRoot(t *testing.T) {
	needMounts(t)
	if _, err := exec.LookPath("fusermount3"); err != nil {
		skipOrFail(t, "fusermount3 is missing: apt-get install fuse3")
	}
	s := newSystem(t)
	if os.Getuid() == 0 {
		s.cred = &syscall.Credential{Uid: 65534, Gid: 65534}
		require.NoError(t, os.Chmod(s.dir, 0o777))
		everybodysFuse(t)
	}
	s.do("up", "--servers", "2")
	s.do("launch", "-n", "4", "--", "sh", "-c", `echo $(id -u) >/zfs/rank.$ZOIDFS_RANK`)
	uid := os.Getuid()
	if s.cred != nil {
		uid = int(s.cred.Uid)
	}
	out := s.do("enter", "--node", "1", "--", "sh", "-c", `cat /zfs/rank.*`)
	require.Equal(t, strings.Repeat(fmt.Sprintln(uid), 4), out)
	require.Equal(t, 42, s.try("launch", "-n", "2", "--", "sh", "-c", "exit 42").code)
	r := s.try("launch", "-n", "2", "--", "no-such-program")
	require.Equal(t, 127, r.code)
	require.Equal(t, 1, strings.Count(r.errOut, "\n"), r.errOut)
	s.do("status")
	s.do("down")
	s.nothingLeft()
}
