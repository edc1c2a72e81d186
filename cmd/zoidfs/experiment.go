package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/job"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/lab"
	"github.com/zoidfs/zoidfs/internal/experiment"
	"github.com/zoidfs/zoidfs/internal/experiment/work"
)

func (a *app) experimentCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "experiment",
		Short: "measure workloads under several consistency modes",
		Long: "experiment runs workloads under the combinations of modes, sizes and faults that a file declares, and makes a page of\n" +
			"the results. docs/experiments.md has the file's form.",
		Example: "  zoidfs experiment run experiments/sessions.yaml\n" +
			"  zoidfs experiment report sessions-results",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.experimentRunCommand(), a.experimentReportCommand(), experimentWorkerCommand(), a.experimentNodeCommand())
	return cmd
}

// experimentFlags are the flags of experiment run.
type experimentFlags struct {
	out, dir, scratch string
	list              bool
}

func (a *app) experimentRunCommand() *cobra.Command {
	var f experimentFlags
	cmd := &cobra.Command{
		Use:   "run FILE.yaml [--out DIR] [--dir DIR]",
		Short: "make the runs that a file declares",
		Long: "run starts the systems that the experiment needs, one after the other, makes each run and keeps its result in\n" +
			"DIR: results.json and results.csv have all runs, summary.csv medians and intervals, histories what was seen.\n" +
			"Called again after an interruption it goes on where it was. It exits with 1 if a run has no result, or data were\n" +
			"wrong or a promise was broken in one.",
		Example: "  zoidfs experiment run experiments/sessions.yaml\n" +
			"  zoidfs experiment run experiments/sessions.yaml --dir zoidfs-run    # on a system that is up",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("want one FILE")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.experimentRun(cmd, args[0], f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.out, "out", "", "`DIR` of the results (default: NAME-results, for NAME.yaml)")
	flags.StringVar(&f.dir, "dir", "", "use the system that is running in `DIR`")
	flags.StringVar(&f.scratch, "scratch", "", "start systems, with their data, in `DIR` (default: that of the results)")
	flags.BoolVar(&f.list, "list", false, "print the runs in their order and make none")
	return cmd
}

func (a *app) experimentRun(cmd *cobra.Command, file string, f experimentFlags) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	spec, err := experiment.Parse(file, text)
	if err != nil {
		return err
	}
	if f.list {
		for _, t := range spec.Plan() {
			fmt.Fprintln(a.out, t.ID())
		}
		return nil
	}
	if f.out == "" {
		f.out = spec.Name + "-results"
	}
	if f.scratch == "" {
		f.scratch = f.out
	}
	env := lab.Machine(version, f.scratch)
	env.File, env.System = filepath.Base(file), f.dir
	out, err := lab.Run(cmd.Context(), lab.Options{
		Spec: spec, Text: text, Out: f.out, Scratch: f.scratch, System: f.dir, Environment: env,
		LogFlags: []string{"--log-level", a.logLevel, "--log-format", a.logFormat},
		Progress: a.err, Terminal: isTerminal(os.Stderr),
	})
	again := "zoidfs " + strings.Join(os.Args[1:], " ")
	switch {
	case err != nil && out.Planned == 0: // not begun
		return err
	case err != nil:
		a.showTail(err)
		return fmt.Errorf("%w; %d of %d runs are in %s, go on with: %s", err, out.Made, out.Planned, f.out, again)
	case out.Failed > 0:
		return fmt.Errorf("%d of %d runs have no result, try them again with: %s", out.Failed, out.Planned, again)
	}
	fmt.Fprintf(a.out, "%d runs are in %s; see them with: zoidfs experiment report %s\n", out.Made, f.out, f.out)
	if out.Broken > 0 {
		return fmt.Errorf("in %d of %d runs data were wrong or a promise was broken", out.Broken, out.Planned)
	}
	return nil
}

func experimentWorkerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "worker SOCKET",
		Short:  "one rank of a run",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			rank, err := strconv.Atoi(os.Getenv("ZOIDFS_RANK"))
			if err != nil {
				return errors.New("not a rank of a job: use zoidfs experiment run")
			}
			return work.Serve(args[0], rank)
		},
	}
}

// mpiRanks are the variables by which an MPI library tells a process its rank and
// the number of ranks.
var mpiRanks = [][2]string{{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"}, {"PMI_RANK", "PMI_SIZE"}, {"ZOIDFS_RANK", "ZOIDFS_SIZE"}}

// experimentNodeCommand runs a rank of an MPI job on the node on which launch
// would put it.
func (a *app) experimentNodeCommand() *cobra.Command {
	f := enterFlags{reportFD: -1}
	cmd := &cobra.Command{
		Use:    "node --dir DIR -- CMD [ARG...]",
		Short:  "run a rank of an MPI job on its node",
		Hidden: true,
		Args:   needCommand,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, file, err := loadSystem(f.dir)
			if err != nil {
				return err
			}
			for _, names := range mpiRanks {
				rank, rankErr := strconv.Atoi(os.Getenv(names[0]))
				size, sizeErr := strconv.Atoi(os.Getenv(names[1]))
				if rankErr == nil && sizeErr == nil && rank >= 0 && rank < size {
					f.node = job.Block(rank, size, min(size, len(file.Nodes)))
					return a.enter(cmd.Context(), f, args)
				}
			}
			return errors.New("not a rank of an MPI job")
		},
	}
	cmd.Flags().StringVar(&f.dir, "dir", defaultDir, "`DIR` of the system")
	cmd.Flags().SetInterspersed(false)
	return cmd
}
