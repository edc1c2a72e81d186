package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/bench/program"
)

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "?"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// field is the median of one figure over the samples.
func field(s []sample, get func(sample) float64) float64 {
	v := make([]float64, len(s))
	for i := range s {
		v[i] = get(s[i])
	}
	return program.Median(v)
}

func ratio(a, b float64) string {
	if a == 0 || b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}

var targetOrder = []string{tmpfs, loopback, null, rawTCP, memory, memoryLeased, memoryCommit, memorySession, memoryEventual, whole}

// printData prints one row a workload and target. The ratios are of rates;
// those of CPU are in the columns after.
func printData(out io.Writer, results map[string]map[string][]sample) {
	if len(results) == 0 {
		return
	}
	fmt.Fprintln(out, "\nData. x loop, x null and x none are ratios of the rate (CPU: of the CPU time) to the loopback, the null file system,")
	fmt.Fprintln(out, "and the mount without leases (which sends each write and read on).")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "workload\ttarget\tGiB/s\tcalls/s\tp50 us\tp99 us\tCPU s/GiB\tCPU us/call\tx loop\tx null\tx none\tCPU x loop\tCPU x null\tallocs/call\tGC/s\t")
	for _, wl := range workloads {
		for _, name := range targetOrder {
			s := results[wl.name][name]
			if len(s) == 0 {
				continue
			}
			rate := func(s sample) float64 { return s.rate }
			cpu := func(s sample) float64 { return s.cpuOp }
			loop, nul := results[wl.name][loopback], results[wl.name][null]
			fmt.Fprintf(w, "%s\t%s\t%.2f\t%.0f\t%.0f\t%.0f\t%.2f\t%.0f\t%s\t%s\t%s\t%s\t%s\t", wl.name, name,
				field(s, func(s sample) float64 { return s.gibs }), field(s, rate),
				1e6*field(s, func(s sample) float64 { return s.p50 }), 1e6*field(s, func(s sample) float64 { return s.p99 }),
				field(s, func(s sample) float64 { return s.cpuGiB }), 1e6*field(s, cpu),
				ratio(field(s, rate), field(loop, rate)), ratio(field(s, rate), field(nul, rate)), ratio(field(s, rate), field(results[wl.name][memory], rate)),
				ratio(field(s, cpu), field(loop, cpu)), ratio(field(s, cpu), field(nul, cpu)))
			if name == whole || strings.HasPrefix(name, memory) {
				fmt.Fprintf(w, "%.0f\t%.1f\t\n", field(s, func(s sample) float64 { return s.allocs }), field(s, func(s sample) float64 { return s.gcs }))
			} else {
				fmt.Fprint(w, "\t\t\n")
			}
		}
	}
	_ = w.Flush()
}

func printNames(out io.Writer, results map[namesKey]map[string][]sample) {
	if len(results) == 0 {
		return
	}
	fmt.Fprintln(out, "\nNames, each process in a directory of its own.")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "call\tprocesses\ttarget\tcalls/s\tCPU us/call\tx loop\tCPU x loop\t")
	for _, phase := range []string{"create", "stat", "unlink"} {
		for _, procs := range []int{1, 8} {
			r := results[namesKey{phase, procs}]
			for _, name := range targetOrder {
				s, loop := r[name], r[loopback]
				if len(s) == 0 {
					continue
				}
				rate := func(s sample) float64 { return s.rate }
				cpu := func(s sample) float64 { return s.cpuOp }
				fmt.Fprintf(w, "%s\t%d\t%s\t%.0f\t%.0f\t%s\t%s\t\n", phase, procs, name, field(s, rate), 1e6*field(s, cpu),
					ratio(field(s, rate), field(loop, rate)), ratio(field(s, cpu), field(loop, cpu)))
			}
		}
	}
	_ = w.Flush()
}

// goal is one of the figures that the project holds itself to, of the mount
// with an I/O node in memory.
type goal struct {
	what     string
	workload string
	get      func(byTarget map[string][]sample) float64 // NaN if not all is there that it needs
	least    bool                                       // the figure must reach limit, else stay within it
	limit    float64
}

var goals = []goal{
	{"rate of 1 MiB writes to loopback", "seq write 1 MiB", rateTo(memory, loopback), true, 0.70},
	{"rate of 1 MiB reads to loopback", "seq read 1 MiB", rateTo(memory, loopback), true, 0.85},
	{"CPU s/GiB of 1 MiB writes", "seq write 1 MiB", cpuGiB, false, 1.4},
	{"CPU s/GiB of 1 MiB reads", "seq read 1 MiB", cpuGiB, false, 1.4},
	{"CPU of 1 MiB writes to null + raw TCP", "seq write 1 MiB", cpuToParts, false, 1.8},
	{"CPU of 1 MiB reads to null + raw TCP", "seq read 1 MiB", cpuToParts, false, 1.8},
	{"latency of 4 KiB writes to null", "random write 4 KiB", latencyToNull, false, 5},
	{"rate of 1 MiB writes with leases to loopback", "seq write 1 MiB", rateTo(memoryLeased, loopback), true, 0.70},
	{"rate of 1 MiB writes in commit mode to loopback", "seq write 1 MiB", rateTo(memoryCommit, loopback), true, 0.85},
	{"rate of 4 KiB writes in commit mode to null", "random write 4 KiB", rateTo(memoryCommit, null), true, 0.90},
	{"rate of 4 KiB writes in commit mode to none kept", "random write 4 KiB", rateTo(memoryCommit, memory), true, 3},
	{"rate of 8 KiB reads in commit to session mode", "random read 8 KiB", rateTo(memoryCommit, memorySession), true, 0.95},
	{"allocations per 1 MiB write", "seq write 1 MiB", allocs, false, 45},
	{"allocations per 1 MiB read", "seq read 1 MiB", allocs, false, 45},
	{"collections per second of 1 MiB writes", "seq write 1 MiB", gcs, false, 1},
	{"collections per second of 1 MiB reads", "seq read 1 MiB", gcs, false, 1},
}

// over is a / b, NaN if one was not measured.
func over(a, b float64) float64 {
	if a == 0 || b == 0 {
		return math.NaN()
	}
	return a / b
}

// rateTo compares the rate of a target with that of a yardstick.
func rateTo(target, yardstick string) func(map[string][]sample) float64 {
	return func(r map[string][]sample) float64 {
		rate := func(s sample) float64 { return s.rate }
		return over(field(r[target], rate), field(r[yardstick], rate))
	}
}

func cpuGiB(r map[string][]sample) float64 {
	return ofMemory(r, func(s sample) float64 { return s.cpuGiB })
}

// ofMemory is a figure of the mount with an I/O node in memory.
func ofMemory(r map[string][]sample, get func(sample) float64) float64 {
	if len(r[memory]) == 0 {
		return math.NaN()
	}
	return field(r[memory], get)
}

func cpuOfTarget(s []sample) float64 {
	return field(s, func(s sample) float64 { return s.cpuGiB })
}

// cpuToParts compares with what must be paid: the way through FUSE and the way
// over the network.
func cpuToParts(r map[string][]sample) float64 {
	fuse, tcp := cpuOfTarget(r[null]), cpuOfTarget(r[rawTCP])
	if fuse == 0 || tcp == 0 {
		return math.NaN()
	}
	return over(cpuOfTarget(r[memory]), fuse+tcp)
}

func latencyToNull(r map[string][]sample) float64 {
	p50 := func(s sample) float64 { return s.p50 }
	return over(field(r[memory], p50), field(r[null], p50))
}

func allocs(r map[string][]sample) float64 {
	return ofMemory(r, func(s sample) float64 { return s.allocs })
}

func gcs(r map[string][]sample) float64 {
	return ofMemory(r, func(s sample) float64 { return s.gcs })
}

// printGoals says which goals the measured figures reach.
func printGoals(out io.Writer, results map[string]map[string][]sample) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	title := "\nGoals, for the mount with an I/O node in memory; without leases if nothing else is said.\n"
	for _, g := range goals {
		r := results[g.workload]
		v, sign, verdict := g.get(r), "<=", "reached"
		if math.IsNaN(v) {
			continue
		}
		fmt.Fprint(out, title)
		title = ""
		if g.least {
			sign = ">="
		}
		if g.least != (v >= g.limit) && v != g.limit {
			verdict = "missed"
		}
		fmt.Fprintf(w, "%s\t%.2f\t%s %g\t%s\n", g.what, v, sign, g.limit, verdict)
	}
	_ = w.Flush()
}
