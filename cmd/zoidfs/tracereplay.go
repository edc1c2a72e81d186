package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/zoidfs/zoidfs/internal/replay"
	"github.com/zoidfs/zoidfs/internal/trace"
)

func (a *app) traceReplayCommand() *cobra.Command {
	var f traceFilter
	var opt replay.Options
	var speed string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "replay --to DIR FILE...",
		Short: "make the calls of traces again, in another directory",
		Long: "replay makes the calls of traces again in DIR, which stands for the mount point and may be on any file system: those of\n" +
			"each process one after the other, and each call only after those that had returned before it began. With\n" +
			"--speed 1 they come at the times of the trace, with --speed 2 in half the time, with --speed max as they can. What\n" +
			"calls find and none of them has made (directories, files that are read) is made before. Bytes are made up.\n" +
			"It overwrites and removes files in DIR as the trace did.",
		Example: "  zoidfs trace replay --to /tmp/again --speed max zoidfs-trace\n" +
			"  zoidfs trace replay --to /zfs/again --speed 1 --rank 0 zoidfs-trace/node0.ztrace",
		Args: anyArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if opt.Dir == "" {
				return errors.New("--to is needed: the DIR in which to make the calls")
			}
			if speed != "max" {
				n, err := strconv.ParseFloat(speed, 64)
				if err != nil || n <= 0 || n > 1e6 {
					return fmt.Errorf("--speed %q is neither max nor a number, such as 1", speed)
				}
				opt.Speed = n
			}
			if err := f.check(); err != nil {
				return err
			}
			traces, err := loadTraces(args, f.keep)
			if err != nil {
				return err
			}
			calls, err := trace.Merge(traces)
			if err != nil {
				return err
			}
			if err := makeDir(opt.Dir); err != nil {
				return fmt.Errorf("--to: %w", err)
			}
			res, err := replay.Run(cmd.Context(), traces, calls, opt)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.out, res)
			}
			return printReplay(a.out, res)
		},
	}
	f.flags(cmd)
	cmd.Flags().StringVar(&opt.Dir, "to", "", "`DIR` in which to make the calls, which is made if it is not there")
	cmd.Flags().StringVar(&speed, "speed", "max", "how fast: a factor of the speed of the trace, or max")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// makeDir makes a directory, unless it is there.
func makeDir(name string) error {
	err := os.Mkdir(name, 0o777)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if st, err := os.Stat(name); err != nil || !st.IsDir() {
		return fmt.Errorf("%s is not a directory", name)
	}
	return nil
}

func printReplay(w io.Writer, res replay.Result) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "CALL\tCALLS\tBYTES\tTOOK\tIN THE TRACE\tENDED OTHERWISE\t")
	round := func(d time.Duration) time.Duration { return d.Round(time.Microsecond) }
	ops := slices.Sorted(maps.Keys(res.Kinds))
	for _, o := range ops {
		k := res.Kinds[o]
		fmt.Fprintf(tw, "%v\t%d\t%d\t%v\t%v\t%d\t\n", o, k.Calls, k.Bytes, round(k.Took), round(k.Then), k.Differ)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, o := range ops {
		if m, ok := res.First[o]; ok {
			now := "succeeded"
			if m.Err != nil {
				now = m.Err.Error()
			}
			fmt.Fprintf(w, "the first %v that ended otherwise: %s, now %s\n", o, strings.TrimSpace(m.Call.String()), now)
		}
	}
	_, err := fmt.Fprintf(w, "%v, in the trace %v; %d lookups, stats and the like were left to the kernel\n", round(res.Took), round(res.Then), res.Skipped)
	return err
}
