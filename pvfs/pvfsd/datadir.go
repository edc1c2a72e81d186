package pvfsd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// identity says whose data a directory holds.
type identity struct {
	fsID  wire.FSID
	alias string
}

// check compares id with what the file "identity" in dir says, which it writes
// at first use. The metadata have their identity in the database.
func (id identity) check(dir string) error {
	name := filepath.Join(dir, "identity")
	want := fmt.Sprintf("pvfsd format %d, file system %d, server %s", formatVersion, id.fsID, id.alias)
	got, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return writeFile(name, want+"\n")
	case err != nil:
		return fmt.Errorf("identity: %w", err)
	case strings.TrimSpace(string(got)) != want:
		return errno.Wrap("pvfsd.Open", syscall.EINVAL, fmt.Errorf("%s says %q, this is %q", name, strings.TrimSpace(string(got)), want))
	}
	return nil
}

// claim makes dir, locks it unless that is done already, and checks that it is
// id's. The lock is nil if it was not taken here.
func (id identity) claim(dir string, locked bool) (lock *os.File, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if !locked {
		if lock, err = lockDir(dir); err != nil {
			return nil, err
		}
	}
	if err := id.check(dir); err != nil {
		if lock != nil {
			lock.Close()
		}
		return nil, err
	}
	return lock, nil
}

// lockDir takes the lock that keeps a second process out of dir.
func lockDir(dir string) (*os.File, error) {
	name := filepath.Join(dir, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		who, _ := os.ReadFile(name)
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errno.Wrap("pvfsd.Open", syscall.EBUSY,
				fmt.Errorf("data directory %s is in use by another server (pid %s)", dir, strings.TrimSpace(string(who))))
		}
		return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
	}
	// The pid is for people who read the message above; the lock is the flock.
	if err := f.Truncate(0); err == nil {
		fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return f, nil
}
