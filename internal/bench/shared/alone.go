package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/zoidfs/zoidfs/internal/bench/program"
)

// workload is what one process does in a directory.
type workload struct {
	name string
	run  func(c *config, dir string) error
}

var workloads = []workload{
	{"write 1 MiB", func(c *config, dir string) error { return writeFile(dir, c.size, 1<<20) }},
	{"read 1 MiB", func(c *config, dir string) error { return readFile(dir, c.size, 1<<20) }},
	{"write 4 KiB", func(c *config, dir string) error { return writeFile(dir, c.size/4, 4<<10) }},
	{"read 4 KiB", func(c *config, dir string) error { return readFile(dir, c.size/4, 4<<10) }},
	{"create", func(_ *config, dir string) error { return eachName(dir, createFile) }},
	{"stat", func(_ *config, dir string) error {
		return eachName(dir, func(n string) error { _, err := os.Stat(n); return err })
	}},
	{"remove", func(_ *config, dir string) error { return eachName(dir, os.Remove) }},
}

const names = 100 // files that are created, looked at and removed

func createFile(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return f.Close()
}

func eachName(dir string, f func(name string) error) error {
	for i := range names {
		if err := f(filepath.Join(dir, fmt.Sprint("name", i))); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(dir string, size, call int64) error {
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		return err
	}
	buf := make([]byte, call)
	for range size / call {
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	return f.Close()
}

func readFile(dir string, size, call int64) error {
	f, err := os.Open(filepath.Join(dir, "file"))
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, call)
	for range size / call {
		if _, err := io.ReadFull(f, buf); err != nil {
			return err
		}
	}
	return nil
}

// settle has what was written reach the servers, lest that goes on while what comes
// next is measured.
func settle(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "file"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// measureAlone prints the table of one process.
func (c *config) measureAlone(x *systems, out io.Writer) error {
	type cost struct{ wall, cpu []float64 } // seconds
	costs := make(map[string]*[2]cost)
	for i := range c.alone {
		for k := range 2 {
			at := (i + k) % 2 // either goes first in turn
			least, err := c.leastAlone(x, []string{on, off}[at])
			if err != nil {
				return err
			}
			for name, now := range least {
				if costs[name] == nil {
					costs[name] = new([2]cost)
				}
				s := &costs[name][at]
				s.wall, s.cpu = append(s.wall, now[0]), append(s.cpu, now[1])
			}
		}
	}
	fmt.Fprintln(out, "\nOne process alone: the time, and the CPU time of it and the system, with the engine to that without: the median of rounds.")
	tab := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "workload\tms\tCPU ms\tx off\tCPU x off")
	for _, w := range workloads {
		with, without := costs[w.name][0], costs[w.name][1]
		fmt.Fprintf(tab, "%s\t%.1f\t%.1f\t%.3f\t%.3f\n", w.name, 1000*program.Median(with.wall), 1000*program.Median(with.cpu),
			program.Median(ratios(with.wall, without.wall)), program.Median(ratios(with.cpu, without.cpu)))
	}
	return tab.Flush()
}

// again is how often a workload is run in a round, of which the least is taken.
const again = 3

// leastAlone runs all workloads on a client, and returns the least seconds that each
// took, by the clock and of the processors.
func (c *config) leastAlone(x *systems, client string) (map[string][2]float64, error) {
	dir := filepath.Join(x.mounts[client][0], "alone")
	pids := append([]int{os.Getpid()}, x.pids[client]...)
	least := make(map[string][2]float64)
	for i := range again {
		if err := os.Mkdir(dir, 0o777); err != nil {
			return nil, err
		}
		for _, w := range workloads {
			begin, used := time.Now(), program.CPUOf(pids)
			if err := w.run(c, dir); err != nil {
				return nil, err
			}
			now := [2]float64{time.Since(begin).Seconds(), (program.CPUOf(pids) - used).Seconds()}
			if was := least[w.name]; i > 0 {
				now = [2]float64{min(was[0], now[0]), min(was[1], now[1])}
			}
			least[w.name] = now
			if err := settle(dir); err != nil {
				return nil, err
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
	}
	return least, nil
}

// ratios is what each of a is to that of b.
func ratios(a, b []float64) []float64 {
	r := make([]float64, len(a))
	for i := range a {
		r[i] = a[i] / b[i]
	}
	return r
}
