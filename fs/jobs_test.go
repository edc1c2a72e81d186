package fs

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestJobs: calls, bytes and requests of the processes of a job, by the handle
// that a process opened, and no others.
func TestJobs(t *testing.T) {
	r := newRig(t, 1)
	m := r.nodes[0]
	var jobs []JobInfo
	m.get(t, jobsXattr, &jobs)
	require.Empty(t, jobs)
	// The shell opens, what it starts writes through the descriptor.
	cmd := exec.Command("sh", "-ec", `exec 3>"$0"; head -c 100000 /dev/zero >&3; read go`, r.path(0, "f"))
	cmd.Env = append(os.Environ(), "ZOIDFS_JOB=j", "ZOIDFS_RANK=1", "ZOIDFS_SIZE=4")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	require.NoError(t, os.WriteFile(r.path(0, "g"), make([]byte, 1000), 0o644)) // of no job
	var s JobStats
	require.Eventually(t, func() bool {
		if m.get(t, jobsXattr, &jobs); len(jobs) == 0 {
			return false
		}
		m.get(t, jobXattr+jobs[0].ID, &s)
		return s.App.BytesWritten >= 100_000
	}, 20*time.Second, 10*time.Millisecond)
	require.Len(t, jobs, 1)
	require.Equal(t, "zoidfs j", s.Name)
	require.Equal(t, []int{4, 1, 1}, []int{s.Size, s.Ranks, s.Processes})
	require.Equal(t, uint32(os.Getuid()), s.UID)
	require.Nil(t, s.Ended)
	require.EqualValues(t, 100_000, s.App.BytesWritten)
	require.EqualValues(t, 1, s.App.Calls["create"])
	require.EqualValues(t, 1, s.RPC.Requests["create"])
	require.NoError(t, in.Close())
	_ = cmd.Wait()
	require.Eventually(t, func() bool {
		m.get(t, jobXattr+jobs[0].ID, &s)
		return s.Ended != nil && s.App.Calls["release"] == 1
	}, 20*time.Second, 10*time.Millisecond)
	require.EqualValues(t, 100_000, s.App.BytesWritten)
}

// TestJobRequests: what cannot be a job is refused, as are attempts to store
// attributes with these names.
func TestJobRequests(t *testing.T) {
	r := newRig(t, 1)
	root := r.nodes[0].Mountpoint()
	set := func(path string, q JobRequest) error {
		b, err := json.Marshal(q)
		require.NoError(t, err)
		return unix.Setxattr(path, jobsXattr, b, 0)
	}
	pid := []uint32{uint32(os.Getpid())}
	for name, q := range map[string]JobRequest{
		"no name": {PIDs: pid}, "no process": {Job: "j"}, "a long name": {Job: strings.Repeat("x", 256), PIDs: pid},
		"every process": {Job: "j", Cgroup: "/"}, "a path that is none": {Job: "j", Cgroup: "x"}, "a negative size": {Job: "j", Size: -1, PIDs: pid},
	} {
		require.ErrorIs(t, set(root, q), syscall.EINVAL, name)
	}
	require.ErrorIs(t, unix.Setxattr(root, jobsXattr, []byte("{"), 0), syscall.EINVAL)
	require.ErrorIs(t, set(r.dirs[0], JobRequest{Job: "j", PIDs: pid}), syscall.EPERM, "not the root")
	require.ErrorIs(t, unix.Setxattr(root, jobXattr+"7", []byte("x"), 0), syscall.EPERM)
	require.ErrorIs(t, set(root, JobRequest{Job: "j", End: true}), syscall.ESRCH)
	require.NoError(t, set(root, JobRequest{Job: "j", PIDs: pid}))
	require.NoError(t, set(root, JobRequest{Job: "j", End: true}))
	_, err := unix.Getxattr(root, fmt.Sprintf("%s%016x", jobXattr, 1), nil)
	require.ErrorIs(t, err, syscall.ENODATA, "no such job")
}
