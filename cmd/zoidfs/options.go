package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/budget"
	"github.com/zoidfs/zoidfs/fs"
	"github.com/zoidfs/zoidfs/internal/consistency"
)

// optionHelp describes the mount options.
const optionHelp = `Options (-o):
  consistency=MODE      mode of files for which none is set (default strong): strong, commit, session, eventual or
                        laminated; see zoidfs consistency --help
  visibility=DURATION   time after which an eventual write is seen everywhere (default 5s)
  cache=SIZE            memory for file data, with K, M or G for powers of 1024 (default: a sixteenth of the machine's,
                        from 256M to 4G)
  guard=off|warn|upgrade|fail   what to do about races of nodes in weak modes (default off): log them, make the file strong, or
                        fail with EREMCHG; see docs/advise.md
  collective=on|off     merge what the ranks of this node ask for (default on); off lets every call pass as it comes
  io_uring=on|off       take requests from a queue of each processor if the kernel offers that (default on)
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

	consistency consistency.Mode // Default: not given
	visibility  time.Duration    // 0: not given
	cache       int64            // bytes; 0: not given
	collective  string           // on, off; empty: not given
	ioURing     string           // on, off; empty: not given
	guard       fs.Guard
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

// dataOptions are those that mountOptions.data reads.
var dataOptions = []string{"consistency", "visibility", "cache", "collective", "guard", "io_uring"}

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
		case hasValue && slices.Contains(dataOptions, name):
			if err := opt.data(name, value); err != nil {
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

// data reads one of the options about file data.
func (o *mountOptions) data(name, value string) (err error) {
	switch name {
	case "consistency":
		o.consistency, err = consistency.Parse(value)
	case "visibility":
		o.visibility, err = parseVisibility(value)
	case "cache":
		o.cache, err = parseCache(value, fs.MinCache)
	case "guard":
		o.guard, err = fs.ParseGuard(value)
	case "collective":
		o.collective, err = value, parseOnOff(value)
	case "io_uring":
		o.ioURing, err = value, parseOnOff(value)
	}
	return err
}

// parseVisibility reads a time after which writes are to be seen.
func parseVisibility(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < fs.MinVisibility || d > fs.MaxVisibility {
		return 0, fmt.Errorf("%q is not a time between %v and %v, such as 5s", s, fs.MinVisibility, fs.MaxVisibility)
	}
	return d, nil
}

// parseCache reads an amount of memory for file data.
func parseCache(s string, least int64) (int64, error) {
	n, err := parseSize(s)
	if err != nil || n < least {
		return 0, fmt.Errorf("%q is not a size of at least %s, such as 1G", s, sizeText(least))
	}
	if most := budget.Limit() >> 20 << 20; n > most {
		return 0, fmt.Errorf("%q is more memory than there is for this process, %s", s, sizeText(most))
	}
	return n, nil
}

// Whether calls of many ranks are merged.
const (
	on  = "on"
	off = "off"
)

// parseOnOff refuses what is neither on nor off.
func parseOnOff(s string) error {
	if s != on && s != off {
		return fmt.Errorf("%q is neither on nor off", s)
	}
	return nil
}
