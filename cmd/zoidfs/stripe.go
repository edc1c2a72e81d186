package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/mounts"
	"github.com/zoidfs/zoidfs/pvfs/striping"
)

// shortMap is how many extents of a file are printed unless --map asks for all.
const shortMap = 16

func (a *app) stripeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stripe get|set PATH...",
		Short: "over which servers files are striped, and how",
		Long: "stripe shows on which PVFS2 servers the bytes of a file lie, and shows and sets what directories wish for the\n" +
			"files that will be made in them.",
		Example: "  zoidfs stripe set --strip-size 1M --servers 4 /zfs/results\n" +
			"  zoidfs stripe get /zfs/results/step-1.h5",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%q is neither get nor set", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.stripeGetCommand(), a.stripeSetCommand())
	return cmd
}

// getFlags are what stripe get is to print.
type getFlags struct {
	recursive, asJSON bool
	maps, mapsGiven   bool
}

func (a *app) stripeGetCommand() *cobra.Command {
	var f getFlags
	cmd := &cobra.Command{
		Use:   "get [-R] [--json] [--map] PATH...",
		Short: "show where the bytes of files lie, and what holds for new files in directories",
		Long: "get prints for a file its distribution, its servers in the order of the stripe with the bytes that each holds, and\n" +
			"the map: which extents lie on which server, and where in the server's datafile. For a directory it prints what holds\n" +
			"for a file made in it now, and whether the directory wishes that or the file system has it by default.\n\n" +
			"The map ends with \"...\" after " + strconv.Itoa(shortMap) + " extents; --map prints all, --map=false none, as does -R without it.\n" +
			"--json prints one JSON object a path, with the whole map of a file unless --map=false.",
		Example: "  zoidfs stripe get /zfs/file\n" +
			"  zoidfs stripe get --json --map=false -R /zfs/dir | jq -r 'select(.stuffed) | .path'",
		Args: needPaths,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.mapsGiven = cmd.Flags().Changed("map")
			out := bufio.NewWriterSize(a.out, 64<<10)
			err := eachPath(cmd.Context(), args, f.recursive, func(path string, _ fs.FileMode) error {
				return f.show(cmd.Context(), out, path)
			})
			return errors.Join(err, out.Flush())
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.recursive, "recursive", "R", false, "also everything below directories")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	flags.BoolVar(&f.maps, "map", false, "print the whole map of files")
	return cmd
}

func needPaths(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("which PATH?")
	}
	return nil
}

// eachPath calls do for every path, and if recursive for the files and
// directories below it. What went away meanwhile is passed over below a path,
// and one path's failure does not keep the others from their turn.
func eachPath(ctx context.Context, paths []string, recursive bool, do func(path string, mode fs.FileMode) error) error {
	var errs []error
	for _, path := range paths {
		err := onePath(ctx, path, recursive, do)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func onePath(ctx context.Context, path string, recursive bool, do func(string, fs.FileMode) error) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !recursive || !st.IsDir() {
		return do(path, st.Mode())
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return err
	}
	return filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && !e.IsDir() && !e.Type().IsRegular():
			return nil
		case err == nil:
			err = do(p, e.Type())
		}
		if p != path && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESTALE)) {
			return nil
		}
		return err
	})
}

// stripeInfo asks the mount that path lies on.
func stripeInfo(ctx context.Context, path string) (info striping.Info, err error) {
	err = askXattr(ctx, path, striping.Xattr, "stripe", "the I/O node", &info)
	return info, err
}

// askXattr asks the mount that path lies on for an attribute that only zoidfs
// has, and decodes its JSON. what it is about and who answers are for errors.
func askXattr(ctx context.Context, path, name, what, who string, into any) error {
	value := make([]byte, 64<<10) // the kernel hands over no more
	err := mounts.Do(ctx, func() error {
		n, err := unix.Getxattr(path, name, value)
		if err == nil {
			value = value[:n]
		}
		return err
	})
	switch {
	case errors.Is(err, syscall.ENODATA), errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%s is no file or directory of a zoidfs mount", path)
	case err != nil:
		return &os.PathError{Op: what + " of", Path: path, Err: err}
	}
	if err := json.Unmarshal(value, into); err != nil {
		return fmt.Errorf("%s: answer of %s: %w", path, who, err)
	}
	return nil
}

func (f *getFlags) show(ctx context.Context, w io.Writer, path string) error {
	info, err := stripeInfo(ctx, path)
	if err != nil {
		return err
	}
	var extents iter.Seq[striping.Extent]
	if info.Type == striping.TypeFile {
		if extents, err = info.Extents(); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	limit := int64(0) // of extents; negative: all
	switch {
	case f.mapsGiven && f.maps, f.asJSON && !f.mapsGiven:
		limit = -1
	case !f.mapsGiven && !f.recursive:
		limit = shortMap
	}
	if f.asJSON {
		return stripeJSON(ctx, w, path, &info, extents, limit)
	}
	if info.Type == striping.TypeDirectory {
		return stripeOfDir(w, path, &info)
	}
	return stripeOfFile(ctx, w, path, &info, extents, limit)
}

// stripeJSON prints one object in one line. A map may be larger than memory,
// so it is written as it is worked out.
func stripeJSON(ctx context.Context, w io.Writer, path string, info *striping.Info, extents iter.Seq[striping.Extent], limit int64) error {
	b, err := json.Marshal(struct {
		Path string `json:"path"`
		*striping.Info
	}{path, info})
	if err != nil {
		return err
	}
	if extents == nil || limit == 0 {
		_, err := w.Write(append(b, '\n'))
		return err
	}
	b = append(b[:len(b)-1], `,"map":[`...)
	n := 0
	for e := range extents {
		if n > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"off":%d,"len":%d,"server":%d,"phys":%d}`, e.Off, e.Len, e.Server, e.Phys)
		if n++; len(b) < 32<<10 {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		b = b[:0]
	}
	_, err = w.Write(append(b, "]}\n"...))
	return err
}

func stripeOfDir(w io.Writer, path string, info *striping.Info) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "%s: new files\n", path)
	from := map[string]string{striping.FromDirectory: "set on this directory", striping.FromFileSystem: "default of the file system"}
	fmt.Fprintf(tw, "  distribution\t%s\t%s\n", distText(info), from[info.DistFrom])
	if info.Problem != "" {
		fmt.Fprintf(tw, "  problem\tno file can be made: %s\n", info.Problem)
		return tw.Flush()
	}
	if info.StripSize > 0 {
		fmt.Fprintf(tw, "  strip size\t%s\t%s\n", sizeText(info.StripSize), from[info.DistFrom])
	}
	fmt.Fprintf(tw, "  servers\t%d of %d\t%s\n", info.NumServers, info.DataServers, from[info.ServersFrom])
	fmt.Fprintf(tw, "  stripe width\t%s\n", sizeText(info.StripeWidth))
	return tw.Flush()
}

func stripeOfFile(ctx context.Context, w io.Writer, path string, info *striping.Info, extents iter.Seq[striping.Extent], limit int64) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "%s: file of %d bytes\n", path, info.Size)
	fmt.Fprintf(tw, "  distribution\t%s\n", distText(info))
	if info.StripSize > 0 {
		fmt.Fprintf(tw, "  strip size\t%s\n", sizeText(info.StripSize))
	}
	if info.Stuffed {
		fmt.Fprintf(tw, "  servers\t%d, now stuffed into one until it is longer than its first strip\n", info.NumServers)
	} else {
		fmt.Fprintf(tw, "  servers\t%d\n", info.NumServers)
	}
	fmt.Fprintf(tw, "  stripe width\t%s\n", sizeText(info.StripeWidth))
	for i, s := range info.Servers {
		fmt.Fprintf(tw, "  server %d\t%s\t%s\t%d bytes\n", i, s.Alias, s.Addr, s.Bytes)
	}
	if err := tw.Flush(); err != nil || limit == 0 || info.Size == 0 {
		return err
	}
	fmt.Fprintf(w, "  %20s %20s  server           at offset\n", "offset", "bytes")
	n := int64(0)
	for e := range extents {
		if limit >= 0 && n == limit {
			_, err := fmt.Fprintln(w, "  ...")
			return err
		}
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		s := fmt.Sprintf("%d %s", e.Server, info.Servers[e.Server].Alias)
		if _, err := fmt.Fprintf(w, "  %20d %20d  %-16s %d\n", e.Off, e.Len, s, e.Phys); err != nil {
			return err
		}
	}
	return nil
}

// distText is the distribution with those parameters that are not shown by
// themselves.
func distText(info *striping.Info) string {
	if _, more, ok := strings.Cut(info.Params, ":"); !ok || more == strconv.FormatInt(info.StripSize, 10) {
		return info.Dist
	}
	return info.Dist + " " + info.Params
}

// sizeText is n in the largest unit that needs no fraction.
func sizeText(n int64) string {
	units := []string{"", "K", "M", "G", "T"}
	i := 0
	for ; i < len(units)-1 && n != 0 && n%1024 == 0; i++ {
		n /= 1024
	}
	return strconv.FormatInt(n, 10) + units[i]
}
