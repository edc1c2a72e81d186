package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/cluster"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/local"
	"github.com/zoidfs/zoidfs/fs"
	"github.com/zoidfs/zoidfs/internal/consistency"
)

type upFlags struct {
	dir     string
	want    local.Want
	timeout time.Duration
}

func (a *app) upCommand() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up [--dir DIR] [--nodes N] [--ions N] [--servers N | --pvfs tcp://HOST:PORT/FSNAME] [--consistency MODE]",
		Short: "start a whole system on this machine",
		Long: "up starts embedded PVFS2 servers, I/O nodes and the mounts of compute nodes, one process a role, and\n" +
			"returns when every mount answers. The data survives down and the next up. On a system of which a part\n" +
			"has died, up starts what is missing. DIR/cluster.json tells pids, addresses and mount points.",
		Example: "  zoidfs up                            # 4 servers, 2 I/O nodes, 2 nodes under ./zoidfs-run\n" +
			"  zoidfs up --dir /tmp/z --nodes 4\n" +
			"  zoidfs up --dir /tmp/s --consistency session\n" +
			"  zoidfs up --dir /tmp/o --pvfs tcp://server:3334/orangefs",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range []string{"nodes", "ions", "servers"} {
				if flag := cmd.Flags().Lookup(name); flag.Changed && flag.Value.String() == "0" {
					return fmt.Errorf("--%s must be at least 1", name)
				}
			}
			return a.up(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dir", defaultDir, "`DIR` of the system")
	flags.IntVar(&f.want.Nodes, "nodes", 0, "number of compute nodes (new system: 2)")
	flags.IntVar(&f.want.IONs, "ions", 0, "number of I/O nodes (new system: 2)")
	flags.IntVar(&f.want.Servers, "servers", 0, "number of embedded PVFS2 servers (new system: 4)")
	flags.StringVar(&f.want.PVFS, "pvfs", "", "use running PVFS2 servers: `URL` tcp://HOST:PORT/FSNAME")
	flags.StringVar(&f.want.Consistency, "consistency", "", "consistency `MODE` of the mounts (new system: strong), see: zoidfs consistency --help")
	flags.StringVar(&f.want.Visibility, "visibility", "", "`DURATION` after which an eventual write is seen everywhere (new system: "+fs.DefaultVisibility.String()+")")
	flags.StringVar(&f.want.Collective, "collective", "", "merge what many ranks ask for: `on or off` (new system: on)")
	flags.BoolVar(&f.want.Metrics, "metrics", false, "let every process serve metrics and pprof on a free port, see cluster.json")
	flags.DurationVar(&f.timeout, "timeout", time.Minute, "how long the whole may take to start")
	return cmd
}

func (a *app) up(ctx context.Context, f upFlags) error {
	if f.timeout <= 0 {
		return fmt.Errorf("--timeout %v is not positive", f.timeout)
	}
	if m := f.want.Consistency; m != "" {
		if _, err := consistency.Parse(m); err != nil {
			return fmt.Errorf("--consistency: %w", err)
		}
	}
	if v := f.want.Visibility; v != "" {
		d, err := parseVisibility(v)
		if err != nil {
			return fmt.Errorf("--visibility: %w", err)
		}
		f.want.Visibility = d.String()
	}
	if c := f.want.Collective; c != "" {
		if err := parseOnOff(c); err != nil {
			return fmt.Errorf("--collective %w", err)
		}
	}
	if f.want.PVFS != "" {
		if err := checkURL(f.want.PVFS); err != nil {
			return fmt.Errorf("--pvfs %w", err)
		}
	}
	if _, err := newLogger(io.Discard, a.logLevel, a.logFormat); err != nil {
		return err
	}
	dir, err := cluster.NewDir(f.dir)
	if err != nil {
		return err
	}
	file, started, err := local.Up(ctx, dir, local.UpOptions{
		Want:     f.want,
		LogFlags: []string{"--log-level", a.logLevel, "--log-format", a.logFormat},
		Timeout:  f.timeout,
	})
	if err != nil {
		a.showTail(err)
		return err
	}
	all := len(file.PVFSD) + len(file.IONs) + len(file.Nodes)
	switch started {
	case 0:
		fmt.Fprintf(a.out, "zoidfs is already up in %s\n", dir)
	case all:
		fmt.Fprintf(a.out, "zoidfs is up in %s: %s, %d I/O nodes, %d nodes\n", dir, servers(ctx, file), len(file.IONs), len(file.Nodes))
	default:
		fmt.Fprintf(a.out, "zoidfs is up in %s: started %d of %d processes that were missing\n", dir, started, all)
	}
	for _, n := range file.Nodes {
		fmt.Fprintf(a.out, "  %s  %s\n", n.Name, n.Mount)
	}
	return nil
}

// servers says how many PVFS2 servers a system has; of those of others, as far
// as they can be asked.
func servers(ctx context.Context, f *cluster.File) string {
	if len(f.PVFSD) > 0 {
		return fmt.Sprintf("%d servers", len(f.PVFSD))
	}
	n, err := local.CountServers(ctx, f.PVFS)
	if err != nil {
		return "external servers"
	}
	return fmt.Sprintf("%d external servers", n)
}

// showTail prints the end of the log of the role that failed, above the line
// that says so.
func (a *app) showTail(err error) {
	var failed *local.RoleError
	if !errors.As(err, &failed) || failed.Tail == "" {
		return
	}
	for line := range strings.Lines(failed.Tail + "\n") {
		fmt.Fprintf(a.err, "  %s| %s", filepath.Base(failed.Log), line)
	}
}

func (a *app) downCommand() *cobra.Command {
	var dir string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:     "down [--dir DIR]",
		Short:   "flush, unmount and stop a system on this machine",
		Long:    "down stops what up started; the data stays. It fails if anything could not be flushed, and leaves nothing running.",
		Example: "  zoidfs down --dir /tmp/z",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return fmt.Errorf("--timeout %v is not positive", timeout)
			}
			d, err := cluster.NewDir(dir)
			if err != nil {
				return err
			}
			stopped, err := local.Down(cmd.Context(), d, timeout)
			if err != nil {
				return err
			}
			if stopped == 0 {
				fmt.Fprintf(a.out, "nothing was running in %s\n", d)
				return nil
			}
			fmt.Fprintf(a.out, "stopped %d processes in %s; the data stays\n", stopped, d)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", defaultDir, "`DIR` of the system")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long each of the mounts, I/O nodes and servers may take to flush before they are killed")
	return cmd
}
