package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/counters"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/local"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/mounts"
)

// How long the roles are given to answer, and how long status watches them.
const (
	askTimeout = 5 * time.Second
	sampleTime = 500 * time.Millisecond
)

func (a *app) statusCommand() *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [--dir DIR] [--json]",
		Short: "who runs where in a system on this machine, and is it well",
		Long: "status asks every server, I/O node and mount, watches them for half a second, and prints how long each took\n" +
			"to answer and what it does. It exits with 1 when something is not well.",
		Example: "  zoidfs status --dir /tmp/z",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, f, err := loadSystem(dir)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
			defer cancel()
			st := local.Ask(ctx, d, f, sampleTime)
			if asJSON {
				err = printJSON(a.out, st)
			} else {
				err = printStatus(a.out, st)
			}
			if err == nil && !st.OK {
				err = errors.New(unwell(st))
			}
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", defaultDir, "`DIR` of the system")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// unwell names the roles that are not well.
func unwell(st local.Status) string {
	var names []string
	for _, list := range [][]local.Health{st.Servers, st.IONs, st.Nodes} {
		for _, h := range list {
			if !h.OK {
				names = append(names, h.Name)
			}
		}
	}
	return "not well: " + strings.Join(names, ", ")
}

func printStatus(w io.Writer, st local.Status) error {
	fmt.Fprintf(w, "%s  over  %s  (%s)\n", st.Dir, st.PVFS, st.Consistency)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(h local.Health, busy string) {
		state, latency := "ok", fmt.Sprintf("%.1f ms", float64(h.LatencyUS)/1000)
		if !h.OK {
			state, latency = "DOWN", "-"
			busy = h.Error
		}
		pid := "-"
		if h.PID != 0 {
			pid = fmt.Sprintf("pid %d", h.PID)
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\t%s\t%s\n", h.Name, h.Addr+h.Mount, pid, state, latency, busy)
	}
	for _, h := range st.Servers {
		line(h, h.Detail)
	}
	for _, h := range st.IONs {
		line(h, fmt.Sprintf("%.0f requests/s, %s", h.PerSecond, h.Detail))
	}
	for _, h := range st.Nodes {
		line(h, fmt.Sprintf("%.0f calls/s, %s", h.PerSecond, h.Detail))
	}
	return tw.Flush()
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (a *app) statsCommand() *cobra.Command {
	var dir, job string
	var asJSON, reset, jobs bool
	cmd := &cobra.Command{
		Use:   "stats [--dir DIR | MOUNTPOINT | HOST:PORT] [--jobs | --job JOB] [--json] [--reset]",
		Short: "calls, requests and bytes at each level",
		Long: "stats prints what was asked since the start, or since the last --reset: calls that reached mounts, requests from\n" +
			"mounts to I/O nodes, requests to PVFS2 servers. It counts for a mount, for the I/O node at HOST:PORT, or for the\n" +
			"whole system in DIR, which is the sum over its mounts and I/O nodes.\n\n" +
			"--jobs lists the parallel jobs that are there, and those that ended last. --job prints what was asked on behalf of one,\n" +
			"by its id or name, since it began; what was written back counts for the job that wrote to the file last.",
		Example: "  zoidfs stats --dir /tmp/z\n" +
			"  zoidfs stats --json /zfs\n" +
			"  zoidfs stats --job 1234.0 /zfs\n" +
			"  zoidfs stats --reset ion0:7000      # print, then start counting anew",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("unexpected argument %q", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && cmd.Flags().Changed("dir") {
				return fmt.Errorf("--dir and %q exclude each other", args[0])
			}
			if (jobs || job != "") && reset || jobs && job != "" {
				return errors.New("--jobs, --job and --reset exclude each other")
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
			defer cancel()
			if jobs || job != "" {
				src, err := jobSource(dir, args)
				if err != nil {
					return err
				}
				if jobs {
					return a.listJobs(ctx, src, asJSON)
				}
				return a.jobStats(ctx, src, job, asJSON)
			}
			s, statsErr := collectStats(ctx, dir, args, reset)
			var err error
			if statsErr == nil || len(args) == 0 && counters.Total(s.App.Calls) > 0 { // what answered is worth printing
				if asJSON {
					err = printJSON(a.out, s)
				} else {
					err = s.Table(a.out)
				}
			}
			return errors.Join(statsErr, err)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", defaultDir, "`DIR` of the system")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.Flags().BoolVar(&jobs, "jobs", false, "list the parallel jobs")
	cmd.Flags().StringVar(&job, "job", "", "only what was asked on behalf of this `JOB`")
	cmd.Flags().BoolVar(&reset, "reset", false, "start counting anew afterwards")
	return cmd
}

func collectStats(ctx context.Context, dir string, args []string, reset bool) (counters.Stats, error) {
	if len(args) == 1 {
		if local.IsAddr(args[0]) {
			return local.IONStats(ctx, args[0], reset)
		}
		point, err := mounts.Resolve(args[0])
		if err != nil {
			return counters.Stats{}, err
		}
		return local.MountStats(ctx, point, reset)
	}
	_, f, err := runningSystem(dir)
	if err != nil {
		return counters.Stats{}, err
	}
	return local.SystemStats(ctx, f, reset)
}
