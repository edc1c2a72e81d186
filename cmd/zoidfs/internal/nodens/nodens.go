// Package nodens gives a process the view of one compute node: a private
// mount namespace in which the mount of that node stands at /zfs.
//
// Root needs nothing else. Everybody else gets a user namespace around it and,
// where the directory /zfs does not exist, a root directory of its own that
// looks like the old one with /zfs added. It starts no job and knows no rank.
// Nothing here changes what other processes see.
// Sources: mount_namespaces(7), user_namespaces(7), pivot_root(2).
package nodens

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Target is where the node's mount appears to a job.
const Target = "/zfs"

// View says what a process is to see.
type View struct {
	Source  string // the node's mount point, absolute
	Target  string // where it is to appear: a directory in /
	Scratch string // an empty directory, used only when Target cannot be made
}

// Private moves the calling process into a mount namespace of its own. The
// calling goroutine must stay on its thread, and the process must become the
// wanted program by exec from there, because the namespace is the thread's.
func Private() error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("no private mount namespace for %s: %w (root in this container lacks CAP_SYS_ADMIN)", Target, err)
	}
	return nil
}

// ChildOfUser returns the attributes with which a user who is not root starts
// a process in a private mount namespace. The process keeps the user's ids and
// has, until it calls DropPrivileges, the right to mount in its namespace.
func ChildOfUser() *syscall.SysProcAttr {
	uid, gid := os.Getuid(), os.Getgid()
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN},
	}
}

// Explain turns the error of starting a process with ChildOfUser into one
// line that says what the kernel forbids.
func Explain(err error) error {
	for _, e := range []error{syscall.EPERM, syscall.ENOSPC, syscall.EINVAL, syscall.EACCES} {
		if errors.Is(err, e) {
			return fmt.Errorf("without root %s needs user namespaces, which this kernel forbids "+
				"(sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns): %w", Target, e)
		}
	}
	return err
}

// Setup makes the node's mount appear at v.Target. The calling process must be
// in a private mount namespace already.
func Setup(v View) error {
	src, err := unix.Open(v.Source, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", v.Source, err)
	}
	defer unix.Close(src)
	source := "/proc/self/fd/" + strconv.Itoa(src)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make / private: %w", err)
	}
	err = os.Mkdir(v.Target, 0o755)
	if err == nil || errors.Is(err, os.ErrExist) {
		return bind(source, v.Target, 0)
	}
	if err := newRoot(v.Scratch, source, v.Target); err != nil {
		return fmt.Errorf("show %s, which does not exist here, in a root directory of its own: %w", v.Target, err)
	}
	return nil
}

// newRoot makes a tmpfs over scratch the root directory, with everything of
// the old root bound into it and source at target.
func newRoot(scratch, source, target string) error {
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", scratch, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount a tmpfs at %s: %w", scratch, err)
	}
	// Otherwise the entry below which scratch lies would contain it again.
	if err := unix.Mount("", scratch, "", unix.MS_UNBINDABLE, ""); err != nil {
		return err
	}
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := graft(scratch, e); err != nil {
			return err
		}
	}
	place := filepath.Join(scratch, target)
	if err := os.Mkdir(place, 0o755); err != nil {
		return err
	}
	if err := bind(source, place, 0); err != nil {
		return err
	}
	if err := os.Chdir(scratch); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	// The old root now lies on top of the new one.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	return os.Chdir(cwd)
}

// graft makes the entry e of / appear in root.
func graft(root string, e os.DirEntry) error {
	old, name := filepath.Join("/", e.Name()), filepath.Join(root, e.Name())
	switch {
	case e.Type()&os.ModeSymlink != 0:
		to, err := os.Readlink(old)
		if err != nil {
			return err
		}
		return os.Symlink(to, name)
	case e.IsDir():
		if err := os.Mkdir(name, 0o755); err != nil {
			return err
		}
	default:
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			return err
		}
	}
	return bind(old, name, unix.MS_REC)
}

func bind(from, to string, flags uintptr) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND|flags, ""); err != nil {
		return fmt.Errorf("bind %s: %w", to, err)
	}
	return nil
}

// DropPrivileges gives up what ChildOfUser gave, for the program that follows.
func DropPrivileges() error {
	return unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
}

// DieWith makes the kernel kill this process when its parent, which must be
// the process with pid parent, ends. It must be called after every change of
// credentials, which undoes it.
func DieWith(parent int) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	if os.Getppid() != parent {
		return errors.New("whoever started this process is gone")
	}
	return nil
}
