package replay

import (
	"os"
	"path/filepath"

	"github.com/zoidfs/zoidfs/internal/trace"
)

// world is what must be there before a replay: what calls find that none of them
// has made.
type world struct {
	dir   string
	made  map[string]bool  // paths that the trace has made so far
	dirs  map[string]bool  // that must be there
	files map[string]int64 // that must be there, and how long
}

func newWorld(dir string) *world {
	return &world{dir: dir, made: map[string]bool{}, dirs: map[string]bool{}, files: map[string]int64{}}
}

// see takes note of a call on the file called name.
func (w *world) see(name string, s *step) {
	if name == "" || s.Errno != 0 {
		return
	}
	w.parent(name)
	switch s.Op {
	case trace.Create, trace.Mkdir, trace.Symlink, trace.Mknod:
		w.made[name] = true
	case trace.Rename:
		w.parent(s.To)
		w.file(name, 0)
		w.made[s.To] = true
	case trace.Readdir:
		if !w.made[name] {
			w.dirs[name] = true
		}
	case trace.Rmdir:
		if !w.made[name] {
			w.dirs[name] = true
		}
	case trace.Read:
		w.file(name, s.Off+s.N)
	default:
		w.file(name, 0)
	}
}

// parent sees to the directory of name.
func (w *world) parent(name string) {
	if dir := filepath.Dir(name); !w.made[dir] {
		w.dirs[dir] = true
	}
}

func (w *world) file(name string, size int64) {
	if !w.made[name] && !w.dirs[name] && !w.made[filepath.Dir(name)] { // of a new directory the trace is incomplete
		w.files[name] = max(w.files[name], size)
	}
}

// make makes what is not there.
func (w *world) make() error {
	for name := range w.dirs {
		if err := os.MkdirAll(filepath.Join(w.dir, name), 0o777); err != nil {
			return err
		}
	}
	for name, size := range w.files {
		if w.dirs[name] {
			continue
		}
		path := filepath.Join(w.dir, name)
		if st, err := os.Stat(path); err == nil && (st.IsDir() || st.Size() >= size) {
			continue
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
		if err != nil {
			return err
		}
		if err = f.Truncate(size); err == nil {
			err = f.Close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}
