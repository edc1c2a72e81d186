// Package pvfsdtest starts embedded PVFS2 servers for tests. Every server
// listens on a loopback port and keeps its data below the test's temporary
// directory; all of it ends with the test.
package pvfsdtest

import (
	"testing"

	"github.com/zoidfs/zoidfs/pvfs/fsconf"
)

// Options changes what Start generates; the zero value is four-figure small:
// stuffing on, unsynced metadata, 64 KiB strips.
type Options struct {
	FSName string // "" is "zoidfs"
	// Gen edits the generated configuration before it is written.
	Gen func(*fsconf.GenOptions)
	// Edit changes the text of the configuration, such as to shrink pools.
	Edit func(text string) string
	Dir  string // where the servers keep their data; "" is t.TempDir()
}

// Cluster is a running file system.
type Cluster struct{}

// Start runs n servers with the aliases s0, s1 ... and stops them at the end of the test.
func Start(t testing.TB, n int, opt Options) *Cluster { t.Helper(); return &Cluster{} }

// URL is tcp://HOST:PORT/FSNAME of the first server.
func (c *Cluster) URL() string { return "" }

// Config is the configuration that the servers share.
func (c *Cluster) Config() *fsconf.Config { return nil }

// Addr is host:port of server i; it stays the same over restarts.
func (c *Cluster) Addr(i int) string { return "" }

// Kill stops server i as a crash would for its clients: connections break at
// once and nothing is flushed. It returns once the server is gone.
func (c *Cluster) Kill(i int) {}

// Restart starts server i again on its old address and data; it kills it first if it runs.
func (c *Cluster) Restart(i int) {}
