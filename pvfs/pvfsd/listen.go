package pvfsd

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
)

const (
	soleFSName = "zoidfs"
	soleAlias  = "s0"
	confName   = "fs.conf"
)

// ForListen returns the options of the only server of a file system called
// "zoidfs" that listens on host:port and keeps everything in dataDir. The
// configuration is written to dataDir/fs.conf at first use and read from there
// later, so that the file system keeps its id and whatever was edited in it; a
// changed address or directory is taken over. Without a host the server
// listens everywhere and clients are told the name of this machine.
//
// The options hold an open listener: pass them to Open, which owns it then.
func ForListen(listen, dataDir string, logger *slog.Logger) (Options, error) {
	opt, err := forListen(listen, dataDir, logger)
	if err != nil && opt.Listener != nil {
		opt.Listener.Close()
	}
	return opt, err
}

func forListen(listen, dataDir string, logger *slog.Logger) (opt Options, err error) {
	opt = Options{Alias: soleAlias, Logger: logger}
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return opt, fmt.Errorf("data directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return opt, fmt.Errorf("data directory: %w", err)
	}
	if opt.Listener, err = net.Listen("tcp", listen); err != nil {
		return opt, fmt.Errorf("pvfsd.ForListen: %w", err)
	}
	addr, err := advertised(listen, opt.Listener.Addr())
	if err != nil {
		return opt, err
	}
	opt.Config, err = soleConfig(dir, addr)
	return opt, err
}

// advertised is the address that clients are told: host as it was given and
// the port that is really listened on.
func advertised(listen string, real net.Addr) (string, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return "", errno.Wrap("pvfsd.ForListen", syscall.EINVAL, err)
	}
	_, port, err := net.SplitHostPort(real.String())
	if err != nil {
		return "", errno.Wrap("pvfsd.ForListen", syscall.EINVAL, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if host, err = os.Hostname(); err != nil {
			return "", fmt.Errorf("pvfsd.ForListen: %w", err)
		}
	}
	return net.JoinHostPort(host, port), nil
}

// soleConfig reads the configuration in dir or writes one.
func soleConfig(dir, addr string) (*fsconf.Config, error) {
	name := filepath.Join(dir, confName)
	gen := fsconf.GenOptions{
		FSName: soleFSName, FSID: rand.Int32N(1<<31-2) + 1, SyncMeta: true,
		Servers: []fsconf.ServerSpec{{Alias: soleAlias, Addr: addr, Dir: dir}},
	}
	text, err := os.ReadFile(name)
	if err == nil {
		conf, err := fsconf.Parse(string(text))
		if err != nil {
			return nil, errno.Wrap("pvfsd.ForListen", syscall.EINVAL, fmt.Errorf("%s: %w", name, err))
		}
		if isSole(conf, dir, addr) {
			return conf, nil
		}
		gen.FSID = conf.FileSystems[0].ID
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	fresh, err := fsconf.Generate(gen)
	if err != nil {
		return nil, errno.Wrap("pvfsd.ForListen", syscall.EINVAL, err)
	}
	conf, err := fsconf.Parse(fresh)
	if err != nil {
		return nil, errno.Wrap("pvfsd.ForListen", syscall.EINVAL, err)
	}
	return conf, writeFile(name, fresh)
}

// isSole reports whether conf is for the one server at addr with data in dir.
func isSole(conf *fsconf.Config, dir, addr string) bool {
	have, _ := conf.Addr(soleAlias)
	srv, ok := conf.Server(soleAlias)
	return ok && have == addr &&
		filepath.Dir(srv.DataStorageSpace) == dir && filepath.Dir(srv.MetadataStorageSpace) == dir
}

// writeFile writes the file name, durably and in one step.
func writeFile(name, text string) error {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return fsyncPath(filepath.Dir(name))
}
