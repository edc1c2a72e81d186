package systest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// jobsTimeout is how long a job may take to be what it should be.
const jobsTimeout = time.Minute

// seenJob is what the tests look at of `zoidfs stats --jobs --json`.
type seenJob struct {
	ID, Name                    string
	Size, Ranks, Processes, UID int
	Confidence                  string
	Ended                       *time.Time
}

func (c *cluster) jobs(t *testing.T) (out []seenJob) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(c.zoidfs(t, "stats", "--dir", c.dir, "--jobs", "--json")), &out))
	return out
}

// ranksOpen is a program for every rank: it opens a file on its node again and
// again, by what $open says, until the file stop is there.
const ranksOpen = `#!/bin/sh
r=${PMI_RANK:-${PMI_ID:-${OMPI_COMM_WORLD_RANK:-$SLURM_PROCID}}}
case $((r/2)) in 0) d='%s';; *) d='%s';; esac
%s
`

// untilStop is the body of ranksOpen that opens in the shell itself.
const untilStop = `while ! [ -e '%s' ]; do read x <$d/f; sleep 0.02; done`

// jobRig starts jobs and looks what mounts make of them.
type jobRig struct {
	*rig
	dir, stop string
}

func newJobRig(t *testing.T, r *rig) *jobRig {
	t.Helper()
	r.needCluster(t)
	sub := r.subdir(t)
	require.NoError(t, os.WriteFile(filepath.Join(sub.dirs[0], "f"), []byte("hello\n"), 0o644))
	dir := t.TempDir()
	return &jobRig{sub, dir, filepath.Join(dir, "stop")}
}

// script writes ranksOpen with a body, in which %s is the file stop.
func (r *jobRig) script(t *testing.T, name, body string) string {
	t.Helper()
	file := filepath.Join(r.dir, name)
	if strings.Contains(body, "%s") {
		body = fmt.Sprintf(body, r.stop)
	}
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, ranksOpen, r.dirs[0], r.dirs[1], body), 0o755))
	return file
}

// start starts a launcher. What it returns waits for its end.
func (r *jobRig) start(t *testing.T, env []string, argv ...string) (wait func()) {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	var out bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", append(os.Environ(), env...), &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	ended := false
	t.Cleanup(func() {
		if !ended {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			_ = cmd.Wait()
			t.Logf("%s: %s", argv[0], out.String())
		}
	})
	return func() {
		t.Helper()
		ended = true
		require.NoErrorf(t, cmd.Wait(), "%s: %s", argv[0], out.String())
	}
}

// newJobs are the jobs that were not there before; old ones are forgotten by and by.
func (r *jobRig) newJobs(t *testing.T, before []seenJob) []seenJob {
	t.Helper()
	return slices.DeleteFunc(r.cluster.jobs(t), func(j seenJob) bool {
		return slices.ContainsFunc(before, func(b seenJob) bool { return b.ID == j.ID })
	})
}

// become waits until there are n jobs that were not there before, each with all
// its ranks, lets the jobs end, and returns them.
func (r *jobRig) become(t *testing.T, before []seenJob, n, ranks int, waits ...func()) (out []seenJob) {
	t.Helper()
	require.Eventually(t, func() bool {
		out = r.newJobs(t, before)
		whole := 0
		for _, j := range out {
			if j.Ranks == ranks {
				whole++
			}
		}
		return whole == n
	}, jobsTimeout, 50*time.Millisecond, "ranks of jobs")
	require.Len(t, out, n)
	require.NoError(t, os.WriteFile(r.stop, nil, 0o644))
	for _, wait := range waits {
		wait()
	}
	return out
}

// testJobs: a mount knows the jobs of real launchers, two ranks a node.
func testJobs(t *testing.T, r *rig) {
	r.needCluster(t)
	openmpi := []string{"mpirun.openmpi", "--allow-run-as-root", "--oversubscribe", "-n", "4"}
	for _, tt := range []struct {
		name, pkg  string
		launch     []string
		body       string // of ranksOpen
		job        string // how its name begins
		size       int
		confidence string
	}{
		{"hydra", "mpich", []string{"mpirun.mpich", "-n", "4"}, untilStop, "hydra ", 4, "guessed"},
		{"hydra by port", "mpich", []string{"mpirun.mpich", "-pmi-port", "-n", "4"}, untilStop, "hydra ", 0, "guessed"},
		{"open mpi", "openmpi-bin", openmpi, untilStop, "openmpi ", 4, "launched"},
		{"a thread opens", "mpich", []string{"mpirun.mpich", "-n", "4"}, `exec python3 -c '
import os, sys, threading, time
def work():
    while not os.path.exists(sys.argv[2]):
        open(sys.argv[1]).close()
        time.sleep(0.02)
t = threading.Thread(target=work)
t.start()
t.join()' $d/f '%s'`, "hydra ", 4, "guessed"},
		{"helpers open too", "mpich", []string{"mpirun.mpich", "-n", "4"},
			`while ! [ -e '%s' ]; do read x <$d/f; cat $d/f >/dev/null; sleep 0.02; done`, "hydra ", 4, "guessed"},
		{"pid namespaces", "mpich", []string{"mpirun.mpich", "-n", "4"},
			`export d; exec unshare --pid --fork --mount-proc sh -c "$(cat <<'end'
` + untilStop + "\nend\n)\"", "hydra ", 4, "guessed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			needRoot(t, "pid namespaces")
			need(t, tt.launch[0], tt.pkg)
			r := newJobRig(t, r)
			before := r.cluster.jobs(t)
			wait := r.start(t, nil, append(tt.launch, r.script(t, "rank", tt.body))...)
			j := r.become(t, before, 1, 4, wait)[0]
			require.True(t, strings.HasPrefix(j.Name, tt.job), j.Name)
			require.Equal(t, tt.size, j.Size)
			require.Equal(t, tt.confidence, j.Confidence)
		})
	}
	t.Run("several programs", func(t *testing.T) { jobsOfPrograms(t, newJobRig(t, r)) })
	t.Run("two at once", func(t *testing.T) { jobsAtOnce(t, newJobRig(t, r)) })
	t.Run("no job", func(t *testing.T) { jobsOfNobody(t, newJobRig(t, r)) })
	t.Run("begin and end", func(t *testing.T) { jobsByHand(t, newJobRig(t, r)) })
	t.Run("account", func(t *testing.T) { jobAccount(t, newJobRig(t, r)) })
	t.Run("slurm", func(t *testing.T) { jobsOfSlurm(t, newJobRig(t, r)) })
}

// jobsOfPrograms: the programs of one mpirun are one job.
func jobsOfPrograms(t *testing.T, r *jobRig) {
	need(t, "mpirun.mpich", "mpich")
	a, b := r.script(t, "a", untilStop), r.script(t, "b", untilStop)
	before := r.cluster.jobs(t)
	wait := r.start(t, nil, "mpirun.mpich", "-n", "1", a, ":", "-n", "3", b)
	require.Equal(t, 4, r.become(t, before, 1, 4, wait)[0].Size)
}

// jobsAtOnce: two jobs that differ in nothing are two.
func jobsAtOnce(t *testing.T, r *jobRig) {
	need(t, "mpirun.mpich", "mpich")
	rank := r.script(t, "rank", untilStop)
	before := r.cluster.jobs(t)
	one := r.start(t, nil, "mpirun.mpich", "-n", "4", rank)
	two := r.start(t, nil, "mpirun.mpich", "-n", "4", rank)
	r.become(t, before, 2, 4, one, two)
}

// jobsOfNobody: a plain program is of no job, nor is what a batch script of
// Slurm starts.
func jobsOfNobody(t *testing.T, r *jobRig) {
	before := r.cluster.jobs(t)
	batch := []string{"SLURM_JOB_ID=77", "SLURM_PROCID=0", "SLURM_NTASKS=64"}
	for _, env := range [][]string{nil, batch} {
		out, err := command{env: env}.try("cat", filepath.Join(r.dirs[0], "f"))
		require.NoError(t, err)
		require.Equal(t, "hello\n", out)
	}
	require.Empty(t, r.newJobs(t, before))
}

// jobsByHand: `zoidfs job` names processes; their ranks are those that their
// launcher, unknown to mounts, gives by ZOIDFS_RANK.
func jobsByHand(t *testing.T, r *jobRig) {
	before := r.cluster.jobs(t)
	mounts := r.cluster.rig().dirs
	script := `for m; do '%s' job begin $m --job hand-%d --size 2; done
ZOIDFS_RANK=0 sh -c 'while ! [ -e "%[3]s" ]; do read x <"%[4]s/f"; sleep 0.02; done' &
ZOIDFS_RANK=1 sh -c 'while ! [ -e "%[3]s" ]; do read x <"%[5]s/f"; sleep 0.02; done' &
wait
for m; do '%[1]s' job end $m --job hand-%[2]d; done
`
	script = fmt.Sprintf(script, r.cluster.bin, os.Getpid(), r.stop, r.dirs[0], r.dirs[1])
	wait := r.start(t, nil, append([]string{"sh", "-ec", script, "sh"}, mounts...)...)
	j := r.become(t, before, 1, 2, wait)[0]
	require.Equal(t, fmt.Sprintf("zoidfs hand-%d", os.Getpid()), j.Name)
	require.Equal(t, "told", j.Confidence)
	out, err := r.cluster.try("job", "end", mounts[0], "--job", fmt.Sprintf("hand-%d", os.Getpid()))
	require.Error(t, err)
	require.Contains(t, out, "knows of no job")
}

// jobAccount: what a job did stands on its account at each level, also when it
// is over, and in the log of the mount.
func jobAccount(t *testing.T, r *jobRig) {
	before := r.cluster.jobs(t)
	const size = 300_000
	body := fmt.Sprintf(`i=0; while [ $i -lt 3 ]; do head -c %d /dev/zero >$d/out.$r.$i; i=$((i+1)); done; `, size/3) + untilStop
	wait := r.start(t, []string{"ZOIDFS_JOB=account"}, "mpirun.mpich", "-n", "4", r.script(t, "rank", body))
	j := r.become(t, before, 1, 4, wait)[0]
	require.Equal(t, "zoidfs account", j.Name)
	var s struct {
		Ended *time.Time
		App   struct {
			Calls        map[string]int
			BytesWritten int `json:"bytes_written"`
		}
		RPC struct {
			Requests map[string]int
			Sent     int `json:"bytes_sent"`
		}
		PVFS struct {
			Requests     map[string]int
			BytesWritten int `json:"bytes_written"`
		}
	}
	require.Eventually(t, func() bool { // written back in a while
		out := r.cluster.zoidfs(t, "stats", "--dir", r.cluster.dir, "--job", "account", "--json")
		require.NoError(t, json.Unmarshal([]byte(out), &s))
		return s.Ended != nil && s.PVFS.BytesWritten == 4*size
	}, jobsTimeout, 100*time.Millisecond)
	require.Equal(t, 4*size, s.App.BytesWritten)
	require.Equal(t, 12, s.App.Calls["create"])
	require.Equal(t, 12, s.RPC.Requests["create"])
	require.Greater(t, s.RPC.Sent, 4*size)
	require.GreaterOrEqual(t, s.PVFS.Requests["create"], 12)
	for _, n := range r.cluster.file(t).Nodes {
		require.Eventually(t, func() bool {
			log, err := os.ReadFile(n.Log)
			require.NoError(t, err)
			return strings.Contains(string(log), `msg="job ended" job=`+j.ID)
		}, jobsTimeout, 100*time.Millisecond, "the log of %s", n.Name)
	}
}
