package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/bench/program"
	"github.com/zoidfs/zoidfs/internal/experiment"
)

// guardTimes is how many passes there are for a round, as they are short.
const guardTimes = 10

// guardPair is two mounts of the one I/O node, in session mode, that have a guard
// or not.
type guardPair struct {
	guard  string
	mounts [2]string
	pids   []int // of all that works for them
}

// guardWork is what both mounts of a pair do at the same time: each every other
// record of a file. It is free of races, so that none is told.
type guardWork struct {
	name    string
	record  int64 // bytes of a call
	stride  int64 // from one record to the next
	records int   // of both mounts
	flags   int
	random  bool
	fsync   bool // after each call
	times   int  // that it is done
}

// What is read was written by the other mount, in the work before.
var guardWorks = []guardWork{
	{name: "write 64 KiB by turns, close", record: 64 << 10, stride: 64 << 10, records: 256, flags: unix.O_WRONLY, times: 1},
	{name: "open, read 64 KiB by turns", record: 64 << 10, stride: 64 << 10, records: 256, times: 1},
	{name: "write 4 KiB by turns, close", record: 4 << 10, stride: 4 << 10, records: 2048, flags: unix.O_WRONLY, times: 1},
	{name: "open, read 4 KiB by turns", record: 4 << 10, stride: 4 << 10, records: 2048, times: 1},
	{name: "the same eight times over", record: 4 << 10, stride: 4 << 10, records: 2048, times: 8},
	{name: "open, read 4 KiB at random", record: 4 << 10, stride: 32 << 10, records: 512, random: true, times: 1},
	{name: "write 4 KiB, fsync", record: 4 << 10, stride: 32 << 10, records: 128, flags: unix.O_WRONLY, fsync: true, times: 1},
}

// run does the work of one pass.
func (w *guardWork) run(p *guardPair, pass uint64) error {
	var g errgroup.Group
	for i := range p.mounts {
		g.Go(func() error { return w.on(p, i, rand.New(rand.NewPCG(pass, uint64(i)))) })
	}
	return g.Wait()
}

// on does what mount i has to do of it.
func (w *guardWork) on(p *guardPair, i int, rng *rand.Rand) (err error) {
	fd, err := unix.Open(filepath.Join(p.mounts[i], "guarded-"+p.guard), w.flags|unix.O_CLOEXEC|unix.O_CREAT, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	mine := i
	if w.flags == unix.O_RDONLY {
		mine = 1 - i
	}
	order := make([]int, w.records/2)
	for k := range order {
		order[k] = 2*k + mine
	}
	if w.random {
		rng.Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
	}
	buf := make([]byte, w.record)
	for range w.times {
		for _, k := range order {
			if err := w.call(fd, buf, int64(k)*w.stride); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *guardWork) call(fd int, buf []byte, off int64) error {
	if w.flags == unix.O_RDONLY {
		n, err := unix.Pread(fd, buf, off)
		if err == nil && n != len(buf) {
			err = fmt.Errorf("read %d bytes of %d at %d", n, len(buf), off)
		}
		return err
	}
	if _, err := unix.Pwrite(fd, buf, off); err != nil || !w.fsync {
		return err
	}
	return unix.Fsync(fd)
}

// startGuards starts a system with two pairs of mounts.
func (c *config) startGuards(ctx context.Context, ends *program.Ends) (pairs []*guardPair, err error) {
	dir, sys, addr, err := c.startSystem(ends)
	if err != nil {
		return nil, err
	}
	for _, guard := range []string{"off", "warn"} {
		p := &guardPair{guard: guard, pids: []int{os.Getpid(), sys.Cmd.Process.Pid}}
		for i := range p.mounts {
			p.mounts[i] = filepath.Join(dir, fmt.Sprint(guard, i))
			m, err := c.mountOn(ctx, ends, p.mounts[i], addr, "-o", "consistency=session,guard="+guard)
			if err != nil {
				return nil, err
			}
			p.pids = append(p.pids, m.Cmd.Process.Pid)
		}
		pairs = append(pairs, p)
	}
	return pairs, nil
}

// guarded is what was measured of one work: by pair, seconds and CPU seconds of
// each pass.
type guarded struct{ wall, cpu [2][]float64 }

// measureGuard compares what mounts with a guard take for the same work with
// what mounts without take, one right after the other, now this one first and
// now that.
func (c *config) measureGuard(ctx context.Context, out io.Writer) (err error) {
	if !c.matches("guard", "") {
		return nil
	}
	var ends program.Ends
	defer func() { err = errors.Join(err, ends.Run()) }()
	pairs, err := c.startGuards(ctx, &ends)
	if err != nil {
		return err
	}
	results := make([]guarded, len(guardWorks))
	for pass := range 1 + guardTimes*c.rounds {
		for i := range guardWorks {
			for k := range pairs {
				which := (i + k + pass) % 2
				if err := guardOnce(ctx, &guardWorks[i], pairs[which], which, uint64(pass), &results[i]); err != nil {
					return err
				}
			}
		}
	}
	if err := racesOf(pairs); err != nil {
		return err
	}
	return printGuarded(out, results)
}

// guardOnce does a work. The first pass does not count.
func guardOnce(ctx context.Context, w *guardWork, p *guardPair, which int, pass uint64, r *guarded) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	cpu, begin := program.CPUOf(p.pids), time.Now()
	if err := w.run(p, pass); err != nil {
		return fmt.Errorf("%s, guard %s: %w", w.name, p.guard, err)
	}
	if pass > 0 {
		r.wall[which] = append(r.wall[which], time.Since(begin).Seconds())
		r.cpu[which] = append(r.cpu[which], (program.CPUOf(p.pids) - cpu).Seconds())
	}
	return nil
}

// racesOf sees to it that guards were what they should be, and saw no race.
func racesOf(pairs []*guardPair) error {
	for _, p := range pairs {
		for _, mnt := range p.mounts {
			st, err := program.StatusOf(mnt)
			if err != nil {
				return err
			}
			if st.Guard != p.guard || st.Races != 0 {
				return fmt.Errorf("%s has guard %q and saw %d races", mnt, st.Guard, st.Races)
			}
		}
	}
	return nil
}

func printGuarded(out io.Writer, results []guarded) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(out, "\nTwo mounts of one I/O node, session, with guard=warn and without: %d passes of each by turns; ratios with intervals of 95 %% if there are six or more.\n", len(results[0].wall[0]))
	fmt.Fprintln(w, "work\toff, µs/call\twarn\tratio\toff, CPU µs/call\twarn\tratio\t")
	var all guarded
	for i := range results {
		r := &results[i]
		n := float64(guardWorks[i].records*guardWorks[i].times) / 1e6
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%s\t%.1f\t%.1f\t%s\t\n", guardWorks[i].name, program.Median(r.wall[0])/n, program.Median(r.wall[1])/n, ratioOf(r.wall),
			program.Median(r.cpu[0])/n, program.Median(r.cpu[1])/n, ratioOf(r.cpu))
		for which := range 2 {
			all.wall[which] = sum(all.wall[which], r.wall[which])
			all.cpu[which] = sum(all.cpu[which], r.cpu[which])
		}
	}
	fmt.Fprintf(w, "all together\t\t\t%s\t\t\t%s\t\n", ratioOf(all.wall), ratioOf(all.cpu))
	return w.Flush()
}

// sum adds what belongs together of a and b; a may be nil.
func sum(a, b []float64) []float64 {
	out := append([]float64(nil), b...)
	for i := range a {
		out[i] += a[i]
	}
	return out
}

// ratioOf is the median, over passes, of the second value to the first, and its
// interval.
func ratioOf(v [2][]float64) string {
	var ratios []float64
	for i := range v[0] {
		ratios = append(ratios, v[1][i]/v[0][i])
	}
	e := experiment.Median(ratios)
	return fmt.Sprintf("%.3f [%.3f, %.3f]", e.Median, e.Low, e.High)
}
