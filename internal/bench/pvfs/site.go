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
	"strings"
	"time"

	"github.com/zoidfs/zoidfs/pvfs"
)

// commandTimeout bounds every program that is started.
const commandTimeout = 10 * time.Minute

// site is one file system and the clients on it.
type site struct {
	name   string // real or embedded
	url    string
	client *pvfs.Client
	dir    pvfs.Handle // of our own
	base   string      // its name
	mount  string      // of zoidfs
	fuse   string      // of pvfs2fuse, "" if there is none
	ends   []func() error
}

// stop removes and ends everything, last things first.
func (s *site) stop() error {
	var err error
	for i := len(s.ends) - 1; i >= 0; i-- {
		err = errors.Join(err, s.ends[i]())
	}
	s.ends = nil
	return err
}

func (c *config) startSites(ctx context.Context) ([]*site, error) {
	sites := []*site{{name: "embedded"}}
	if c.url != "" {
		sites = []*site{{name: "real", url: c.url}, sites[0]}
	}
	for _, s := range sites {
		if err := c.startSite(ctx, s); err != nil {
			return sites, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return sites, nil
}

func (c *config) startSite(ctx context.Context, s *site) error {
	var err error
	if s.mount, err = c.up(ctx, s, s.name, s.url); err != nil {
		return err
	}
	if s.client, err = pvfs.Dial(ctx, s.url, pvfs.Options{Timeout: 20 * time.Second}); err != nil {
		return err
	}
	s.ends = append(s.ends, s.client.Close)
	s.base = fmt.Sprintf("zoidfs-bench-%d", time.Now().UnixNano())
	if err := os.Mkdir(filepath.Join(s.mount, s.base), 0o777); err != nil {
		return err
	}
	s.ends = append(s.ends, func() error { return os.RemoveAll(filepath.Join(s.mount, s.base)) })
	if s.dir, err = s.client.Lookup(ctx, s.client.Root(), s.base); err != nil {
		return err
	}
	if c.ctools != "" {
		s.fuse, err = c.mountFuse(ctx, s, s.name, s.url)
	}
	return err
}

// up starts an I/O node and a mount on url, and embedded servers if it is "".
// It returns the mount point and puts the url in s if there was none.
func (c *config) up(ctx context.Context, s *site, name, url string) (string, error) {
	dir := filepath.Join(c.dir, name)
	args := []string{"up", "--dir", dir, "--nodes", "1", "--ions", "1"}
	if url == "" {
		args = append(args, "--servers", "4")
	} else {
		args = append(args, "--pvfs", url)
	}
	s.ends = append(s.ends, func() error { return c.command(context.Background(), c.zoidfs, "down", "--dir", dir) })
	if err := c.command(ctx, c.zoidfs, args...); err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(dir, "cluster.json"))
	if err != nil {
		return "", err
	}
	var f struct {
		PVFS  string `json:"pvfs"`
		Nodes []struct {
			Mount string `json:"mount"`
		} `json:"nodes"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return "", err
	}
	if len(f.Nodes) != 1 {
		return "", fmt.Errorf("%d nodes are up", len(f.Nodes))
	}
	if url == "" {
		s.url = f.PVFS
	}
	return f.Nodes[0].Mount, nil
}

// mountFuse mounts url with pvfs2fuse; "" if there is no such program.
func (c *config) mountFuse(ctx context.Context, s *site, name, url string) (string, error) {
	prog := filepath.Join(c.ctools, "pvfs2fuse")
	if _, err := os.Stat(prog); err != nil {
		return "", nil
	}
	dir := filepath.Join(c.dir, name+"-fuse")
	if err := os.Mkdir(dir, 0o777); err != nil {
		return "", err
	}
	cmd := exec.Command(prog, dir, "-f", "-o", "fs_spec="+url)
	cmd.Env = c.env()
	if err := cmd.Start(); err != nil {
		return "", err
	}
	s.ends = append(s.ends, func() error {
		err := c.command(context.Background(), "umount", dir)
		if err != nil {
			_ = cmd.Process.Kill()
		}
		_ = cmd.Wait() // it says nothing by its exit code
		return err
	})
	for range 100 {
		if _, err := os.Stat(filepath.Join(dir, s.base)); err == nil {
			return dir, nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return "", fmt.Errorf("pvfs2fuse does not show %s", s.base)
}

// env lets the C tools find their libraries and, of one site, the tab file.
func (c *config) env(more ...string) []string {
	return append(append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Join(filepath.Dir(c.ctools), "lib")), more...)
}

// command runs a program, which must succeed.
func (c *config) command(ctx context.Context, name string, args ...string) error {
	_, err := runCommand(ctx, nil, name, args...)
	return err
}

// runCommand returns what the program printed to its standard output.
func runCommand(ctx context.Context, env []string, name string, args ...string) ([]byte, error) {
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

// tabMount is where the tab file says that the file system is.
const tabMount = "/pvfs2-bench"

// tool runs a tool of the C client on the file system at url. Its paths are
// below tabMount.
func (c *config) tool(ctx context.Context, url, name string, args ...string) error {
	_, err := c.tabbed(ctx, url, filepath.Join(c.ctools, name), args...)
	return err
}

// tabbed is tool for any program of the C client. It returns its output.
func (c *config) tabbed(ctx context.Context, url, prog string, args ...string) ([]byte, error) {
	tab := filepath.Join(c.dir, "tab")
	if err := os.WriteFile(tab, []byte(url+" "+tabMount+" pvfs2 defaults,noauto 0 0\n"), 0o644); err != nil {
		return nil, err
	}
	return runCommand(ctx, c.env("PVFS2TAB_FILE="+tab), prog, args...)
}
