// Command pvfs measures the PVFS2 client, and a mount of zoidfs with one I/O
// node, on a running PVFS2 file system, and on embedded servers, against the C
// client where its tools are given.
//
//	go run ./internal/bench/pvfs -url tcp://HOST:PORT/FSNAME -zoidfs bin/zoidfs
//	    [-ctools /opt/orangefs/bin] [-rounds 5] [-size 1024] [-files 200] [-ops 2000] [-only REGEXP] [-dir DIR]
//
// Every round measures each variant in turn, so that a change of the machine's
// load meets all of them; the table has medians over the rounds. Nothing is
// synced to disk beyond what the servers do by themselves. The data of the
// embedded servers and local files are in -dir; for a fair comparison it is on
// the file system on which the real servers have theirs.
//
// Clients are ours, package pvfs in this process; tools, pvfs2-cp with a process
// a file, as it is used; libpvfs2, the C library in one process that cclient.c
// is; zoidfs, a mount with one I/O node; pvfs2fuse, a mount of the C client.
// What pvfs2fuse says of stat is not comparable: it and the kernel answer from
// what they remember, also when another client has changed it. The C library
// has just been started when it stats, so it remembers nothing of the files.
// @real and @embedded say which servers. The ratio to the C client is that to
// pvfs2-cp or libpvfs2, of mounts that to pvfs2fuse.
//
// Requests are counted by a proxy between client and servers that both clients
// go through; those of servers among each other do not pass it.
//
// Everything is made in new directories of the file system and removed. I/O
// nodes must not serve it meanwhile, see docs/pvfs2.md.
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
)

func main() { program.Main(run) }

// config is what the command line says.
type config struct {
	url, zoidfs, ctools, dir string
	cprog                    string // see smallOps; "" if there is none
	rounds, files, ops       int
	size                     int64 // bytes
	only                     *regexp.Regexp
}

func parse(args []string) (*config, error) {
	var c config
	flags := flag.NewFlagSet("pvfs", flag.ContinueOnError)
	flags.StringVar(&c.url, "url", "", "running file system, tcp://HOST:PORT/FSNAME; none: embedded servers alone")
	flags.StringVar(&c.zoidfs, "zoidfs", "bin/zoidfs", "the zoidfs `binary`")
	flags.StringVar(&c.ctools, "ctools", "", "`directory` of pvfs2-cp, pvfs2fuse and the other C tools")
	flags.StringVar(&c.dir, "dir", "/dev/shm", "`directory` for local files and the embedded servers' data")
	flags.IntVar(&c.rounds, "rounds", 5, "measurements of each variant")
	flags.IntVar(&c.files, "files", 200, "files to create, stat and remove in one measurement")
	flags.IntVar(&c.ops, "ops", 2000, "small reads and writes in one measurement")
	mib := flags.Int64("size", 1024, "`MiB` of the file that is copied")
	only := flags.String("only", "", "measure what matches, of `workload/variant@servers`")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 || c.rounds < 1 || c.files < 1 || c.ops < 1 || *mib < 1 {
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
	c, err := parse(args)
	if err != nil {
		return err
	}
	c.dir, err = os.MkdirTemp(c.dir, "zoidfs-pvfs-")
	if err != nil {
		return err
	}
	if c.cprog, err = c.buildC(ctx); err != nil {
		return err
	}
	sites, err := c.startSites(ctx)
	defer func() {
		for _, s := range sites {
			err = errors.Join(err, s.ends.Run())
		}
		if err == nil {
			err = os.RemoveAll(c.dir)
		}
	}()
	if err != nil {
		return err
	}
	start := time.Now()
	if err := c.measureAll(ctx, sites, out); err != nil {
		return err
	}
	if err := c.countAll(ctx, sites, out); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%d rounds, %v\n", c.rounds, time.Since(start).Round(time.Second))
	return nil
}
