package main

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
)

// commandTimeout bounds every program that is started.
const commandTimeout = 10 * time.Minute

// The clients.
const (
	on   = "zoidfs"
	off  = "zoidfs, engine off"
	fuse = "pvfs2fuse"
)

// systems is everything that runs.
type systems struct {
	mounts map[string][]string // of each client, one of each node
	pids   map[string][]int    // of the processes of a zoidfs system
	ends   []func() error
}

// stop ends everything, last things first.
func (x *systems) stop() (err error) {
	for _, end := range slices.Backward(x.ends) {
		err = errors.Join(err, end())
	}
	return err
}

func (c *config) start(ctx context.Context) (*systems, error) {
	x := &systems{mounts: make(map[string][]string), pids: make(map[string][]int)}
	url, err := c.up(ctx, x, on, "on")
	if err != nil {
		return x, err
	}
	if _, err := c.up(ctx, x, off, "off"); err != nil {
		return x, err
	}
	if c.ctools == "" {
		return x, nil
	}
	return x, c.mountFuse(ctx, x, url)
}

// up starts a system, and returns where its servers are.
func (c *config) up(ctx context.Context, x *systems, client, engine string) (url string, err error) {
	dir := filepath.Join(c.dir, engine)
	x.ends = append(x.ends, func() error {
		_, err := command(context.Background(), c.zoidfs, "down", "--dir", dir)
		return err
	})
	if _, err := command(ctx, c.zoidfs, "up", "--dir", dir, "--nodes", fmt.Sprint(nodes), "--ions", "2", "--servers", "4", "--collective", engine); err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(dir, "cluster.json"))
	if err != nil {
		return "", err
	}
	type process struct {
		PID   int    `json:"pid"`
		Mount string `json:"mount"`
	}
	var f struct {
		PVFS               string `json:"pvfs"`
		PVFSD, IONs, Nodes []process
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return "", err
	}
	for _, n := range f.Nodes {
		x.mounts[client] = append(x.mounts[client], n.Mount)
	}
	for _, p := range slices.Concat(f.PVFSD, f.IONs, f.Nodes) {
		x.pids[client] = append(x.pids[client], p.PID)
	}
	return f.PVFS, nil
}

// mountFuse mounts the servers at url on each node with the C client.
func (c *config) mountFuse(ctx context.Context, x *systems, url string) error {
	const mark = "mounted"
	if err := os.Mkdir(filepath.Join(x.mounts[on][0], mark), 0o777); err != nil {
		return err
	}
	for node := range nodes {
		dir := filepath.Join(c.dir, fmt.Sprint("fuse", node))
		if err := os.Mkdir(dir, 0o777); err != nil {
			return err
		}
		cmd := exec.Command(filepath.Join(c.ctools, "pvfs2fuse"), dir, "-f", "-o", "fs_spec="+url)
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Join(filepath.Dir(c.ctools), "lib"))
		if err := cmd.Start(); err != nil {
			return err
		}
		x.ends = append(x.ends, func() error {
			_, err := command(context.Background(), "umount", dir)
			if err != nil {
				_ = cmd.Process.Kill()
			}
			_ = cmd.Wait() // it says nothing by its exit code
			return err
		})
		if err := shows(ctx, filepath.Join(dir, mark)); err != nil {
			return err
		}
		x.mounts[fuse] = append(x.mounts[fuse], dir)
	}
	return nil
}

// shows waits until path is there.
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
	return fmt.Errorf("pvfs2fuse does not show %s", path)
}

// command runs a program, which must succeed, and returns what it printed to its
// standard output.
func command(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		said.Write(out.Bytes())
		return nil, fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, said.Next(2000))
	}
	return out.Bytes(), nil
}
