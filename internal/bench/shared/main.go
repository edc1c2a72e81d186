// Command shared measures what the collective engine is for: the ranks of a job
// on two nodes that write and read one file together.
//
//	go run ./internal/bench/shared -zoidfs bin/zoidfs [-ctools /opt/orangefs/bin] [-url tcp://HOST:PORT/FSNAME] [-rounds 5] [-size 64] [-only REGEXP] [-dir DIR]
//
// Eight ranks, four on each of two mounts, write a file in interleaved pieces of
// 4 KiB, and read what was written on the other node and compare it. They do so
// with a call of POSIX for each piece, or with one collective call of MPI-IO: two
// phases by ROMIO, which MPICH has, or by OMPIO, which Open MPI has. Time is
// from before the first open to after the last close.
//
// There are two systems of two I/O nodes and four embedded servers each, one
// with --collective=off; with -url there is the other one alone, on servers that
// run already, and no last table. Where pvfs2fuse is given, two mounts of it are on
// the servers of the first one. Two mounts of a file system that does nothing show
// what FUSE leaves to gain. The last table is of one process alone, with the
// engine on and off: what it costs those who have no use for it.
//
// Every round measures each variant in turn; the first one of the jobs is not
// counted. The tables have medians.
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

func main() { program.Main(run) }

const (
	ranks = 8
	nodes = 2
)

// config is what the command line says.
type config struct {
	zoidfs, ctools, url, dir string
	rounds, alone            int
	size                     int64 // bytes
	only                     *regexp.Regexp
}

func parse(args []string) (*config, error) {
	var c config
	flags := flag.NewFlagSet("shared", flag.ContinueOnError)
	flags.StringVar(&c.zoidfs, "zoidfs", "bin/zoidfs", "the zoidfs `binary`")
	flags.StringVar(&c.ctools, "ctools", "", "`directory` of pvfs2fuse; none: without it")
	flags.StringVar(&c.url, "url", "", "running PVFS2 file system, tcp://HOST:PORT/FSNAME; none: embedded servers")
	flags.StringVar(&c.dir, "dir", "/dev/shm", "`directory` for the servers' data")
	flags.IntVar(&c.rounds, "rounds", 5, "measurements of each variant")
	flags.IntVar(&c.alone, "alone", 15, "measurements of one process; 0: none")
	mib := flags.Int64("size", 64, "`MiB` of the file")
	only := flags.String("only", "", "measure what matches, of `client/call mode`")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 || c.rounds < 1 || c.alone < 0 || *mib < 1 {
		return nil, errors.New("want positive numbers and no arguments")
	}
	c.size = *mib << 20
	var err error
	if c.only, err = regexp.Compile(*only); err != nil {
		return nil, err
	}
	return &c, program.Absolute(&c.zoidfs, &c.ctools, &c.dir)
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	if dir := os.Getenv(nullEnv); dir != "" {
		return yardstick.Null(ctx, dir, out)
	}
	c, err := parse(args)
	if err != nil {
		return err
	}
	if c.dir, err = os.MkdirTemp(c.dir, "zoidfs-shared-"); err != nil {
		return err
	}
	libs, err := c.buildRanks(ctx)
	if err != nil {
		return err
	}
	x, err := c.start(ctx)
	defer func() {
		if err = errors.Join(err, x.ends.Run()); err == nil {
			err = os.RemoveAll(c.dir)
		}
	}()
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := c.measureRanks(ctx, x, libs, out); err != nil {
		return err
	}
	if c.alone > 0 && c.url == "" {
		if err := c.measureAlone(x, out); err != nil {
			return err
		}
	}
	st, err := program.StatusOf(x.mounts[on][0])
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%d MiB, %d rounds, %v; over io_uring: %v\n", c.size>>20, c.rounds, time.Since(begin).Round(time.Second), st.IOURing)
	return nil
}
