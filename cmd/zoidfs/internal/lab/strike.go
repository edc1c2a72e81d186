package lab

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/cluster"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/local"
	"github.com/zoidfs/zoidfs/internal/experiment"
)

// striker kills what a fault names, when its moment has come, and starts it
// again.
type striker struct {
	*lab
	fault  *experiment.Fault // nil: none
	start  chan struct{}     // closed when the phase begins
	now    chan struct{}     // closed when the share of the calls is made
	struck chan struct{}     // closed when its moment has come
	done   chan struct{}     // closed when what was killed is there again
	over   chan struct{}     // closed when the job has ended
	once   [2]sync.Once      // of start and now
	strike *experiment.Strike
	err    error // set before done is closed
}

func newStriker(l *lab, fault *experiment.Fault) *striker {
	return &striker{lab: l, fault: fault, start: make(chan struct{}), now: make(chan struct{}), struck: make(chan struct{}), done: make(chan struct{}), over: make(chan struct{})}
}

func (s *striker) begin() { s.once[0].Do(func() { close(s.start) }) }

func (s *striker) mark() { s.once[1].Do(func() { close(s.now) }) }

// finish ends a striker whose moment has not come.
func (s *striker) finish() { close(s.over) }

// wait returns when what was killed is there again. A moment that did not come
// is an error: the run says nothing about the fault.
func (s *striker) wait(ctx context.Context) error {
	if s.fault == nil {
		return nil
	}
	if s.fault.After > 0 {
		select {
		case <-s.struck:
		default:
			return fmt.Errorf("the phase ended before fault %s, which comes after %v", s.fault.Name, s.fault.After)
		}
	}
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// run waits for the moment, and strikes.
func (s *striker) run(ctx context.Context) error {
	if s.fault == nil {
		return nil
	}
	defer close(s.done)
	select {
	case <-s.start:
	case <-s.over:
		return nil
	}
	begun := time.Now()
	moment, cancel := s.now, func() {}
	if s.fault.After > 0 {
		timer, stop := context.WithTimeout(ctx, s.fault.After)
		moment, cancel = make(chan struct{}), stop
		context.AfterFunc(timer, func() { close(moment) })
	}
	defer cancel()
	select {
	case <-moment:
	case <-s.over:
		return nil
	}
	close(s.struck)
	s.strike = &experiment.Strike{Fault: s.fault.Name, After: time.Since(begun).Seconds()}
	killed := time.Now()
	s.err = s.kill(ctx)
	s.strike.Down = time.Since(killed).Seconds()
	return s.err
}

// kill kills the process and starts it again when its time is over.
func (s *striker) kill(ctx context.Context) error {
	role := s.role()
	if err := role.Signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("fault %s: %w", s.fault.Name, err)
	}
	if err := role.Wait(ctx); err != nil {
		return fmt.Errorf("fault %s: %w", s.fault.Name, err)
	}
	select {
	case <-time.After(s.fault.Restart):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	file, _, err := local.Up(ctx, s.system.dir, local.UpOptions{LogFlags: s.LogFlags, Timeout: startTimeout})
	if err != nil {
		return fmt.Errorf("fault %s: start again: %w", s.fault.Name, err)
	}
	s.system.file = file
	return nil
}

// role is the process that the fault names.
func (s *striker) role() *cluster.Role {
	f := s.system.file
	switch s.fault.Target {
	case experiment.TargetServer:
		return &f.PVFSD[s.fault.Index].Role
	case experiment.TargetNode:
		return &f.Nodes[s.fault.Index].Role
	}
	return &f.IONs[s.fault.Index].Role
}
