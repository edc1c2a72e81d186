package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/cluster"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/mounts"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/proc"
)

// exitOK is what a process leaves in its exit file after a clean end.
const exitOK = "stopped"

// exitSize is the size of an exit file. It has it from the start, so that a
// process can leave its word when the disk is full.
const exitSize = 2 << 10

// PrepareExit makes or clears the exit file called name.
func PrepareExit(name string) error {
	return os.WriteFile(name, bytes.Repeat([]byte{' '}, exitSize), 0o644)
}

// WriteExit leaves in the exit file called name how this process ended.
func WriteExit(name string, end error) error {
	text := exitOK
	if end != nil {
		text = end.Error()
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(text[:min(len(text), exitSize)]), 0)
	return errors.Join(err, f.Close())
}

// Down flushes, unmounts and stops the system in d: mounts first, then I/O
// nodes, then servers. It goes on after a failure, so that nothing is left
// behind, and returns all failures. stopped is the number of processes that
// ran; 0 means that the system was down, which is no error.
func Down(ctx context.Context, d cluster.Dir, timeout time.Duration) (stopped int, err error) {
	if _, err := d.Load(); errors.Is(err, syscall.ENOENT) {
		return 0, nil
	}
	release, err := d.Lock()
	if err != nil {
		return 0, err
	}
	defer release()
	f, err := d.Load()
	if err != nil {
		return 0, err
	}
	stopped = Running(f)
	s := stopper{dir: d, timeout: timeout}
	var nodes, ions, servers []stoppable
	for i := range f.Nodes {
		n := &f.Nodes[i]
		nodes = append(nodes, stoppable{n.Name, &n.Role, n.Mount})
	}
	for i := range f.IONs {
		ions = append(ions, stoppable{cluster.IONName(i), &f.IONs[i].Role, ""})
	}
	for i := range f.PVFSD {
		servers = append(servers, stoppable{f.PVFSD[i].Alias, &f.PVFSD[i].Role, ""})
	}
	err = errors.Join(s.phase(ctx, nodes), leftovers(ctx, nodes), s.phase(ctx, ions), s.phase(ctx, servers))
	_ = d.Save(f) // if the disk is full, the old file does no harm: it names processes that are gone
	return stopped, err
}

type stopper struct {
	dir     cluster.Dir
	timeout time.Duration
}

// stoppable is one role; mount is empty unless it is a mount.
type stoppable struct {
	name  string
	role  *cluster.Role
	mount string
}

// phase stops all of ss at the same time.
func (s stopper) phase(ctx context.Context, ss []stoppable) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var wait sync.WaitGroup
	errs := make([]error, len(ss))
	for i, r := range ss {
		wait.Go(func() {
			if err := s.stop(ctx, r); err != nil {
				errs[i] = fmt.Errorf("%s: %w", r.name, err)
			}
			if !r.role.Alive() {
				r.role.ID = proc.ID{}
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

func (s stopper) stop(ctx context.Context, r stoppable) error {
	if !r.role.Alive() {
		return nil
	}
	err := r.role.Signal(syscall.SIGTERM)
	if err == nil {
		err = r.role.Wait(ctx)
	}
	if err == nil || errors.Is(err, syscall.ESRCH) {
		return s.verdict(r)
	}
	// Last resort. Killing the process ends the requests that hang in the mount.
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	var errs []error
	if r.mount != "" {
		if _, found, _ := mounts.At(r.mount); found {
			errs = append(errs, mounts.Unmount(clean, r.mount, true))
		}
	}
	if err := r.role.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		errs = append(errs, err)
	}
	errs = append(errs, r.role.Wait(clean))
	return errors.Join(append([]error{fmt.Errorf("killed: it did not stop within %v: %w (log: %s)", s.timeout, err, r.role.Log)}, errs...)...)
}

// verdict returns what the process that just ended left as its reason.
func (s stopper) verdict(r stoppable) error {
	b, err := os.ReadFile(s.dir.Exit(r.name))
	if err != nil {
		return err
	}
	switch text := strings.TrimSpace(string(b)); text {
	case exitOK:
		return nil
	case "":
		return fmt.Errorf("ended without saying that it flushed (log: %s)", r.role.Log)
	default:
		return fmt.Errorf("%s (log: %s)", text, r.role.Log)
	}
}

// leftovers takes away what is mounted for nodes whose process is gone, such
// as one that was killed.
func leftovers(ctx context.Context, nodes []stoppable) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	var errs []error
	for _, n := range nodes {
		if m, found, err := mounts.At(n.mount); err != nil || !found || m.FSType != mounts.FSType {
			continue // gone meanwhile, or somebody else's
		}
		if _, err := mounts.ClearStale(ctx, n.mount); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
