package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/zoidfs/zoidfs/internal/advise"
	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/trace"
)

// adviseFlags are the flags of advise.
type adviseFlags struct {
	watched
	traceFilter
	advise.Options
	traces   []string
	barriers string
	jobRanks int
	period   time.Duration
	asJSON   bool
}

func (a *app) adviseCommand() *cobra.Command {
	var f adviseFlags
	cmd := &cobra.Command{
		Use:   "advise [--dir DIR | MOUNTPOINT...] [-n RANKS] -- CMD [ARG...]",
		Short: "find out which consistency mode the files of a program need",
		Long: "advise watches a program on any number of mounts and says for each file the weakest consistency mode in which no two\n" +
			"processes use the same bytes without what the mode asks for in between, why it is not a weaker one, and how to set it.\n" +
			"With -n, CMD is run as a job by zoidfs launch. Without CMD it watches a job, named by --job as zoidfs stats --jobs does,\n" +
			"from when it is called, or the job begins, until the job has ended; or, without --job, until it is interrupted. --for\n" +
			"ends both earlier. With --trace it looks at traces that are there.\n\n" +
			"It sees calls and when they were made, not the messages between ranks: it takes what came first in this run for what\n" +
			"always comes first, and says where nothing but time shows it. --barriers reads when ranks passed barriers, a line\n" +
			"NAME RANK ENTER LEAVE [JOB] each, times in seconds since 1970; with --strict what only time orders counts as a race.\n" +
			"Run the program in strong, so that it does what it should. docs/advise.md has an example.",
		Example: "  zoidfs advise -n 8 -- ./program /zfs/output\n" +
			"  zoidfs advise --job 4711.0 /zfs\n" +
			"  zoidfs advise --trace zoidfs-trace --file '*.h5' --json",
		Args: anyArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.traceFilter.check(); err != nil {
				return err
			}
			if err := f.readBarriers(); err != nil {
				return err
			}
			if cmd.Flags().Changed("ranks") {
				if err := checkRanks(f.jobRanks); err != nil {
					return err
				}
			}
			points, argv := split(cmd, args)
			code, err := 0, error(nil)
			switch {
			case len(f.traces) > 0 && len(args) > 0:
				return fmt.Errorf("--trace and %q exclude each other", args[0])
			case len(f.traces) == 0:
				code, err = a.adviseWatch(cmd, &f, points, argv)
			}
			if err == nil {
				err = a.adviseOn(&f)
			}
			if err == nil && code != 0 {
				err = &exitError{code: code}
			}
			return err
		},
	}
	f.watched.flags(cmd)
	f.traceFilter.flags(cmd)
	flags := cmd.Flags()
	flags.StringSliceVar(&f.traces, "trace", nil, "look at these traces, `FILE`s or directories, instead of watching")
	flags.StringVar(&f.barriers, "barriers", "", "read from `FILE` when ranks passed barriers")
	flags.BoolVar(&f.Strict, "strict", false, "take accesses that only time orders for races")
	flags.BoolVar(&f.PerNode, "per-node", false, "take the processes of a node for one, as zoidfs does: right for this placement only")
	flags.IntVarP(&f.jobRanks, "ranks", "n", 0, "run CMD as a job of so many ranks")
	flags.DurationVar(&f.period, "for", 0, "without CMD: watch for so long (default: until the job has ended, or interrupted)")
	flags.BoolVar(&f.asJSON, "json", false, "print one JSON object")
	return cmd
}

func (f *adviseFlags) readBarriers() error {
	if f.barriers == "" {
		return nil
	}
	in, err := os.Open(f.barriers)
	if err != nil {
		return fmt.Errorf("--barriers: %w", err)
	}
	defer in.Close()
	if f.Barriers, err = advise.ParseBarriers(in); err != nil {
		return fmt.Errorf("--barriers: %s: %w", f.barriers, err)
	}
	return nil
}

// adviseWatch traces the mounts and returns with what status the program ended.
func (a *app) adviseWatch(cmd *cobra.Command, f *adviseFlags, points, argv []string) (int, error) {
	if f.jobRanks > 0 && argv == nil {
		return 0, errors.New("which program? give it after --")
	}
	if f.period < 0 {
		return 0, fmt.Errorf("--for: %v is less than no time", f.period)
	}
	all, limit, err := f.recordings(cmd, points)
	if err != nil {
		return 0, err
	}
	code, err := a.record(cmd.Context(), all, limit, func(ctx context.Context) (int, error) {
		switch {
		case argv == nil && f.job != "":
			var err error
			f.job, err = a.awaitJob(ctx, pointsOf(all), f.job, f.period)
			return 0, err
		case argv == nil:
			return 0, wait(ctx, f.period)
		case f.jobRanks > 0:
			return a.launch(ctx, launchFlags{dir: f.dir, ranks: f.jobRanks, grace: 5 * time.Second}, argv)
		}
		return runCommand(argv)
	})
	for _, r := range all {
		f.traces = append(f.traces, r.File)
	}
	return code, err
}

// adviseOn says what traces show.
func (a *app) adviseOn(f *adviseFlags) error {
	jobs := map[string]bool{}
	traces, err := loadTraces(f.traces, func(t *trace.Trace, c *trace.Call) bool {
		if p := t.Process(c); p.Job != "" {
			jobs[p.Job] = true
		}
		return f.traceFilter.keep(t, c)
	})
	if err != nil {
		return err
	}
	calls, err := trace.Merge(traces)
	if err != nil {
		return err
	}
	if len(calls) == 0 && f.job != "" {
		return fmt.Errorf("no call of job %q was seen%s", f.job, seenJobs(jobs))
	}
	r := advise.Analyse(traces, calls, f.Options)
	for _, t := range traces {
		r.Notes = append(r.Notes, warnings(t)...)
	}
	r.Notes = append(r.Notes, weakNotes(r)...)
	if f.asJSON {
		return printJSON(a.out, r)
	}
	out := bufio.NewWriter(a.out)
	begin := int64(0)
	if len(calls) > 0 {
		begin = calls[0].Start
	}
	printAdvice(out, r, traces[0].Mountpoint, begin)
	return out.Flush()
}

func seenJobs(jobs map[string]bool) string {
	if len(jobs) == 0 {
		return ", nor of any other"
	}
	var names []string
	for j := range jobs {
		names = append(names, fmt.Sprintf("%q", j))
	}
	slices.Sort(names)
	return fmt.Sprintf(", but of %v", names)
}

// weakNotes says which files were not watched in strong.
func weakNotes(r *advise.Report) (out []string) {
	for i := range r.Files {
		f := &r.Files[i]
		for _, m := range f.Opened {
			if m != consistency.Strong && m != consistency.Default {
				out = append(out, fmt.Sprintf("%s was open in %v: the program may not have done what it does in strong", f.Path, m))
				break
			}
		}
	}
	return out
}
