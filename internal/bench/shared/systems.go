package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/zoidfs/zoidfs/internal/bench/program"
)

// The clients.
const (
	on   = "zoidfs"
	off  = "zoidfs, engine off"
	fuse = "pvfs2fuse"
	null = "null FUSE"
)

// nullEnv is set in the processes that this program starts of itself to serve a
// null file system, to the mount point.
const nullEnv = "ZOIDFS_SHARED_NULL"

// systems is everything that runs.
type systems struct {
	mounts map[string][]string // of each client, one of each node
	pids   map[string][]int    // of the processes of a zoidfs system
	ends   program.Ends
}

func (c *config) start(ctx context.Context) (*systems, error) {
	x := &systems{mounts: make(map[string][]string), pids: make(map[string][]int)}
	url, err := c.up(ctx, x, on, "on")
	if err != nil {
		return x, err
	}
	if c.url == "" { // two systems on the same servers would not know of each other
		if _, err := c.up(ctx, x, off, "off"); err != nil {
			return x, err
		}
	}
	if err := c.mountNull(x); err != nil {
		return x, err
	}
	if c.ctools == "" {
		return x, nil
	}
	return x, c.mountFuse(ctx, x, url)
}

// mountNull mounts a null file system on each node, each with a process of its own.
func (c *config) mountNull(x *systems) error {
	for node := range nodes {
		dir := filepath.Join(c.dir, fmt.Sprint("null", node))
		if err := os.Mkdir(dir, 0o777); err != nil {
			return err
		}
		server, err := program.Self(nullEnv + "=" + dir)
		if err != nil {
			return err
		}
		if _, err := server.Line(); err != nil {
			return err
		}
		x.ends.Add(server.End)
		x.mounts[null] = append(x.mounts[null], dir)
	}
	return nil
}

// up starts a system, and returns where its servers are.
func (c *config) up(ctx context.Context, x *systems, client, engine string) (url string, err error) {
	servers := []string{"--servers", "4"}
	if c.url != "" {
		servers = []string{"--pvfs", c.url}
	}
	sys, err := program.Up(ctx, &x.ends, c.zoidfs, filepath.Join(c.dir, engine), nodes, append(servers, "--ions", "2", "--collective", engine)...)
	if err != nil {
		return "", err
	}
	for _, n := range sys.Nodes {
		x.mounts[client] = append(x.mounts[client], n.Mount)
	}
	x.pids[client] = sys.PIDs()
	return sys.PVFS, nil
}

// mountFuse mounts the servers at url on each node with the C client.
func (c *config) mountFuse(ctx context.Context, x *systems, url string) error {
	mark := fmt.Sprint("mounted", time.Now().UnixNano())
	shown := filepath.Join(x.mounts[on][0], mark)
	if err := os.Mkdir(shown, 0o777); err != nil {
		return err
	}
	for node := range nodes {
		dir := filepath.Join(c.dir, fmt.Sprint("fuse", node))
		if err := program.MountFuse(ctx, &x.ends, c.ctools, dir, url, mark); err != nil {
			return err
		}
		x.mounts[fuse] = append(x.mounts[fuse], dir)
	}
	return os.Remove(shown)
}
