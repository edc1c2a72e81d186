package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/job"
	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/experiment"
	"github.com/zoidfs/zoidfs/internal/experiment/work"
	"github.com/zoidfs/zoidfs/internal/history"
)

// ranks makes a run of a workload of ours.
func (l *lab) ranks(ctx context.Context, t experiment.Trial, r *experiment.Run) (err error) {
	mode, err := consistency.Parse(t.Mode)
	if err != nil {
		return err
	}
	dir, seen, err := l.system.place(mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	config := work.Config{
		Workload: l.Spec.Workload(t.Workload), Mode: mode, Transfer: t.Transfer, Seed: l.Spec.Seed + int64(t.Repetition),
		Dir: seen, Visibility: l.system.visibility, LostNode: -1, Size: t.Ranks,
	}
	nodes := min(t.Nodes, t.Ranks)
	for rank := range t.Ranks {
		config.Nodes = append(config.Nodes, job.Block(rank, t.Ranks, nodes))
	}
	fault := l.Spec.Fault(t.Fault)
	if fault != nil {
		config.Mark = fault.Fraction
		if fault.After > 0 {
			config.Mark = 0
		}
		if fault.Target == experiment.TargetNode {
			config.LostNode = fault.Index
		}
	}
	reports, phases, err := l.launch(ctx, config, fault, r)
	if err != nil {
		return err
	}
	r.Phases = phases
	return l.judge(t, config, reports, r)
}

// judge fills in what the ranks found out beside times.
func (l *lab) judge(t experiment.Trial, config work.Config, reports []*work.Report, r *experiment.Run) error {
	for _, report := range reports {
		r.Staleness = append(r.Staleness, report.Staleness...)
		r.Unseen += report.Unseen
		if report.Lost {
			r.Strike.Lost++
		}
	}
	slices.Sort(r.Staleness)
	histories := work.Histories(config, t.ID(), t.Repetition, reports)
	r.Check = work.Judge(reports, histories)
	if r.Strike != nil && len(r.Phases) > 0 {
		for _, h := range r.Phases[0].Latency {
			r.Strike.Longest = max(r.Strike.Longest, float64(h.Max)/1e9)
		}
	}
	if t.Repetition < 0 || len(histories) == 0 {
		return nil // a warm-up
	}
	return record(l.store.History(t.ID()), histories)
}

// record writes histories to a file.
func record(name string, histories []history.History) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	w := history.NewWriter(f, true)
	var errs []error
	for _, h := range histories {
		errs = append(errs, w.Write(h))
	}
	return errors.Join(append(errs, w.Close(), f.Close())...)
}

// launch runs the ranks and counts requests around the phases. If there is a
// fault, it strikes in the first one.
func (l *lab) launch(ctx context.Context, config work.Config, fault *experiment.Fault, r *experiment.Run) ([]*work.Report, []experiment.Phase, error) {
	tmp, err := os.MkdirTemp("", "zoidfs-experiment-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil { // ranks may be in a user namespace
		return nil, nil, err
	}
	socket := filepath.Join(tmp, "socket")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var g errgroup.Group
	s := newStriker(l, fault)
	var before counts
	var counted []experiment.Levels
	hooks := work.Hooks{
		Begin: func(string) (err error) {
			before, err = l.system.count(ctx, fault != nil)
			s.begin()
			return err
		},
		End: func(string) error {
			if err := s.wait(ctx); err != nil {
				return err
			}
			after, err := l.system.count(ctx, fault != nil)
			counted = append(counted, levels(after.since(before)))
			return err
		},
		Mark: s.mark,
	}
	g.Go(func() error { return s.run(ctx) })
	g.Go(func() error {
		if err := l.job(ctx, config.Size, "experiment", "worker", socket); err != nil {
			cancel(err)
		}
		return nil
	})
	reports, err := work.Coordinate(ctx, listener, config, hooks)
	if err != nil {
		cancel(err) // ends the ranks
	}
	s.finish()
	if struck := g.Wait(); err == nil {
		err = struck
	}
	if err != nil {
		return nil, nil, context.Cause(ctx)
	}
	r.Strike = s.strike
	phases := work.Phases(config.Workload, reports)
	for i := range phases {
		phases[i].Requests = counted[i]
	}
	return reports, phases, nil
}

// graceTime is how long the ranks of a run that is given up may take to end.
const graceTime = 10 * time.Second

// job runs ranks of this program with the given arguments, as `zoidfs launch`
// does.
func (l *lab) job(ctx context.Context, ranks int, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	_, err = l.program(ctx, append([]string{"launch", "--dir", string(l.system.dir), "-n", strconv.Itoa(ranks), "--", self}, args...)...)
	return err
}

// program runs this program to its end and returns what it printed. When ctx is
// done it is told to end.
func (l *lab) program(ctx context.Context, args ...string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	// A terminal's interrupt is ours to handle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = graceTime
	if err := cmd.Run(); err != nil {
		if text := lastLine(errOut.String()); text != "" {
			return out.String(), fmt.Errorf("%s (%w)", text, err)
		}
		return out.String(), err
	}
	return out.String() + "\n" + errOut.String(), nil
}
