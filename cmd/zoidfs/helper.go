package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// helperArgs rewrites the command lines by which mount(8) calls a helper into
// those of `zoidfs mount`; any other command line is returned as it is. It
// returns nil when there is nothing to do. name is the base name of the
// program.
//
// There are two ways. A symbolic link /sbin/mount.fuse.zoidfs (or mount.zoidfs)
// to this program is called as
//
//	mount.fuse.zoidfs SOURCE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]
//
// and without the link mount.fuse3 runs
//
//	zoidfs SOURCE MOUNTPOINT -o OPTIONS
//
// Source: mount(8) EXTERNAL HELPERS, mount.fuse3(8).
func helperArgs(name string, args []string) ([]string, error) {
	linked := strings.HasPrefix(name, "mount.")
	if !linked && !(len(args) >= 2 && isSource(args[0]) && strings.HasPrefix(args[1], "/")) {
		return args, nil
	}
	var operands, options []string
	fake := false
	for i := 0; i < len(args); i++ {
		a := args[i]
		if !strings.HasPrefix(a, "-") || a == "-" {
			operands = append(operands, a)
			continue
		}
		if a == "-o" || a == "-t" || a == "-N" {
			i++
			switch {
			case i == len(args):
				return nil, fmt.Errorf("mount helper: option %s needs a value", a)
			case a == "-N":
				return nil, errors.New("mount helper: mounting in another namespace (-N) is not supported")
			case a == "-o":
				options = append(options, args[i])
			}
			continue
		}
		for _, c := range a[1:] {
			switch c {
			case 'f':
				fake = true
			case 'r':
				options = append(options, "ro")
			case 'w':
				options = append(options, "rw")
			case 's', 'n', 'v': // sloppy, no mtab, verbose: nothing to do
			default:
				return nil, fmt.Errorf("mount helper: unknown option -%c", c)
			}
		}
	}
	if len(operands) != 2 {
		return nil, fmt.Errorf("mount helper: want SOURCE and MOUNTPOINT, got %d words: %s", len(operands), strings.Join(operands, " "))
	}
	if fake {
		return nil, nil
	}
	words := []string{"mount", operands[1], "--ion", operands[0]}
	if len(options) > 0 {
		words = append(words, "-o", strings.Join(options, ","))
	}
	return words, nil
}

// isSource reports whether s looks like what stands in the first column of
// fstab for us: HOST:PORT[,HOST:PORT...].
func isSource(s string) bool {
	return s != "" && !strings.HasPrefix(s, "-") && !slices.ContainsFunc(strings.Split(s, ","), func(a string) bool {
		return strings.LastIndexByte(a, ':') <= 0
	})
}
