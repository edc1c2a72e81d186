package program

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// commandTimeout bounds every program that is started.
const commandTimeout = 10 * time.Minute

// Ends is what is to be done when a measurement is over. The zero value is ready.
type Ends struct{ all []func() error }

// Add has f done before what was added earlier.
func (e *Ends) Add(f func() error) { e.all = append(e.all, f) }

// Run does it all, once, and returns all errors.
func (e *Ends) Run() (err error) {
	for _, end := range slices.Backward(e.all) {
		err = errors.Join(err, end())
	}
	e.all = nil
	return err
}

// Command runs a program, which must succeed, and returns what it printed to its
// standard output. env nil is this program's.
func Command(ctx context.Context, env []string, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = env
	cmd.WaitDelay = time.Second
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		said.Write(out.Bytes())
		return nil, fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, said.Next(2000))
	}
	return out.Bytes(), nil
}

// Absolute makes paths absolute that are not empty.
func Absolute(paths ...*string) (err error) {
	for _, p := range paths {
		if *p == "" {
			continue
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	return nil
}

// System is one that zoidfs up has started.
type System struct {
	PVFS               string `json:"pvfs"` // where its servers are
	PVFSD, IONs, Nodes []Role
}

// Role is one of its processes.
type Role struct {
	PID     int    `json:"pid"`
	Mount   string `json:"mount"`   // of a node
	Metrics string `json:"metrics"` // HOST:PORT, if they are served
}

// PIDs are those of all its processes.
func (s *System) PIDs() (pids []int) {
	for _, r := range slices.Concat(s.PVFSD, s.IONs, s.Nodes) {
		pids = append(pids, r.PID)
	}
	return pids
}

// Up starts a system of so many nodes in dir, with the binary zoidfs and more
// arguments of up. ends has it taken down, also if that fails.
func Up(ctx context.Context, ends *Ends, zoidfs, dir string, nodes int, args ...string) (*System, error) {
	ends.Add(func() error {
		_, err := Command(context.Background(), nil, zoidfs, "down", "--dir", dir)
		return err
	})
	up := append([]string{"up", "--dir", dir, "--nodes", fmt.Sprint(nodes)}, args...)
	if _, err := Command(ctx, nil, zoidfs, up...); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, "cluster.json"))
	if err != nil {
		return nil, err
	}
	s := new(System)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("cluster.json: %w", err)
	}
	if len(s.Nodes) != nodes {
		return nil, fmt.Errorf("%d nodes are up, not %d", len(s.Nodes), nodes)
	}
	return s, nil
}

// CEnv is the environment for the C tools in a directory, which need their
// libraries, with more variables.
func CEnv(ctools string, more ...string) []string {
	return append(append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Join(filepath.Dir(ctools), "lib")), more...)
}

// MountFuse mounts the file system at url on dir, which it makes, with the
// pvfs2fuse of ctools, and returns when the name mark is there. ends has it
// unmounted.
func MountFuse(ctx context.Context, ends *Ends, ctools, dir, url, mark string) error {
	if err := os.Mkdir(dir, 0o777); err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(ctools, "pvfs2fuse"), dir, "-f", "-o", "fs_spec="+url)
	cmd.Env = CEnv(ctools)
	if err := cmd.Start(); err != nil {
		return err
	}
	ends.Add(func() error {
		_, err := Command(context.Background(), nil, "umount", dir)
		if err != nil {
			_ = cmd.Process.Kill()
		}
		_ = cmd.Wait() // it says nothing by its exit code
		return err
	})
	return shows(ctx, filepath.Join(dir, mark))
}

// shows waits until path is there, which another client has made.
func shows(ctx context.Context, path string) error {
	for range 200 {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s does not appear", path)
}

// Status is what a zoidfs mount says about itself.
type Status struct {
	Guard   string `json:"guard"`
	Races   int    `json:"races"`
	IOURing bool   `json:"io_uring"`
}

// StatusOf asks the mount at mnt.
func StatusOf(mnt string) (st Status, err error) {
	b := make([]byte, 64<<10)
	n, err := unix.Getxattr(mnt, "user.zoidfs.status", b)
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal(b[:n], &st)
}
