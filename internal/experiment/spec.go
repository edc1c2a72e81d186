package experiment

import (
	"slices"
	"strconv"
	"time"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

// Spec is a declared experiment.
type Spec struct {
	Name        string        `json:"name"`
	Title       string        `json:"title"`
	About       string        `json:"about,omitempty"`
	Seed        int64         `json:"seed"`
	Repetitions int           `json:"repetitions"`
	Warmup      int           `json:"warmup"`     // runs that do not count, after each start of a system
	Visibility  time.Duration `json:"visibility"` // of eventual
	Timeout     time.Duration `json:"timeout"`    // of one run
	Matrix      Matrix        `json:"matrix"`
	Workloads   []Workload    `json:"workloads"`
	Faults      []Fault       `json:"faults,omitempty"`
	Exclude     []Match       `json:"exclude,omitempty"` // combinations that are left out
	Report      View          `json:"report"`
}

// Matrix has the values of each factor. None is empty.
type Matrix struct {
	Mode       []string `json:"mode"`
	Workload   []string `json:"workload"`
	Ranks      []int    `json:"ranks"`
	Nodes      []int    `json:"nodes"`
	IONs       []int    `json:"ions"`
	Servers    []int    `json:"servers"`
	Transfer   []int64  `json:"transfer"`
	Collective []string `json:"collective"`
	Fault      []string `json:"fault"`
}

// View says how the report draws; what is empty it chooses itself.
type View struct {
	X      string `json:"x,omitempty"`      // the factor along the axis
	Series string `json:"series,omitempty"` // the factor that colours
}

// Match is a set of cells: those whose factors have the given values.
type Match map[string][]string

// The factors of a cell, in the order in which they are named.
const (
	FactorMode       = "mode"
	FactorWorkload   = "workload"
	FactorRanks      = "ranks"
	FactorNodes      = "nodes"
	FactorIONs       = "ions"
	FactorServers    = "servers"
	FactorTransfer   = "transfer"
	FactorCollective = "collective"
	FactorFault      = "fault"
)

// Factors are the names of all factors.
func Factors() []string {
	return []string{FactorMode, FactorWorkload, FactorRanks, FactorNodes, FactorIONs, FactorServers, FactorTransfer, FactorCollective, FactorFault}
}

// Values of the factor collective.
const (
	On  = "on"
	Off = "off"
)

// Cell is one combination of the matrix.
type Cell struct {
	Mode     string `json:"mode"`
	Workload string `json:"workload"`
	Ranks    int    `json:"ranks"`
	Transfer int64  `json:"transfer"`
	Fault    string `json:"fault"`
	Shape
}

// Shape is what of a cell the system has to be started with.
type Shape struct {
	Nodes      int    `json:"nodes"`
	IONs       int    `json:"ions"`
	Servers    int    `json:"servers"`
	Collective string `json:"collective"`
}

// Value is the value of a factor as text; "" for none of Factors.
func (c Cell) Value(factor string) string {
	switch factor {
	case FactorMode:
		return c.Mode
	case FactorWorkload:
		return c.Workload
	case FactorRanks:
		return strconv.Itoa(c.Ranks)
	case FactorNodes:
		return strconv.Itoa(c.Nodes)
	case FactorIONs:
		return strconv.Itoa(c.IONs)
	case FactorServers:
		return strconv.Itoa(c.Servers)
	case FactorTransfer:
		return FormatSize(c.Transfer)
	case FactorCollective:
		return c.Collective
	case FactorFault:
		return c.Fault
	}
	return ""
}

// In reports whether the cell is one of m.
func (c Cell) In(m Match) bool {
	for factor, values := range m {
		if !slices.Contains(values, c.Value(factor)) {
			return false
		}
	}
	return true
}

// Workload returns the workload called name, which must exist.
func (s *Spec) Workload(name string) Workload {
	return s.Workloads[slices.IndexFunc(s.Workloads, func(w Workload) bool { return w.Name == name })]
}

// Fault returns the fault called name, nil for NoFault.
func (s *Spec) Fault(name string) *Fault {
	if i := slices.IndexFunc(s.Faults, func(f Fault) bool { return f.Name == name }); i >= 0 {
		return &s.Faults[i]
	}
	return nil
}

// modeOrder is the place of a mode among all, from the strongest on.
func modeOrder(name string) int {
	return slices.IndexFunc(consistency.All(), func(m consistency.Mode) bool { return m.String() == name })
}

// FormatSize writes a number of bytes as the files of experiments do, such as
// 4KiB.
func FormatSize(n int64) string {
	for _, u := range units {
		if n >= u.size && n%u.size == 0 && u.size > 1 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

// units of sizes, the largest first.
var units = []struct {
	name string
	size int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}
