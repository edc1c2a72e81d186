package ranks

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/zoidfs/zoidfs/collective"
)

// noRank is the rank of a process that belongs to a job and is none of its ranks.
const noRank collective.Rank = -1

// maxRanks is the largest job that is believed in.
const maxRanks = 1 << 27

// Launchers by name. They are part of a job's id.
const (
	byHand  = "zoidfs" // ZOIDFS_JOB, or `zoidfs job begin`
	openMPI = "openmpi"
	pmix    = "pmix"
	pals    = "pals"
	jsm     = "jsm"
	mvapich = "mvapich2"
	hydra   = "hydra"
	pmi     = "pmi"
	flux    = "flux"
	slurm   = "slurm"
)

// Confidence tells how well a job is known.
type Confidence uint8

// From least to most.
const (
	// Guessed: the launcher gives its jobs no name. What tells them apart is
	// sound on one node and most likely alike on all.
	Guessed Confidence = iota
	// Launched: by the name that the launcher has for the job.
	Launched
	// Told: by somebody who knows.
	Told
)

func (c Confidence) String() string { return [...]string{"guessed", "launched", "told"}[c] }

// claim is what the environment of a process says of it.
type claim struct {
	launcher   string
	key        string // the launcher's name of the job; empty if it has none
	rank       collective.Rank
	size       int // ranks of the job; 0: not known
	confidence Confidence
}

// env is the variables of an environment that matter here.
type env map[string]string

// wanted are the variables of launchers.
var wanted = func() map[string]bool {
	w := make(map[string]bool)
	for _, name := range strings.Fields(`
		ZOIDFS_JOB ZOIDFS_RANK ZOIDFS_SIZE
		OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE OMPI_MCA_ess_base_jobid OMPI_MCA_orte_precondition_transports
		PMIX_RANK PMIX_NAMESPACE
		PALS_RANKID PALS_APID PALS_APP_ID
		JSM_NAMESPACE_RANK JSM_NAMESPACE_SIZE JSM_NAMESPACE_ID LSB_JOBID
		MV2_COMM_WORLD_RANK MV2_COMM_WORLD_SIZE MPIRUN_ID
		PMI_RANK PMI_ID PMI_SIZE PMI_JOBID PMI_PORT HYDI_CONTROL_FD
		FLUX_TASK_RANK FLUX_JOB_SIZE FLUX_JOB_ID_PATH FLUX_JOB_ID
		SLURM_PROCID SLURM_STEP_NUM_TASKS SLURM_JOB_ID SLURM_STEP_ID SLURM_CLUSTER_NAME SLURM_RESTART_COUNT`) {
		w[name] = true
	}
	return w
}()

// parseEnviron picks the wanted variables out of a /proc/PID/environ. A process
// may have overwritten it with anything.
func parseEnviron(b []byte) env {
	var e env
	for len(b) > 0 {
		var item []byte
		item, b, _ = bytes.Cut(b, []byte{0})
		name, value, ok := bytes.Cut(item, []byte{'='})
		if !ok || !wanted[string(name)] || len(value) == 0 || len(value) > 1024 {
			continue
		}
		if e == nil {
			e = make(env)
		}
		if _, twice := e[string(name)]; !twice { // getenv(3) finds the first
			e[string(name)] = string(value)
		}
	}
	return e
}

// number returns the value of a variable, or -1 if it is none that could count
// ranks.
func (e env) number(name string) int {
	n, err := strconv.Atoi(e[name])
	if err != nil || n < 0 || n > maxRanks {
		return -1
	}
	return n
}

// first returns the first of the variables that is set.
func (e env) first(names ...string) string {
	for _, n := range names {
		if e[n] != "" {
			return e[n]
		}
	}
	return ""
}

// source is one launcher's way of telling a process who it is.
type source struct {
	launcher   string
	rank, size string // variables
	sizeless   bool   // the size may be missing
	key        func(env) string
}

// sources in the order in which they are believed: ranks of mpirun inherit the
// variables of the daemon that started them, which may be a task of srun.
var sources = []source{
	{openMPI, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", false, func(e env) string {
		// Of Open MPI 4 the namespace is 16 bits of a hash and a number; the
		// transports' key is random.
		return join(e.first("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"), e["OMPI_MCA_orte_precondition_transports"])
	}},
	{pmix, "PMIX_RANK", "PMI_SIZE", true, func(e env) string { return e["PMIX_NAMESPACE"] }},
	{pals, "PALS_RANKID", "PMI_SIZE", true, func(e env) string { return e.first("PALS_APID", "PALS_APP_ID") }},
	{jsm, "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE", false, func(e env) string { return join(e["LSB_JOBID"], e["JSM_NAMESPACE_ID"]) }},
	{mvapich, "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", false, func(e env) string { return e["MPIRUN_ID"] }},
	{pmi, "PMI_RANK", "PMI_SIZE", false, func(e env) string { return e["PMI_JOBID"] }},
	{pmi, "PMI_ID", "PMI_SIZE", true, func(e env) string { return e["PMI_JOBID"] }}, // mpiexec -pmi-port
	{flux, "FLUX_TASK_RANK", "FLUX_JOB_SIZE", false, func(e env) string {
		return e.first("FLUX_JOB_ID_PATH", "FLUX_JOB_ID") // ids repeat in nested instances
	}},
	{slurm, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", false, slurmKey},
}

// slurmKey is empty outside of a step: in a batch script SLURM_PROCID is 0 and
// there is one process.
func slurmKey(e env) string {
	if e["SLURM_JOB_ID"] == "" || e["SLURM_STEP_ID"] == "" {
		return ""
	}
	key := e["SLURM_JOB_ID"] + "." + e["SLURM_STEP_ID"]
	if n := e.number("SLURM_RESTART_COUNT"); n > 0 {
		key += "r" + strconv.Itoa(n)
	}
	return join(e["SLURM_CLUSTER_NAME"], key)
}

func join(parts ...string) string {
	var set []string
	for _, p := range parts {
		if p != "" {
			set = append(set, p)
		}
	}
	return strings.Join(set, "/")
}

// claim reads one source. alone tells that the source is there and says that
// its job is this process.
func (s source) claim(e env) (c claim, ok, alone bool) {
	rank, size := e.number(s.rank), e.number(s.size)
	if rank < 0 || size < 0 && !s.sizeless {
		return c, false, false
	}
	size = max(size, 0)
	switch {
	case size == 1 && rank == 0:
		return c, false, true
	case size > 0 && rank >= size:
		return c, false, false
	}
	c = claim{launcher: s.launcher, key: s.key(e), rank: collective.Rank(rank), size: size, confidence: Launched}
	if s.launcher == slurm && c.key == "" {
		return c, false, false
	}
	return c, true, false
}

// launched is what launchers say of the process with this environment.
func (e env) launched() (claim, bool) {
	for _, s := range sources {
		c, ok, alone := s.claim(e)
		if alone {
			return claim{}, false
		}
		if ok {
			return e.refine(c), true
		}
	}
	return claim{}, false
}

// refine names the job of c by the launcher around its own, if that one is
// surely the same: srun and flux run start ranks that speak PMI.
func (e env) refine(c claim) claim {
	outer := func(launcher string) (claim, bool) {
		for _, s := range sources {
			if s.launcher == launcher {
				o, ok, _ := s.claim(e)
				return o, ok && o.rank == c.rank && (c.size == 0 || o.size == c.size)
			}
		}
		return claim{}, false
	}
	ofSlurm := strings.HasPrefix(c.key, "slurm.pmix.") || c.key == e["SLURM_JOB_ID"]+"."+e["SLURM_STEP_ID"]
	switch {
	case (c.launcher == pmix || c.launcher == pmi) && ofSlurm:
		if o, ok := outer(slurm); ok {
			o.launcher = slurm
			return o
		}
	case c.launcher == pmi && c.key == "" && (e["HYDI_CONTROL_FD"] != "" || e["PMI_PORT"] != ""):
		c.launcher, c.confidence = hydra, Guessed // its daemon may be a task of srun
	case c.launcher == pmi && c.key == "":
		for _, name := range []string{flux, slurm} {
			if o, ok := outer(name); ok {
				return o
			}
		}
	}
	if c.key == "" {
		c.confidence = Guessed
	}
	return c
}

// byUser is what the variables for use by hand say. Without ZOIDFS_RANK the
// rank is the launcher's, whose job then has another name.
func (e env) byUser() (claim, bool) {
	if e["ZOIDFS_JOB"] == "" {
		return claim{}, false
	}
	return e.named(e["ZOIDFS_JOB"], max(e.number("ZOIDFS_SIZE"), 0)), true
}

// named is the claim of a process whose job has this name, for those who told.
func (e env) named(job string, size int) claim {
	c := claim{launcher: byHand, key: job, size: size, rank: noRank, confidence: Told}
	if e["ZOIDFS_RANK"] != "" {
		c.rank = collective.Rank(e.number("ZOIDFS_RANK"))
	} else if l, ok := e.launched(); ok {
		c.rank = l.rank
		if size == 0 {
			c.size = l.size
		}
	}
	if c.rank < 0 || c.size > 0 && int(c.rank) >= c.size {
		c.rank = noRank
	}
	return c
}
