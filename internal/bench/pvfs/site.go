package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/zoidfs/zoidfs/internal/bench/program"
	"github.com/zoidfs/zoidfs/pvfs"
)

// site is one file system and the clients on it.
type site struct {
	name   string // real or embedded
	url    string
	client *pvfs.Client
	dir    pvfs.Handle // of our own
	base   string      // its name
	mount  string      // of zoidfs
	fuse   string      // of pvfs2fuse, "" if there is none
	ends   program.Ends
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
	s.ends.Add(s.client.Close)
	s.base = fmt.Sprintf("zoidfs-bench-%d", time.Now().UnixNano())
	if err := os.Mkdir(filepath.Join(s.mount, s.base), 0o777); err != nil {
		return err
	}
	s.ends.Add(func() error { return os.RemoveAll(filepath.Join(s.mount, s.base)) })
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
	servers := []string{"--servers", "4"}
	if url != "" {
		servers = []string{"--pvfs", url}
	}
	sys, err := program.Up(ctx, &s.ends, c.zoidfs, filepath.Join(c.dir, name), 1, append(servers, "--ions", "1")...)
	if err != nil {
		return "", err
	}
	if url == "" {
		s.url = sys.PVFS
	}
	return sys.Nodes[0].Mount, nil
}

// mountFuse mounts url with pvfs2fuse; "" if there is no such program.
func (c *config) mountFuse(ctx context.Context, s *site, name, url string) (string, error) {
	if _, err := os.Stat(filepath.Join(c.ctools, "pvfs2fuse")); err != nil {
		return "", nil
	}
	dir := filepath.Join(c.dir, name+"-fuse")
	return dir, program.MountFuse(ctx, &s.ends, c.ctools, dir, url, s.base)
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
	return program.Command(ctx, program.CEnv(c.ctools, "PVFS2TAB_FILE="+tab), prog, args...)
}
