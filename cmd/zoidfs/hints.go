package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/mounts"
	"github.com/zoidfs/zoidfs/internal/hints"
	"github.com/zoidfs/zoidfs/pvfs/striping"
	"golang.org/x/sys/unix"
)

func (a *app) hintsCommand() *cobra.Command {
	var set []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "hints [--set HINT=VALUE]... [--json] FILE",
		Short: "print MPI-IO hints that fit a file, or set them",
		Long: "hints prints the hints that fit the distribution and the consistency mode of a file, or of those that will be made in\n" +
			"a directory, as a file that ROMIO reads (ROMIO_HINTS). --set first sets hints of FILE, as extended attributes\n" +
			"user.zoidfs.HINT; VALUE default takes one back. Files and directories made in a directory get its hints.\n\n" +
			"  cb_buffer_size   bytes of FILE that an I/O node fetches or writes back at a time, in whole file domains of 4 MiB, as far\n" +
			"                   as an eighth of its cache; from the next open on. Without it: 4 MiB for each server of the file\n" +
			"  striping_unit    of a directory: bytes of a strip of files that will be made in it, as zoidfs stripe set --strip-size\n" +
			"  striping_factor  of a directory: servers of such files, as zoidfs stripe set --servers\n" +
			"  cb_nodes         aggregators of MPI libraries; over which I/O nodes a file is spread does not depend on it",
		Example: "  zoidfs hints /zfs/results >hints && ROMIO_HINTS=$PWD/hints mpiexec -n 64 ./program /zfs/results/out\n" +
			"  zoidfs hints --set cb_buffer_size=33554432 --set striping_unit=1048576 /zfs/results",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("which FILE? one, please")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := hintFile(cmd.Context(), args[0], set)
			if err != nil {
				return err
			}
			list := hints.Of(f)
			if !asJSON {
				return hints.Write(a.out, args[0], list)
			}
			out := make(map[string]string)
			for _, h := range list {
				out[h.Name] = h.Value
			}
			return printJSON(a.out, out)
		},
	}
	cmd.Flags().StringArrayVar(&set, "set", nil, "set a hint, `HINT=VALUE`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// hintFile is what the hints of a file follow from, when those of set are set.
func hintFile(ctx context.Context, path string, set []string) (f hints.File, err error) {
	info, err := stripeInfo(ctx, path) // refuses what lies elsewhere, before anything is set there
	if err != nil {
		return f, err
	}
	if len(set) > 0 {
		if err := setHints(ctx, path, set); err != nil {
			return f, err
		}
		if info, err = stripeInfo(ctx, path); err != nil {
			return f, err
		}
	}
	here, err := modeHere(ctx, path)
	if err != nil {
		return f, err
	}
	f = hints.File{
		StripSize: info.StripSize, StripeWidth: info.StripeWidth, Servers: info.NumServers, Mode: here.Mode,
		Set: make(map[string]int64),
	}
	for _, name := range []string{hints.CBNodes, hints.CBBufferSize} {
		value := make([]byte, 64)
		var n int
		err := mounts.Do(ctx, func() (err error) { n, err = unix.Getxattr(path, hints.Xattr(name), value); return err })
		if errors.Is(err, syscall.ENODATA) {
			continue
		}
		if err != nil {
			return f, &os.PathError{Op: "hints of", Path: path, Err: err}
		}
		if f.Set[name], err = hints.Parse(name, string(value[:n])); err != nil {
			return f, err
		}
	}
	return f, nil
}

// canStripe says why a hint cannot have the value n, 0 being default, if it says how
// files are to be striped.
func canStripe(ctx context.Context, path, hint string, n int64) error {
	if !hints.Stripes(hint) {
		return nil
	}
	info, err := stripeInfo(ctx, path)
	switch {
	case err != nil:
		return err
	case info.Type != striping.TypeDirectory && n > 0:
		return errors.New("a file is striped as it was made: set it on its directory before")
	case info.Type != striping.TypeDirectory || n == 0:
		return nil
	}
	f := setFlags{stripSize: n}
	if hint == hints.StripingFactor {
		f = setFlags{serverCount: n}
	}
	_, err = f.wish(info)
	return err
}

// setHints sets hints given as HINT=VALUE.
func setHints(ctx context.Context, path string, set []string) error {
	for _, s := range set {
		name, value, _ := strings.Cut(s, "=")
		change := func() error { return unix.Setxattr(path, hints.Xattr(name), []byte(value), 0) }
		n, err := hints.Parse(name, value)
		if err != nil && (value != "default" || hints.Unknown(name)) {
			return fmt.Errorf("--set: %w", err)
		}
		if err := canStripe(ctx, path, name, n); err != nil {
			return fmt.Errorf("--set %s: %s: %w", s, path, err)
		}
		if value == "default" {
			change = func() error {
				if err := unix.Removexattr(path, hints.Xattr(name)); !errors.Is(err, syscall.ENODATA) {
					return err
				}
				return nil
			}
		}
		if err := mounts.Do(ctx, change); err != nil {
			return &os.PathError{Op: "set " + name + " of", Path: path, Err: err}
		}
	}
	return nil
}
