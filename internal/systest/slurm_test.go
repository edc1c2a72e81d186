package systest

import (
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
)

// slurmConf is a Slurm of one node on the loopback interface: directory, the
// controller's port, the node's.
const slurmConf = `ClusterName=z
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=%[2]d
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=%[1]s/munge.sock
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation=%[1]s/state
SlurmdSpoolDir=%[1]s/spool
SlurmctldPidFile=%[1]s/slurmctld.pid
SlurmdPidFile=%[1]s/slurmd.pid
SlurmctldLogFile=%[1]s/slurmctld.log
SlurmdLogFile=%[1]s/slurmd.log
ReturnToService=2
SlurmdParameters=config_overrides
MpiDefault=pmi2
NodeName=n0 NodeHostname=localhost NodeAddr=127.0.0.1 Port=%[3]d CPUs=4 State=UNKNOWN
PartitionName=p Nodes=ALL Default=YES OverSubscribe=FORCE:8 State=UP MaxTime=INFINITE
`

// startSlurm starts a Slurm for the test and returns the environment for its
// commands.
func startSlurm(t *testing.T) []string {
	t.Helper()
	needRoot(t, "Slurm")
	for _, program := range []string{"munged", "slurmctld", "slurmd", "srun"} {
		need(t, program, "slurm-wlm munge")
	}
	dir := shortTempDir(t)
	key := make([]byte, 1024)
	copy(key, fmt.Sprint("a key for this test alone ", os.Getpid(), time.Now()))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "munge.key"), key, 0o400))
	for _, sub := range []string{"state", "spool"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, sub), 0o755))
	}
	conf := filepath.Join(dir, "slurm.conf")
	require.NoError(t, os.WriteFile(conf, fmt.Appendf(nil, slurmConf, dir, freePort(t), freePort(t)), 0o644))
	env := []string{"SLURM_CONF=" + conf}
	daemon := func(argv ...string) {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), env...)
		log, err := os.Create(filepath.Join(dir, argv[0]+".out"))
		require.NoError(t, err)
		cmd.Stdout, cmd.Stderr = log, log
		require.NoError(t, cmd.Start())
		log.Close()
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
			if t.Failed() {
				out, _ := os.ReadFile(filepath.Join(dir, argv[0]+".log"))
				t.Logf("%s: %s", argv[0], out)
			}
		})
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	daemon("munged", "--foreground", "--force", "--socket="+at("munge.sock"), "--key-file="+at("munge.key"),
		"--pid-file="+at("munge.pid"), "--log-file="+at("munged.log"), "--seed-file="+at("munge.seed"))
	require.Eventually(t, func() bool { _, err := os.Stat(at("munge.sock")); return err == nil }, jobsTimeout, 20*time.Millisecond)
	daemon("slurmctld", "-D", "-i", "-c")
	daemon("slurmd", "-D", "-N", "n0")
	require.Eventually(t, func() bool {
		out, err := command{env: env}.try("sinfo", "-h", "-o", "%T")
		return err == nil && strings.TrimSpace(out) == "idle"
	}, jobsTimeout, 100*time.Millisecond, "the node is not idle")
	return env
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// jobsOfSlurm: the tasks of a step are a job, with PMI and without; a batch
// script is none.
func jobsOfSlurm(t *testing.T, r *jobRig) {
	env := startSlurm(t)
	rank := r.script(t, "rank", untilStop)
	for _, mpi := range []string{"none", "pmi2"} {
		before := r.cluster.jobs(t)
		_ = os.Remove(r.stop)
		wait := r.start(t, env, "srun", "--mpi="+mpi, "-n", "4", rank)
		j := r.become(t, before, 1, 4, wait)[0]
		require.True(t, strings.HasPrefix(j.Name, "slurm z/"), j.Name)
		require.Equal(t, 4, j.Size)
	}
	before := r.cluster.jobs(t)
	done := filepath.Join(r.dir, "done")
	batch := fmt.Sprintf("#!/bin/sh\ncat %s/f && env | grep -q SLURM_PROCID && touch %s", r.dirs[0], done)
	script := filepath.Join(r.dir, "batch")
	require.NoError(t, os.WriteFile(script, []byte(batch), 0o755))
	command{dir: r.dir, env: env}.run(t, "sbatch", "--wait", "-n", "4", script)
	require.FileExists(t, done)
	require.Empty(t, r.newJobs(t, before))
}
