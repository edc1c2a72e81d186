package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/errno"
)

// maxStale is how many dead mounts on top of each other are taken away.
const maxStale = 16

// prepareMountpoint returns the absolute path of a directory on which can be
// mounted, and takes dead FUSE mounts away from it first.
func prepareMountpoint(ctx context.Context, dir string, log *slog.Logger) (string, error) {
	point, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	for range maxStale {
		err = errno.AskMount(func() error { return unix.Stat(point, &st) })
		if !errno.DeadMount(err) {
			break
		}
		log.Warn("taking away a dead mount", "mountpoint", point)
		if err := unmount(ctx, point, true); err != nil {
			return "", fmt.Errorf("take away the dead mount at %s: %w", point, err)
		}
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("mount point %s does not exist", point)
	case err != nil:
		return "", fmt.Errorf("mount point %s: %w", point, err)
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return "", fmt.Errorf("mount point %s is not a directory", point)
	}
	if point, err = filepath.EvalSymlinks(point); err != nil {
		return "", fmt.Errorf("mount point %s: %w", dir, err)
	}
	busy, err := hasFuseMount(point)
	if err != nil {
		return "", fmt.Errorf("mount point %s: %w", point, err)
	}
	if busy {
		return "", fmt.Errorf("mount point %s is in use: a FUSE file system is mounted there", point)
	}
	return point, nil
}

// hasFuseMount reports whether dir is the root of a FUSE file system.
func hasFuseMount(dir string) (bool, error) {
	var here, up unix.Stat_t
	if err := unix.Stat(dir, &here); err != nil {
		return false, err
	}
	if err := unix.Stat(filepath.Dir(dir), &up); err != nil {
		return false, err
	}
	if here.Dev == up.Dev {
		return false, nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return false, err
	}
	return fs.Type == unix.FUSE_SUPER_MAGIC, nil
}

// mountError makes one line of what was said when mounting failed.
func mountError(point string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist) && !exists("/dev/fuse"):
		return errors.New("mount: no /dev/fuse here: load the kernel module fuse, or give the container the device")
	case errors.Is(err, exec.ErrNotFound):
		return errors.New("mount: fusermount3 is not installed: without root it is needed (Debian package fuse3)")
	}
	return fmt.Errorf("mount %s: %s", point, strings.TrimSpace(err.Error()))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// unmount takes away what is mounted at point. With force it does so even if
// it is in use, and calls in progress there end with an error. EBUSY if it is
// in use.
func unmount(ctx context.Context, point string, force bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if force {
		flags |= unix.MNT_FORCE | unix.MNT_DETACH
	}
	err := unix.Unmount(point, flags)
	if err != unix.EPERM {
		return err
	}
	return fusermountUnmount(ctx, point, force)
}

// fusermountUnmount is unmount for a user who is not root. The helper only
// detaches a mount that is in use; its users keep it until our process ends
// unless the kernel's control file system lets us cut the connection.
func fusermountUnmount(ctx context.Context, point string, force bool) error {
	args := []string{"-u", point}
	if force {
		abortConnection(point)
		args = []string{"-u", "-z", point}
	}
	var msg bytes.Buffer
	cmd := exec.CommandContext(ctx, "fusermount3", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stderr = &msg
	err := cmd.Run()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(msg.String())
	if strings.Contains(text, "busy") { // the helper has no exit code for it
		return syscall.EBUSY
	}
	return fmt.Errorf("%w: %s", err, text)
}

// abortConnection ends all calls in progress at the FUSE mount at point.
// Source: Linux Documentation/filesystems/fuse, "Control filesystem".
func abortConnection(point string) {
	dev, err := mountDevice(point)
	if err != nil {
		return
	}
	path := fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", dev)
	if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
		f.WriteString("1")
		f.Close()
	}
}

// mountDevice returns the minor device number of the mount at point without
// asking the mounted file system.
func mountDevice(point string) (uint32, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, point, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_MODE, &st)
	return st.Dev_minor, err
}
