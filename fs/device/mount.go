package device

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// mount mounts at point, and returns the descriptor of the device. DirectMountStrict
// says that this process may, else fusermount3 does it.
func mount(point string, opt *fuse.MountOptions) (fd int, err error) {
	if opt.DirectMountStrict {
		return mountDirect(point, opt)
	}
	return mountByHelper(point, opt)
}

// mountDirect mounts with mount(2).
// Source: Linux Documentation/filesystems/fuse, "Mount options".
func mountDirect(point string, opt *fuse.MountOptions) (fd int, err error) {
	var st unix.Stat_t
	if err := unix.Stat(point, &st); err != nil {
		return -1, err
	}
	if fd, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return -1, err
	}
	data := append(options(opt), fmt.Sprint("fd=", fd), fmt.Sprintf("rootmode=%o", st.Mode&unix.S_IFMT),
		fmt.Sprint("user_id=", os.Geteuid()), fmt.Sprint("group_id=", os.Getegid()))
	if err := unix.Mount(opt.FsName, point, "fuse."+opt.Name, unix.MS_NOSUID|unix.MS_NODEV, strings.Join(data, ",")); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// options are those of a mount by whatever way.
func options(opt *fuse.MountOptions) []string {
	all := append([]string{fmt.Sprint("max_read=", opt.MaxWrite)}, opt.Options...)
	if opt.AllowOther {
		all = append(all, "allow_other")
	}
	return all
}

// mountByHelper has fusermount3 mount, which is installed setuid root and passes
// the device back through a socket. Source: fusermount3(1), _FUSE_COMMFD.
func mountByHelper(point string, opt *fuse.MountOptions) (fd int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	ours, its := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "fusermount3's")
	defer ours.Close()
	defer its.Close()
	named := append(options(opt), "fsname="+opt.FsName, "subtype="+opt.Name)
	var msg bytes.Buffer
	cmd := exec.Command("fusermount3", "-o", strings.Join(named, ","), "--", point)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{its}
	cmd.Stderr = &msg
	if err := cmd.Run(); err != nil {
		if said := strings.TrimSpace(msg.String()); said != "" {
			return -1, errors.New(said)
		}
		return -1, err
	}
	return receive(pair[0])
}

// receive takes a descriptor from a socket, to be closed when this process
// executes another program.
func receive(socket int) (fd int, err error) {
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return -1, errors.Join(errors.New("fusermount3 passed no device back"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.Join(errors.New("fusermount3 passed no device back"), err)
	}
	return fds[0], nil
}
