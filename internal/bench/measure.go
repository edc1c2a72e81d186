package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/zoidfs/zoidfs/internal/bench/program"
)

// workload is an access pattern of one or more processes.
type workload struct {
	name  string
	op    string
	bs    int
	procs int
}

var workloads = []workload{
	{"seq write 1 MiB", "write", 1 << 20, 1},
	{"seq read 1 MiB", "read", 1 << 20, 1},
	{"seq write 1 MiB, 4 procs", "write", 1 << 20, 4},
	{"seq read 1 MiB, 4 procs", "read", 1 << 20, 4},
	{"seq write 4 KiB", "write", 4 << 10, 1},
	{"seq read 4 KiB", "read", 4 << 10, 1},
	{"random write 4 KiB", "randwrite", 4 << 10, 1},
	{"random read 4 KiB", "randread", 4 << 10, 1},
	{"random read 8 KiB", "randread", 8 << 10, 1},
	{"random write 4 KiB, 4 procs", "randwrite", 4 << 10, 4},
}

// suits reports whether a workload can be measured on t: without files there
// is nothing but sequences.
func (w workload) suits(t *target) bool {
	return t.raw == "" || w.procs == 1 && w.bs == 1<<20
}

// fileSize is the size of the file of one process, which is there before.
const fileSize = 64 << 20

// sample is one measurement of one workload on one target.
type sample struct {
	rate     float64 // calls/s
	gibs     float64 // GiB/s
	cpuGiB   float64 // CPU s/GiB, all processes
	cpuOp    float64 // CPU s/call, all processes
	p50, p99 float64 // s
	allocs   float64 // of the mount's daemon, per call
	gcs      float64 // collections of the mount's daemon, per second
}

func (c *config) matches(target, workload string) bool {
	return c.only.MatchString(target + "/" + workload)
}

func (c *config) matchesAny(target string) bool {
	for _, w := range workloads {
		if c.matches(target, w.name) {
			return true
		}
	}
	return c.matches(target, "names")
}

// measure runs everything and prints the tables.
func (c *config) measure(ctx context.Context, out io.Writer) (err error) {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return fmt.Errorf("mounts need /dev/fuse: %w", err)
	}
	if c.bin == "" {
		dir, err := os.MkdirTemp("", "zoidfs-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		c.bin = filepath.Join(dir, "zoidfs")
		if text, err := exec.CommandContext(ctx, "go", "build", "-o", c.bin, "./cmd/zoidfs").CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w: %s", err, text)
		}
	}
	ts, err := c.targets(ctx)
	defer func() {
		for _, t := range ts {
			if t.stop != nil {
				err = errors.Join(err, t.stop())
			}
		}
	}()
	if err != nil {
		return err
	}
	// What is under way when the run is ended fails somehow; that it was ended
	// is all there is to say.
	if err := c.measureAll(ctx, ts, out); ctx.Err() == nil {
		return err
	}
	return errors.New("interrupted: what is not printed was not measured")
}

// measureAll measures the targets.
func (c *config) measureAll(ctx context.Context, ts []*target, out io.Writer) error {
	fmt.Fprintf(out, "%d CPUs, %s, Linux %s; %d rounds of %v, medians; CPU is that of all processes\n",
		runtime.NumCPU(), runtime.Version(), kernelRelease(), c.rounds, c.time)
	if err := c.measureData(ctx, ts, out); err != nil {
		return err
	}
	if err := c.measureNames(ctx, ts, out); err != nil {
		return err
	}
	if err := c.measureSharing(ctx, out); err != nil {
		return err
	}
	if err := c.measureGuard(ctx, out); err != nil {
		return err
	}
	if err := c.profiles(ctx, ts, out); err != nil || !c.rpc {
		return err
	}
	fmt.Fprintln(out, "\nThe RPC layer (internal/bench/rpc).")
	rpc := exec.CommandContext(ctx, "go", "run", "./internal/bench/rpc", "-rounds", fmt.Sprint(c.rounds), "-time", c.time.String())
	rpc.Stdout, rpc.Stderr = out, os.Stderr
	return rpc.Run()
}

// measureData runs the workloads round robin over the targets.
func (c *config) measureData(ctx context.Context, ts []*target, out io.Writer) error {
	results := map[string]map[string][]sample{} // workload, target
	for _, t := range ts {
		if t.raw != "" {
			continue
		}
		for i := range 4 {
			if err := fillFile(t, i); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
		}
	}
	for range c.rounds {
		for _, w := range workloads {
			for _, t := range ts {
				if !c.matches(t.name, w.name) || !w.suits(t) {
					continue
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				s, err := measureOnce(t, w, c.time)
				if err != nil {
					return fmt.Errorf("%s on %s: %w", w.name, t.name, err)
				}
				if results[w.name] == nil {
					results[w.name] = map[string][]sample{}
				}
				results[w.name][t.name] = append(results[w.name][t.name], s)
			}
		}
	}
	printData(out, results)
	printGoals(out, results)
	return nil
}

func loadFile(t *target, i int) string {
	if t.raw != "" {
		return rawScheme + t.raw
	}
	return filepath.Join(t.dir, fmt.Sprint("load", i))
}

func fillFile(t *target, i int) error {
	l, err := self("load", "-op", "fill", "-path", loadFile(t, i), "-size", fmt.Sprint(fileSize))
	if err != nil {
		return err
	}
	if err := l.Cmd.Wait(); err != nil {
		return fmt.Errorf("fill %s: %w: %s", loadFile(t, i), err, l.Err)
	}
	return nil
}

// measureOnce runs the load processes of a workload, all from one moment on.
func measureOnce(t *target, w workload, dur time.Duration) (s sample, err error) {
	loads := make([]*program.Child, w.procs)
	for i := range loads {
		args := []string{"-op", w.op, "-bs", fmt.Sprint(w.bs), "-path", loadFile(t, i), "-size", fmt.Sprint(fileSize), "-time", dur.String()}
		if loads[i], err = self("load", args...); err != nil {
			return s, err
		}
		if _, err = loads[i].Line(); err != nil {
			return s, err
		}
	}
	before, cpu := daemonMemory(t.metrics), program.CPUOf(t.pids)
	results, err := release(loads)
	if err != nil {
		return s, err
	}
	cpu, after := program.CPUOf(t.pids)-cpu, daemonMemory(t.metrics)
	var ops, appCPU float64
	for _, r := range results {
		ops += float64(r.Ops)
		s.rate += float64(r.Ops) / r.Seconds
		appCPU += r.CPU
		s.p50 += r.P50 / float64(len(results))
		s.p99 = max(s.p99, r.P99)
	}
	total := cpu.Seconds() + appCPU
	s.gibs = s.rate * float64(w.bs) / (1 << 30)
	s.cpuGiB = total / (ops * float64(w.bs) / (1 << 30))
	s.cpuOp = total / ops
	s.allocs = (after.mallocs - before.mallocs) / ops
	s.gcs = (after.gcs - before.gcs) / dur.Seconds()
	for _, l := range loads {
		if err := l.Cmd.Wait(); err != nil {
			return s, fmt.Errorf("load: %w: %s", err, l.Err)
		}
	}
	return s, nil
}

// release lets waiting processes go and returns what they measured.
func release(loads []*program.Child) ([]loadResult, error) {
	for _, l := range loads {
		if _, err := io.WriteString(l.In, "go\n"); err != nil {
			return nil, err
		}
	}
	out := make([]loadResult, len(loads))
	for i, l := range loads {
		line, err := l.Line()
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(line), &out[i]); err != nil {
			return nil, fmt.Errorf("load said %q: %w", line, err)
		}
	}
	return out, nil
}

// measureNames creates, stats and unlinks files, with one and with eight
// processes, each in a directory of its own.
func (c *config) measureNames(ctx context.Context, ts []*target, out io.Writer) error {
	results := map[namesKey]map[string][]sample{}
	for round := range c.rounds {
		for _, procs := range []int{1, 8} {
			for _, t := range ts {
				if !t.names || !c.matches(t.name, "names") {
					continue
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				got, err := c.namesOnce(t, round, procs)
				if err != nil {
					return fmt.Errorf("names on %s: %w", t.name, err)
				}
				for phase, s := range got {
					k := namesKey{phase, procs}
					if results[k] == nil {
						results[k] = map[string][]sample{}
					}
					results[k][t.name] = append(results[k][t.name], s)
				}
			}
		}
	}
	printNames(out, results)
	return nil
}

// namesKey is one phase of the measurement of names: create, stat or unlink.
type namesKey struct {
	phase string
	procs int
}

func (c *config) namesOnce(t *target, round, procs int) (map[string]sample, error) {
	var loads []*program.Child
	for i := range procs {
		dir := filepath.Join(t.dir, fmt.Sprintf("names-%d-%d-%d", round, procs, i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
		l, err := self("names", "-dir", dir, "-files", fmt.Sprint(c.files))
		if err != nil {
			return nil, err
		}
		loads = append(loads, l)
	}
	out := map[string]sample{}
	for _, phase := range []string{"create", "stat", "unlink"} {
		for _, l := range loads {
			if _, err := l.Line(); err != nil {
				return nil, err
			}
		}
		cpu, began := program.CPUOf(t.pids), time.Now()
		results, err := release(loads)
		if err != nil {
			return nil, err
		}
		took := time.Since(began).Seconds()
		total := (program.CPUOf(t.pids) - cpu).Seconds()
		for _, r := range results {
			total += r.CPU
		}
		n := float64(procs * c.files)
		out[phase] = sample{rate: n / took, cpuOp: total / n}
	}
	for _, l := range loads {
		if err := l.Cmd.Wait(); err != nil {
			return nil, fmt.Errorf("names: %w: %s", err, l.Err)
		}
	}
	return out, nil
}
