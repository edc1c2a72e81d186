package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/counters"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd"
	"golang.org/x/sync/errgroup"
)

type pvfsdFlags struct {
	role
	config, server string
	listen, data   string
}

func (a *app) pvfsdCommand() *cobra.Command {
	var f pvfsdFlags
	cmd := &cobra.Command{
		Use:   "pvfsd --config FS.CONF --server ALIAS | --listen HOST:PORT --data DIR",
		Short: "run the embedded PVFS2 server",
		Long: "pvfsd speaks the PVFS2 protocol as an OrangeFS server does. It takes its part in a file system of\n" +
			"several servers from an OrangeFS configuration file, or is the only server of a new one.",
		Example: "  zoidfs pvfsd --config fs.conf --server s0\n" +
			"  zoidfs pvfsd --listen 127.0.0.1:3334 --data /srv/pvfs     # tcp://127.0.0.1:3334/zoidfs",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(func(ready func()) error { return a.servePVFS(cmd.Context(), f, ready) })
		},
	}
	f.role.flags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.config, "config", "", "configuration `FILE`, the same on all servers")
	flags.StringVar(&f.server, "server", "", "`ALIAS` of this server in the configuration")
	flags.StringVar(&f.listen, "listen", "", "serve a file system of one server at `HOST:PORT`")
	flags.StringVar(&f.data, "data", "", "`DIR` in which that file system is kept")
	return cmd
}

func (f pvfsdFlags) options(log *slog.Logger) (pvfsd.Options, error) {
	switch {
	case f.config != "" && (f.listen != "" || f.data != ""):
		return pvfsd.Options{}, errors.New("--config and --listen/--data exclude each other")
	case f.config != "":
		return f.fromConfig()
	case f.server != "":
		return pvfsd.Options{}, errors.New("--server needs --config")
	case f.listen == "" && f.data == "":
		return pvfsd.Options{}, errors.New("want --config FS.CONF --server ALIAS, or --listen HOST:PORT --data DIR")
	case f.listen == "" || f.data == "":
		return pvfsd.Options{}, errors.New("--listen and --data are needed together")
	}
	if err := hostPort("--listen", f.listen); err != nil {
		return pvfsd.Options{}, err
	}
	data, err := filepath.Abs(f.data)
	if err != nil {
		return pvfsd.Options{}, err
	}
	return pvfsd.ForListen(f.listen, data, log)
}

func (f pvfsdFlags) fromConfig() (pvfsd.Options, error) {
	text, err := os.ReadFile(f.config)
	if err != nil {
		return pvfsd.Options{}, fmt.Errorf("--config: %w", err)
	}
	conf, err := fsconf.Parse(string(text))
	if err != nil {
		return pvfsd.Options{}, fmt.Errorf("%s: %w", f.config, err)
	}
	var known []string
	for _, alias := range conf.Aliases {
		known = append(known, alias.Name)
	}
	if f.server == "" {
		return pvfsd.Options{}, fmt.Errorf("--server is needed: %s knows %s", f.config, strings.Join(known, ", "))
	}
	if _, ok := conf.Server(f.server); !ok {
		return pvfsd.Options{}, fmt.Errorf("--server %q is not in %s, which knows %s", f.server, f.config, strings.Join(known, ", "))
	}
	return pvfsd.Options{Config: conf, Alias: f.server}, nil
}

func (a *app) servePVFS(ctx context.Context, f pvfsdFlags, ready func()) error {
	log, err := a.logger()
	if err != nil {
		return err
	}
	opt, err := f.options(log)
	if err != nil {
		return err
	}
	opt.Logger = log
	for _, w := range opt.Config.Warnings {
		log.Warn("configuration", "ignored", w)
	}
	srv, err := pvfsd.Open(opt)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	if err := f.serveMetrics(ctx, g, log, func() counters.Stats { return serverStats(srv) }); err != nil {
		return errors.Join(err, srv.Close())
	}
	log.Info("starting", "server", opt.Alias, "addr", srv.Addr().String(), "pid", os.Getpid())
	g.Go(func() error { return srv.Run(ctx) })
	ready() // it listens: whoever connects now is served
	return g.Wait()
}

// serverStats are the counts of a server: of requests that came to it.
func serverStats(srv *pvfsd.Server) counters.Stats {
	snap := srv.Snapshot()
	return pvfsStats(snap.Requests, snap.BytesRead, snap.BytesWritten)
}

// pvfsStats are the counts at the PVFS2 level alone.
func pvfsStats(requests map[string]int64, read, written int64) counters.Stats {
	s := counters.New()
	for op, n := range requests {
		s.PVFS.Requests[op] = uint64(n)
	}
	s.PVFS.BytesRead, s.PVFS.BytesWritten = uint64(read), uint64(written)
	return s
}
