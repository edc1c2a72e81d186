package work

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	loadDirs   = 4 // that are searched for each file, which is in the last one
	loadDir    = "path.%d"
	loadFile   = "lib.%d"
	loadHeader = 832 // bytes that ld.so reads first
)

// load: each rank searches, opens and maps all files, in one order, as the
// dynamic linker does with libraries and an interpreter with modules.
func (r *rank) load() error {
	w := r.Workload
	r.sample.off = true // names that are not there are part of it, too many for a history
	if r.Rank == 0 {
		for i := range loadDirs {
			if err := os.Mkdir(r.path(fmt.Sprintf(loadDir, i)), 0o755); err != nil {
				return err
			}
		}
	}
	if err := r.barrier("made"); err != nil {
		return err
	}
	last := fmt.Sprintf(loadDir, loadDirs-1) + "/" + loadFile
	if err := r.prepare(last, w.Files, w.Size); err != nil {
		return fmt.Errorf("preparation: %w", err)
	}
	return r.phase("load", w.Files, func() error {
		for i := range w.Files {
			f, err := r.find(fmt.Sprintf(loadFile, i))
			if err != nil {
				return err
			}
			if err := f.mapAll(w.Size, value(i%r.Size)); err != nil {
				return errors.Join(err, f.close())
			}
			if err := f.close(); err != nil {
				return err
			}
			if err := r.op(w.Size); err != nil {
				return err
			}
		}
		return nil
	})
}

// find opens a file in the first directory of the search path that has it.
func (r *rank) find(name string) (*file, error) {
	for i := range loadDirs {
		f, err := r.open(fmt.Sprintf(loadDir, i)+"/"+name, unix.O_RDONLY)
		if err == nil || !errors.Is(err, unix.ENOENT) {
			return f, err
		}
	}
	return nil, fmt.Errorf("%s is in none of the directories", name)
}

// mapAll reads the header of a file of a size, maps all of it and verifies every
// byte, each of which is of write value.
func (f *file) mapAll(size int64, value uint8) error {
	header := make([]byte, min(loadHeader, size))
	if err := f.verify(header, 0, value, false); err != nil {
		return err
	}
	var m []byte
	_, _, err := f.timed("mmap", func() (err error) {
		m, err = unix.Mmap(f.fd, 0, int(size), unix.PROT_READ, unix.MAP_PRIVATE)
		return err
	})
	if err != nil {
		return &os.PathError{Op: "mmap", Path: f.path(f.name), Err: err}
	}
	f.compare(m, size, 0, value, false)
	f.report.Verified += size
	return unix.Munmap(m)
}
