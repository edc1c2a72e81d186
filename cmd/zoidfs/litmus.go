package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/history"
	"github.com/zoidfs/zoidfs/internal/litmus"
)

// litmusFlags are the flags of litmus that need a second look.
type litmusFlags struct {
	litmus.Options
	mode, expect string
	history      string
	asJSON       bool
	verbose      bool
}

func (a *app) litmusCommand() *cobra.Command {
	var f litmusFlags
	cmd := &cobra.Command{
		Use:   "litmus --mounts DIR,DIR[,DIR...]",
		Short: "hold a file system to the promise of a consistency mode",
		Long: "litmus runs small programs of a few processes on two or more mounts of one file system, judges what they saw by a\n" +
			"consistency mode, and prints a table: what the mode promises, what was seen, and whether a promise was broken, in\n" +
			"which case it exits with status 1. The file system need not be zoidfs. It works in a new directory of the first\n" +
			"mount and removes it.\n\n" +
			"Without --mode it judges by the mode that the directory has, which is strong if it has none.",
		Example: "  zoidfs litmus --mounts zoidfs-run/node0/zfs,zoidfs-run/node1/zfs --mode commit --random 100\n" +
			"  zoidfs litmus --mounts /nfs1,/nfs2 --expect session --tests L3,L18 --history runs.jsonl.gz\n" +
			"  zoidfs litmus check runs.jsonl.gz",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.litmus(cmd, f) },
	}
	modeList := fmt.Sprint(consistency.All())
	flags := cmd.Flags()
	flags.StringSliceVar(&f.Mounts, "mounts", nil, "directories that show the same files, one `DIR` a node; they may be equal")
	flags.StringVar(&f.mode, "mode", "", "set this `MODE` on the directory and judge by it: one of "+modeList)
	flags.StringVar(&f.expect, "expect", "", "judge by this `MODE` and set none")
	flags.DurationVar(&f.Visibility, "visibility", 0, "how long eventual may hide a write (default: that of the mount, else 5s)")
	flags.Int64Var(&f.Atomic, "atomic", 0, "of strong: the unit of `BYTES` in which a call must take effect at once")
	flags.IntVar(&f.Rounds, "rounds", 200, "how often each test is run")
	flags.IntVar(&f.Random, "random", 0, "how many random programs are run, of those with races and of those without")
	flags.Int64Var(&f.Seed, "seed", 0, "repeat the choices of a run (default: new ones)")
	flags.StringSliceVar(&f.Tests, "tests", nil, "run these tests only; \"random\" for none but random programs")
	flags.StringVar(&f.Crash, "crash", "", "shell command `CMD` that kills the node of $ZOIDFS_LITMUS_MOUNT and brings it back, for L16")
	flags.StringVar(&f.history, "history", "", "record what was seen in `FILE`, compressed if it ends in .gz")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "tell on standard error how each test ended")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	cmd.AddCommand(a.litmusCheckCommand(), litmusWorkerCommand())
	return cmd
}

func (a *app) litmus(cmd *cobra.Command, f litmusFlags) (err error) {
	if f.Mode, err = modeFlag("mode", f.mode); err != nil {
		return err
	}
	if f.Expect, err = modeFlag("expect", f.expect); err != nil {
		return err
	}
	if !cmd.Flags().Changed("seed") {
		f.Seed = time.Now().UnixNano()
	}
	switch {
	case f.Mode != consistency.Default && f.Expect != consistency.Default:
		return errors.New("--mode and --expect exclude each other")
	case f.Rounds < 1:
		return fmt.Errorf("--rounds %d is not positive", f.Rounds)
	case f.Random < 0:
		return fmt.Errorf("--random %d is negative", f.Random)
	case f.Visibility < 0:
		return fmt.Errorf("--visibility %v is negative", f.Visibility)
	case f.Atomic < 0:
		return fmt.Errorf("--atomic %d is negative", f.Atomic)
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	f.Start = func(dir string) *exec.Cmd { return exec.Command(exe, "litmus", "worker", dir) }
	if f.verbose {
		f.Progress = a.err
	}
	if f.history != "" {
		out, err := os.Create(f.history)
		if err != nil {
			return err
		}
		f.History = history.NewWriter(out, strings.HasSuffix(f.history, ".gz"))
		defer func() { err = errors.Join(err, f.History.Close(), out.Close()) }()
	}
	res, err := litmus.Run(cmd.Context(), f.Options)
	if cmd.Context().Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return err
	}
	if err := printResult(a.out, &res, f.asJSON); err != nil {
		return err
	}
	if !res.Conforms() {
		return &exitError{code: 1, err: fmt.Errorf("promises of %s were broken; repeat with --seed %d", res.Mode, res.Seed)}
	}
	return nil
}

func printResult(w io.Writer, res *litmus.Result, asJSON bool) error {
	if !asJSON {
		return res.Table(w)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(res)
}

// modeFlag is the mode that a flag names, Default if it was not given.
func modeFlag(flag, value string) (consistency.Mode, error) {
	if value == "" {
		return consistency.Default, nil
	}
	m, err := consistency.Parse(value)
	if err != nil {
		return m, fmt.Errorf("--%s: %w", flag, err)
	}
	return m, nil
}

func (a *app) litmusCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "check FILE...",
		Short:   "judge recorded histories again",
		Example: "  zoidfs litmus check runs.jsonl.gz",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("which FILE?")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			total, bad := 0, 0
			for _, name := range args {
				n, b, err := a.checkFile(name)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				if n == 0 {
					return fmt.Errorf("%s: there are no histories", name)
				}
				total, bad = total+n, bad+b
			}
			if bad > 0 {
				return &exitError{code: 1, err: fmt.Errorf("promises were broken in %d of %d histories", bad, total)}
			}
			fmt.Fprintf(a.out, "no promise was broken in %d histories\n", total)
			return nil
		},
	}
}

// checkFile judges the histories of a file and prints what is wrong with them.
func (a *app) checkFile(name string) (total, bad int, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	r, err := history.NewReader(f)
	if err != nil {
		return 0, 0, err
	}
	for {
		h, err := r.Read()
		if errors.Is(err, io.EOF) {
			return total, bad, nil
		} else if err != nil {
			return total, bad, err
		}
		total++
		violations := litmus.Check(h)
		if len(violations) == 0 {
			continue
		}
		bad++
		fmt.Fprintf(a.out, "%s, round %d, mode %s, %s\n", h.Program, h.Round, h.Mode, h.Note)
		for _, v := range violations {
			fmt.Fprintf(a.out, "  %s: %s\n", v.Reason, v.Text)
		}
	}
}

func litmusWorkerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "worker DIR",
		Short:  "make the calls that standard input asks for",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   func(_ *cobra.Command, args []string) error { return litmus.Serve(args[0], os.Stdin, os.Stdout) },
	}
}
