// Command bench measures zoidfs against yardsticks on this machine and prints
// tables of medians and ratios. `make bench` runs it.
//
//	go run ./internal/bench [-rounds 3] [-time 1s] [-only REGEXP] [-dir DIR] [-rpc=false]
//
// The targets are: a folder of tmpfs; go-fuse's loopback over tmpfs without
// kernel passthrough, with locks and KILLPRIV_V2, which is what a file system
// in user space costs that does nothing; a null file system on go-fuse's node
// API with direct I/O, which is what FUSE alone costs; raw TCP between two
// processes, which is what the way to the I/O node alone costs; a zoidfs mount
// with an I/O node that keeps its data in memory, in each mode; and a whole system
// with its embedded servers on tmpfs.
//
// All targets stand at the same time and every round visits each in turn, so a
// change of the machine's load meets all of them. CPU seconds are those of all
// processes that take part: application, file system daemons, servers.
//
// The RPC layer alone is measured against raw TCP by internal/bench/rpc, which runs last.
//
// Yardstick daemons, the load and the I/O node in memory are this program,
// executed again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"time"

	"github.com/zoidfs/zoidfs/internal/bench/program"
	"github.com/zoidfs/zoidfs/internal/bench/yardstick"
)

// roleEnv is set in the processes that this program starts of itself, to the
// role that they play.
const roleEnv = "ZOIDFS_BENCH_ROLE"

func main() { program.Main(run) }

// config is what the flags say.
type config struct {
	rounds int
	time   time.Duration // of one measurement of data
	only   *regexp.Regexp
	dir    string // for mounts and data, on tmpfs
	bin    string // zoidfs
	files  int    // of one process in the measurement of names
	rpc    bool   // measure the RPC layer too
}

func run(ctx context.Context, args []string, out io.Writer) error {
	switch os.Getenv(roleEnv) {
	case "load":
		return runLoad(args, os.Stdin, out)
	case "names":
		return runNames(args, os.Stdin, out)
	case "loopback":
		if len(args) != 2 {
			return errors.New("loopback: want FOLDER MOUNTPOINT")
		}
		return yardstick.Loopback(ctx, args[0], args[1], out)
	case "null":
		if len(args) != 1 {
			return errors.New("null: want MOUNTPOINT")
		}
		return yardstick.Null(ctx, args[0], out)
	case "ion":
		return runMemoryION(ctx, args, out)
	case "system":
		return runSystem(ctx, args, out)
	case "raw":
		return runRaw(ctx, out)
	}
	var c config
	fl := flag.NewFlagSet("bench", flag.ContinueOnError)
	fl.IntVar(&c.rounds, "rounds", 3, "rounds, of which medians are taken")
	fl.DurationVar(&c.time, "time", time.Second, "time of one measurement")
	fl.IntVar(&c.files, "files", 200, "files that each process creates, stats and unlinks")
	fl.StringVar(&c.dir, "dir", "/dev/shm", "tmpfs to work in")
	fl.StringVar(&c.bin, "zoidfs", "", "zoidfs binary; empty: build it")
	fl.BoolVar(&c.rpc, "rpc", true, "measure the RPC layer against raw TCP too")
	only := fl.String("only", "", "measure only targets and workloads whose `target/workload` matches")
	if err := fl.Parse(args); err != nil {
		return err
	}
	var err error
	if c.only, err = regexp.Compile(*only); err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if c.rounds < 1 || c.time <= 0 || c.files < 1 {
		return errors.New("-rounds, -time and -files must be positive")
	}
	return c.measure(ctx, out)
}
