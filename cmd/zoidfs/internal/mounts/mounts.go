// Package mounts looks at the mount table and takes mounts away.
//
// It knows how a dead FUSE file system looks and how to be rid of it, as root
// or through fusermount3. It mounts nothing. Safe for concurrent use.
// Sources: proc_pid_mountinfo(5), umount(2), fusermount3(1).
package mounts

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/errno"
)

// FSType is the type under which the kernel shows our mounts.
const FSType = "fuse.zoidfs"

// Mount is one line of the mount table.
type Mount struct {
	Point  string // absolute
	FSType string
	Source string
}

// List returns the mounts that this process sees, in the order in which they
// were made: a later one at the same point hides an earlier one.
func List() ([]Mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parse(f)
}

func parse(r io.Reader) ([]Mount, error) {
	var out []Mount
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		head, tail, ok := strings.Cut(lines.Text(), " - ")
		h, t := strings.Fields(head), strings.Fields(tail)
		if !ok || len(h) < 5 || len(t) < 2 {
			return nil, fmt.Errorf("mountinfo: unreadable line %q", lines.Text())
		}
		out = append(out, Mount{Point: unescape(h[4]), FSType: t[0], Source: unescape(t[1])})
	}
	return out, lines.Err()
}

// unescape undoes the octal escapes that the kernel writes for space, tab,
// newline and backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// At returns the topmost mount at point, which must be absolute and clean.
func At(point string) (Mount, bool, error) {
	all, err := List()
	if err != nil {
		return Mount{}, false, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Point == point {
			return all[i], true, nil
		}
	}
	return Mount{}, false, nil
}

// Resolve returns the absolute path of a mount point without touching the
// point itself, which may hang or fail when its file system is dead. No name is
// not the working directory.
func Resolve(point string) (string, error) {
	if point == "" {
		return "", errors.New("the name of the mount point is empty")
	}
	abs, err := filepath.Abs(point)
	if err != nil || abs == "/" {
		return abs, err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.Base(abs)), nil
}

// Answer asks the file system at point for its figures. The error is the
// context's when no answer came in time: the call itself cannot be taken
// back, and its goroutine ends when the kernel answers.
func Answer(ctx context.Context, point string) error {
	return Do(ctx, func() error {
		var st unix.Statfs_t
		if err := errno.AskMount(func() error { return unix.Statfs(point, &st) }); err != nil {
			return fmt.Errorf("statfs %s: %w", point, err)
		}
		return nil
	})
}

// Do runs call, which may be stuck in a file system that does not answer, and
// returns its error or the context's, whichever comes first.
func Do(ctx context.Context, call func() error) error {
	done := make(chan error, 1)
	go func() { done <- call() }() // the one goroutine that may outlive its caller
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ClearStale takes away the mounts of ours at point whose process is gone, and
// reports whether there were any. The error is EBUSY, wrapped, when something
// is mounted there that works, or is not ours.
func ClearStale(ctx context.Context, point string) (bool, error) {
	for cleared := false; ; cleared = true {
		m, found, err := At(point)
		if err != nil || !found {
			return cleared, err
		}
		if m.FSType != FSType {
			return cleared, fmt.Errorf("%s is a mount point of type %s: %w", point, m.FSType, syscall.EBUSY)
		}
		err = Answer(ctx, point)
		if err == nil {
			return cleared, fmt.Errorf("%s is already mounted from %s: %w", point, m.Source, syscall.EBUSY)
		}
		if !errno.DeadMount(err) {
			return cleared, err
		}
		if err := Unmount(ctx, point, true); err != nil {
			return cleared, err
		}
	}
}

// Unmount takes the topmost mount at point away; lazy detaches it even while
// it is in use.
func Unmount(ctx context.Context, point string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	err := Do(ctx, func() error { return unix.Unmount(point, flags) })
	if err == nil || !errors.Is(err, syscall.EPERM) {
		if err != nil {
			return fmt.Errorf("unmount %s: %w", point, err)
		}
		return nil
	}
	helper, err := Fusermount()
	if err != nil {
		return err
	}
	args := []string{"-u", point}
	if lazy {
		args = []string{"-u", "-z", point}
	}
	var msg bytes.Buffer
	cmd := exec.CommandContext(ctx, helper, args...)
	cmd.Stderr = &msg
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(msg.String()); text != "" {
			return fmt.Errorf("%w: %s", err, text)
		}
		return fmt.Errorf("unmount %s: %s: %w", point, helper, err)
	}
	return nil
}

// Fusermount returns the path of the set-uid helper by which a user who is
// not root mounts and unmounts, or an error that says what to install.
func Fusermount() (string, error) {
	for _, name := range []string{"fusermount3", "fusermount"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("fusermount3 is not installed: without root it is needed to mount (Debian package fuse3)")
}

// Possible returns nil when this user can mount FUSE file systems here, or an
// error that says in one line what is missing.
func Possible() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errors.New("cannot mount: there is no /dev/fuse; load the kernel module fuse, or give this container the device")
	case errors.Is(err, os.ErrPermission):
		return errors.New("cannot mount: this user may not open /dev/fuse, whose mode should be 0666")
	case err != nil:
		return fmt.Errorf("cannot mount: %w", err)
	}
	f.Close()
	if os.Geteuid() == 0 {
		return nil
	}
	_, err = Fusermount()
	return err
}

// Restrict adds flags such as MS_NOSUID to the mount at point, besides those
// that it has.
func Restrict(point string, flags uintptr) error {
	if flags == 0 {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(point, &st); err != nil {
		return err
	}
	have := uintptr(st.Flags) & (unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC | unix.ST_NOATIME | unix.ST_NODIRATIME | unix.ST_RELATIME)
	// ST_ and MS_ flags have the same bits, but for relatime.
	if have&unix.ST_RELATIME != 0 {
		have = have&^unix.ST_RELATIME | unix.MS_RELATIME
	}
	if have&flags == flags {
		return nil
	}
	if err := unix.Mount("", point, "", unix.MS_REMOUNT|unix.MS_BIND|have|flags, ""); err != nil {
		return fmt.Errorf("mount options of %s: %w", point, err)
	}
	return nil
}
