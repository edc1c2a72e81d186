package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/job"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/nodens"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/proc"
)

type enterFlags struct {
	dir      string
	node     int
	parent   int // die with it; 0: nobody
	reportFD int // where to report a failure; negative: standard error
	inside   bool
}

func (a *app) enterCommand() *cobra.Command {
	var f enterFlags
	cmd := &cobra.Command{
		Use:   "enter [--dir DIR] --node K -- CMD [ARG...]",
		Short: "run a program as on one node of a system on this machine",
		Long: "enter runs CMD in a private mount namespace in which the mount of node K stands at /zfs. Without root it needs\n" +
			"user namespaces. The exit status is that of CMD; 125 to 127 mean that it did not run.",
		Example: "  zoidfs enter --node 1 -- ls -l /zfs\n" +
			"  zoidfs enter --node 0 -- bash",
		Args: needCommand,
		RunE: func(cmd *cobra.Command, args []string) error {
			notify, err := proc.NewNotifier(f.reportFD)
			if err != nil {
				return fmt.Errorf("--report-fd: %w", err)
			}
			err = a.enter(cmd.Context(), f, args)
			var exit *exitError
			if err != nil && !errors.As(err, &exit) {
				err = &exitError{exitCannot, err}
			}
			if f.reportFD >= 0 && errors.As(err, &exit) && exit.err != nil {
				notify.Fail(exit.err)
				exit.err = nil // whoever started us prints it
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dir", defaultDir, "`DIR` of the system")
	flags.IntVar(&f.node, "node", 0, "number of the node")
	flags.IntVar(&f.parent, "parent", 0, "")
	flags.IntVar(&f.reportFD, "report-fd", -1, "")
	flags.BoolVar(&f.inside, "inside", false, "")
	for _, name := range []string{"parent", "report-fd", "inside"} {
		_ = flags.MarkHidden(name) // fails only for a flag that does not exist
	}
	flags.SetInterspersed(false)
	return cmd
}

func (a *app) enter(ctx context.Context, f enterFlags, argv []string) error {
	dir, file, err := loadSystem(f.dir)
	if err != nil {
		return err
	}
	check := func() error { return mounted(ctx, file, f.node) }
	if f.parent != 0 { // which has seen that it answers
		check = func() error { return mountedAt(file, f.node) }
	}
	if err := check(); err != nil {
		return err
	}
	if f.parent != 0 {
		if err := nodens.DieWith(f.parent); err != nil {
			return err
		}
	}
	if os.Geteuid() != 0 && !f.inside {
		return a.enterAsUser(f, argv)
	}
	if !f.inside {
		if err := nodens.Private(); err != nil {
			return err
		}
	}
	view := nodens.View{Source: file.Nodes[f.node].Mount, Target: nodens.Target, Scratch: dir.View()}
	if err := nodens.Setup(view); err != nil {
		return err
	}
	if f.inside {
		if err := nodens.DropPrivileges(); err != nil {
			return err
		}
	}
	return become(argv)
}

// become replaces this process by the program argv.
func become(argv []string) error {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			return &exitError{exitNotFound, fmt.Errorf("%s: no such program", argv[0])}
		}
		return &exitError{exitNotExec, fmt.Errorf("%s: %w", argv[0], errors.Unwrap(err))}
	}
	err = syscall.Exec(path, argv, os.Environ())
	return &exitError{exitNotExec, fmt.Errorf("%s: %w", path, err)}
}

// enterAsUser runs argv in a child that is in a user namespace: a process of
// several threads, as this one is, cannot enter one itself.
func (a *app) enterAsUser(f enterFlags, argv []string) error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"zoidfs", "enter", "--inside", "--dir", f.dir, "--node", strconv.Itoa(f.node), "--parent", strconv.Itoa(os.Getpid())}
	if f.reportFD >= 0 {
		cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(f.reportFD), "report")}
		cmd.Args = append(cmd.Args, "--report-fd", strconv.Itoa(proc.ReadyFD))
	}
	cmd.Args = append(append(cmd.Args, "--"), argv...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = nodens.ChildOfUser()
	// Of what a terminal or the supervisor of a job sends, the child gets its
	// own; what else is meant for the program comes to us alone.
	ignored, signals := make(chan os.Signal, 1), make(chan os.Signal, 16)
	signal.Notify(ignored, jobSignals...)
	defer signal.Stop(ignored)
	if f.parent == 0 {
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
		defer signal.Stop(signals)
	}
	runtime.LockOSThread() // the child dies with the thread that started it
	if err := cmd.Start(); err != nil {
		return nodens.Explain(err)
	}
	if code := job.Wait(cmd, signals); code != 0 {
		return &exitError{code: code}
	}
	return nil
}
