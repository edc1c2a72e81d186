package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/budget"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/counters"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/mounts"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/proc"
	"github.com/zoidfs/zoidfs/fs"
	"github.com/zoidfs/zoidfs/internal/shared"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
	"golang.org/x/sync/errgroup"
)

// closeTimeout is how long the end of a mount waits for I/O nodes that do not
// answer.
const closeTimeout = 10 * time.Second

type mountFlags struct {
	role
	point      string
	ion        []string
	options    []string
	foreground bool
	procs      int
	syslog     bool
}

func (a *app) mountCommand() *cobra.Command {
	var f mountFlags
	cmd := &cobra.Command{
		Use:   "mount MOUNTPOINT --ion HOST:PORT[,HOST:PORT...] [-o opt,...] [--foreground]",
		Short: "mount the file system on this compute node",
		Long: "mount returns when the file system is mounted and leaves a process behind that serves it; SIGTERM to that\n" +
			"process or umount(8) ends it. One I/O node is enough, the mount learns the others from it. A mount point whose\n" +
			"process has died is repaired. It is also a helper of mount(8): mount -t fuse.zoidfs HOST:PORT /zfs.\n\n" +
			optionHelp,
		Example: "  zoidfs mount /zfs --ion ion0:7000\n" +
			"  zoidfs mount /scratch --ion ion0:7000 -o consistency=session,cache=1G\n" +
			"  mount -t fuse.zoidfs ion0:7000 /zfs -o ro\n" +
			"  ion0:7000,ion1:7000  /zfs  fuse.zoidfs  _netdev  0 0        # /etc/fstab",
		Args: func(_ *cobra.Command, args []string) error {
			switch len(args) {
			case 0:
				return errors.New("which MOUNTPOINT?")
			case 1:
				return nil
			}
			return fmt.Errorf("unexpected argument %q", args[1])
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			f.point = args[0]
			return f.run(func(ready func()) error { return a.mount(cmd.Context(), f, ready) })
		},
	}
	f.role.flags(cmd)
	flags := cmd.Flags()
	flags.StringSliceVar(&f.ion, "ion", nil, "I/O nodes, `HOST:PORT`, one is enough")
	flags.StringArrayVarP(&f.options, "options", "o", nil, "mount options, separated by commas")
	flags.BoolVar(&f.foreground, "foreground", false, "serve in this process instead of one left behind")
	flags.IntVar(&f.procs, "gomaxprocs", 2, "processors that the mount may use at once; 0: all")
	flags.BoolVar(&f.syslog, "syslog", false, "")
	_ = flags.MarkHidden("syslog") // fails only for a flag that does not exist
	return cmd
}

// mount checks everything that can be checked before anything is started.
func (a *app) mount(ctx context.Context, f mountFlags, ready func()) error {
	opt, err := parseOptions(f.options)
	if err != nil {
		return err
	}
	if len(f.ion) == 0 {
		return errors.New("--ion is needed: the address HOST:PORT of an I/O node")
	}
	for _, addr := range f.ion {
		if err := hostPort("--ion", addr); err != nil {
			return err
		}
	}
	if opt.metrics != "" {
		f.metrics = opt.metrics
	}
	if opt.logFile != "" {
		a.logFile = opt.logFile
	}
	if _, err := newLogger(io.Discard, a.logLevel, a.logFormat); err != nil {
		return err
	}
	point, err := mounts.Resolve(f.point)
	if path := (*os.PathError)(nil); errors.As(err, &path) {
		err = fmt.Errorf("mount point %s: %w", f.point, path.Err)
	}
	if err != nil {
		return err
	}
	f.point = point
	if err := checkPoint(ctx, point); err != nil {
		return err
	}
	if f.foreground {
		return a.serveMount(ctx, f, opt, ready)
	}
	return a.leaveMount(ctx, f)
}

// checkPoint finds the mistakes about a mount point that have nothing to do
// with what is mounted there, before anybody is asked over the network.
func checkPoint(ctx context.Context, point string) error {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	return mounts.Do(ctx, func() error {
		st, err := os.Stat(point)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return fmt.Errorf("mount point %s does not exist", point)
		case err == nil && !st.IsDir():
			return fmt.Errorf("mount point %s is not a directory", point)
		}
		return nil // what is left of a crash answers with an error and is repaired
	})
}

// leaveMount starts a process that serves the mount and waits until it does.
func (a *app) leaveMount(ctx context.Context, f mountFlags) error {
	args := []string{"mount", f.point, "--foreground", "--ion", strings.Join(f.ion, ","),
		"--ready-fd", fmt.Sprint(proc.ReadyFD), "--gomaxprocs", fmt.Sprint(f.procs),
		"--log-level", a.logLevel, "--log-format", a.logFormat}
	if len(f.options) > 0 {
		args = append(args, "-o", strings.Join(f.options, ","))
	}
	for _, flag := range []struct{ name, value string }{{"--metrics", f.metrics}, {"--exit-file", f.exitFile}} {
		if flag.value != "" {
			args = append(args, flag.name, flag.value)
		}
	}
	log, err := a.logFile, error(nil)
	if log == "" {
		args = append(args, "--syslog")
	} else if log, err = filepath.Abs(log); err != nil {
		return err
	}
	child, err := proc.Start(log, args...)
	if err != nil {
		return err
	}
	if err := child.Ready(ctx); err != nil {
		if ctx.Err() != nil {
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
			defer cancel()
			err = errors.Join(err, child.ID.Stop(clean))
		}
		return err
	}
	return nil
}

// mountLogger is the logger of a mount: a process left behind without a log
// file has no standard error, so it writes to the system's log if there is one.
func (a *app) mountLogger(f mountFlags) (*slog.Logger, error) {
	if !f.syslog {
		return a.logger()
	}
	w, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, "zoidfs")
	if err != nil {
		return newLogger(io.Discard, a.logLevel, a.logFormat)
	}
	return newLogger(w, a.logLevel, a.logFormat)
}

// serveMount mounts and serves until the mount is gone or ctx is done.
func (a *app) serveMount(ctx context.Context, f mountFlags, opt mountOptions, ready func()) error {
	log, err := a.mountLogger(f)
	if err != nil {
		return err
	}
	if err := mounts.Possible(); err != nil {
		return err
	}
	if f.procs > 0 {
		runtime.GOMAXPROCS(f.procs)
	}
	bytes := cmp.Or(opt.cache, budget.Mount(1))
	memory, err := shared.New(bytes)
	if err != nil { // then nothing is lent to an I/O node of this machine
		log.Debug("the cache cannot be shown to others", "err", err)
	}
	client, err := ionclient.Dial(ctx, ionclient.Options{Addrs: f.ion, Mountpoint: f.point, Logger: log, Memory: memory})
	if err != nil {
		return err
	}
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if err := client.Close(clean); err != nil {
			log.Warn("sessions end by their leases", "err", err)
		}
	}()
	srv, err := fs.Mount(ctx, fs.Options{
		Mountpoint: f.point,
		Client:     client,
		FSName:     f.ion[0],
		AllowOther: opt.allowOther || os.Geteuid() == 0,
		ReadOnly:   opt.readOnly,

		Consistency: opt.consistency,
		Visibility:  opt.visibility,
		CacheBytes:  bytes,
		Memory:      memory,

		NoCollective: opt.collective == off,
		Guard:        opt.guard,
		NoIOURing:    opt.ioURing == off,

		Version: version,
		Logger:  log,
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	serving, end := context.WithCancel(ctx)
	defer end()
	g.Go(func() error {
		defer end() // an unmounted file system ends the metrics too
		return runMount(serving, srv, log)
	})
	if err := f.afterMount(serving, g, log, opt, srv); err != nil {
		end()
		return errors.Join(err, g.Wait())
	}
	log.Info("mounted", "mountpoint", f.point, "pid", os.Getpid())
	ready()
	err = g.Wait()
	log.Info("unmounted", "mountpoint", f.point)
	return err
}

// runMount serves until the mount is gone or ctx is done. Jobs may hold the
// mount in namespaces of their own, where it cannot be unmounted; they lose it
// when this process ends, which is no failure.
func runMount(ctx context.Context, srv *fs.Server, log *slog.Logger) error {
	err := srv.Run(ctx)
	if errors.Is(err, fs.ErrInUse) {
		log.Warn("taken away from programs that use it", "mountpoint", srv.Mountpoint())
		return nil
	}
	return err
}

// afterMount does what needs the mount to be there.
func (f mountFlags) afterMount(ctx context.Context, g *errgroup.Group, log *slog.Logger, opt mountOptions, srv *fs.Server) error {
	err := f.serveMetrics(ctx, g, log, func() counters.Stats {
		s := srv.Stats()
		return counters.Stats{App: counters.App(s.App), RPC: counters.RPC(s.RPC)}
	})
	if err != nil {
		return err
	}
	return mounts.Restrict(f.point, opt.restrict)
}
