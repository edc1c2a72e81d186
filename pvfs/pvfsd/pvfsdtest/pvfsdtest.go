// Package pvfsdtest starts embedded PVFS2 servers for tests. Every server
// listens on a loopback port and keeps its data below the test's temporary
// directory; all of it ends with the test. The methods of a Cluster are for
// the test's goroutine.
package pvfsdtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd"
)

// Options changes what Start generates. The zero value makes servers with
// stuffing that do not sync metadata.
type Options struct {
	FSName string                   // "" is "zoidfs"
	Dir    string                   // where the servers keep their data; "" is t.TempDir()
	Gen    func(*fsconf.GenOptions) // edits what the configuration is generated from
	Edit   func(text string) string // edits the text of the configuration
	Logger *slog.Logger             // of every server
}

// Cluster is a running file system.
type Cluster struct {
	t    testing.TB
	conf *fsconf.Config
	log  *slog.Logger
	name string
	run  []*running // nil while the server is down
}

// running is one server that serves.
type running struct {
	srv  *pvfsd.Server
	stop context.CancelFunc
	done chan error // capacity 1: what Run returned
}

// Start runs n servers with the aliases s0, s1 ... and stops them at the end of
// the test, which fails if one of them does not stop cleanly.
func Start(t testing.TB, n int, opt Options) *Cluster {
	t.Helper()
	gen := fsconf.GenOptions{FSName: opt.FSName, FSID: rand.Int32N(1<<31-2) + 1}
	if gen.FSName == "" {
		gen.FSName = "zoidfs"
	}
	dir := opt.Dir
	if dir == "" {
		dir = t.TempDir()
	}
	listeners := make([]net.Listener, n)
	for i := range n {
		listeners[i] = Listen(t)
		alias := fmt.Sprintf("s%d", i)
		gen.Servers = append(gen.Servers, fsconf.ServerSpec{
			Alias: alias, Addr: listeners[i].Addr().String(), Dir: filepath.Join(dir, alias),
		})
	}
	if opt.Gen != nil {
		opt.Gen(&gen)
	}
	text, err := fsconf.Generate(gen)
	require.NoError(t, err)
	if opt.Edit != nil {
		text = opt.Edit(text)
	}
	conf, err := fsconf.Parse(text)
	require.NoError(t, err)
	c := &Cluster{t: t, conf: conf, log: opt.Logger, name: gen.FSName, run: make([]*running, n)}
	t.Cleanup(func() {
		for i := range c.run {
			c.Kill(i)
		}
	})
	for i := range n {
		c.start(i, listeners[i])
	}
	return c
}

// taken is the ports of all servers that this process has started: one that is
// down comes back to its own.
var taken sync.Map

// Listen finds a free port at a loopback address that is this process's own, so
// that no other takes the port while a server is down; and below those ports
// that the kernel gives to clients, so that none of ours does.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	pid := os.Getpid()
	host := fmt.Sprintf("127.%d.%d.%d", 1+pid>>16&0x3f, pid>>8&0xff, pid&0xff)
	for range 200 {
		port := 15000 + rand.IntN(17000)
		if _, twice := taken.LoadOrStore(port, true); twice {
			continue
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host, port)); err == nil {
			return l
		}
	}
	require.Fail(t, "no free port")
	return nil
}

func (c *Cluster) start(i int, l net.Listener) {
	c.t.Helper()
	srv, err := pvfsd.Open(pvfsd.Options{Config: c.conf, Alias: c.alias(i), Listener: l, Logger: c.log})
	require.NoError(c.t, err)
	ctx, stop := context.WithCancel(context.Background())
	r := &running{srv: srv, stop: stop, done: make(chan error, 1)}
	go func() { r.done <- srv.Run(ctx) }()
	c.run[i] = r
}

func (c *Cluster) alias(i int) string { return fmt.Sprintf("s%d", i) }

// URL is tcp://HOST:PORT/FSNAME of the first server.
func (c *Cluster) URL() string { return "tcp://" + c.Addr(0) + "/" + c.name }

// Config is the configuration that the servers share.
func (c *Cluster) Config() *fsconf.Config { return c.conf }

// Addr is host:port of server i; it stays the same over restarts.
func (c *Cluster) Addr(i int) string {
	addr, ok := c.conf.Addr(c.alias(i))
	require.True(c.t, ok)
	return addr
}

// Len is the number of servers, running or not.
func (c *Cluster) Len() int { return len(c.run) }

// Server is the running server i; nil while it is down.
func (c *Cluster) Server(i int) *pvfsd.Server {
	if c.run[i] == nil {
		return nil
	}
	return c.run[i].srv
}

// Kill stops server i, if it runs, as a crash would for its clients:
// connections break at once, whatever is under way. It returns once the server
// is gone.
func (c *Cluster) Kill(i int) {
	c.t.Helper()
	r := c.run[i]
	if r == nil {
		return
	}
	c.run[i] = nil
	r.stop()
	select {
	case err := <-r.done:
		require.NoError(c.t, err)
	case <-time.After(time.Minute):
		require.Fail(c.t, "server does not stop", "s%d", i)
	}
}

// Restart starts server i again on its old address and data; it kills it first
// if it runs.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	c.Kill(i)
	var l net.Listener
	err := errors.New("not tried")
	for range 50 {
		if l, err = net.Listen("tcp", c.Addr(i)); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	require.NoError(c.t, err)
	c.start(i, l)
}
