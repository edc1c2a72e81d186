package fs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/cache/holder"
	"github.com/zoidfs/zoidfs/fs/device"
	"github.com/zoidfs/zoidfs/internal/round"
)

// fsType is how mount(8) and df(1) show us: source zoidfs, type fuse.zoidfs.
const fsType = "zoidfs"

// flushWait bounds how long Run waits for mapped pages to be written when it
// is told to end.
const flushWait = 10 * time.Second

// letGoWait bounds how long the kernel may take to let go of a mount that was
// taken away; it does so at once if it does at all.
const letGoWait = 2 * time.Second

// Server is a mounted file system.
type Server struct {
	m   *mount
	raw *rawFS
	dev *device.Device
}

// Mount mounts the file system, as root by itself and else by fusermount3. A
// dead mount that a crash left at the mount point is taken away first. The
// error says in one line what is wrong with the mount point if it is missing,
// not a directory, or in use by another FUSE file system.
//
// The mount is visible when Mount returns, but nothing is answered until Run.
func Mount(ctx context.Context, opt Options) (*Server, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	opt = opt.withDefaults()
	point, err := prepareMountpoint(ctx, opt.Mountpoint, opt.Logger)
	if err != nil {
		return nil, err
	}
	opt.Mountpoint = point
	journal := round.NewJournal(journalled)
	known := newKnown(opt.Client, journal, opt.NoCollective)
	guard := newGuard(opt.Guard)
	hold := holder.Options{Visibility: opt.Visibility, Bytes: opt.CacheBytes, Memory: opt.Memory, NoCollective: opt.NoCollective, Logger: opt.Logger, Journal: journal}
	if opt.Guard != GuardOff {
		hold.Race = guard.race
	}
	m := &mount{
		client: opt.Client, known: known, log: opt.Logger, opts: opt, tracer: newTracer(),
		journal: journal, guard: guard,
	}
	guard.m = m
	m.pages = newPages(point, opt.Logger, &m.open)
	hold.Stale = m.pages.stale
	held, err := holder.New(opt.Client, known, hold)
	if err != nil {
		return nil, err
	}
	known.holdWith(held)
	m.held = held
	if m.ranks, err = m.newRanks(); err != nil {
		held.Close()
		return nil, err
	}
	s := newServer(m)
	if s.dev, err = device.Mount(s.raw, point, m.mountOptions(), m.log); err != nil {
		held.Close()
		m.ranks.Close()
		return nil, mountError(point, err)
	}
	m.calls.dev, m.calls.rings = s.dev, s.dev.OverRings()
	return s, nil
}

// newServer makes the file system without mounting it.
func newServer(m *mount) *Server {
	var none time.Duration // the kernel may cache nothing: every answer can be old at once
	root := m.client.View().Root
	bridge := fusefs.NewNodeFS(newNode(m, root), &fusefs.Options{
		EntryTimeout:    &none,
		AttrTimeout:     &none,
		NullPermissions: true, // mode 0 is mode 0
		RootStableAttr:  &fusefs.StableAttr{Ino: root},
		Logger:          fuseLogger(m.log),
	})
	return &Server{m: m, raw: &rawFS{RawFileSystem: bridge, pages: m.pages}}
}

func (m *mount) mountOptions() *fuse.MountOptions {
	o := &fuse.MountOptions{
		FsName:             m.opts.FSName,
		Name:               fsType,
		AllowOther:         m.opts.AllowOther,
		Options:            []string{"default_permissions"},
		DirectMountStrict:  os.Geteuid() == 0,
		MaxWrite:           maxRequest,
		MaxReadAhead:       maxRequest,
		MaxBackground:      64,
		EnableLocks:        true,
		DisableSplice:      true, // data is in memory, never in a file
		DisableReadDirPlus: true, // its attributes would be old at once
		ExtraCapabilities: fuse.CAP_DIRECT_IO_ALLOW_MMAP | fuse.CAP_ATOMIC_O_TRUNC |
			fuse.CAP_ASYNC_DIO | fuse.CAP_HANDLE_KILLPRIV_V2,
		DisabledCapabilities: fuse.CAP_PASSTHROUGH, // unused, and it limits overlays on top of us
		Logger:               fuseLogger(m.log),
		PanicHandler: func(v any) fuse.Status {
			m.log.Error("panic in a file system call", "panic", v)
			return fuse.EIO
		},
	}
	if !m.opts.NoIOURing {
		o.ExtraCapabilities |= fuse.CAP_OVER_IO_URING
	}
	if m.opts.ReadOnly {
		o.Options = append(o.Options, "ro")
	}
	return o
}

// fuseLogger passes what go-fuse says on as warnings, except that it does not
// know poll(2): ENOSYS, upon which the kernel answers it alone, is intended.
func fuseLogger(log *slog.Logger) *stdlog.Logger {
	return stdlog.New(logWriter{log}, "", 0)
}

type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	msg := strings.TrimSpace(string(p))
	level := slog.LevelWarn
	if strings.HasPrefix(msg, "Unimplemented opcode") {
		level = slog.LevelDebug
	}
	w.log.Log(context.Background(), level, "fuse library", "text", msg)
	return len(p), nil
}

// Stats returns what was counted since the mount or the last reset.
func (s *Server) Stats() Snapshot { return s.m.snapshot() }

// Status returns what the mount knows about itself and its I/O nodes.
func (s *Server) Status() Status { return s.m.status() }

// Mountpoint is the absolute path of the mount.
func (s *Server) Mountpoint() string { return s.m.opts.Mountpoint }

// ErrInUse is what Run returns when it has unmounted, everything is flushed, and
// programs still use the mount: they do until this process ends.
var ErrInUse = errors.New("programs still have files open there")

// Run serves the mount until it is unmounted from outside or ctx is done. Then
// it writes back mapped pages and unmounts; if the mount is in use, programs
// that still have files open there get ENOTCONN or EIO. It must be called
// exactly once.
//
// It returns after the last call ended, with an error if something could not be
// written back. Only where there is no way to cut off
// programs that use the mount, in other mount namespaces or because the user is
// not root, it returns ErrInUse while they still can.
func (s *Server) Run(ctx context.Context) error {
	var g errgroup.Group
	life, over := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error {
		defer over()
		return s.dev.Serve()
	})
	g.Go(func() error { return s.m.calls.run(life) })
	g.Go(func() error { return s.m.held.Run(life) })
	g.Go(func() error { return s.m.pages.run(life) })
	g.Go(func() error { return s.m.tracer.run(life) })
	g.Go(func() error { return s.m.guard.run(life) })
	g.Go(func() error { return s.m.endSecondTries(life) })
	g.Go(func() error { return s.m.ranks.Run(life) })
	select {
	case <-life.Done():
	case <-ctx.Done():
		pages, held := s.flush(life, &g)
		if err := s.unmount(life); err != nil {
			return cmp.Or(pages, held, err) // there still is something to serve
		}
		return cmp.Or(pages, g.Wait()) // the holder has tried again
	}
	return g.Wait()
}

// flush writes everything back: mapped pages, and what is held. It gives up after
// a while, or when life ends, which is when the kernel has let go of the mount.
func (s *Server) flush(life context.Context, g *errgroup.Group) (pages, held error) {
	flushed := make(chan struct{})
	var pagesErr, heldErr error
	g.Go(func() error {
		defer close(flushed)
		pagesErr, heldErr = s.flushPages(), s.m.held.Flush(life)
		return nil
	})
	timeout := time.NewTimer(flushWait)
	defer timeout.Stop()
	select {
	case <-flushed:
		if pagesErr != nil {
			pagesErr = fmt.Errorf("flush of mapped pages: %w", pagesErr)
		}
		return pagesErr, heldErr
	case <-timeout.C:
		return errors.New("I/O nodes do not answer: mapped pages may be lost"), nil
	case <-life.Done():
		return nil, nil
	}
}

// unmount takes the mount away. life ends when the kernel has let go of it.
func (s *Server) unmount(life context.Context) error {
	if life.Err() != nil {
		return nil
	}
	point := s.Mountpoint()
	err := unmount(context.WithoutCancel(life), point, false)
	if errors.Is(err, syscall.EBUSY) {
		s.m.log.Warn("mount is in use and is taken away from its users", "mountpoint", point)
		err = unmount(context.WithoutCancel(life), point, true)
	}
	s.m.calls.closeAll()
	if err != nil && life.Err() == nil {
		return fmt.Errorf("unmount %s: %w", point, err)
	}
	timeout := time.NewTimer(letGoWait)
	defer timeout.Stop()
	select {
	case <-life.Done():
		return nil
	case <-timeout.C:
		return fmt.Errorf("unmounted %s, but %w", point, ErrInUse)
	}
}

// flushPages has the kernel write back the mapped pages of the mount.
//
// It calls ourselves. If this process were killed while an I/O node keeps the
// call waiting, the waiting thread could not end before the FUSE device is
// closed, and the device not be closed before the thread ended: a process and
// a mount that nothing can remove. So the thread gets a file table of its own,
// without the device, and is not used for anything afterwards.
func (s *Server) flushPages() error {
	fd, err := openApart(s.Mountpoint())
	if err != nil {
		return err
	}
	defer unix.Close(fd) // now: an open directory would keep the mount in use
	if err := unix.Syncfs(fd); err != nil {
		return err
	}
	// For FUSE, syncfs(2) starts the writes but does not wait for them. They
	// reach us in turn, a limited number at a time and ahead of a later
	// statfs: when that finds none at work a few times, there is none left.
	for quiet := 0; quiet < 3; time.Sleep(5 * time.Millisecond) {
		var st unix.Statfs_t
		if err := unix.Fstatfs(fd, &st); err != nil {
			return err
		}
		if quiet++; s.raw.writingBack.Load() > 0 {
			quiet = 0
		}
	}
	return nil
}

// openApart opens our mount point in a thread that has no FUSE device among its files.
// It is the calling goroutine's from then on, and ends with it.
func openApart(mountpoint string) (fd int, err error) {
	runtime.LockOSThread() // and never unlock
	if err := unshareFiles(); err != nil {
		return -1, err
	}
	fd, err = unix.Open(mountpoint, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", mountpoint, err)
	}
	return fd, nil
}

// unshareFiles gives the calling thread a copy of the process's file table with
// nothing but what the Go runtime needs in every thread, and the standard files.
// What the process closes is closed then, whatever the thread waits for.
func unshareFiles() error {
	if err := unix.Unshare(unix.CLONE_FILES); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	const table = "/proc/thread-self/fd"
	fds, err := os.ReadDir(table)
	if err != nil {
		return err
	}
	for _, f := range fds {
		fd, err := strconv.Atoi(f.Name())
		if err != nil {
			return err
		}
		switch to, err := os.Readlink(table + "/" + f.Name()); {
		case err != nil || fd <= 2 || to == "anon_inode:[eventpoll]" || to == "anon_inode:[eventfd]":
			continue
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return nil
}
