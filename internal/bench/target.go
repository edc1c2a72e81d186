package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/zoidfs/zoidfs/internal/bench/program"
)

// target is a directory to measure and the processes behind it.
type target struct {
	name    string
	dir     string
	pids    []int  // of the daemons and servers that work for it
	metrics string // HOST:PORT of the mount's metrics, if it has any
	names   bool   // names can be created and removed in it
	raw     string // HOST:PORT of raw TCP, which has no files
	stop    func() error
}

// self starts this program in a role.
func self(role string, args ...string) (*program.Child, error) {
	return program.Self(roleEnv+"="+role, args...)
}

// daemonAt starts a role that says "ready" once it has mounted dir.
func daemonAt(t *target, role string, args ...string) error {
	c, err := self(role, args...)
	if err != nil {
		return err
	}
	if _, err := c.Line(); err != nil {
		return err
	}
	t.pids, t.stop = []int{c.Cmd.Process.Pid}, c.End
	return nil
}

// targets starts everything. The caller stops them in any case.
func (c *config) targets(ctx context.Context) (ts []*target, err error) {
	for _, s := range []struct {
		name  string
		start func(context.Context, string, *target) error
	}{
		{tmpfs, c.startTmpfs}, {loopback, c.startLoopback}, {null, c.startNull}, {rawTCP, c.startRaw}, {memory, c.startMemory("strong")},
		{memoryLeased, c.startMemory("strong", "leases")}, {memoryCommit, c.startMemory("commit", "leases")},
		{memorySession, c.startMemory("session", "leases")}, {memoryEventual, c.startMemory("eventual", "leases")}, {whole, c.startWhole},
	} {
		if !c.only.MatchString(s.name+"/") && !c.matchesAny(s.name) {
			continue
		}
		t := &target{name: s.name}
		dir, err := os.MkdirTemp(c.dir, "zoidfs-bench-")
		if err != nil {
			return ts, err
		}
		ts = append(ts, t)
		if err := s.start(ctx, dir, t); err != nil {
			err = fmt.Errorf("%s: %w", s.name, err)
			return ts, errors.Join(err, os.RemoveAll(dir))
		}
		stop := t.stop
		t.stop = func() error {
			var err error
			if stop != nil {
				err = stop()
			}
			if err == nil {
				err = os.RemoveAll(dir)
			}
			return err
		}
	}
	return ts, nil
}

const (
	tmpfs    = "tmpfs"
	loopback = "loopback"
	null     = "null"
	rawTCP   = "raw TCP"
	memory   = "mount+memory" // strong, and the I/O node gives no leases
	whole    = "zoidfs"

	// A mount on an I/O node in memory that gives every lease.
	memoryLeased   = "mount+memory, strong"
	memoryCommit   = "mount+memory, commit"
	memorySession  = "mount+memory, session"
	memoryEventual = "mount+memory, eventual"
)

func (c *config) startTmpfs(_ context.Context, dir string, t *target) error {
	t.dir, t.names = dir, true
	return nil
}

func mkdirs(dirs ...string) error {
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (c *config) startLoopback(_ context.Context, dir string, t *target) error {
	data := filepath.Join(dir, "data")
	t.dir, t.names = filepath.Join(dir, "mnt"), true
	if err := mkdirs(data, t.dir); err != nil {
		return err
	}
	return daemonAt(t, "loopback", data, t.dir)
}

func (c *config) startNull(_ context.Context, dir string, t *target) error {
	t.dir = filepath.Join(dir, "mnt")
	if err := mkdirs(t.dir); err != nil {
		return err
	}
	return daemonAt(t, "null", t.dir)
}

func (c *config) startRaw(_ context.Context, _ string, t *target) error {
	srv, err := self("raw")
	if err != nil {
		return err
	}
	if t.raw, err = srv.Line(); err != nil {
		return err
	}
	t.pids, t.stop = []int{srv.Cmd.Process.Pid}, srv.End
	return nil
}

func freeAddr() (string, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer lis.Close()
	return lis.Addr().String(), nil
}

// startMemory returns what mounts zoidfs, in a mode, on an I/O node in memory.
func (c *config) startMemory(mode string, ionArgs ...string) func(context.Context, string, *target) error {
	return func(ctx context.Context, dir string, t *target) error {
		return c.mountMemory(ctx, dir, mode, ionArgs, t)
	}
}

func (c *config) mountMemory(ctx context.Context, dir, mode string, ionArgs []string, t *target) error {
	t.dir = filepath.Join(dir, "mnt")
	if err := mkdirs(t.dir); err != nil {
		return err
	}
	ion, err := self("ion", ionArgs...)
	if err != nil {
		return err
	}
	addr, err := ion.Line()
	if err != nil {
		return err
	}
	if t.metrics, err = freeAddr(); err != nil {
		return errors.Join(err, ion.End())
	}
	log := filepath.Join(dir, "log")
	mount, err := program.Start("", c.bin, "mount", t.dir, "--ion", addr, "-o", "consistency="+mode, "--foreground", "--metrics", t.metrics, "--log-file", log)
	if err != nil {
		return errors.Join(err, ion.End())
	}
	t.pids = []int{ion.Cmd.Process.Pid, mount.Cmd.Process.Pid}
	t.stop = func() error { return errors.Join(mount.End(), ion.End()) }
	if err := waitMount(ctx, t.dir); err != nil {
		text, _ := os.ReadFile(log)
		return errors.Join(fmt.Errorf("%w: %s", err, text), t.stop())
	}
	return nil
}

// waitMount waits until something is mounted at dir.
func waitMount(ctx context.Context, dir string) error {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		mounts, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			return err
		}
		if strings.Contains(string(mounts), " "+dir+" ") {
			return nil
		}
	}
	return fmt.Errorf("nothing was mounted at %s", dir)
}

// startWhole starts a system of one node, two I/O nodes and four servers.
func (c *config) startWhole(ctx context.Context, dir string, t *target) error {
	var ends program.Ends
	sys, err := program.Up(ctx, &ends, c.bin, filepath.Join(dir, "sys"), 1, "--ions", "2", "--servers", "4", "--metrics")
	if err != nil {
		return errors.Join(err, ends.Run())
	}
	t.names, t.stop, t.pids = true, ends.Run, sys.PIDs()
	t.dir, t.metrics = sys.Nodes[0].Mount, sys.Nodes[0].Metrics
	return nil
}
