package pvfsd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
)

// Options describes one server of a file system.
type Options struct {
	Config   *fsconf.Config // the configuration all servers share; must hold exactly one file system
	Alias    string         // which of its servers this is
	Listener net.Listener   // nil: Open listens on the address that Config gives to Alias
	Logger   *slog.Logger   // nil discards
}

// Validate names the first field that is wrong.
func (o Options) Validate() error {
	if o.Config == nil {
		return errors.New("Config is nil")
	}
	if len(o.Config.FileSystems) != 1 {
		return fmt.Errorf("Config has %d file systems, not one: %v", len(o.Config.FileSystems), o.Config.Names())
	}
	srv, ok := o.Config.Server(o.Alias)
	if !ok {
		return fmt.Errorf("Alias %q is not in the configuration", o.Alias)
	}
	if _, ok := o.Config.Addr(o.Alias); !ok {
		return fmt.Errorf("Alias %q has no tcp address", o.Alias)
	}
	if srv.DataStorageSpace == "" || srv.MetadataStorageSpace == "" {
		return fmt.Errorf("Alias %q has no DataStorageSpace or MetadataStorageSpace", o.Alias)
	}
	return nil
}

// Server is one PVFS2 server with its data directory.
type Server struct {
	opt Options
}

// Open locks and checks the data directory, creating it at first use, and
// starts listening; requests are served once Run is called. It fails with
// EBUSY while another process uses the directory and with EINVAL when the
// directory belongs to another file system or another server.
func Open(opt Options) (*Server, error) {
	return nil, errno.New("pvfsd.Open", syscall.ENOSYS)
}

// Addr is the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.opt.Listener.Addr() }

// Run serves until ctx is done or serving fails for good, then closes every
// connection, makes everything durable and unlocks the data directory. It is
// called once. It returns nil after ctx is done.
func (s *Server) Run(ctx context.Context) error {
	return errno.New("pvfsd.Run", syscall.ENOSYS)
}

// Close releases what Open took when Run was never called.
func (s *Server) Close() error { return nil }

// ForListen returns the options of the only server of a file system called
// "zoidfs" that listens on host:port and keeps everything in dataDir. The
// configuration is written there at first use and read again later, so that
// the file system keeps its id; a changed address is taken over.
func ForListen(listen, dataDir string) (Options, error) {
	return Options{}, errno.New("pvfsd.ForListen", syscall.ENOSYS)
}
