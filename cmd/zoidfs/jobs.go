package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/local"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/mounts"
	"github.com/zoidfs/zoidfs/fs"
)

func (a *app) jobCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "job begin|end MOUNTPOINT --job JOB",
		Short: "tell a mount which processes are a parallel job",
		Long: "job tells the mount of this node which processes belong to a job, for launchers that a mount does not know, and for\n" +
			"prologs and epilogs of batch systems. Most need it not: see docs/jobs.md for what a mount finds out by itself.",
		Example: "  zoidfs job begin /zfs --job $SLURM_JOB_ID --size 64 --cgroup /system.slice/slurmstepd.scope/job_$SLURM_JOB_ID\n" +
			"  zoidfs job end /zfs --job $SLURM_JOB_ID",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%q is neither begin nor end", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.jobBeginCommand(), a.jobEndCommand())
	return cmd
}

func (a *app) jobBeginCommand() *cobra.Command {
	var q fs.JobRequest
	var pids []uint
	cmd := &cobra.Command{
		Use:   "begin MOUNTPOINT --job JOB [--size N] [--pid PID]... [--session SID] [--cgroup PATH]",
		Short: "from now on these processes are of the job",
		Long: "begin says that processes are of job JOB: those named by --pid and their descendants, those of a session, those in a\n" +
			"control group or below it; without any, the process that runs this command and its descendants. JOB and --size must be\n" +
			"the same on all nodes of the job. The ranks are what the launcher says in the environment of each process, or\n" +
			"ZOIDFS_RANK; processes without a rank are counted for the job, but merged with nobody. Root may name processes of all\n" +
			"users, others their own, and need write permission to the root directory of the mount. It goes on until `zoidfs job end`.",
		Example: "  zoidfs job begin /zfs --job nightly --size 8        # this shell and what it starts\n" +
			"  zoidfs job begin /zfs --job $SLURM_JOB_ID --size $SLURM_NTASKS --cgroup /slurm/uid_$SLURM_JOB_UID/job_$SLURM_JOB_ID",
		Args: needMount,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, pid := range pids {
				if pid == 0 || pid > math.MaxInt32 || errors.Is(unix.Kill(int(pid), 0), unix.ESRCH) {
					return fmt.Errorf("--pid %d: no such process", pid)
				}
				q.PIDs = append(q.PIDs, uint32(pid))
			}
			if q.Cgroup != "" {
				q.Cgroup = path.Clean(strings.TrimPrefix(q.Cgroup, "/sys/fs/cgroup"))
			}
			if len(q.PIDs) == 0 && q.Session == 0 && q.Cgroup == "" {
				q.PIDs = []uint32{uint32(os.Getppid())}
			}
			return a.setJob(cmd.Context(), args[0], q)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&q.Job, "job", "", "name of the job, the same on all its nodes")
	flags.IntVar(&q.Size, "size", 0, "`RANKS` of the whole job")
	flags.UintSliceVar(&pids, "pid", nil, "process of the job, with its descendants")
	flags.Uint32Var(&q.Session, "session", 0, "session, `SID`, whose processes are of the job")
	flags.StringVar(&q.Cgroup, "cgroup", "", "control group, `PATH` as in /proc/PID/cgroup, whose processes are of the job")
	return cmd
}

func (a *app) jobEndCommand() *cobra.Command {
	var job string
	cmd := &cobra.Command{
		Use:     "end MOUNTPOINT --job JOB",
		Short:   "the processes are what they say themselves again",
		Long:    "end takes back what the same user has said with `zoidfs job begin`. What was counted stays for `zoidfs stats --job`.",
		Example: "  zoidfs job end /zfs --job $SLURM_JOB_ID",
		Args:    needMount,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.setJob(cmd.Context(), args[0], fs.JobRequest{Job: job, End: true})
		},
	}
	cmd.Flags().StringVar(&job, "job", "", "name of the job, as given to begin")
	return cmd
}

// needMount wants one operand, the mount point.
func needMount(_ *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return errors.New("which MOUNTPOINT?")
	case 1:
		return nil
	}
	return fmt.Errorf("unexpected argument %q", args[1])
}

func (a *app) setJob(ctx context.Context, point string, q fs.JobRequest) error {
	if q.Job == "" {
		return errors.New("--job is needed: the name of the job")
	}
	if q.Size < 0 {
		return fmt.Errorf("--size %d is negative", q.Size)
	}
	point, err := mounts.Resolve(point)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return local.SetJob(ctx, point, q)
}

// jobSource is whom stats asks about jobs.
func jobSource(dir string, args []string) (local.Source, error) {
	if len(args) == 1 {
		if local.IsAddr(args[0]) {
			return local.Source{IONs: args}, nil
		}
		point, err := mounts.Resolve(args[0])
		return local.Source{Mounts: []string{point}}, err
	}
	_, f, err := runningSystem(dir)
	if err != nil {
		return local.Source{}, err
	}
	return local.Of(f), nil
}

// listJobs prints the jobs of whom jobSource names.
func (a *app) listJobs(ctx context.Context, s local.Source, asJSON bool) error {
	jobs, err := s.Jobs(ctx)
	if asJSON {
		return errors.Join(printJSON(a.out, jobs), err)
	}
	if err != nil && len(jobs) == 0 {
		return err
	}
	tw := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "JOB\tNAME\tUID\tRANKS\tSIZE\tPROCESSES\tBEGAN\tENDED")
	for _, j := range jobs {
		ended, size := "-", "?"
		if j.Ended != nil {
			ended = j.Ended.Format(time.DateTime)
		}
		if j.Size > 0 {
			size = fmt.Sprint(j.Size)
		}
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%s\t%d\t%s\t%s\n", j.ID, j.Name, j.UID, j.Ranks, size, j.Processes, j.Began.Format(time.DateTime), ended)
	}
	return errors.Join(tw.Flush(), err)
}

// jobStats prints what was counted for one job.
func (a *app) jobStats(ctx context.Context, s local.Source, name string, asJSON bool) error {
	jobs, listErr := s.Jobs(ctx)
	job, err := local.Find(jobs, name)
	if err != nil {
		return errors.Join(listErr, err)
	}
	st, err := s.Stats(ctx, job)
	if asJSON {
		return errors.Join(printJSON(a.out, st), listErr, err)
	}
	return errors.Join(printJob(a.out, st), listErr, err)
}

func printJob(w io.Writer, st local.JobStats) error {
	size := "?"
	if st.Size > 0 {
		size = fmt.Sprint(st.Size)
	}
	state := fmt.Sprintf("%d processes", st.Processes)
	if st.Ended != nil {
		state = "ended " + st.Ended.Format(time.DateTime)
	}
	fmt.Fprintf(w, "%s  %s  uid %d  %d of %s ranks  began %s  %s\n", st.ID, st.Name, st.UID, st.Ranks, size, st.Began.Format(time.DateTime), state)
	return st.Table(w)
}
