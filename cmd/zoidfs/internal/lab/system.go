package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/cluster"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/counters"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/local"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/nodens"
	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/experiment"
)

// How long a system may take to start and each of its parts to stop, and how
// long its parts may take to tell what they have counted.
const (
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
	askTimeout   = 10 * time.Second
)

// system is one that is running.
type system struct {
	dir        cluster.Dir
	file       *cluster.File
	shape      experiment.Shape
	visibility time.Duration
	root       string // directory of all runs, as node 0 sees it
	runs       int
	own        bool // was started by us
}

// start starts a system of a shape, in a new directory, or finds the one that is
// running to be of that shape.
func (l *lab) start(ctx context.Context, s experiment.Shape) (*system, error) {
	sys := &system{shape: s, visibility: l.Spec.Visibility, own: l.System == ""}
	var err error
	if sys.own {
		err = l.up(ctx, sys)
	} else {
		err = l.find(sys)
	}
	if err != nil {
		return nil, err
	}
	if sys.root, err = os.MkdirTemp(sys.file.Nodes[0].Mount, "experiment-"); err != nil {
		return nil, errors.Join(err, l.down(ctx, sys))
	}
	return sys, nil
}

func (l *lab) up(ctx context.Context, sys *system) error {
	dir, err := cluster.NewDir(filepath.Join(l.Scratch, "system"))
	if err != nil {
		return err
	}
	sys.dir = dir
	if err := l.down(ctx, sys); err != nil { // one that an earlier end has left
		return err
	}
	sys.file, _, err = local.Up(ctx, dir, local.UpOptions{
		Want: local.Want{
			Nodes: sys.shape.Nodes, IONs: sys.shape.IONs, Servers: sys.shape.Servers, Collective: sys.shape.Collective,
			Consistency: consistency.Strong.String(), Visibility: sys.visibility.String(),
		},
		LogFlags: l.LogFlags,
		Timeout:  startTimeout,
	})
	return err
}

// find looks whether the system that is running has the shape.
func (l *lab) find(sys *system) (err error) {
	if sys.dir, err = cluster.NewDir(l.System); err != nil {
		return err
	}
	if sys.file, err = sys.dir.Load(); err != nil {
		return err
	}
	f := sys.file
	has := experiment.Shape{Nodes: len(f.Nodes), IONs: len(f.IONs), Servers: len(f.PVFSD), Collective: f.Collective}
	if has.Collective == "" {
		has.Collective = experiment.On
	}
	if has.Servers == 0 { // they are others'
		has.Servers = sys.shape.Servers
	}
	if has != sys.shape {
		return fmt.Errorf("the matrix asks for %v, the system in %s is %v; without --dir, systems are started as they are needed", describe(sys.shape), sys.dir, describe(has))
	}
	if sys.visibility, err = time.ParseDuration(f.Visibility); err != nil {
		return fmt.Errorf("visibility of the system in %s: %w", sys.dir, err)
	}
	return nil
}

func describe(s experiment.Shape) string {
	return fmt.Sprintf("nodes: %d, ions: %d, servers: %d, collective: %s", s.Nodes, s.IONs, s.Servers, s.Collective)
}

// stop ends the system that is running, if any.
func (l *lab) stop(ctx context.Context) error {
	sys := l.system
	if sys == nil {
		return nil
	}
	l.system = nil
	if sys.own {
		return l.down(ctx, sys)
	}
	return os.RemoveAll(sys.root)
}

// down ends a system of ours and removes it with its data. That something could
// not be flushed is no failure of an experiment that is over.
func (l *lab) down(ctx context.Context, sys *system) error {
	if !sys.own {
		return nil
	}
	_, err := local.Down(ctx, sys.dir, stopTimeout)
	if err != nil {
		f, loadErr := sys.dir.Load()
		if loadErr != nil || local.Running(f) > 0 {
			return fmt.Errorf("a system in %s cannot be stopped: %w", sys.dir, err)
		}
	}
	return os.RemoveAll(string(sys.dir))
}

// place makes the directory of a run and sets its mode. The ranks see it at
// seen.
func (s *system) place(mode consistency.Mode) (dir, seen string, err error) {
	s.runs++
	name := fmt.Sprintf("run%d", s.runs)
	dir = filepath.Join(s.root, name)
	if err := os.Mkdir(dir, 0o777); err != nil {
		return "", "", err
	}
	if err := unix.Setxattr(dir, consistency.Xattr, []byte(mode.String()), 0); err != nil {
		return "", "", fmt.Errorf("mode %s of %s: %w", mode, dir, err)
	}
	return dir, filepath.Join(nodens.Target, filepath.Base(s.root), name), nil
}

// counts are what each mount and each I/O node has counted.
type counts []counters.Stats

// count asks all of them. If it may be that one is dead, it has counted nothing.
func (s *system) count(ctx context.Context, partly bool) (counts, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var out counts
	var errs []error
	for _, n := range s.file.Nodes {
		st, err := local.MountStats(ctx, n.Mount, false)
		out, errs = append(out, st), append(errs, err)
	}
	for _, ion := range s.file.IONs {
		st, err := local.IONStats(ctx, ion.Addr, false)
		st.RPC = counters.New().RPC // the mounts have counted these
		out, errs = append(out, st), append(errs, err)
	}
	if partly {
		return out, nil
	}
	return out, errors.Join(errs...)
}

// since is the sum of what was counted after before. Who was started anew
// meanwhile has counted from zero; what it had counted last is lost.
func (c counts) since(before counts) counters.Stats {
	sum := counters.New()
	for i := range c {
		sum = sum.Add(c[i].Sub(before[i]))
	}
	return sum
}

// levels are counts as results have them.
func levels(s counters.Stats) experiment.Levels {
	return experiment.Levels{
		Calls: busy(s.App.Calls), RPC: busy(s.RPC.Requests), PVFS: busy(s.PVFS.Requests),
		Read: s.App.BytesRead, Written: s.App.BytesWritten, Fetched: s.PVFS.BytesRead, Stored: s.PVFS.BytesWritten,
	}
}

// busy are the counts that are not 0.
func busy(m map[string]uint64) map[string]uint64 {
	out := map[string]uint64{}
	for k, v := range m {
		if v > 0 {
			out[k] = v
		}
	}
	return out
}

// storage is the type of the file system that a directory is on.
func storage(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "unknown"
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs",
		unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.NFS_SUPER_MAGIC: "nfs",
	}
	if name, ok := names[int64(st.Type)]; ok {
		return name
	}
	return fmt.Sprintf("type %#x", st.Type)
}

// lastLine is the last line of what a program printed.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
