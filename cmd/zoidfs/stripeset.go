package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/mounts"
	"github.com/zoidfs/zoidfs/pvfs/striping"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// setFlags are what stripe set is to change; the empty string leaves things as
// they are.
type setFlags struct {
	recursive, clear       bool
	size, dist             string
	params, servers        string
	stripSize, serverCount int64 // size and servers as numbers; 0: not given, serverCount -1: all
}

func (a *app) stripeSetCommand() *cobra.Command {
	var f setFlags
	cmd := &cobra.Command{
		Use:   "set [-R] [--strip-size BYTES] [--servers N|all] [--dist NAME] [--params LIST] | --clear  PATH...",
		Short: "set what directories wish for the files made in them",
		Long: "set changes how files will be striped that are made in the directories PATH from now on. Directories made below them\n" +
			"later wish the same; -R sets it on all that are there already. Files that exist keep their striping: copy them into a\n" +
			"directory that wishes another one. What is not given stays as it was. The wishes are those of OrangeFS: its tools see them\n" +
			"as user.pvfs2.num_dfiles, user.pvfs2.dist_name and user.pvfs2.dist_params.\n\n" +
			"Distributions and their parameters, separated by commas:\n" +
			"  simple_stripe   strip_size:BYTES (--strip-size); strips of equal size on all servers in turn\n" +
			"  basic_dist      the whole file on one server\n" +
			"  twod_stripe     num_groups:N, strip_size:BYTES, group_strip_factor:N; N stripes over each group of servers in turn\n" +
			"  varstrip_dist   strips:0:SIZE;1:SIZE;... a pattern of strips of any sizes",
		Example: "  zoidfs stripe set --strip-size 1M --servers all /zfs/results\n" +
			"  zoidfs stripe set --dist varstrip_dist --params 'strips:0:64K;1:1M' /zfs/odd\n" +
			"  zoidfs stripe set --clear -R /zfs/results",
		Args: needPaths,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return eachPath(cmd.Context(), args, f.recursive, func(path string, mode fs.FileMode) error {
				if f.recursive && !mode.IsDir() && !slices.Contains(args, path) {
					return nil
				}
				return f.set(cmd.Context(), path)
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.recursive, "recursive", "R", false, "also all directories below")
	flags.BoolVar(&f.clear, "clear", false, "wish nothing: new files are striped as the file system has it by default")
	flags.StringVar(&f.size, "strip-size", "", "`BYTES` of a strip, with K, M or G for powers of 1024")
	flags.StringVar(&f.size, "size", "", "the same as --strip-size")
	flags.StringVar(&f.servers, "servers", "", "stripe over `N` servers, or over all")
	flags.StringVar(&f.dist, "dist", "", "`NAME` of the distribution")
	flags.StringVar(&f.params, "params", "", "`LIST` of the distribution's parameters")
	cmd.MarkFlagsMutuallyExclusive("strip-size", "size")
	return cmd
}

// check refuses flags that make no sense, whatever the file system, and reads
// their numbers.
func (f *setFlags) check() (err error) {
	given := f.size != "" || f.servers != "" || f.dist != "" || f.params != ""
	switch {
	case f.clear && given:
		return errors.New("--clear excludes --strip-size, --servers, --dist and --params")
	case !f.clear && !given:
		return errors.New("nothing to set: give --strip-size, --servers, --dist, --params or --clear")
	}
	if f.size != "" {
		if f.stripSize, err = parseSize(f.size); err != nil || f.stripSize > striping.MaxStrip {
			return fmt.Errorf("--strip-size %q is not between 1 and %s bytes", f.size, sizeText(striping.MaxStrip))
		}
	}
	switch f.servers {
	case "":
	case "all":
		f.serverCount = -1
	default:
		if f.serverCount, err = strconv.ParseInt(f.servers, 10, 32); err != nil || f.serverCount <= 0 {
			return fmt.Errorf("--servers %q is neither a number of servers nor all", f.servers)
		}
	}
	if f.dist != "" && !slices.Contains(striping.Names(), f.dist) {
		return fmt.Errorf("--dist %q: there are %s", f.dist, strings.Join(striping.Names(), ", "))
	}
	return nil
}

// parseSize reads a positive number of bytes, with K, M, G or T for powers of
// 1024; KiB and the like are the same.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "kKmMgGtTiIbB")
	unit, ok := map[string]int64{
		"": 1, "b": 1, "k": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mib": 1 << 20, "g": 1 << 30, "gib": 1 << 30, "t": 1 << 40, "tib": 1 << 40,
	}[strings.ToLower(s[len(digits):])]
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n <= 0 || n > math.MaxInt64/unit || digits[0] == '+' {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	return n * unit, nil
}

// set changes what one directory wishes.
func (f *setFlags) set(ctx context.Context, path string) error {
	info, err := stripeInfo(ctx, path)
	if err != nil {
		return err
	}
	if info.Type != striping.TypeDirectory {
		return fmt.Errorf("%s is a file, whose striping was fixed when it was made: set that of a directory and copy the file into it", path)
	}
	if f.clear {
		err = mounts.Do(ctx, func() error { return unix.Removexattr(path, striping.Xattr) })
	} else {
		var w striping.Wish
		if w, err = f.wish(info); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		value, jsonErr := json.Marshal(w)
		if jsonErr != nil {
			return jsonErr
		}
		err = mounts.Do(ctx, func() error { return unix.Setxattr(path, striping.Xattr, value, 0) })
	}
	switch {
	case errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("%s: the servers cannot stripe so: %w", path, err)
	case err != nil:
		return &os.PathError{Op: "stripe", Path: path, Err: err}
	}
	return nil
}

// wish is what the directory, of which info tells, will wish.
func (f *setFlags) wish(info striping.Info) (striping.Wish, error) {
	var w striping.Wish
	if info.Wish != nil {
		w = *info.Wish
	}
	switch {
	case f.serverCount < 0:
		w.Servers = info.DataServers
	case f.serverCount > 0:
		w.Servers = int(f.serverCount)
	}
	dist := f.dist
	if dist == "" && f.params != "" {
		dist = striping.DistOf(f.params)
	}
	if dist != "" && dist != w.Dist {
		w.Dist, w.Params = dist, ""
		if dist == wire.BasicDist && f.serverCount == 0 {
			w.Servers = 0
		}
	}
	if f.params != "" {
		w.Params = f.params
	}
	if f.stripSize != 0 {
		if f.params != "" && strings.Contains(f.params, "strip_size:") {
			return w, errors.New("the strip size is given twice, by --strip-size and in --params")
		}
		var err error
		if w, err = w.WithStrip(f.stripSize); err != nil {
			return w, err
		}
	}
	return w, w.Check(info.Limits())
}
