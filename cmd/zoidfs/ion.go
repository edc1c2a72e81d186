package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/budget"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/counters"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/local"
	"github.com/zoidfs/zoidfs/ionserver"
	"github.com/zoidfs/zoidfs/pvfs"
	"golang.org/x/sync/errgroup"
)

// answerInterval is how often an I/O node that starts looks whether it
// answers yet.
const answerInterval = 20 * time.Millisecond

// startTimeout is how long the PVFS2 servers are given to answer when an I/O
// node starts.
const startTimeout = 5 * time.Second

// Bounds of --write-back: data is in the memory of the I/O node and of the node
// that wrote it for so long.
const (
	minWriteBack = 10 * time.Millisecond
	maxWriteBack = 10 * time.Minute
)

type ionFlags struct {
	role
	listen, self, pvfs string
	peers              []string
	timeout, writeBack time.Duration
	cache              string
	cacheBytes         int64 // cache as a number
	collective         string
	takeOver           bool
}

func (a *app) ionCommand() *cobra.Command {
	var f ionFlags
	cmd := &cobra.Command{
		Use:   "ion --listen HOST:PORT --pvfs tcp://HOST:PORT/FSNAME [--peers HOST:PORT,...]",
		Short: "run an I/O node",
		Long: "ion serves mounts and forwards what they ask to the PVFS2 servers. All I/O nodes of a file system must be started\n" +
			"with the same --peers, in which each of them stands by the address under which mounts reach it.",
		Example: "  zoidfs ion --listen ion0:7000 --peers ion0:7000,ion1:7000 --pvfs tcp://s0:3334/zoidfs\n" +
			"  zoidfs ion --listen 0.0.0.0:7000 --self ion0:7000 --peers ion0:7000,ion1:7000 --pvfs tcp://s0:3334/zoidfs",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(func(ready func()) error { return a.serveION(cmd.Context(), f, ready) })
		},
	}
	f.role.flags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "", "serve at `HOST:PORT`")
	flags.StringVar(&f.pvfs, "pvfs", "", "the file system: `URL` tcp://HOST:PORT/FSNAME")
	flags.StringSliceVar(&f.peers, "peers", nil, "`HOST:PORT` of all I/O nodes, this one included (default: this one alone)")
	flags.BoolVar(&f.takeOver, "take-over", false, "end the service of I/O nodes that serve with another list, such as one that hangs")
	flags.StringVar(&f.self, "self", "", "address `HOST:PORT` of this node in --peers, if it is not that of --listen")
	flags.DurationVar(&f.timeout, "pvfs-timeout", pvfs.DefaultTimeout, "how long a call waits for a PVFS2 server before it fails")
	flags.StringVar(&f.cache, "cache", sizeText(budget.ION(1)), "memory for file data, a `SIZE` with K, M or G for powers of 1024")
	flags.DurationVar(&f.writeBack, "write-back", ionserver.DefaultWriteBack, "age at which written data goes to the PVFS2 servers without an fsync")
	flags.StringVar(&f.collective, "collective", on, "merge what many ranks ask for: `on or off`")
	return cmd
}

func (f *ionFlags) validate() (err error) {
	if f.listen == "" {
		return errors.New("--listen is needed: HOST:PORT to serve at")
	}
	if f.pvfs == "" {
		return errors.New("--pvfs is needed: tcp://HOST:PORT/FSNAME of the file system")
	}
	if f.self == "" {
		f.self = f.listen
	}
	for _, a := range append([]string{f.listen, f.self}, f.peers...) {
		flag := "--peers"
		switch a {
		case f.listen:
			flag = "--listen"
		case f.self:
			flag = "--self"
		}
		if err := hostPort(flag, a); err != nil {
			return err
		}
	}
	if len(f.peers) > 0 && !slices.Contains(f.peers, f.self) {
		return fmt.Errorf("--peers %s does not contain this node, %s (see --self)", strings.Join(f.peers, ","), f.self)
	}
	if f.timeout <= 0 {
		return fmt.Errorf("--pvfs-timeout %v is not positive", f.timeout)
	}
	if f.cacheBytes, err = parseCache(f.cache, ionserver.MinCache); err != nil {
		return fmt.Errorf("--cache %w", err)
	}
	if f.writeBack < minWriteBack || f.writeBack > maxWriteBack {
		return fmt.Errorf("--write-back %v is not between %v and %v", f.writeBack, minWriteBack, maxWriteBack)
	}
	if err := parseOnOff(f.collective); err != nil {
		return fmt.Errorf("--collective %w", err)
	}
	for i, p := range f.peers {
		if slices.Contains(f.peers[:i], p) {
			return fmt.Errorf("--peers has %s twice", p)
		}
	}
	if err := checkURL(f.pvfs); err != nil {
		return fmt.Errorf("--pvfs %w", err)
	}
	return nil
}

// checkURL refuses what cannot name a file system.
func checkURL(url string) error {
	rest, ok := strings.CutPrefix(url, "tcp://")
	addr, name, slash := strings.Cut(rest, "/")
	if !ok || !slash || name == "" || strings.Contains(name, "/") || hostPort("", addr) != nil {
		return fmt.Errorf("%q is not tcp://HOST:PORT/FSNAME", url)
	}
	return nil
}

func (a *app) serveION(ctx context.Context, f ionFlags, ready func()) (err error) {
	if err := f.validate(); err != nil {
		return err
	}
	log, err := a.logger()
	if err != nil {
		return err
	}
	lis, err := net.Listen("tcp", f.listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	defer lis.Close() // closed before if the server ran
	if len(f.peers) == 0 && f.self == f.listen {
		f.self = lis.Addr().String() // the port may have been chosen just now
	}
	client, err := dialPVFS(ctx, f, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	srv, err := ionserver.New(ionserver.Options{
		PVFS: client, Listener: lis, Peers: f.peers, Self: f.self, Software: version, Logger: log,
		CacheBytes: f.cacheBytes, WriteBack: f.writeBack, NoCollective: f.collective == off, TakeOver: f.takeOver,
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	if err := f.serveMetrics(ctx, g, log, func() counters.Stats { return clientStats(client) }); err != nil {
		return err
	}
	log.Info("starting", "addr", lis.Addr().String(), "pvfs", f.pvfs, "pid", os.Getpid())
	g.Go(func() error { return srv.Run(ctx) })
	g.Go(func() error { return whenAnswers(ctx, lis.Addr().String(), ready) })
	return g.Wait()
}

// dialPVFS connects to the file system. It waits a while for servers that are
// starting, but not as long as a call in the middle of the work would.
func dialPVFS(ctx context.Context, f ionFlags, log *slog.Logger) (*pvfs.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, min(startTimeout, f.timeout))
	defer cancel()
	return pvfs.Dial(ctx, f.pvfs, pvfs.Options{Timeout: f.timeout, Logger: log})
}

// whenAnswers calls ready once the I/O node at addr answers.
func whenAnswers(ctx context.Context, addr string, ready func()) error {
	tick := time.NewTicker(answerInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if local.Answers(ctx, addr) == nil {
			ready()
			return nil
		}
	}
}

// clientStats are the counts of an I/O node's client.
func clientStats(c *pvfs.Client) counters.Stats {
	snap := c.Stats()
	return pvfsStats(snap.Requests, snap.BytesRead, snap.BytesWritten)
}
