package local

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/cluster"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/mounts"
	"github.com/zoidfs/zoidfs/fs"
)

// TraceSuffix ends the names of traces.
const TraceSuffix = ".ztrace"

// Recording is a trace of one mount.
type Recording struct {
	Point string // mount point, absolute
	File  string // absolute
	fs.TraceStatus
}

// Recordings are the traces of the mounts of a system, or of the given mount
// points, that files in dir would hold. It need not be there yet.
func Recordings(ctx context.Context, dir string, f *cluster.File, points []string) ([]*Recording, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	dir = real(dir) // the mount is not to look at what may lie on itself
	var out []*Recording
	if f != nil {
		for _, n := range f.Nodes {
			out = append(out, &Recording{Point: n.Mount, File: filepath.Join(dir, n.Name+TraceSuffix)})
		}
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	for _, p := range points {
		point, err := mounts.Resolve(p)
		if err != nil {
			return nil, err
		}
		name := host + strings.ReplaceAll(point, "/", "-") + TraceSuffix
		out = append(out, &Recording{Point: point, File: filepath.Join(dir, name)})
	}
	for _, r := range out {
		if strings.HasPrefix(r.File, r.Point+"/") {
			return nil, cmp.Or(r.Look(ctx), r.failed(syscall.EINVAL))
		}
	}
	return out, nil
}

// real is a path without symbolic links, as far as it is there.
func real(path string) string {
	if p, err := filepath.EvalSymlinks(path); err == nil || filepath.Dir(path) == path {
		return cmp.Or(p, path)
	}
	return filepath.Join(real(filepath.Dir(path)), filepath.Base(path))
}

// Start begins the traces of all, or of none. Files of the same names, of
// earlier traces, are replaced.
func Start(ctx context.Context, all []*Recording, limit int64) error {
	for i, r := range all {
		err := r.Look(ctx) // any file system would take the attribute
		if err == nil && r.Running {
			err = r.failed(syscall.EBUSY)
		}
		if err == nil {
			if err = os.Remove(r.File); errors.Is(err, os.ErrNotExist) {
				err = nil
			}
		}
		if err == nil {
			err = r.set(ctx, fs.TraceRequest{File: r.File, Limit: limit})
		}
		if err != nil {
			return errors.Join(err, Stop(ctx, all[:i]))
		}
	}
	return nil
}

// Stop ends the traces of all, and fills in how they fared.
func Stop(ctx context.Context, all []*Recording) error {
	var errs []error
	for _, r := range all {
		err := r.set(ctx, fs.TraceRequest{})
		if errors.Is(err, syscall.ESRCH) { // it may have ended by itself
			err = nil
		}
		if err == nil {
			err = r.Look(ctx)
		}
		if err == nil && r.Error != "" {
			err = fmt.Errorf("trace of %s: %s", r.Point, r.Error)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (r *Recording) set(ctx context.Context, q fs.TraceRequest) error {
	b, err := json.Marshal(q)
	if err != nil {
		return err
	}
	return r.failed(mounts.Do(ctx, func() error { return unix.Setxattr(r.Point, fs.TraceXattr, b, 0) }))
}

// Look asks how the trace fares.
func (r *Recording) Look(ctx context.Context) error {
	value := make([]byte, maxXattr)
	err := mounts.Do(ctx, func() error {
		n, err := unix.Getxattr(r.Point, fs.TraceXattr, value)
		value = value[:max(n, 0)]
		return err
	})
	if err != nil {
		return r.failed(err)
	}
	if err := json.Unmarshal(value, &r.TraceStatus); err != nil {
		return fmt.Errorf("trace of %s: %w", r.Point, err)
	}
	return nil
}

// failed says what an errno of the mount means here.
func (r *Recording) failed(err error) error {
	switch {
	case err == nil, errors.Is(err, syscall.ESRCH):
		return err
	case errors.Is(err, syscall.ENODATA), errors.Is(err, syscall.EOPNOTSUPP):
		return fmt.Errorf("%s is not the root of a zoidfs mount", r.Point)
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("%s is being traced already, see: zoidfs trace stop", r.Point)
	case errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("%s cannot write a trace to %s: it must lie outside of the mount", r.Point, r.File)
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s can be traced by root and by who mounted it: %w", r.Point, err)
	case errors.Is(err, syscall.ENOENT):
		if _, e := os.Stat(r.Point); e != nil {
			return e
		}
	}
	return &os.PathError{Op: "trace of " + r.Point + " into", Path: r.File, Err: err}
}
