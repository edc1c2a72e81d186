package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/bench/program"
	"github.com/zoidfs/zoidfs/ionserver"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd"
)

const (
	noLeases  = "noleases"
	sharedRec = 4 << 10 // bytes of one write of a shared file
)

// runSystem is a PVFS2 server and an I/O node in one process. args are the
// directory of its data and, if owners are to give no leases, noLeases. It
// prints the I/O node's address first.
func runSystem(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("system: want DIRECTORY")
	}
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	spec := fsconf.ServerSpec{Alias: "s0", Addr: back.Addr().String(), Dir: args[0]}
	text, err := fsconf.Generate(fsconf.GenOptions{FSName: "bench", FSID: 1, Servers: []fsconf.ServerSpec{spec}})
	if err != nil {
		return err
	}
	conf, err := fsconf.Parse(text)
	if err != nil {
		return err
	}
	server, err := pvfsd.Open(pvfsd.Options{Config: conf, Alias: "s0", Listener: back})
	if err != nil {
		return err
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx)) // it outlives the I/O node
	var g errgroup.Group
	g.Go(func() error { return server.Run(life) })
	err = serveION(ctx, "tcp://"+back.Addr().String()+"/bench", len(args) > 1 && args[1] == noLeases, out)
	end()
	return errors.Join(err, g.Wait())
}

func serveION(ctx context.Context, url string, without bool, out io.Writer) error {
	client, err := pvfs.Dial(ctx, url, pvfs.Options{})
	if err != nil {
		return err
	}
	defer client.Close()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ion, err := ionserver.New(ionserver.Options{PVFS: client, Listener: lis, Self: lis.Addr().String(), NoDataLeases: without})
	if err != nil {
		return errors.Join(err, lis.Close())
	}
	fmt.Fprintln(out, lis.Addr())
	return ion.Run(ctx)
}

// pair is a system with two mounts, strong, and a file open on both.
type pair struct {
	name string
	fds  [2]int
	stop func() error
}

// startSystem starts a runSystem with data in a new directory, and returns that,
// its process and the I/O node's address.
func (c *config) startSystem(ends *program.Ends, args ...string) (dir string, sys *program.Child, addr string, err error) {
	if dir, err = os.MkdirTemp(c.dir, "zoidfs-bench-"); err != nil {
		return "", nil, "", err
	}
	ends.Add(func() error { return os.RemoveAll(dir) })
	if sys, err = self("system", append([]string{filepath.Join(dir, "data")}, args...)...); err != nil {
		return "", nil, "", err
	}
	ends.Add(sys.End)
	addr, err = sys.Line()
	return dir, sys, addr, err
}

// mountOn mounts an I/O node on a new directory.
func (c *config) mountOn(ctx context.Context, ends *program.Ends, mnt, addr string, args ...string) (*program.Child, error) {
	if err := os.Mkdir(mnt, 0o755); err != nil {
		return nil, err
	}
	m, err := program.Start("", c.bin, append([]string{"mount", mnt, "--ion", addr, "--foreground", "--log-file", mnt + ".log"}, args...)...)
	if err != nil {
		return nil, err
	}
	ends.Add(m.End)
	return m, waitMount(ctx, mnt)
}

// startPair starts one. The caller calls stop in any case.
func (c *config) startPair(ctx context.Context, name string, args ...string) (*pair, error) {
	ends := new(program.Ends)
	p := &pair{name: name, stop: ends.Run}
	dir, _, addr, err := c.startSystem(ends, args...)
	if err != nil {
		return p, err
	}
	for i := range p.fds {
		mnt := filepath.Join(dir, fmt.Sprint("mnt", i))
		if _, err := c.mountOn(ctx, ends, mnt, addr); err != nil {
			return p, err
		}
		fd, err := unix.Open(filepath.Join(mnt, "shared"), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return p, err
		}
		ends.Add(func() error { return unix.Close(fd) })
		p.fds[i] = fd
	}
	return p, nil
}

// sharing is how two nodes write adjacent records of one file. It returns how
// many they wrote.
var sharing = []struct {
	name string
	run  func(p *pair, until time.Time) (int, error)
}{
	{"one after the other", func(p *pair, until time.Time) (n int, err error) {
		for ; err == nil && time.Now().Before(until); n++ {
			err = p.write(n%2, n)
		}
		return n, err
	}},
	{"at the same time", func(p *pair, until time.Time) (int, error) {
		var done [2]int
		var g errgroup.Group
		for i := range p.fds {
			g.Go(func() (err error) {
				for ; err == nil && time.Now().Before(until); done[i]++ {
					err = p.write(i, 2*done[i]+i)
				}
				return err
			})
		}
		err := g.Wait()
		return done[0] + done[1], err
	}},
}

// write writes record n, of a file of 16 MiB, on a node.
func (p *pair) write(node, n int) error {
	_, err := unix.Pwrite(p.fds[node], make([]byte, sharedRec), int64(n%(16<<20/sharedRec))*sharedRec)
	return err
}

// measureSharing compares what two nodes that write adjacent records in strong
// mode get with and without leases.
func (c *config) measureSharing(ctx context.Context, out io.Writer) (err error) {
	if !c.matches("sharing", "") {
		return nil
	}
	var pairs []*pair
	defer func() {
		for _, p := range pairs {
			err = errors.Join(err, p.stop())
		}
	}()
	for _, s := range [][]string{{"leases"}, {"no leases", noLeases}} {
		p, err := c.startPair(ctx, s[0], s[1:]...)
		pairs = append(pairs, p)
		if err != nil {
			return fmt.Errorf("two mounts, %s: %w", s[0], err)
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "\nTwo mounts of one I/O node, strong, write adjacent 4 KiB of a file.")
	fmt.Fprintln(w, "how\tleases, writes/s\tno leases, writes/s\tratio\t")
	for _, s := range sharing {
		rates := make([][]float64, len(pairs))
		for range c.rounds {
			for i, p := range pairs {
				start := time.Now()
				n, err := s.run(p, start.Add(c.time))
				if err != nil {
					return fmt.Errorf("%s, %s: %w", s.name, p.name, err)
				}
				rates[i] = append(rates[i], float64(n)/time.Since(start).Seconds())
			}
		}
		with, without := program.Median(rates[0]), program.Median(rates[1])
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.2f\t\n", s.name, with, without, with/without)
	}
	return w.Flush()
}
