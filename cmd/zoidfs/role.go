package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/counters"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/local"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/proc"
	"golang.org/x/sync/errgroup"
)

// role is what the long-running subcommands have in common.
type role struct {
	metrics  string // HOST:PORT, empty: none
	readyFD  int    // where to report that it serves; negative: nowhere
	exitFile string // where to leave how it ended, for `zoidfs down`
}

func (r *role) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.metrics, "metrics", "", "serve Prometheus /metrics and /debug/pprof/ at `HOST:PORT`")
	f.IntVar(&r.readyFD, "ready-fd", -1, "")
	f.StringVar(&r.exitFile, "exit-file", "", "")
	_ = f.MarkHidden("ready-fd") // fails only for a flag that does not exist
	_ = f.MarkHidden("exit-file")
}

// run calls serve, which reports through ready that it serves, and tells
// whoever waits what became of it.
func (r *role) run(serve func(ready func()) error) error {
	notify, err := proc.NewNotifier(r.readyFD)
	if err != nil {
		return fmt.Errorf("--ready-fd: %w", err)
	}
	err = serve(notify.Ready)
	if err != nil {
		notify.Fail(err)
	}
	if r.exitFile != "" {
		err = errors.Join(err, local.WriteExit(r.exitFile, err))
	}
	return err
}

// serveMetrics adds to g the HTTP server that --metrics asks for, if it does.
// It ends with ctx.
func (r *role) serveMetrics(ctx context.Context, g *errgroup.Group, log *slog.Logger, snapshot func() counters.Stats) error {
	if r.metrics == "" {
		return nil
	}
	lis, err := net.Listen("tcp", r.metrics)
	if err != nil {
		return fmt.Errorf("--metrics: %w", err)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		counters.NewCollector(snapshot))
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	log.Info("metrics", "addr", lis.Addr().String())
	g.Go(func() error {
		if err := srv.Serve(lis); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("metrics: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return srv.Close()
	})
	return nil
}

// hostPort checks that s is HOST:PORT with a port.
func hostPort(flag, s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil || port == "" {
		return fmt.Errorf("%s %q is not HOST:PORT", flag, s)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("%s %q: no port is called %q", flag, s, port)
	}
	return nil
}
