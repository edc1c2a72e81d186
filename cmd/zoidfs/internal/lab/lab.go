// Package lab makes the runs of an experiment on systems on this machine.
//
// It starts a system of the shape that a run needs, or uses one that is running,
// launches the ranks as `zoidfs launch` does, counts requests around each phase
// that is measured, kills and restarts what a fault names, and appends each run
// to the store when it has been made. What is run and in which order is decided
// by internal/experiment, what the ranks do by internal/experiment/work.
//
// One Run at a time works on a directory. Nothing is safe for concurrent use.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/zoidfs/zoidfs/internal/experiment"
)

// Options say what is run and where.
type Options struct {
	Spec        *experiment.Spec
	Text        []byte // of its file
	Out         string // directory of the results
	Scratch     string // directory in which systems are started
	System      string // directory of a running system, "" to start what is needed
	Environment experiment.Environment
	LogFlags    []string  // for the processes of systems
	Progress    io.Writer // gets the progress
	Terminal    bool      // it is one
}

// Outcome is how far an experiment has come.
type Outcome struct {
	Planned int // runs
	Made    int // of these, by now
	Failed  int // by this call, for want of a result
	Broken  int // of those made: data were wrong or a promise broken
}

// maxInRow is after how many failures in a row the rest is not tried.
const maxInRow = 3

// Run makes the runs that the store does not have yet. With an error, those that
// were made are kept, and Run with the same options goes on.
func Run(ctx context.Context, o Options) (out Outcome, err error) {
	store, err := experiment.Create(o.Out, o.Text, o.Environment)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	runs, err := store.Runs()
	if err != nil {
		return out, err
	}
	l := &lab{Options: o, store: store, order: len(runs)}
	plan := o.Spec.Plan()
	out.Planned = len(plan)
	done := map[string]bool{}
	for _, r := range experiment.Latest(runs) {
		if r.Done() {
			done[r.ID] = true
			out.count(&r)
		}
	}
	plan = slices.DeleteFunc(plan, func(t experiment.Trial) bool { return done[t.ID()] })
	l.bar = newBar(o.Progress, o.Terminal, out.Planned, out.Made)
	err = l.all(ctx, plan, &out)
	// What is left running is stopped though the run was interrupted.
	return out, errors.Join(err, l.stop(context.WithoutCancel(ctx)), store.Export())
}

func (o *Outcome) count(r *experiment.Run) {
	o.Made++
	if !r.Check.Clean() {
		o.Broken++
	}
}

// lab is an experiment under way.
type lab struct {
	Options
	store  *experiment.Store
	system *system // nil: none is running
	order  int     // of the next run
	bar    *bar
}

// all makes the runs of a plan.
func (l *lab) all(ctx context.Context, plan []experiment.Trial, out *Outcome) error {
	inRow := 0
	for _, t := range plan {
		if ctx.Err() != nil {
			return interrupted(ctx)
		}
		l.bar.next(t)
		if err := l.shape(ctx, t.Shape); err != nil {
			if ctx.Err() != nil {
				return interrupted(ctx)
			}
			return err
		}
		r := l.run(ctx, t)
		if ctx.Err() != nil {
			return interrupted(ctx)
		}
		if err := l.store.Append(r); err != nil {
			return err
		}
		l.order++
		l.bar.end(&r)
		if r.Done() {
			out.count(&r)
			inRow = 0
			if err := l.clear(ctx, t); err != nil {
				return err
			}
			continue
		}
		out.Failed++
		// Whatever is the matter, the next run shall not suffer from it.
		if err := l.stop(ctx); err != nil {
			return fmt.Errorf("%s: %s: %w", t.ID(), r.Error, err)
		}
		if inRow++; inRow == maxInRow {
			return fmt.Errorf("%d runs in a row failed, the last one, %s: %s", maxInRow, t.ID(), r.Error)
		}
	}
	return nil
}

// clear sees to it that the next run does not suffer from the fault of the last
// one: the session of a mount that was killed outlives it, and who restarts or
// reads meanwhile waits for its end.
func (l *lab) clear(ctx context.Context, t experiment.Trial) error {
	if f := l.Spec.Fault(t.Fault); f == nil || f.Target != experiment.TargetNode {
		return nil
	}
	return l.stop(ctx)
}

// interrupted says that the user wanted it so.
func interrupted(ctx context.Context) error { return fmt.Errorf("interrupted: %w", context.Cause(ctx)) }

// shape sees to it that a system of a shape is running, and warm.
func (l *lab) shape(ctx context.Context, s experiment.Shape) error {
	if l.system != nil && l.system.shape == s {
		return nil
	}
	if err := l.stop(ctx); err != nil {
		return err
	}
	sys, err := l.start(ctx, s)
	if err != nil {
		return err
	}
	l.system = sys
	for _, c := range l.Spec.Warmups(s) {
		r := l.run(ctx, experiment.Trial{Cell: c, Repetition: -1})
		if r.Error != "" && ctx.Err() == nil {
			return fmt.Errorf("warm-up: %s", r.Error)
		}
	}
	return nil
}

// run makes one run. Its error is part of the result.
func (l *lab) run(ctx context.Context, t experiment.Trial) experiment.Run {
	r := experiment.Run{ID: t.ID(), Cell: t.Cell, Repetition: t.Repetition, Order: l.order, Start: time.Now()}
	own, cancel := context.WithTimeoutCause(ctx, l.Spec.Timeout, fmt.Errorf("did not end within %v", l.Spec.Timeout))
	defer cancel()
	var err error
	if l.Spec.Workload(t.Workload).Kind == experiment.Command {
		err = l.command(own, t, &r)
	} else {
		err = l.ranks(own, t, &r)
	}
	if err != nil {
		if own.Err() != nil {
			err = context.Cause(own)
		}
		r.Error = err.Error()
	}
	r.Seconds = time.Since(r.Start).Seconds()
	return r
}
