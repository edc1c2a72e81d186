package work

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// metadata: each rank creates files, looks up and opens those of a rank of another
// node, lists the directory, and removes its own.
func (r *rank) metadata() error {
	r.sample.off = true // more names than a history can have
	if err := r.makeDirs(); err != nil {
		return err
	}
	other, count := r.partner(), r.Workload.Count
	each := func(name string, of int, call func(path string) error) error {
		return r.phase(name, count, func() error {
			for i := range count {
				path := r.path(r.entry(of, i))
				if _, _, err := r.timed(name, func() error { return call(path) }); err != nil {
					return &os.PathError{Op: name, Path: path, Err: err}
				}
				if err := r.op(0); err != nil {
					return err
				}
			}
			return nil
		})
	}
	openClose := func(path string, flags int) error {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
	if err := each("create", r.Rank, func(p string) error { return openClose(p, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL) }); err != nil {
		return err
	}
	if err := each("stat", other, func(p string) error {
		var st unix.Stat_t
		return unix.Lstat(p, &st)
	}); err != nil {
		return err
	}
	if err := each("open", other, func(p string) error { return openClose(p, unix.O_RDONLY) }); err != nil {
		return err
	}
	if err := r.phase("list", 1, func() error { return r.list(other, count) }); err != nil {
		return err
	}
	if err := each("unlink", r.Rank, unix.Unlink); err != nil {
		return err
	}
	return r.list(other, 0)
}

// dir is the directory of the files of a rank, entry the name of one of them.
func (r *rank) dir(rank int) string {
	if r.Workload.Shared {
		return "files"
	}
	return fmt.Sprintf("files.%d", rank)
}

func (r *rank) entry(rank, i int) string { return fmt.Sprintf("%s/%d-%d", r.dir(rank), rank, i) }

func (r *rank) makeDirs() error {
	if !r.Workload.Shared || r.Rank == 0 {
		if err := os.Mkdir(r.path(r.dir(r.Rank)), 0o755); err != nil {
			return err
		}
	}
	return r.barrier("made")
}

// list reads the directory of another rank, in which each rank that shares it
// must have so many files, and no other.
func (r *rank) list(other, count int) error {
	var names []string
	_, _, err := r.timed("list", func() error {
		d, err := os.Open(r.path(r.dir(other)))
		if err != nil {
			return err
		}
		names, err = d.Readdirnames(-1)
		d.Close()
		return err
	})
	if err != nil {
		return err
	}
	if r.part != nil {
		for range names {
			if err := r.op(0); err != nil {
				return err
			}
		}
	}
	var want []string
	for rank := range r.Size {
		for i := 0; i < count && (r.Workload.Shared || rank == other); i++ {
			want = append(want, fmt.Sprintf("%d-%d", rank, i))
		}
	}
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		r.mistake(0, "%s lists %d names that are not the %d that must be there", r.dir(other), len(names), len(want))
	}
	return nil
}
