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
			client := []string{on, off}[at]
			dir := filepath.Join(x.mounts[client][0], "alone")
			if err := os.Mkdir(dir, 0o777); err != nil {
				return err
			}
			for _, w := range workloads {
				if costs[w.name] == nil {
					costs[w.name] = new([2]cost)
				}
				pids := append([]int{os.Getpid()}, x.pids[client]...)
				begin, used := time.Now(), program.CPUOf(pids)
				if err := w.run(c, dir); err != nil {
					return err
				}
				wall, cpu := time.Since(begin), program.CPUOf(pids)-used
				s := &costs[w.name][at]
				s.wall, s.cpu = append(s.wall, wall.Seconds()), append(s.cpu, cpu.Seconds())
				if err := settle(dir); err != nil {
					return err
				}
			}
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	fmt.Fprintln(out, "\nOne process alone: the time, and the CPU time of it and the system, with the engine to that without.")
	tab := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "workload\tms\tCPU ms\tx off\tCPU x off")
	for _, w := range workloads {
		s := costs[w.name]
		with, without := program.Median(s[0].wall), program.Median(s[1].wall)
		cpu, cpuOff := program.Median(s[0].cpu), program.Median(s[1].cpu)
		fmt.Fprintf(tab, "%s\t%.1f\t%.1f\t%.3f\t%.3f\n", w.name, 1000*with, 1000*cpu, with/without, cpu/cpuOff)
	}
	return tab.Flush()
}
