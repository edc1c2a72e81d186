package main

import (
	"bufio"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/zoidfs/zoidfs/internal/trace"
)

func (a *app) traceShowCommand() *cobra.Command {
	var f traceFilter
	var asCSV, summary bool
	cmd := &cobra.Command{
		Use:   "show FILE...",
		Short: "print traces, merged by time",
		Long: "show prints the calls of traces in the order in which they began: seconds since the first, node, process, file, call, how\n" +
			"long it took. FILE may be a directory of traces. --summary prints calls, bytes and times by file and kind instead,\n" +
			"and --csv everything that is known, for other programs. Clocks of different nodes are taken to agree.",
		Example: "  zoidfs trace show zoidfs-trace\n" +
			"  zoidfs trace show --rank 0 --file '*.h5' --call write,fsync zoidfs-trace\n" +
			"  zoidfs trace show --csv zoidfs-trace > calls.csv",
		Args: anyArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if asCSV && summary {
				return errors.New("--csv and --summary exclude each other")
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
			out := bufio.NewWriterSize(a.out, 64<<10)
			switch {
			case asCSV:
				err = showCSV(out, traces, calls)
			case summary:
				err = showSummary(out, traces, calls)
			default:
				err = showCalls(out, traces, calls)
			}
			for _, t := range traces {
				for _, w := range warnings(t) {
					fmt.Fprintln(a.err, "zoidfs trace show: "+w)
				}
			}
			return errors.Join(err, out.Flush())
		},
	}
	f.flags(cmd)
	cmd.Flags().StringSliceVar(&f.calls, "call", nil, "only calls of these kinds, such as read,write,fsync")
	cmd.Flags().BoolVar(&asCSV, "csv", false, "print comma-separated values with a header")
	cmd.Flags().BoolVar(&summary, "summary", false, "print sums by file and kind of call")
	return cmd
}

// nodeNames are short names of where traces were recorded: hosts, or mount
// points where several are on one host.
func nodeNames(traces []*trace.Trace) []string {
	hosts := map[string]int{}
	for _, t := range traces {
		hosts[t.Node]++
	}
	out := make([]string, len(traces))
	for i, t := range traces {
		out[i] = t.Node
		if hosts[t.Node] > 1 {
			out[i] = fmt.Sprint("node", i)
		}
	}
	return out
}

// describe is the call with the file that it is on.
func describe(t *trace.Trace, c *trace.Call) string {
	named := *c
	named.Path = t.Name(c)
	return named.String()
}

func showCalls(w io.Writer, traces []*trace.Trace, calls []trace.At) error {
	nodes := nodeNames(traces)
	for i := range calls {
		t, c := traces[calls[i].Trace], &calls[i].Call
		p := t.Process(c)
		_, err := fmt.Fprintf(w, "%12.6f  %-8s %-16s %s  %v\n", float64(c.Start-calls[0].Start)/1e9, nodes[calls[i].Trace], p.Name(),
			describe(t, c), time.Duration(c.End-c.Start).Round(time.Microsecond))
		if err != nil {
			return err
		}
	}
	return nil
}

func showCSV(w io.Writer, traces []*trace.Trace, calls []trace.At) error {
	out := csv.NewWriter(w)
	_ = out.Write([]string{"start_ns", "end_ns", "host", "mountpoint", "pid", "command", "job", "rank", "call", "path", "to",
		"handle", "open", "off", "len", "n", "arg", "mode", "errno"}) // Error tells
	for i := range calls {
		t, c := traces[calls[i].Trace], &calls[i].Call
		p := t.Process(c)
		rank, mode := "", ""
		if p.Job != "" {
			rank = strconv.Itoa(int(p.Rank))
		}
		if c.Mode != 0 {
			mode = c.Mode.String()
		}
		num := func(n int64) string { return strconv.FormatInt(n, 10) }
		_ = out.Write([]string{num(c.Start), num(c.End), t.Node, t.Mountpoint, strconv.Itoa(p.PID), p.Command, p.Job, rank,
			c.Op.String(), t.Name(c), c.To, strconv.FormatUint(c.File, 10), strconv.FormatUint(c.Open, 10),
			num(c.Off), num(c.Len), num(c.N), num(int64(c.Arg)), mode, num(int64(c.Errno))})
	}
	out.Flush()
	return out.Error()
}

// sum is what calls of one kind on one file add up to.
type sum struct {
	calls, failed int
	bytes         int64
	took          time.Duration
	procs         map[string]bool
}

func showSummary(w io.Writer, traces []*trace.Trace, calls []trace.At) error {
	type key struct {
		file string
		op   trace.Op
	}
	sums := map[key]*sum{}
	for i := range calls {
		t, c := traces[calls[i].Trace], &calls[i].Call
		k := key{t.Name(c), c.Op}
		s := sums[k]
		if s == nil {
			s = &sum{procs: map[string]bool{}}
			sums[k] = s
		}
		s.calls++
		if c.Errno != 0 {
			s.failed++
		}
		if c.Op == trace.Read || c.Op == trace.Write || c.Op == trace.Copy {
			s.bytes += c.N
		}
		s.took += time.Duration(c.End - c.Start)
		p := t.Process(c)
		s.procs[fmt.Sprint(calls[i].Trace, p.Job, p.Name())] = true
	}
	keys := slices.SortedFunc(maps.Keys(sums), func(a, b key) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.op, b.op))
	})
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "CALLS\tFAILED\tBYTES\tTOOK\tPROCESSES\t CALL\t  FILE")
	for _, k := range keys {
		s := sums[k]
		fmt.Fprintf(tw, "%d\t%d\t%d\t%v\t%d\t %v\t  %s\n", s.calls, s.failed, s.bytes, s.took.Round(time.Microsecond), len(s.procs), k.op, k.file)
	}
	return tw.Flush()
}
