package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"golang.org/x/sys/unix"
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
	return median(v)
}

func ratio(a, b float64) string {
	if a == 0 || b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}

var targetOrder = []string{tmpfs, loopback, null, memory, whole}

// printData prints one row a workload and target. The ratios are of rates;
// those of CPU are in the columns after.
func printData(out io.Writer, results map[string]map[string][]sample) {
	if len(results) == 0 {
		return
	}
	fmt.Fprintln(out, "\nData. x loop and x null are ratios to the loopback and to the null file system: of the rate, of the CPU time.")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "workload\ttarget\tGiB/s\tcalls/s\tp50 us\tp99 us\tCPU s/GiB\tCPU us/call\tx loop\tx null\tCPU x loop\tCPU x null\tallocs/call\tGC/s\t")
	for _, wl := range workloads {
		for _, name := range targetOrder {
			s := results[wl.name][name]
			if len(s) == 0 {
				continue
			}
			rate := func(s sample) float64 { return s.rate }
			cpu := func(s sample) float64 { return s.cpuOp }
			loop, nul := results[wl.name][loopback], results[wl.name][null]
			fmt.Fprintf(w, "%s\t%s\t%.2f\t%.0f\t%.0f\t%.0f\t%.2f\t%.0f\t%s\t%s\t%s\t%s\t", wl.name, name,
				field(s, func(s sample) float64 { return s.gibs }), field(s, rate),
				1e6*field(s, func(s sample) float64 { return s.p50 }), 1e6*field(s, func(s sample) float64 { return s.p99 }),
				field(s, func(s sample) float64 { return s.cpuGiB }), 1e6*field(s, cpu),
				ratio(field(s, rate), field(loop, rate)), ratio(field(s, rate), field(nul, rate)),
				ratio(field(s, cpu), field(loop, cpu)), ratio(field(s, cpu), field(nul, cpu)))
			if name == memory || name == whole {
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
	get      func(mem, loop, null []sample) float64
	least    bool // the figure must reach limit, else stay within it
	limit    float64
}

var goals = []goal{
	{"rate of 1 MiB writes to loopback", "seq write 1 MiB", rateToLoop, true, 0.70},
	{"rate of 1 MiB reads to loopback", "seq read 1 MiB", rateToLoop, true, 0.85},
	{"CPU s/GiB of 1 MiB writes", "seq write 1 MiB", cpuGiB, false, 1.4},
	{"CPU s/GiB of 1 MiB reads", "seq read 1 MiB", cpuGiB, false, 1.4},
	{"latency of 4 KiB writes to null", "random write 4 KiB", latencyToNull, false, 5},
	{"allocations per 1 MiB write", "seq write 1 MiB", allocs, false, 45},
	{"allocations per 1 MiB read", "seq read 1 MiB", allocs, false, 45},
	{"collections per second of 1 MiB writes", "seq write 1 MiB", gcs, false, 1},
	{"collections per second of 1 MiB reads", "seq read 1 MiB", gcs, false, 1},
}

func rateToLoop(mem, loop, _ []sample) float64 {
	rate := func(s sample) float64 { return s.rate }
	return field(mem, rate) / field(loop, rate)
}

func cpuGiB(mem, _, _ []sample) float64 {
	return field(mem, func(s sample) float64 { return s.cpuGiB })
}

func latencyToNull(mem, _, null []sample) float64 {
	p50 := func(s sample) float64 { return s.p50 }
	return field(mem, p50) / field(null, p50)
}

func allocs(mem, _, _ []sample) float64 {
	return field(mem, func(s sample) float64 { return s.allocs })
}

func gcs(mem, _, _ []sample) float64 { return field(mem, func(s sample) float64 { return s.gcs }) }

// printGoals says which goals the measured figures reach.
func printGoals(out io.Writer, results map[string]map[string][]sample) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for i, g := range goals {
		r := results[g.workload]
		if len(r[memory]) == 0 || len(r[loopback]) == 0 || len(r[null]) == 0 {
			continue
		}
		if i == 0 {
			fmt.Fprintln(out, "\nGoals, for the mount with an I/O node in memory.")
		}
		v, sign, verdict := g.get(r[memory], r[loopback], r[null]), "<=", "reached"
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
