// Package job runs the ranks of a parallel job on this machine and leaves
// nothing of them behind.
//
// It starts the processes, forwards signals, ends the job when a rank is
// killed, and finds what ranks started and left running. How a rank is given
// its node is the caller's business. One job a process: it makes the process
// a subreaper, so that every descendant can be found.
// Sources: prctl(2) PR_SET_CHILD_SUBREAPER and PR_SET_PDEATHSIG.
package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// reapRounds bounds how often Run looks for what ranks left running.
const reapRounds = 100

// Spec describes a job.
type Spec struct {
	// Ranks is the number of processes, at least 1.
	Ranks int
	// Command returns the program of a rank, with its environment and its
	// standard files. Its SysProcAttr is set by Run.
	Command func(rank int) *exec.Cmd
	// Signals are passed on to every rank. SIGINT, SIGTERM, SIGHUP and SIGQUIT
	// also start the grace time.
	Signals <-chan os.Signal
	// Grace is how long the ranks may live after they were told to end.
	Grace time.Duration
	// Ended, if not nil, is called with each rank that did not end with 0.
	Ended func(rank int, how string)
}

// Block returns the node of a rank when size ranks are spread in blocks over
// nodes nodes: consecutive ranks share a node, and no node has more than one
// rank more than another.
func Block(rank, size, nodes int) int {
	return rank * nodes / size
}

type result struct {
	rank  int
	state *os.ProcessState
	err   error
}

// Run starts all ranks and returns when every process of the job is gone. The
// code is the first non-zero exit status, 128 + N for a rank that signal N
// killed. A rank that a signal kills ends the job; one that exits with another
// status does not.
func Run(ctx context.Context, s Spec) (code int, err error) {
	// The ranks die with the thread that started them: keep it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, err
	}
	defer killStrays()

	cmds := make([]*exec.Cmd, 0, s.Ranks)
	ended := make(chan result, s.Ranks)
	var waiters errgroup.Group
	for rank := range s.Ranks {
		cmd := s.Command(rank)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		if err = cmd.Start(); err != nil {
			err = fmt.Errorf("start rank %d: %w", rank, err)
			signalAll(cmds, syscall.SIGKILL)
			break
		}
		cmds = append(cmds, cmd)
		waiters.Go(func() error {
			err := cmd.Wait()
			ended <- result{rank, cmd.ProcessState, err}
			return nil
		})
	}
	code = s.watch(ctx, cmds, ended)
	_ = waiters.Wait() // they return nil; their results came over the channel
	return code, err
}

// watch passes signals on until every rank in cmds has ended. It empties cmds.
func (s Spec) watch(ctx context.Context, cmds []*exec.Cmd, ended <-chan result) (code int) {
	done := ctx.Done()
	var grace <-chan time.Time
	stop := func(sig syscall.Signal) {
		signalAll(cmds, sig)
		if grace == nil {
			grace = time.After(s.Grace)
		}
	}
	for left := len(cmds); left > 0; {
		select {
		case r := <-ended:
			left--
			cmds[r.rank] = nil
			status, how := describe(r)
			if status == 0 {
				continue
			}
			if code == 0 {
				code = status
			}
			if grace == nil && s.Ended != nil { // later ones end because we told them to
				s.Ended(r.rank, how)
			}
			if status > 128 && r.state != nil && !r.state.Exited() {
				stop(syscall.SIGTERM)
			}
		case sig := <-s.Signals:
			n, ok := sig.(syscall.Signal)
			switch {
			case !ok:
			case n == syscall.SIGINT, n == syscall.SIGTERM, n == syscall.SIGHUP, n == syscall.SIGQUIT:
				stop(n)
			default:
				signalAll(cmds, n)
			}
		case <-done:
			done = nil
			stop(syscall.SIGTERM)
		case <-grace:
			signalAll(cmds, syscall.SIGKILL)
		}
	}
	return code
}

// Wait returns the status with which cmd, which has started, ends, as Run
// would. Meanwhile it passes the signals on to it.
func Wait(cmd *exec.Cmd, signals <-chan os.Signal) int {
	ended := make(chan result, 1)
	var waiter errgroup.Group
	waiter.Go(func() error {
		err := cmd.Wait()
		ended <- result{0, cmd.ProcessState, err}
		return nil
	})
	for {
		select {
		case r := <-ended:
			status, _ := describe(r)
			return status
		case sig := <-signals:
			_ = cmd.Process.Signal(sig) // it may have ended just now
		}
	}
}

// describe returns the exit status of a rank and the words for it.
func describe(r result) (status int, how string) {
	var exit *exec.ExitError
	if r.err != nil && !errors.As(r.err, &exit) {
		return 1, r.err.Error()
	}
	ws, ok := r.state.Sys().(syscall.WaitStatus)
	if ok && ws.Signaled() {
		return 128 + int(ws.Signal()), "killed by " + unix.SignalName(ws.Signal())
	}
	return r.state.ExitCode(), fmt.Sprintf("exit status %d", r.state.ExitCode())
}

// signalAll signals the process groups of the ranks that have not ended, which
// are those in cmds that are not nil.
func signalAll(cmds []*exec.Cmd, sig syscall.Signal) {
	for _, cmd := range cmds {
		if cmd != nil {
			_ = syscall.Kill(-cmd.Process.Pid, sig)
		}
	}
}

// killStrays kills what ranks started and left running: such processes have
// become our children. It returns when there are none.
func killStrays() {
	for range reapRounds {
		kids := children(os.Getpid())
		if len(kids) == 0 {
			return
		}
		for _, pid := range kids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			_, _ = syscall.Wait4(pid, nil, 0, nil)
		}
	}
}

// children returns the pids whose parent is pid. It reads status, not stat: a
// process that executes another program keeps its stat from readers until the
// file systems of the files that it closes have answered.
func children(pid int) []int {
	all, _ := filepath.Glob("/proc/[0-9]*/status")
	var out []int
	for _, name := range all {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it ended meanwhile
		}
		_, rest, _ := strings.Cut(string(b), "\nPPid:")
		line, _, _ := strings.Cut(rest, "\n")
		if strings.TrimSpace(line) != strconv.Itoa(pid) {
			continue
		}
		if kid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
			out = append(out, kid)
		}
	}
	return out
}
