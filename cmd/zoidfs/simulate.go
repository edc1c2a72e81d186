package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/zoidfs/zoidfs/collective/sim"
)

// simulateFlags are what `zoidfs simulate` is told.
type simulateFlags struct {
	sim      sim.Config
	ranks    []int
	patterns []string
	size     string
	strip    string
	domain   string
	hold     string
	leases   string
	csv, svg string
	json     bool
}

func (a *app) simulateCommand() *cobra.Command {
	var f simulateFlags
	f.sim.Model = sim.DefaultModel
	cmd := &cobra.Command{
		Use:   "simulate [--ranks N,...] [--pattern NAME,...]",
		Short: "what would become of the calls of very many ranks",
		Long: "simulate plays the calls of up to a million ranks in simulated time. What is merged, waited for, fetched and written\n" +
			"back is decided by the code that the mounts and I/O nodes run; machines and networks are simple models. Each pattern is\n" +
			"played in three ways: as zoidfs does, plain (each call a request at each level), and as two-phase I/O that knows all\n" +
			"calls beforehand. docs/scale.md says what the figures mean and what they do not.\n\n" +
			"Patterns: segmented, strided, nested and block-cyclic of one file of all ranks; create makes a file a call, all in\n" +
			"one directory; open opens the same files; whole-file reads one file from its beginning to its end.",
		Example: "  zoidfs simulate --ranks 65536 --nodes 1024 --ions 64 --pattern strided\n" +
			"  zoidfs simulate --ranks 64,512,4096,32768 --pattern all --csv scale.csv --svg scale.svg",
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return f.run(a.out) },
	}
	flags := cmd.Flags()
	flags.IntSliceVar(&f.ranks, "ranks", []int{1024}, "ranks: one number, or several to see how it grows")
	flags.IntVar(&f.sim.Nodes, "nodes", 0, "compute nodes (64 ranks each)")
	flags.IntVar(&f.sim.IONs, "ions", 0, "I/O nodes (16 compute nodes each)")
	flags.IntVar(&f.sim.Servers, "servers", 16, "PVFS2 servers")
	flags.StringSliceVar(&f.patterns, "pattern", []string{"strided"}, "`pattern` of the calls, several, or all")
	flags.BoolVar(&f.sim.Read, "read", false, "ranks read one file of all, instead of writing it")
	flags.IntVar(&f.sim.Calls, "calls", 16, "calls of each rank")
	flags.StringVar(&f.size, "size", "32K", "`bytes` of each call")
	flags.StringVar(&f.strip, "strip-size", "64K", "`bytes` of a file that lie together on one server")
	flags.StringVar(&f.domain, "domain-size", "4M", "`bytes` of a file that one I/O node answers for")
	flags.StringVar(&f.leases, "leases", on, "nodes may keep what they read; off: as where others write: `on or off`")
	flags.BoolVar(&f.sim.Barrier, "barrier", false, "no rank makes its next call before all have made theirs")
	flags.DurationVar(&f.sim.Jitter, "jitter", 100*time.Microsecond, "a rank computes for up to so long between two calls")
	flags.Float64Var(&f.sim.Absent, "absent", 0, "`share` of the ranks that take no part")
	flags.Uint64Var(&f.sim.Seed, "seed", 1, "of all random numbers: the same seed gives the same figures")
	flags.StringVar(&f.hold, "hold", on, "wait for ranks that are expected: `on or off`")
	flags.DurationVar(&f.sim.Model.NetLatency, "latency", f.sim.Model.NetLatency, "of the network, one way")
	flags.DurationVar(&f.sim.Model.ServerTime, "server-time", f.sim.Model.ServerTime, "that a server takes for a request of data, besides its bytes")
	flags.DurationVar(&f.sim.Model.ServerMetaTime, "meta-time", f.sim.Model.ServerMetaTime, "that a server takes for a request of metadata")
	flags.Float64Var(&f.sim.Model.ServerBandwidth, "server-bandwidth", f.sim.Model.ServerBandwidth, "of a server, in `bytes a second`")
	flags.StringVar(&f.csv, "csv", "", "also write all figures to `FILE`")
	flags.StringVar(&f.svg, "svg", "", "also draw the requests to servers over the ranks into `FILE`")
	flags.BoolVar(&f.json, "json", false, "print JSON, one object a line")
	return cmd
}

// played is one line of what simulate prints.
type played struct {
	Pattern string `json:"pattern"`
	Way     string `json:"way"`
	Ranks   int    `json:"ranks"`
	Nodes   int    `json:"nodes"`
	IONs    int    `json:"ions"`
	Servers int    `json:"servers"`
	Read    bool   `json:"read"`
	sim.Result
}

func (f *simulateFlags) run(out io.Writer) error {
	patterns, err := f.check()
	if err != nil {
		return err
	}
	figures, err := createFile(f.csv)
	if err != nil {
		return err
	}
	plot, err := createFile(f.svg)
	if err != nil {
		return err
	}
	var all []played
	for _, p := range patterns {
		for _, ranks := range f.ranks {
			lines, err := f.play(p, ranks)
			if err != nil {
				return err
			}
			all = append(all, lines...)
		}
	}
	if f.json {
		err = printJSONLines(out, all)
	} else {
		err = printPlayed(out, all)
	}
	return errors.Join(err, fill(figures, all, writeCSV), fill(plot, all, writeSVG))
}

// check reports the first flag that makes no sense, and otherwise returns the
// patterns.
func (f *simulateFlags) check() ([]sim.Pattern, error) {
	patterns, err := parsePatterns(f.patterns)
	if err != nil {
		return nil, err
	}
	if err := parseOnOff(f.hold); err != nil {
		return nil, fmt.Errorf("--hold %w", err)
	}
	f.sim.Rounds.Hold.Off = f.hold == off
	if err := parseOnOff(f.leases); err != nil {
		return nil, fmt.Errorf("--leases %w", err)
	}
	f.sim.Denied = f.leases == off
	for _, s := range []struct {
		flag, text string
		into       *int64
	}{{"size", f.size, &f.sim.Size}, {"strip-size", f.strip, &f.sim.Strip}, {"domain-size", f.domain, &f.sim.Domain}} {
		if *s.into, err = parseSize(s.text); err != nil {
			return nil, fmt.Errorf("--%s: %w", s.flag, err)
		}
	}
	slices.Sort(f.ranks)
	f.ranks = slices.Compact(f.ranks)
	switch {
	case len(f.ranks) == 0:
		return nil, errors.New("--ranks needs a number")
	case f.ranks[0] < 1:
		return nil, fmt.Errorf("--ranks %d is not positive", f.ranks[0])
	case f.sim.Servers < 1:
		return nil, fmt.Errorf("--servers %d is not positive", f.sim.Servers)
	case f.sim.Calls < 1:
		return nil, fmt.Errorf("--calls %d is not positive", f.sim.Calls)
	case f.svg != "" && len(f.ranks) < 2:
		return nil, errors.New("--svg draws over the number of ranks: give --ranks several")
	}
	return patterns, nil
}

func parsePatterns(names []string) ([]sim.Pattern, error) {
	if slices.Equal(names, []string{"all"}) {
		return sim.Patterns(), nil
	}
	var out []sim.Pattern
	for _, name := range names {
		var p sim.Pattern
		if err := p.UnmarshalText([]byte(name)); err != nil {
			return nil, fmt.Errorf("--pattern %w, all", err)
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return nil, errors.New("--pattern needs a name")
	}
	return out, nil
}

// play runs a pattern with so many ranks in all ways.
func (f *simulateFlags) play(p sim.Pattern, ranks int) ([]played, error) {
	c := f.sim
	c.Pattern, c.Ranks = p, ranks
	c = c.Defaults()
	var out []played
	for _, way := range sim.Ways() {
		r, err := sim.Run(c, way)
		if err != nil {
			return nil, err
		}
		out = append(out, played{
			Pattern: p.String(), Way: way.String(), Read: c.Read && p < sim.Create || p == sim.WholeFile,
			Ranks: ranks, Nodes: c.Nodes, IONs: c.IONs, Servers: c.Servers, Result: r,
		})
	}
	return out, nil
}
