package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/local"
)

func testLaunch(t *testing.T, s *system) {
	out := s.do("launch", "-n", "5", "--", "sh", "-c", `echo $ZOIDFS_RANK of $ZOIDFS_SIZE >/zfs/rank.$ZOIDFS_RANK
		test -n "$ZOIDFS_JOB" && stat -f -c %T /zfs && grep ' /zfs ' /proc/self/mountinfo >/dev/null; echo $ZOIDFS_JOB >>/zfs/jobs`)
	require.Equal(t, 5, strings.Count(out, "fuse"), out)
	for r := range 5 {
		s.wantContent(1, fmt.Sprintf("rank.%d", r), fmt.Sprintf("%d of 5\n", r))
	}
	b, err := os.ReadFile(s.path(0, "jobs"))
	require.NoError(t, err)
	ids := strings.Fields(string(b))
	require.Len(t, ids, 5, "five appends of two nodes")
	require.Equal(t, []string{ids[0], ids[0], ids[0], ids[0], ids[0]}, ids)

	// Each rank sees its own node: blocks of 2 and 2, told apart by the stats.
	s.do("stats", "--reset")
	s.do("launch", "-n", "4", "--", "sh", "-c", `test $ZOIDFS_RANK -lt 2 || : >/zfs/from-second-node`)
	first, err := local.MountStats(t.Context(), s.path(0, ""), false)
	require.NoError(t, err)
	second, err := local.MountStats(t.Context(), s.path(1, ""), false)
	require.NoError(t, err)
	require.Zero(t, first.App.Calls["create"])
	require.EqualValues(t, 2, second.App.Calls["create"]+second.App.Calls["open"])

	_, err = os.Stat("/zfs/rank.0")
	require.Error(t, err, "/zfs is the ranks' alone")

	with := s.shell
	with.stdin = strings.NewReader("for rank 0 alone\n")
	r := with.zoidfs(t, "launch", "--dir", s.dir, "-n", "2", "--", "sh", "-c", `echo "$ZOIDFS_RANK $(cat)" >&2`)
	require.Zero(t, r.code)
	require.Contains(t, r.errOut, "0 for rank 0 alone\n")
	require.Contains(t, r.errOut, "1 \n")

	for _, tt := range []struct {
		name string
		argv []string
		code int
		err  string
	}{
		{"status", []string{"sh", "-c", `test $ZOIDFS_RANK != 2 || exit 42`}, 42, "zoidfs launch: rank 2: exit status 42\n"},
		{"signal", []string{"sh", "-c", `test $ZOIDFS_RANK = 1 && kill -SEGV $$; sleep 60`}, 128 + 11, "zoidfs launch: rank 1: killed by SIGSEGV\n"},
		{"no program", []string{"no-such-program"}, 127, "no-such-program: no such program\n"},
		{"not executable", []string{"/etc/passwd"}, 126, "/etc/passwd: permission denied\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			r := s.try("launch", append([]string{"-n", "4", "--grace", "1s", "--"}, tt.argv...)...)
			require.Equal(t, tt.code, r.code, r.errOut)
			require.Contains(t, r.errOut, tt.err)
			require.Equal(t, 1, strings.Count(r.errOut, "\n"), "one line: %s", r.errOut)
			require.Less(t, time.Since(start), 30*time.Second)
		})
	}
}

// waitForRanks waits until n ranks have written their pids to files called
// pid.RANK, and returns them.
func (s *system) waitForRanks(n int) []int {
	s.t.Helper()
	var pids []int
	require.Eventually(s.t, func() bool {
		pids = pids[:0]
		for r := range n {
			b, err := os.ReadFile(fmt.Sprintf("%s/pid.%d", s.dir, r))
			pid, convErr := strconv.Atoi(strings.TrimSpace(string(b)))
			if err != nil || convErr != nil {
				return false
			}
			pids = append(pids, pid)
		}
		return true
	}, 20*time.Second, 20*time.Millisecond)
	for r := range n {
		require.NoError(s.t, os.Remove(fmt.Sprintf("%s/pid.%d", s.dir, r)))
	}
	return pids
}

// children returns the processes whose parents are pids.
func (s *system) children(pids []int) []int {
	s.t.Helper()
	var kids []int
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		require.NoError(s.t, err)
		for _, word := range strings.Fields(string(b)) {
			kid, err := strconv.Atoi(word)
			require.NoError(s.t, err)
			kids = append(kids, kid)
		}
	}
	return kids
}

// startJob starts two ranks that run script; they are there, for waitForRanks,
// when they call ready.
func (s *system) startJob(script string) *exec.Cmd {
	s.t.Helper()
	cmd := exec.Command(os.Getenv(binEnv), "launch", "--dir", s.dir, "-n", "2", "--grace", "1s", "--",
		"sh", "-c", `ready() { echo $$ >`+s.dir+`/pid.$ZOIDFS_RANK; }; `+script)
	require.NoError(s.t, cmd.Start())
	return cmd
}

func (s *system) wantGone(pids []int) {
	s.t.Helper()
	for _, pid := range pids {
		require.Eventually(s.t, func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH }, 10*time.Second, 10*time.Millisecond, "rank %d lives on", pid)
	}
}

func testLaunchSignals(t *testing.T, s *system) {
	for _, tt := range []struct {
		name   string
		sig    syscall.Signal
		script string
		code   int
	}{
		{"terminated", syscall.SIGTERM, `ready; exec sleep 100`, 128 + 15},
		{"handled", syscall.SIGUSR1, `trap 'exit 9' USR1; ready; while :; do sleep 0.05; done`, 9},
		{"ignored until killed", syscall.SIGINT, `trap "" INT TERM; ready; while :; do sleep 0.05; done`, 128 + 9},
		{"launch itself killed", syscall.SIGKILL, `sleep 100 & ready; wait`, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := s.startJob(tt.script)
			pids := s.waitForRanks(2)
			kids := s.children(pids)
			require.NoError(t, cmd.Process.Signal(tt.sig))
			_ = cmd.Wait() // its status is looked at below
			require.Equal(t, tt.code, cmd.ProcessState.ExitCode())
			s.wantGone(append(pids, kids...))
		})
	}
}

func testEnter(t *testing.T, s *system) {
	s.write(1, "greeting", "from node 1\n")
	require.Equal(t, "from node 1\n", s.do("enter", "--node", "0", "--", "cat", "/zfs/greeting"))
	require.Equal(t, 3, s.try("enter", "--", "sh", "-c", "exit 3").code)
	r := s.try("enter", "--node", "2", "--", "true")
	require.Equal(t, 125, r.code)
	require.Equal(t, "zoidfs enter: there is no node 2: the system has nodes 0 to 1\n", r.errOut)
	r = s.try("enter", "--", "no-such-program")
	require.Equal(t, 127, r.code)
	require.Equal(t, "zoidfs enter: no-such-program: no such program\n", r.errOut)
}
