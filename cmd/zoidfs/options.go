package main

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// optionHelp describes the mount options.
const optionHelp = `Options (-o):
  consistency=strong    consistency mode
  ro, rw                read only, or not
  allow_other           let other users use the mount (always so when root mounts)
  nosuid nodev noexec noatime nodiratime   as in mount(8)
  metrics=HOST:PORT, log-file=FILE         as the flags of these names, for fstab
Options that only concern mount(8) and fstab, such as _netdev, noauto and nofail, are accepted.`

// mountOptions is what -o asks for.
type mountOptions struct {
	readOnly   bool
	allowOther bool
	restrict   uintptr // MS_NOSUID and the like
	metrics    string
	logFile    string
}

// restrictions are the options that the kernel enforces for any file system.
var restrictions = map[string]uintptr{
	"nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME,
}

// mountersOwn are options that mean something to mount(8), fstab or systemd
// and nothing to a file system, or that ask for what is so anyway.
var mountersOwn = []string{
	"defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "_netdev", "nofail",
	"suid", "dev", "exec", "atime", "diratime", "relatime", "norelatime", "async", "default_permissions",
}

// parseOptions reads the values of all -o flags; later options win.
func parseOptions(lists []string) (mountOptions, error) {
	opt := mountOptions{}
	for _, word := range strings.Split(strings.Join(lists, ","), ",") {
		name, value, hasValue := strings.Cut(word, "=")
		if !hasValue && restrictions[name] != 0 {
			opt.restrict |= restrictions[name]
			continue
		}
		switch {
		case word == "":
		case word == "ro":
			opt.readOnly = true
		case word == "rw":
			opt.readOnly = false
		case word == "allow_other":
			opt.allowOther = true
		case name == "consistency" && hasValue:
			if err := checkMode(value); err != nil {
				return opt, fmt.Errorf("-o %s: %w", word, err)
			}
		case name == "metrics" && hasValue:
			if err := hostPort("-o metrics", value); err != nil {
				return opt, err
			}
			opt.metrics = value
		case name == "log-file" && value != "":
			opt.logFile = value
		case !hasValue && slices.Contains(mountersOwn, name), strings.HasPrefix(name, "x-"), name == "comment":
		default:
			return opt, fmt.Errorf("unknown mount option %q, see: zoidfs mount --help", word)
		}
	}
	return opt, nil
}
