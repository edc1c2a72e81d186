package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/cluster"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/job"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/local"
)

// defaultTraces is where traces go unless told otherwise.
const defaultTraces = "zoidfs-trace"

func (a *app) traceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trace record|start|stop|show|replay",
		Short: "record what processes ask of mounts, look at it, do it again",
		Long: "trace records the calls of all processes on mounts, one file a mount, while they are mounted: which process and rank,\n" +
			"which file, which bytes, from when to when. A call never waits for its record; what could not be recorded is counted.",
		Example: "  zoidfs trace record -- zoidfs launch -n 8 -- ./program /zfs/output\n" +
			"  zoidfs trace show --call read,write zoidfs-trace/*.ztrace\n" +
			"  zoidfs trace replay --to /zfs/again zoidfs-trace/*.ztrace",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%q is none of record, start, stop, show, replay", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.traceRecordCommand(), a.traceStartCommand(), a.traceStopCommand(), a.traceShowCommand(), a.traceReplayCommand())
	return cmd
}

// watched says which mounts a command watches.
type watched struct {
	dir    string
	output string
	limit  string
}

func (w *watched) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&w.dir, "dir", defaultDir, "`DIR` of the system whose mounts are meant, if no MOUNTPOINT is given")
	flags.StringVarP(&w.output, "output", "o", defaultTraces, "`DIR` of the traces, which is made; outside of the mounts")
	flags.StringVar(&w.limit, "limit", "256M", "`SIZE` of a trace at most; what comes later is not recorded")
}

// recordings are the traces that are meant.
func (w *watched) recordings(cmd *cobra.Command, points []string) ([]*local.Recording, int64, error) {
	if len(points) > 0 && cmd.Flags().Changed("dir") {
		return nil, 0, fmt.Errorf("--dir and %q exclude each other", points[0])
	}
	limit, err := parseSize(w.limit)
	if err != nil || limit < 1<<20 {
		return nil, 0, fmt.Errorf("--limit: %q is not a size of at least 1M, such as 1G", w.limit)
	}
	var f *cluster.File
	if len(points) == 0 {
		if _, f, err = runningSystem(w.dir); err != nil {
			return nil, 0, err
		}
	}
	all, err := local.Recordings(cmd.Context(), w.output, f, points)
	if err != nil {
		return nil, 0, err
	}
	if err := os.MkdirAll(w.output, 0o777); err != nil {
		return nil, 0, fmt.Errorf("--output: %w", err)
	}
	return all, limit, nil
}

// split tells mount points from a command line after "--".
func split(cmd *cobra.Command, args []string) (points, argv []string) {
	if at := cmd.ArgsLenAtDash(); at >= 0 {
		return args[:at], args[at:]
	}
	return args, nil
}

// anyArgs leaves it to the command what its arguments are.
func anyArgs(*cobra.Command, []string) error { return nil }

func (a *app) traceRecordCommand() *cobra.Command {
	var w watched
	var period time.Duration
	cmd := &cobra.Command{
		Use:   "record [--dir DIR | MOUNTPOINT...] [-- CMD [ARG...]]",
		Short: "record while a command runs, for some time, or until interrupted",
		Long: "record traces mounts while CMD runs, and ends with its status; without CMD, for the time that --for gives or until it is\n" +
			"interrupted. It traces whatever is done on these mounts, not only by CMD. Only root and who mounted can trace a mount.",
		Example: "  zoidfs trace record -- zoidfs launch -n 8 -- ./program /zfs/output\n" +
			"  zoidfs trace record --for 10s /zfs -o /tmp/traces",
		Args: anyArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			points, argv := split(cmd, args)
			all, limit, err := w.recordings(cmd, points)
			if err != nil {
				return err
			}
			code, err := a.record(cmd.Context(), all, limit, func(ctx context.Context) (int, error) {
				if argv != nil {
					return runCommand(argv)
				}
				return 0, wait(ctx, period)
			})
			if err == nil {
				err = printRecordings(a.err, all)
			}
			if err == nil && code != 0 {
				err = &exitError{code: code}
			}
			return err
		},
	}
	w.flags(cmd)
	cmd.Flags().DurationVar(&period, "for", 0, "record for so long (default: until interrupted)")
	return cmd
}

// stopTime is how long the end of a trace may take.
const stopTime = 30 * time.Second

// record traces while during runs, whose exit status it returns.
func (a *app) record(ctx context.Context, all []*local.Recording, limit int64, during func(context.Context) (int, error)) (int, error) {
	begin, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	if err := local.Start(begin, all, limit); err != nil {
		return 0, err
	}
	code, err := during(ctx)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	return code, errors.Join(err, local.Stop(end, all))
}

// passedOn are the signals that a command gets from us. Those of a terminal it
// gets by itself.
var passedOn = []os.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2}

// runCommand runs a program and returns its exit status.
func runCommand(argv []string) (int, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passedOn...)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	return job.Wait(cmd, signals), nil
}

// wait waits for the given time, if it is not 0, or until ctx is done.
func wait(ctx context.Context, period time.Duration) error {
	if period < 0 {
		return fmt.Errorf("--for: %v is less than no time", period)
	}
	if period > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, period)
		defer cancel()
	}
	<-ctx.Done()
	return nil
}

// printRecordings says what was recorded.
func printRecordings(w io.Writer, all []*local.Recording) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range all {
		note := ""
		if r.Dropped > 0 {
			note += fmt.Sprintf(", %d are missing: too many came at once", r.Dropped)
		}
		if r.Full {
			note += ", then it was full"
		}
		fmt.Fprintf(tw, "%s\t%s\t%d calls%s\t%d bytes\n", r.Point, shown(r.File), r.Calls, note, r.Bytes)
	}
	return tw.Flush()
}

// shown is a path as a user in this directory would write it.
func shown(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(wd, path); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return path
}

func (a *app) traceStartCommand() *cobra.Command {
	var w watched
	cmd := &cobra.Command{
		Use:     "start [--dir DIR | MOUNTPOINT...]",
		Short:   "begin to record",
		Example: "  zoidfs trace start /zfs -o /tmp/traces",
		Args:    anyArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			all, limit, err := w.recordings(cmd, args)
			if err != nil {
				return err
			}
			return local.Start(cmd.Context(), all, limit)
		},
	}
	w.flags(cmd)
	return cmd
}

func (a *app) traceStopCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:     "stop [--dir DIR | MOUNTPOINT...]",
		Short:   "end what start has begun, and say what was recorded",
		Example: "  zoidfs trace stop /zfs",
		Args:    anyArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			w := watched{dir: dir, output: os.TempDir(), limit: "1M"} // only the mounts matter
			all, _, err := w.recordings(cmd, args)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), stopTime)
			defer cancel()
			for _, r := range all {
				if err := r.Look(ctx); err != nil {
					return err
				}
				if !r.Running && !r.Full && r.Error == "" {
					return fmt.Errorf("%s is not being traced", r.Point)
				}
				r.File = r.TraceStatus.File
			}
			if err := local.Stop(ctx, all); err != nil {
				return err
			}
			return printRecordings(a.out, all)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", defaultDir, "`DIR` of the system whose mounts are meant, if no MOUNTPOINT is given")
	return cmd
}
