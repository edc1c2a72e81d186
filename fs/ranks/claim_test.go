package ranks

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/collective"
)

// environ makes a /proc/PID/environ of lines.
func environ(vars string) []byte {
	return []byte(strings.Join(strings.Fields(vars), "\x00") + "\x00")
}

// TestLaunched: environments as launchers make them, without what does not
// matter.
func TestLaunched(t *testing.T) {
	const (
		ompi = "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 PMIX_RANK=1 PMIX_NAMESPACE=1745420289 " +
			"OMPI_MCA_orte_precondition_transports=79433246871e6a57-bbf61e87d47ab425 "
		hydraFD   = "PMI_RANK=3 PMI_SIZE=4 HYDI_CONTROL_FD=7 PMI_FD=8 MPI_LOCALRANKID=1 "
		hydraPort = "PMI_ID=1 PMI_PORT=vm:44775 HYDI_CONTROL_FD=7 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2 "
		step      = "SLURM_CLUSTER_NAME=z SLURM_JOB_ID=12 SLURM_STEP_ID=0 SLURM_PROCID=3 SLURM_STEP_NUM_TASKS=4 SLURM_NTASKS=4 "
		daemon    = "SLURM_CLUSTER_NAME=z SLURM_JOB_ID=12 SLURM_STEP_ID=0 SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=2 "
		fluxTask  = "FLUX_TASK_RANK=3 FLUX_JOB_SIZE=4 FLUX_JOB_ID=ƒA FLUX_JOB_ID_PATH=/ƒX/ƒA "
	)
	for _, c := range []struct {
		name, env string
		want      claim // zero: of no job
	}{
		{"nothing", "HOME=/root", claim{}},
		{"open mpi", ompi, claim{openMPI, "1745420289/79433246871e6a57-bbf61e87d47ab425", 1, 2, Launched}},
		{"open mpi, whose daemon srun started", daemon + ompi, claim{openMPI, "1745420289/79433246871e6a57-bbf61e87d47ab425", 1, 2, Launched}},
		{"open mpi, one rank", "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=1 PMIX_RANK=0 PMIX_NAMESPACE=n", claim{}},
		{"prrte, size not known", "PMIX_RANK=5 PMIX_NAMESPACE=prterun-a-7@1", claim{pmix, "prterun-a-7@1", 5, 0, Launched}},
		{"hydra", hydraFD, claim{hydra, "", 3, 4, Guessed}},
		{"hydra by port, size not known", hydraPort, claim{hydra, "", 1, 0, Guessed}},
		{"hydra, whose daemon srun started", daemon + hydraFD, claim{hydra, "", 3, 4, Guessed}},
		{"srun", step, claim{slurm, "z/12.0", 3, 4, Launched}},
		{"srun --mpi=pmi2", step + "PMI_RANK=3 PMI_SIZE=4 PMI_JOBID=12.0", claim{slurm, "z/12.0", 3, 4, Launched}},
		{"srun --mpi=pmix", step + "PMIX_RANK=3 PMIX_NAMESPACE=slurm.pmix.12.0", claim{slurm, "z/12.0", 3, 4, Launched}},
		{"srun, restarted", step + "SLURM_RESTART_COUNT=2", claim{slurm, "z/12.0r2", 3, 4, Launched}},
		{"sbatch script", "SLURM_JOB_ID=12 SLURM_PROCID=0 SLURM_NTASKS=64", claim{}},
		{"srun -n 1", "SLURM_JOB_ID=12 SLURM_STEP_ID=1 SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1", claim{}},
		{"pals", "PALS_RANKID=2 PALS_APID=7e-0 PMI_RANK=2 PMI_SIZE=8 PMI_JOBID=9", claim{pals, "7e-0", 2, 8, Launched}},
		{"jsrun", "JSM_NAMESPACE_RANK=2 JSM_NAMESPACE_SIZE=8 JSM_NAMESPACE_ID=1 LSB_JOBID=77", claim{jsm, "77/1", 2, 8, Launched}},
		{"mvapich2", "MV2_COMM_WORLD_RANK=2 MV2_COMM_WORLD_SIZE=8 MPIRUN_ID=55", claim{mvapich, "55", 2, 8, Launched}},
		{"flux", fluxTask, claim{flux, "/ƒX/ƒA", 3, 4, Launched}},
		{"flux and PMI", fluxTask + "PMI_RANK=3 PMI_SIZE=4 PMI_FD=5", claim{flux, "/ƒX/ƒA", 3, 4, Launched}},
		{"a PMI of its own in a flux task", fluxTask + "PMI_RANK=0 PMI_SIZE=2", claim{pmi, "", 0, 2, Guessed}},
		{"by hand", "ZOIDFS_JOB=j ZOIDFS_RANK=1 ZOIDFS_SIZE=2", claim{byHand, "j", 1, 2, Told}},
		{"by hand, a job of one", "ZOIDFS_JOB=j ZOIDFS_RANK=0 ZOIDFS_SIZE=1", claim{byHand, "j", 0, 1, Told}},
		{"name by hand, rank of hydra", "ZOIDFS_JOB=j " + hydraFD, claim{byHand, "j", 3, 4, Told}},
		{"name by hand, no rank", "ZOIDFS_JOB=j", claim{byHand, "j", noRank, 0, Told}},
		{"name by hand, rank beyond", "ZOIDFS_JOB=j ZOIDFS_RANK=2 ZOIDFS_SIZE=2", claim{byHand, "j", noRank, 2, Told}},
		{"rank beyond size", "PMI_RANK=4 PMI_SIZE=4", claim{}},
		{"negative rank", "PMI_RANK=-1 PMI_SIZE=4", claim{}},
		{"absurd size", "PMI_RANK=1 PMI_SIZE=99999999999999999999", claim{}},
		{"no numbers", "OMPI_COMM_WORLD_RANK=x OMPI_COMM_WORLD_SIZE=y", claim{}},
		{"twice: the first counts", "PMI_RANK=1 PMI_RANK=2 PMI_SIZE=4 PMI_JOBID=a", claim{pmi, "a", 1, 4, Launched}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := parseEnviron(environ(c.env))
			got, ok := e.byUser()
			if !ok {
				got, ok = e.launched()
			}
			require.Equal(t, c.want != claim{}, ok)
			require.Equal(t, c.want, got)
		})
	}
}

// TestOneStepOneJob: ranks of a step have one job, whether they speak PMI, PMIx
// or nothing.
func TestOneStepOneJob(t *testing.T) {
	ids := map[collective.JobID]bool{}
	for _, more := range []string{"", "PMI_RANK=3 PMI_SIZE=4 PMI_JOBID=12.0", "PMIX_RANK=3 PMIX_NAMESPACE=slurm.pmix.12.0"} {
		c, ok := parseEnviron(environ("SLURM_JOB_ID=12 SLURM_STEP_ID=0 SLURM_PROCID=3 SLURM_STEP_NUM_TASKS=4 " + more)).launched()
		require.True(t, ok)
		ids[NewJobID(1000, c.launcher, c.key, c.size)] = true
	}
	require.Len(t, ids, 1)
}

func TestJobIDsDiffer(t *testing.T) {
	seen := map[collective.JobID]bool{}
	for _, id := range []collective.JobID{
		NewJobID(1, hydra, "a:1", 2), NewJobID(2, hydra, "a:1", 2), NewJobID(1, pmi, "a:1", 2),
		NewJobID(1, hydra, "a:2", 2), NewJobID(1, hydra, "a:1", 3),
	} {
		require.NotZero(t, id)
		require.False(t, seen[id])
		seen[id] = true
	}
}

// TestEnvironOfAnything: a program may write what it likes over its environment.
func TestEnvironOfAnything(t *testing.T) {
	for _, b := range []string{"", "\x00", "nginx: worker process", "PMI_RANK", "=", "PMI_RANK=\x00PMI_SIZE=4",
		"PMI_RANK=" + strings.Repeat("9", 5000) + "\x00PMI_SIZE=4\x00"} {
		_, ok := parseEnviron([]byte(b)).launched()
		require.False(t, ok, "%.40q", b)
	}
}

func TestHydraProxy(t *testing.T) {
	cmd := "/usr/bin/hydra_pmi_proxy --control-port vm:36129 --rmk user --launcher ssh --demux poll --pgid 0 --retries 10 --proxy-id 0"
	require.Equal(t, "vm:36129/0", hydraProxy(strings.Fields(cmd)))
	require.Empty(t, hydraProxy(strings.Fields("/usr/bin/other --control-port vm:36129")))
	require.Empty(t, hydraProxy(strings.Fields("hydra_pmi_proxy --control-port")))
	require.Empty(t, hydraProxy(nil))
}

func TestSlurmCgroup(t *testing.T) {
	for _, c := range []struct {
		name, path string
		want       claim
	}{
		{"version 2", "/system.slice/slurmstepd.scope/job_12/step_0/user/task_3", claim{slurm, "12.0", 3, 0, Guessed}},
		{"version 1", "/slurm/uid_1000/job_12/step_4/task_0", claim{slurm, "12.4", 0, 0, Guessed}},
		{"the step, not a task", "/system.slice/slurmstepd.scope/job_12/step_0/slurm", claim{slurm, "12.0", noRank, 0, Guessed}},
		{"a task without a number", "/slurm/uid_0/job_12/step_0/task_special", claim{slurm, "12.0", noRank, 0, Guessed}},
		{"a batch script", "/slurm/uid_1000/job_12/step_batch/task_0", claim{}},
		{"nothing of Slurm", "/user.slice/user-0.slice/session-1.scope", claim{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := slurmCgroup([]string{"/else", c.path})
			require.Equal(t, c.want != claim{}, ok)
			require.Equal(t, c.want, got)
		})
	}
}

func TestParseStat(t *testing.T) {
	b := []byte("7 (a) b (c) S 5 7 6 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 100 200\n")
	st, err := parseStat(b)
	require.NoError(t, err)
	require.Equal(t, stat{parent: 5, session: 6, started: 4711}, st)
	_, err = parseStat([]byte("7 (a) S 5"))
	require.Error(t, err)
}
