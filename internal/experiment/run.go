package experiment

import (
	"cmp"
	"time"

	"github.com/zoidfs/zoidfs/internal/history"
)

// Levels are requests as they were counted at each level.
type Levels struct {
	Calls   map[string]uint64 `json:"calls"` // from applications to mounts
	RPC     map[string]uint64 `json:"rpc"`   // between mounts and I/O nodes
	PVFS    map[string]uint64 `json:"pvfs"`  // from I/O nodes to PVFS2 servers
	Read    uint64            `json:"bytes_read"`
	Written uint64            `json:"bytes_written"` // by applications
	Fetched uint64            `json:"bytes_fetched"`
	Stored  uint64            `json:"bytes_stored"` // from and to PVFS2 servers
}

// Sum is the number of all requests of a level.
func Sum(level map[string]uint64) (n uint64) {
	for _, v := range level {
		n += v
	}
	return n
}

// Phase is what was measured of one phase of a run.
type Phase struct {
	Name     string               `json:"name"`
	Seconds  float64              `json:"seconds"` // from when the first rank began to when the last had ended
	Ops      int64                `json:"ops"`
	Bytes    int64                `json:"bytes"`
	Unit     string               `json:"unit"`              // what Rate counts each second
	Better   string               `json:"better"`            // Higher or Lower
	Figure   float64              `json:"figure"`            // the result: a rate, or what a command printed
	Latency  map[string]Histogram `json:"latency,omitempty"` // by call
	Requests Levels               `json:"requests"`
}

// Check is what was found out about the data and the promises.
type Check struct {
	Bytes      int64               `json:"bytes"`                // that were read back and compared
	Wrong      int64               `json:"wrong"`                // of these
	Mistakes   []string            `json:"mistakes,omitempty"`   // the first few, in words
	Events     int                 `json:"events"`               // of the recorded history
	Races      int                 `json:"races"`                // reads that might have come from more than one write
	Violations []history.Violation `json:"violations,omitempty"` // of the promise of the mode
}

// Clean reports whether nothing was wrong.
func (c *Check) Clean() bool { return c.Wrong == 0 && len(c.Mistakes) == 0 && len(c.Violations) == 0 }

// Strike is what a fault did.
type Strike struct {
	Fault   string  `json:"fault"`
	After   float64 `json:"after"`   // seconds since the phase began
	Down    float64 `json:"down"`    // seconds until the process was there again
	Longest float64 `json:"longest"` // seconds that the longest call took
	Lost    int     `json:"lost"`    // ranks that died with their node
}

// Run is one measurement.
type Run struct {
	ID         string             `json:"id"`
	Cell       Cell               `json:"cell"`
	Repetition int                `json:"repetition"`
	Order      int                `json:"order"` // of all runs, from 0
	Start      time.Time          `json:"start"`
	Seconds    float64            `json:"seconds"` // with all that is not measured
	Error      string             `json:"error,omitempty"`
	Phases     []Phase            `json:"phases,omitempty"`
	Staleness  []float64          `json:"staleness,omitempty"` // sorted seconds from the return of a write until another node saw it
	Unseen     int                `json:"unseen,omitempty"`    // notified reads that did not find the item at once
	Figures    map[string]float64 `json:"figures,omitempty"`   // of a command
	Check      Check              `json:"check"`
	Strike     *Strike            `json:"strike,omitempty"`
}

// Done reports whether the run need not be made again: it was measured, with
// whatever result.
func (r *Run) Done() bool { return r.Error == "" }

// Latest returns, of runs that were made in this order, the last one of each ID,
// in the order in which the IDs came first.
func Latest(runs []Run) (out []Run) {
	at := map[string]int{}
	for _, r := range runs {
		if i, ok := at[r.ID]; ok {
			out[i] = r
			continue
		}
		at[r.ID] = len(out)
		out = append(out, r)
	}
	return out
}

// Environment is what one needs to know to repeat an experiment.
type Environment struct {
	File    string    `json:"file"`    // of the experiment
	Version string    `json:"version"` // of zoidfs
	Go      string    `json:"go"`
	Kernel  string    `json:"kernel"`
	CPU     string    `json:"cpu"`
	CPUs    int       `json:"cpus"`
	Memory  int64     `json:"memory"` // bytes
	Host    string    `json:"host"`
	Storage string    `json:"storage"` // type of the file system below the servers
	Command []string  `json:"command"`
	Started time.Time `json:"started"`
	System  string    `json:"system,omitempty"` // directory of a system that was running already
}

// Group is the estimate of one phase of a cell.
type Group struct {
	Cell      Cell               `json:"cell"`
	Phase     string             `json:"phase"`
	Unit      string             `json:"unit"`
	Better    string             `json:"better"`
	Figure    Estimate           `json:"figure"`
	Ratio     Estimate           `json:"ratio"`   // to the same cell under strong, repetition by repetition; N 0: none
	Latency   map[string]Latency `json:"latency"` // by call
	Calls     Estimate           `json:"calls"`
	RPC       Estimate           `json:"rpc"`
	PVFS      Estimate           `json:"pvfs"`
	Staleness []float64          `json:"-"` // of all runs together, sorted
}

// Latency has estimates of percentiles of the time of a call, in seconds.
type Latency struct {
	P50 Estimate `json:"p50"`
	P95 Estimate `json:"p95"`
	P99 Estimate `json:"p99"`
	Max float64  `json:"max"`
}

// baseline is the mode to which others are compared.
const baseline = "strong"

// speedup is the factor by which a figure is better than the one of the baseline.
func speedup(of, base float64, better string) float64 {
	if better == Lower {
		of, base = base, of
	}
	if base == 0 {
		return 0
	}
	return of / base
}

// compareCells orders cells as the matrix of a spec does, modes from the
// strongest on.
func compareCells(a, b Cell) int {
	return cmp.Or(cmp.Compare(a.Workload, b.Workload), cmp.Compare(a.Transfer, b.Transfer), cmp.Compare(a.Ranks, b.Ranks), cmp.Compare(a.Nodes, b.Nodes),
		cmp.Compare(a.IONs, b.IONs), cmp.Compare(a.Servers, b.Servers), cmp.Compare(a.Fault, b.Fault), cmp.Compare(b.Collective, a.Collective),
		cmp.Compare(modeOrder(a.Mode), modeOrder(b.Mode)))
}
