package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/cluster"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/job"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/mounts"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/proc"
)

// maxRanks bounds a job on one machine.
const maxRanks = 4096

// Exit statuses of what does not come to run the program, as of env(1).
const (
	exitCannot   = 125 // no namespace, no node, no system
	exitNotExec  = 126 // the program cannot be executed
	exitNotFound = 127 // there is no such program
)

// launchFlags describe a job.
type launchFlags struct {
	dir        string
	ranks      int
	job        string // its name, "" for one of its own
	grace      time.Duration
	supervisor bool
}

// checkRanks refuses a number of ranks that cannot be launched.
func checkRanks(n int) error {
	if n < 1 || n > maxRanks {
		return fmt.Errorf("-n %d: want between 1 and %d ranks", n, maxRanks)
	}
	return nil
}

func (a *app) launchCommand() *cobra.Command {
	var f launchFlags
	cmd := &cobra.Command{
		Use:   "launch [--dir DIR] -n RANKS -- CMD [ARG...]",
		Short: "run a parallel job on a system on this machine",
		Long: "launch runs RANKS copies of CMD as one job, spread in blocks over the nodes. Each has ZOIDFS_JOB, ZOIDFS_RANK and\n" +
			"ZOIDFS_SIZE in its environment and sees the mount of its node at /zfs, which nobody else does. Rank 0 has the\n" +
			"standard input unless that is a terminal. The exit status is the first that is not 0, or 128 plus the signal that\n" +
			"killed a rank, which ends the whole job. 125 to 127 mean that CMD did not run.",
		Example: "  zoidfs launch -n 8 -- ./program /zfs/output\n" +
			"  zoidfs launch -n 2 -- sh -c 'echo rank $ZOIDFS_RANK of $ZOIDFS_SIZE: $(ls /zfs)'",
		Args: needCommand,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("ranks") {
				return errors.New("-n RANKS is needed: the number of ranks")
			}
			if err := checkRanks(f.ranks); err != nil {
				return err
			}
			if f.grace < 0 {
				return fmt.Errorf("--grace %v is negative", f.grace)
			}
			run := a.launch
			if f.supervisor {
				run = a.supervise
			}
			code, err := run(cmd.Context(), f, args)
			if err != nil {
				return &exitError{exitCannot, err}
			}
			if code != 0 {
				return &exitError{code: code}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dir", defaultDir, "`DIR` of the system")
	flags.IntVarP(&f.ranks, "ranks", "n", 0, "number of ranks")
	flags.StringVar(&f.job, "job", "", "`NAME` of the job, as stats and advise call it (default: one that no other has)")
	flags.DurationVar(&f.grace, "grace", 5*time.Second, "how long the ranks may live after they were told to end")
	flags.BoolVar(&f.supervisor, "supervisor", false, "")
	_ = flags.MarkHidden("supervisor") // fails only for a flag that does not exist
	flags.SetInterspersed(false)
	return cmd
}

// needCommand wants at least one operand: the program to run.
func needCommand(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("which program? give it after --")
	}
	return nil
}

// jobSignals are those that reach the ranks of a job.
var jobSignals = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

// launch runs a job and returns its exit status. The ranks belong to another
// process, the supervisor, which is told when this one dies: nobody can kill
// the job's head and leave its body running.
func (a *app) launch(ctx context.Context, f launchFlags, argv []string) (int, error) {
	dir, file, err := runningSystem(f.dir)
	if err != nil {
		return 0, err
	}
	for k := range min(len(file.Nodes), f.ranks) {
		if err := mounted(ctx, file, k); err != nil {
			return 0, err
		}
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{"zoidfs", "launch", "--supervisor", "--dir", string(dir), "-n", strconv.Itoa(f.ranks),
		"--job", f.job, "--grace", f.grace.String(), "--"}, argv...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// In a process group of its own a terminal's signals reach it once, from here.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, jobSignals...)
	defer signal.Stop(signals)
	runtime.LockOSThread() // the child is told of the death of the thread that started it
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	return job.Wait(cmd, signals), nil
}

// supervise runs the ranks of a job, which are `zoidfs enter` processes that
// become the program.
func (a *app) supervise(ctx context.Context, f launchFlags, argv []string) (int, error) {
	dir := cluster.Dir(f.dir)
	file, err := dir.Load()
	if err != nil {
		return 0, err
	}
	failed, report, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer failed.Close()
	defer report.Close()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, jobSignals...)
	defer signal.Stop(signals)
	nodes := min(len(file.Nodes), f.ranks)
	id := cmp.Or(f.job, fmt.Sprintf("launch-%d-%d", os.Getpid(), time.Now().UnixNano()))
	told := false
	// Signals end the job through the channel, not through the context.
	return job.Run(context.WithoutCancel(ctx), job.Spec{
		Ranks:   f.ranks,
		Signals: signals,
		Grace:   f.grace,
		Command: func(rank int) *exec.Cmd {
			cmd := exec.Command("/proc/self/exe")
			cmd.Args = append([]string{"zoidfs", "enter", "--dir", string(dir), "--node", strconv.Itoa(job.Block(rank, f.ranks, nodes)),
				"--parent", strconv.Itoa(os.Getpid()), "--report-fd", strconv.Itoa(proc.ReadyFD), "--"}, argv...)
			cmd.Env = append(os.Environ(), "ZOIDFS_JOB="+id, "ZOIDFS_RANK="+strconv.Itoa(rank), "ZOIDFS_SIZE="+strconv.Itoa(f.ranks))
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			if rank == 0 && !isTerminal(os.Stdin) {
				cmd.Stdin = os.Stdin
			}
			cmd.ExtraFiles = []*os.File{report}
			return cmd
		},
		Ended: func(rank int, how string) {
			if told {
				return // the others fail likewise
			}
			if reason := firstReport(failed); reason != "" {
				told, how = true, reason
			}
			fmt.Fprintf(a.err, "zoidfs launch: rank %d: %s\n", rank, how)
		},
	})
}

// firstReport returns the first reason for which a rank could not become the
// program that has arrived on the pipe r, or nothing. It does not wait.
func firstReport(r *os.File) string {
	_ = r.SetReadDeadline(time.Now().Add(time.Millisecond)) // a pipe can
	return proc.ReadReport(r)
}

// mounted returns an error unless node k of the system has a mount that answers.
func mounted(ctx context.Context, f *cluster.File, k int) error {
	if err := mountedAt(f, k); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return mounts.Answer(ctx, f.Nodes[k].Mount)
}

// mountedAt returns an error unless node k of the system has a mount, and asks
// nobody but the kernel.
func mountedAt(f *cluster.File, k int) error {
	if k < 0 || k >= len(f.Nodes) {
		return fmt.Errorf("there is no node %d: the system has nodes 0 to %d", k, len(f.Nodes)-1)
	}
	n := f.Nodes[k]
	m, found, err := mounts.At(n.Mount)
	if err != nil {
		return err
	}
	if !found || m.FSType != mounts.FSType {
		return fmt.Errorf("%s is not mounted at %s, see: zoidfs up", n.Name, n.Mount)
	}
	return nil
}

// isTerminal reports whether f is a character device, as a terminal is.
func isTerminal(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0 && st.Mode()&os.ModeDevice != 0
}
