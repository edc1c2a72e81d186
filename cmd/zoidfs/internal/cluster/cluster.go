// Package cluster keeps the file that says what a system on this machine
// consists of: DIR/cluster.json.
//
// It knows where everything of a system lies below DIR, writes the file
// atomically and lets one command at a time change it. It starts and stops
// nothing. A File is a value for one goroutine; the lock is between processes.
package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/proc"
	"golang.org/x/sys/unix"
)

// Version is the layout of the file that this package reads and writes.
const Version = 1

// maxFile bounds what is read as a cluster file.
const maxFile = 4 << 20

// File is the content of cluster.json.
type File struct {
	Version     int      `json:"version"`
	PVFS        string   `json:"pvfs"`            // tcp://HOST:PORT/FSNAME
	FSID        int32    `json:"fsid,omitempty"`  // of the embedded file system; 0 with servers of others
	PVFSD       []Server `json:"pvfsd"`           // embedded servers; empty with servers of others
	IONs        []ION    `json:"ions"`            //
	Nodes       []Node   `json:"nodes"`           //
	Consistency string   `json:"consistency"`     // mode of the mounts
	Visibility  string   `json:"visibility"`      // of eventual writes
	Collective  string   `json:"collective"`      // whether calls of many ranks are merged: on, off
	Metrics     bool     `json:"metrics_enabled"` // whether the processes serve metrics
}

// Role is what all processes of a system have in common.
type Role struct {
	proc.ID        // zero while it is stopped on purpose
	Log     string `json:"log"`
	Metrics string `json:"metrics,omitempty"` // HOST:PORT, empty when not served
}

// Server is one embedded PVFS2 server.
type Server struct {
	Alias string `json:"alias"`
	Addr  string `json:"addr"`
	Data  string `json:"data"`
	Role
}

// ION is one I/O node.
type ION struct {
	Addr string `json:"addr"`
	Role
}

// Node is one compute node: its mount.
type Node struct {
	Name  string `json:"name"`
	Mount string `json:"mount"`
	Role
}

// Dir is the directory of a system, absolute.
type Dir string

// NewDir returns the directory called name, which need not exist.
func NewDir(name string) (Dir, error) {
	if name == "" { // an unset variable of a script is not meant to be the working directory
		return "", errors.New("--dir is empty")
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real // as the mount table will show it
	}
	return Dir(abs), nil
}

// Conf is the configuration file of the embedded servers.
func (d Dir) Conf() string { return filepath.Join(string(d), "fs.conf") }

// Data is the data directory of an embedded server.
func (d Dir) Data(alias string) string { return filepath.Join(string(d), "data", alias) }

// Log is the log file of the process called name.
func (d Dir) Log(name string) string { return filepath.Join(string(d), "log", name+".log") }

// Exit is the file in which the process called name leaves how it ended.
func (d Dir) Exit(name string) string { return filepath.Join(string(d), "log", name+".exit") }

// Mount is the mount point of the compute node called name.
func (d Dir) Mount(name string) string { return filepath.Join(string(d), name, "zfs") }

// View is an empty directory over which a rank that runs without root builds
// its own view of the file tree.
func (d Dir) View() string { return filepath.Join(string(d), "view") }

func (d Dir) file() string { return filepath.Join(string(d), "cluster.json") }

// NodeName is the name of the i-th compute node.
func NodeName(i int) string { return "node" + strconv.Itoa(i) }

// IONName is the name of the i-th I/O node.
func IONName(i int) string { return "ion" + strconv.Itoa(i) }

// ServerName is the alias of the i-th embedded server.
func ServerName(i int) string { return "pvfsd" + strconv.Itoa(i) }

// NoSystemError says that there is no system in Dir; it is an ENOENT.
type NoSystemError struct{ Dir Dir }

// Error says how to start one.
func (e *NoSystemError) Error() string {
	return fmt.Sprintf("no system in %s, start one with: zoidfs up --dir %s", e.Dir, e.Dir)
}

// Is makes the error an ENOENT.
func (e *NoSystemError) Is(target error) bool { return target == error(syscall.ENOENT) }

// Load reads the cluster file. The error is a *NoSystemError when there is no
// system in d.
func (d Dir) Load() (*File, error) {
	st, err := os.Stat(d.file())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NoSystemError{d}
	}
	if err != nil {
		return nil, err
	}
	if st.Size() > maxFile {
		return nil, fmt.Errorf("%s: %d bytes is no cluster file", d.file(), st.Size())
	}
	b, err := os.ReadFile(d.file())
	if err != nil {
		return nil, err
	}
	f := &File{}
	if err := json.Unmarshal(b, f); err != nil {
		return nil, fmt.Errorf("%s: %w", d.file(), err)
	}
	if f.Version != Version {
		return nil, fmt.Errorf("%s: version %d, this program knows version %d", d.file(), f.Version, Version)
	}
	d.place(f)
	return f, nil
}

// place makes every path in f one below d, so that a directory that was moved
// while its system was down works where it is now.
func (d Dir) place(f *File) {
	for i := range f.PVFSD {
		s := &f.PVFSD[i]
		s.Data, s.Log = d.Data(s.Alias), d.Log(s.Alias)
	}
	for i := range f.IONs {
		f.IONs[i].Log = d.Log(IONName(i))
	}
	for i := range f.Nodes {
		n := &f.Nodes[i]
		n.Mount, n.Log = d.Mount(n.Name), d.Log(n.Name)
	}
}

// Save writes the cluster file in one step: a reader, and a crash, sees the
// old content or the new.
func (d Dir) Save(f *File) error {
	d.place(f)
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return WriteFile(d.file(), append(b, '\n'), 0o644)
}

// WriteFile replaces the file called name in one step.
func WriteFile(name string, content []byte, perm fs.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".tmp*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails once it is renamed, as it should
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Chmod(perm), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}

// Lock lets the caller alone change the system in d until release is called.
// It does not wait: while another command works on d, the error is EBUSY,
// wrapped. The directory must exist.
func (d Dir) Lock() (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(string(d), ".lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		f.Close()
		return nil, fmt.Errorf("another zoidfs up or down is at work in %s: %w", d, syscall.EBUSY)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
