package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/mounts"
	"github.com/zoidfs/zoidfs/internal/consistency"
)

func (a *app) consistencyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "consistency get|set PATH... [MODE]",
		Short: "what other nodes must see of a write, and from when on",
		Long: "consistency shows and sets the consistency modes of files, and of what will be made in directories:\n" +
			modeHelp + "\n" +
			"The mode of a mount (-o consistency=MODE) holds where none is set. docs/consistency.md defines the modes.",
		Example: "  zoidfs consistency set /zfs/checkpoints session\n" +
			"  zoidfs consistency get --open /zfs/checkpoints/step-1.h5",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%q is neither get nor set", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.consistencyGetCommand(), a.consistencySetCommand())
	return cmd
}

// modeHelp says in a line what each mode is.
const modeHelp = `  strong      every write, once it has returned
  commit      what was written before an fsync, close or unlock
  session     the same, for those who open or lock after it
  eventual    everything, some seconds later
  laminated   as commit, until chmod takes the last write permission away and the file never changes again
`

func (a *app) consistencyGetCommand() *cobra.Command {
	var recursive, asJSON, open bool
	cmd := &cobra.Command{
		Use:   "get [-R] [--open] [--json] PATH...",
		Short: "show in which mode files are opened, and why",
		Long: "get prints for a file the mode of the next open of it on this node, and for a directory that of what will be made in\n" +
			"it; and why: because it was set on it (or on the directory in which it was made), because its name is that of a file by\n" +
			"which an MPI library synchronises, or because it is the mode of the mount. --open also prints in which modes the file is\n" +
			"open on this node now; they stay until it is closed. --json prints one JSON object a path.",
		Example: "  zoidfs consistency get /zfs/results\n" +
			"  zoidfs consistency get --json -R /zfs/results | jq -r 'select(.mode != \"strong\") | .path'",
		Args: needPaths,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := bufio.NewWriterSize(a.out, 64<<10)
			err := eachPath(cmd.Context(), args, recursive, func(path string, mode fs.FileMode) error {
				h, err := modeHere(cmd.Context(), path)
				switch {
				case err != nil:
					return err
				case asJSON:
					return printModeJSON(out, path, h, open)
				}
				return printMode(out, path, h, mode.IsDir(), open)
			})
			return errors.Join(err, out.Flush())
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&recursive, "recursive", "R", false, "also everything below directories")
	flags.BoolVar(&open, "open", false, "also the modes of those who have the file open on this node")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// modeHere asks the mount that path lies on.
func modeHere(ctx context.Context, path string) (h consistency.Here, err error) {
	err = askXattr(ctx, path, consistency.HereXattr, "consistency", "the mount", &h)
	return h, err
}

func printModeJSON(w io.Writer, path string, h consistency.Here, open bool) error {
	if !open {
		h.Open = nil
	}
	return json.NewEncoder(w).Encode(struct {
		Path string `json:"path"`
		consistency.Here
	}{path, h})
}

func printMode(w io.Writer, path string, h consistency.Here, dir, open bool) error {
	why := map[consistency.Source]string{
		consistency.FromName:      "by its name: an MPI library synchronises by it",
		consistency.FromAttribute: "set on this file",
		consistency.FromMount:     "default of the mount",
	}[h.From]
	what := ""
	if dir {
		what = " for what is made in it"
		if h.From == consistency.FromAttribute {
			why = "set on this directory"
		}
	}
	line := fmt.Sprintf("%s: %v%s (%s)", path, h.Mode, what, why)
	if open && !dir {
		line += openText(h)
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// openText says how often the file is open in which mode.
func openText(h consistency.Here) string {
	var parts []string
	for _, m := range consistency.All() {
		if n := h.Open[m]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d in %v", n, m))
		}
	}
	if len(parts) == 0 {
		return "; not open here"
	}
	return "; open here: " + strings.Join(parts, ", ")
}

func (a *app) consistencySetCommand() *cobra.Command {
	var recursive, remove bool
	cmd := &cobra.Command{
		Use:   "set [-R] PATH... MODE|default",
		Short: "set the mode of files, and of what is made in directories",
		Long: "set sets the mode of files and directories for opens that follow, on every node; who has a file open keeps the mode in\n" +
			"which it was opened. What is made in a directory from now on gets the directory's mode; files that are there keep theirs\n" +
			"unless -R sets it on them as well. \"default\", or --remove, leaves the choice to the mount again. The mode is the extended\n" +
			"attribute " + consistency.Xattr + ", which is kept by cp -a, rsync -X and tar --xattrs.\n\n" +
			modeHelp,
		Example: "  zoidfs consistency set /zfs/checkpoints session\n" +
			"  zoidfs consistency set -R /zfs/input laminated && chmod -R a-w /zfs/input\n" +
			"  zoidfs consistency set --remove /zfs/checkpoints",
		Args: needPaths,
		RunE: func(cmd *cobra.Command, args []string) error {
			paths, mode, err := setArgs(args, remove)
			if err != nil {
				return err
			}
			return eachPath(cmd.Context(), paths, recursive, func(path string, _ fs.FileMode) error {
				return setMode(cmd.Context(), path, mode)
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&recursive, "recursive", "R", false, "also everything below directories")
	flags.BoolVar(&remove, "remove", false, "leave the choice to the mount, as with the mode default")
	return cmd
}

// setArgs tells the paths from the mode, which comes last unless it is to be
// removed.
func setArgs(args []string, remove bool) (paths []string, mode consistency.Mode, err error) {
	if remove {
		return args, consistency.Default, nil
	}
	last := len(args) - 1
	if err := mode.UnmarshalText([]byte(args[last])); err != nil {
		return nil, mode, fmt.Errorf("%w; the MODE comes last", err)
	}
	if last == 0 {
		return nil, mode, errors.New("which PATH?")
	}
	return args[:last], mode, nil
}

// setMode sets the mode of one file or directory. It asks the mount first, as
// any file system would take the attribute.
func setMode(ctx context.Context, path string, mode consistency.Mode) error {
	if _, err := modeHere(ctx, path); err != nil {
		return err
	}
	err := mounts.Do(ctx, func() error {
		if mode != consistency.Default {
			return unix.Setxattr(path, consistency.Xattr, []byte(mode.String()), 0)
		}
		if err := unix.Removexattr(path, consistency.Xattr); !errors.Is(err, syscall.ENODATA) {
			return err
		}
		return nil
	})
	if err != nil {
		return &os.PathError{Op: "consistency", Path: path, Err: err}
	}
	return nil
}
