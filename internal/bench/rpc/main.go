// Command rpc measures the transport between compute nodes and I/O nodes
// against raw framed TCP and against gRPC as tutorials show it, on loopback.
//
//	go run ./internal/bench/rpc [-rounds 5] [-time 1s] [-only REGEXP] [-cpuprofile PREFIX]
//
// Client and server are two processes (the server is this program, executed
// again). Every round measures each variant in turn, so that a change of the
// machine's load meets all of them; the table has medians over the rounds. CPU
// is user and system time of both processes, allocations are of both.
//
// Writes end in a 64 MiB slab of the server, reads in one of the client, as
// the cache of an I/O node or a node would take them. Raw TCP reads straight
// into the slab and sends header and payload with one writev; of small
// messages it writes one at a time, as simple programs do. The tutorial's gRPC
// is unary, with the generated codec and all defaults.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"text/tabwriter"
	"time"

	"github.com/zoidfs/zoidfs/internal/bench/program"
)

func main() { program.Main(run) }

// workload is one row group of the table.
type workload struct {
	name  string
	op    op
	size  int // bytes of payload
	depth int // requests under way
}

type op int

const (
	opWrite op = iota
	opRead
	opEcho
)

var workloads = []workload{
	{"write 1 MiB", opWrite, 1 << 20, 4},
	{"read 1 MiB", opRead, 1 << 20, 4},
	{"write 4 KiB", opWrite, 4 << 10, 16},
	{"echo 128 B, depth 1", opEcho, 128, 1},
	{"echo 128 B, depth 32", opEcho, 128, 32},
}

// variant is a way to carry requests. Its server listens in the other process.
type variant struct {
	name string
	// connect returns a function that does one request; it is called from
	// depth goroutines. end is called after the last one.
	connect func(ctx context.Context, addr string, w workload) (do func() error, end func(), err error)
}

var variants = []variant{
	{"raw TCP", connectRaw},
	{"zoidfs", connectOurs},
	{"tutorial gRPC", connectTutorial},
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("rpc", flag.ContinueOnError)
	rounds := flags.Int("rounds", 5, "measurements of each variant")
	dur := flags.Duration("time", time.Second, "of one measurement")
	only := flags.String("only", "", "measure what matches, of `workload/variant`")
	profile := flags.String("cpuprofile", "", "write profiles to `PREFIX`.client and PREFIX.server")
	serve := flags.Bool("serve", false, "be the server process (internal)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *serve {
		return runServer(ctx, os.Stdin, out, *profile)
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	srv, err := startServer(ctx, *profile)
	if err != nil {
		return err
	}
	defer srv.stop()
	stopProfile, err := startProfile(*profile, "client")
	if err != nil {
		return err
	}
	defer stopProfile()
	tab := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tab, "workload\tvariant\tGiB/s\top/s\tx raw\tx tutorial\tCPU s/GiB\tCPU us/op\tCPU x raw\tCPU x tutorial\tallocs/op\tI/O calls/op\tGC/s\t")
	for _, w := range workloads {
		samples := make([][]sample, len(variants))
		for range *rounds {
			for i, v := range variants {
				if !match.MatchString(w.name + "/" + v.name) {
					continue
				}
				s, err := measure(ctx, srv, v, i, w, *dur)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", w.name, v.name, err)
				}
				samples[i] = append(samples[i], s)
			}
		}
		raw, tut := medians(samples[0]), medians(samples[2])
		for i, v := range variants {
			if len(samples[i]) == 0 {
				continue
			}
			m := medians(samples[i])
			fmt.Fprintf(tab, "%s\t%s\t%.2f\t%.0f\t%.2f\t%.2f\t%.2f\t%.1f\t%.2f\t%.2f\t%.1f\t%.2f\t%.1f\t\n", w.name, v.name,
				m.rate*float64(w.size)/(1<<30), m.rate, m.rate/raw.rate, m.rate/tut.rate,
				m.cpu/float64(w.size)*(1<<30), m.cpu*1e6, m.cpu/raw.cpu, m.cpu/tut.cpu, m.allocs, m.ios, m.gcs)
		}
	}
	return tab.Flush()
}

// sample is one measurement, of both processes together.
type sample struct {
	rate   float64 // requests/s
	cpu    float64 // s/request
	allocs float64 // a request
	gcs    float64 // collections/s
	ios    float64 // system calls that read or wrote, a request
}

func medians(s []sample) sample {
	if len(s) == 0 {
		return sample{math.NaN(), math.NaN(), math.NaN(), math.NaN(), math.NaN()}
	}
	get := func(f func(sample) float64) float64 {
		v := make([]float64, len(s))
		for i := range s {
			v[i] = f(s[i])
		}
		return program.Median(v)
	}
	return sample{
		rate:   get(func(s sample) float64 { return s.rate }),
		cpu:    get(func(s sample) float64 { return s.cpu }),
		allocs: get(func(s sample) float64 { return s.allocs }),
		gcs:    get(func(s sample) float64 { return s.gcs }),
		ios:    get(func(s sample) float64 { return s.ios }),
	}
}
