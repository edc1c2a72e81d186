package pvfsd

import (
	"container/list"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const (
	shards      = 256
	minOpen     = 32
	maxOpenIdle = 1024
)

// streams holds the bytestreams of datafiles, one sparse file each, created by
// the first write. A bytestream that was never written has size 0.
//
// Files lie in 256 directories by the last byte of their handle:
// DIR/streams/ab/00000000000000ab.
type streams struct {
	dir      string
	maxIdle  int                          // open files kept for later
	slots    chan struct{}                // a token a stream in use, bounds open files
	exists   func(wire.Handle) error      // ENOENT when h has no datafile object any more; set before use
	syncData func() bool                  // whether every write is made durable; set before use
	lock     *os.File                     // flocked, or nil when the store's lock covers the directory
	unsynced [shards]struct{ sync.Mutex } // serialises the syncs of one directory

	mu      sync.Mutex
	open    map[wire.Handle]*stream // guarded by mu
	idle    *list.List              // of *stream with refs 0, least recently used first; guarded by mu
	created [shards]bool            // entries were made that are not on disk; guarded by mu
}

// stream is one bytestream in use or kept open. Its lock lets reads go on
// together and changes alone; it is held for one chunk of I/O, never while
// waiting for the network.
type stream struct {
	h    wire.Handle
	refs int           // guarded by streams.mu
	elem *list.Element // in streams.idle; guarded by streams.mu

	mu sync.RWMutex
	f  *os.File // nil until needed, or when there is no file; guarded by mu
}

// openStreams opens the bytestreams in dir, which is locked; lock, if not nil,
// is closed with them. maxOpen is how many files the process may open.
func openStreams(dir string, lock *os.File, maxOpen int) (*streams, error) {
	s := &streams{dir: filepath.Join(dir, "streams"), lock: lock, open: make(map[wire.Handle]*stream), idle: list.New()}
	if err := errors.Join(os.MkdirAll(s.dir, 0o700), fsyncPath(dir)); err != nil {
		return nil, fmt.Errorf("bytestream directory: %w", err)
	}
	s.maxIdle = min(max(maxOpen/4, minOpen), maxOpenIdle)
	s.slots = make(chan struct{}, s.maxIdle)
	// Whether a previous process synced the directories is unknown.
	for i := range s.created {
		s.created[i] = true
	}
	return s, nil
}

func (s *streams) path(h wire.Handle) string {
	return filepath.Join(s.dir, fmt.Sprintf("%02x", uint8(h)), fmt.Sprintf("%016x", uint64(h)))
}

// use returns the stream of h until release.
func (s *streams) use(h wire.Handle) *stream {
	s.slots <- struct{}{}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.open[h]
	if st == nil {
		st = &stream{h: h}
		s.open[h] = st
	}
	if st.elem != nil {
		s.idle.Remove(st.elem)
		st.elem = nil
	}
	st.refs++
	return st
}

// release gives st back and closes the file that was idle longest if there are too many.
func (s *streams) release(st *stream) {
	s.mu.Lock()
	st.refs--
	var victim *stream
	if st.refs == 0 {
		st.elem = s.idle.PushBack(st)
		if s.idle.Len() > s.maxIdle {
			victim = s.idle.Remove(s.idle.Front()).(*stream)
			victim.elem = nil
			delete(s.open, victim.h)
		}
	}
	s.mu.Unlock()
	<-s.slots
	if victim != nil {
		victim.mu.Lock() // nobody holds it: it was idle and is no longer found
		if victim.f != nil {
			victim.f.Close()
		}
		victim.mu.Unlock()
	}
}

// read runs fn with the file of h, or nil if nothing was ever written to it.
// Others may read at the same time, nobody writes.
func (s *streams) read(h wire.Handle, fn func(f *os.File) error) error {
	st := s.use(h)
	defer s.release(st)
	st.mu.RLock()
	if st.f == nil {
		st.mu.RUnlock()
		if err := s.openFile(st, false); err != nil {
			return err
		}
		st.mu.RLock()
	}
	defer st.mu.RUnlock()
	return fn(st.f)
}

// write runs fn with the file of h, which it creates if there is none. Nobody
// else reads or writes.
func (s *streams) write(h wire.Handle, fn func(f *os.File) error) error {
	st := s.use(h)
	defer s.release(st)
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := s.openLocked(st, true); err != nil {
		return err
	}
	return fn(st.f)
}

func (s *streams) openFile(st *stream, create bool) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	return s.openLocked(st, create)
}

// openLocked opens the file of st. Without create a missing file is no error.
func (s *streams) openLocked(st *stream, create bool) error {
	if st.f != nil {
		return nil
	}
	name := s.path(st.h)
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err == nil {
		st.f = f
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("bytestream: %w", err)
	}
	if !create {
		return nil
	}
	// The object is looked up with the stream locked: a removal that comes
	// later waits for the lock and unlinks what is created here.
	if err := s.exists(st.h); err != nil {
		return err
	}
	f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(name), 0o700); err == nil {
			f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		}
	}
	if err != nil {
		return fmt.Errorf("create bytestream: %w", err)
	}
	s.mu.Lock()
	s.created[uint8(st.h)] = true
	s.mu.Unlock()
	st.f = f
	return nil
}

// size is the size of the bytestream of h in bytes.
func (s *streams) size(h wire.Handle) (int64, error) {
	fi, err := os.Lstat(s.path(h))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("bytestream size: %w", err)
	}
	return fi.Size(), nil
}

// truncate sets the size of the bytestream of h.
func (s *streams) truncate(h wire.Handle, size int64) error {
	if size == 0 {
		// Nothing to cut from a file that does not exist.
		return s.changeExisting(h, func(f *os.File) error { return f.Truncate(0) })
	}
	return s.write(h, func(f *os.File) error {
		if err := f.Truncate(size); err != nil {
			return fmt.Errorf("truncate bytestream: %w", err)
		}
		return s.written(h, f)
	})
}

func (s *streams) changeExisting(h wire.Handle, fn func(f *os.File) error) error {
	st := s.use(h)
	defer s.release(st)
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := s.openLocked(st, false); err != nil || st.f == nil {
		return err
	}
	if err := fn(st.f); err != nil {
		return err
	}
	return s.written(h, st.f)
}

// written makes a change durable if the policy asks for it.
func (s *streams) written(h wire.Handle, f *os.File) error {
	if !s.syncData() {
		return nil
	}
	if err := fdatasync(f); err != nil {
		return err
	}
	return s.syncDir(h)
}

// flush makes the bytestream of h durable.
func (s *streams) flush(h wire.Handle) error {
	var file *os.File
	st := s.use(h)
	defer s.release(st)
	if err := s.openFile(st, false); err != nil {
		return err
	}
	// Writers need not wait for the disk. The file stays open while st is in
	// use, unless it is removed, and then there is nothing to make durable.
	st.mu.RLock()
	file = st.f
	st.mu.RUnlock()
	if file == nil {
		return nil
	}
	if err := fdatasync(file); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return s.syncDir(h)
}

// syncDir makes the directory entry of h durable.
func (s *streams) syncDir(h wire.Handle) error {
	shard := uint8(h)
	s.unsynced[shard].Lock()
	defer s.unsynced[shard].Unlock()
	s.mu.Lock()
	need := s.created[shard]
	s.created[shard] = false
	s.mu.Unlock()
	if !need {
		return nil
	}
	err := errors.Join(fsyncPath(filepath.Dir(s.path(h))), fsyncPath(s.dir))
	if err != nil {
		s.mu.Lock()
		s.created[shard] = true
		s.mu.Unlock()
	}
	return err
}

// remove unlinks the bytestream of h. The datafile object is gone already.
func (s *streams) remove(h wire.Handle) error {
	st := s.use(h)
	defer s.release(st)
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.f != nil {
		st.f.Close()
		st.f = nil
	}
	if err := os.Remove(s.path(h)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove bytestream: %w", err)
	}
	return nil
}

// close closes every open file. Nothing is in use any more.
func (s *streams) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.open {
		if st.f != nil {
			st.f.Close()
		}
	}
	clear(s.open)
	s.idle.Init()
	if s.lock != nil {
		s.lock.Close()
	}
}

func fdatasync(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := c.Control(func(fd uintptr) { serr = unix.Fdatasync(int(fd)) }); err != nil {
		return os.ErrClosed
	}
	if serr != nil {
		return errno.Wrap("pvfsd.fdatasync", serr.(syscall.Errno), nil)
	}
	return nil
}

func fsyncPath(name string) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
