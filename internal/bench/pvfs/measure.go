package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/pvfs"
)

const (
	copyBuffer = 10 << 20 // bytes at once, as pvfs2-cp has it
	smallFile  = 64 << 20 // bytes of the file for small reads and writes
	smallSize  = 4 << 10  // bytes of one of them
	pieces     = 256      // of one strided write
	stride     = 16 << 10 // bytes from piece to piece
	unstuffed  = 1 << 20  // bytes at which a file has all its datafiles
)

// The clients.
const (
	ours        = "ours"
	tools       = "tools"
	mount       = "zoidfs"
	mountCommit = "zoidfs, commit"
	fuse        = "pvfs2fuse"
	clib        = "libpvfs2"
	apart       = "ours, piece by piece"
)

// workload is some rows of the table. run measures once: it returns how many
// units were done and how long that took.
type workload struct {
	name, unit string
	variants   []string
	run        func(ctx context.Context, c *config, s *site, variant string) (n float64, took time.Duration, err error)
}

func workloads() []workload {
	var out []workload
	for _, strip := range []int64{64 << 10, 1 << 20} {
		kib := fmt.Sprintf("%d KiB strips", strip>>10)
		out = append(out,
			workload{"copy in, " + kib, "MiB/s", []string{ours, tools}, func(ctx context.Context, c *config, s *site, v string) (float64, time.Duration, error) {
				return copyIn(ctx, c, s, v, strip)
			}},
			workload{"copy out, " + kib, "MiB/s", []string{ours, tools}, func(ctx context.Context, c *config, s *site, v string) (float64, time.Duration, error) {
				return copyOut(ctx, c, s, v, strip)
			}})
	}
	for _, what := range []string{streamWrite, streamRead, streamAgain} {
		variants := []string{mount, fuse}
		if what == streamWrite {
			variants = []string{mount, mountCommit, fuse}
		}
		out = append(out, workload{what, "MiB/s", variants, func(ctx context.Context, c *config, s *site, v string) (float64, time.Duration, error) {
			return stream(ctx, c, s, v, what)
		}})
	}
	for phase, name := range phases {
		out = append(out, workload{name, "/s", []string{ours, clib, mount, fuse}, func(ctx context.Context, c *config, s *site, v string) (float64, time.Duration, error) {
			took, err := names(ctx, c, s, v)
			return float64(c.files), took[phase], err
		}})
	}
	return append(out,
		workload{"write 4 KiB", "/s", []string{ours, clib, mount, fuse}, func(ctx context.Context, c *config, s *site, v string) (float64, time.Duration, error) {
			return small(ctx, c, s, v, true)
		}},
		workload{"read 4 KiB", "/s", []string{ours, clib, mount, fuse}, func(ctx context.Context, c *config, s *site, v string) (float64, time.Duration, error) {
			return small(ctx, c, s, v, false)
		}},
		workload{"write strided", "MiB/s", []string{ours, clib, apart}, strided},
	)
}

// source makes the local file that is copied, once.
func (c *config) source() (string, error) {
	path := filepath.Join(c.dir, "source")
	if st, err := os.Stat(path); err == nil && st.Size() == c.size {
		return path, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, 1<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	for n := int64(0); n < c.size; n += int64(len(b)) {
		if _, err := f.Write(b); err != nil {
			return "", err
		}
	}
	return path, nil
}

func copyName(v string, strip int64) string { return fmt.Sprintf("copy-%s-%d", v, strip) }

// copyIn copies the source, connection to the servers included.
func copyIn(ctx context.Context, c *config, s *site, v string, strip int64) (float64, time.Duration, error) {
	src, err := c.source()
	if err != nil {
		return 0, 0, err
	}
	name := copyName(v, strip)
	_ = s.client.Remove(ctx, s.dir, name) // of the round before, if there was one
	start := time.Now()
	if v == tools {
		err = c.tool(ctx, s.url, "pvfs2-cp", "-s", fmt.Sprint(strip), src, filepath.Join(tabMount, s.base, name))
	} else {
		err = s.copyIn(ctx, src, name, strip)
	}
	return float64(c.size) / (1 << 20), time.Since(start), err
}

func (s *site) copyIn(ctx context.Context, src, name string, strip int64) error {
	client, err := pvfs.Dial(ctx, s.url, pvfs.Options{})
	if err != nil {
		return err
	}
	defer client.Close()
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	a, err := client.Create(ctx, s.dir, name, pvfs.CreateOptions{Mode: 0o644, StripSize: strip})
	if err != nil {
		return err
	}
	st, err := in.Stat()
	if err != nil {
		return err
	}
	f := client.File(a)
	return byPieces(ctx, st.Size(), func(ctx context.Context, buf []byte, off int64) error {
		if _, err := in.ReadAt(buf, off); err != nil {
			return err
		}
		_, err := f.WriteAt(ctx, [][]byte{buf}, off)
		return err
	})
}

// byPieces calls move for all pieces of a file, two at a time: while one is on
// its way to or from the servers, the other is to or from the local file.
func byPieces(ctx context.Context, size int64, move func(ctx context.Context, buf []byte, off int64) error) error {
	bufs := make(chan []byte, 2)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cap(bufs))
	for range cap(bufs) {
		bufs <- make([]byte, copyBuffer)
	}
	for off := int64(0); off < size && ctx.Err() == nil; off += copyBuffer {
		g.Go(func() error {
			buf := <-bufs
			defer func() { bufs <- buf }()
			return move(ctx, buf[:min(copyBuffer, size-off)], off)
		})
	}
	return g.Wait()
}

// copyOut copies what copyIn made to a local file.
func copyOut(ctx context.Context, c *config, s *site, v string, strip int64) (float64, time.Duration, error) {
	name, dst := copyName(v, strip), filepath.Join(c.dir, "out")
	if _, err := s.client.Lookup(ctx, s.dir, name); err != nil {
		if _, _, err := copyIn(ctx, c, s, v, strip); err != nil {
			return 0, 0, err
		}
	}
	_ = os.Remove(dst)
	defer os.Remove(dst)
	start := time.Now()
	var err error
	if v == tools {
		err = c.tool(ctx, s.url, "pvfs2-cp", filepath.Join(tabMount, s.base, name), dst)
	} else {
		err = s.copyOut(ctx, name, dst)
	}
	took := time.Since(start)
	if err == nil {
		var st os.FileInfo
		if st, err = os.Stat(dst); err == nil && st.Size() != c.size {
			err = fmt.Errorf("%d bytes of %d came back", st.Size(), c.size)
		}
	}
	return float64(c.size) / (1 << 20), took, err
}

func (s *site) copyOut(ctx context.Context, name, dst string) error {
	client, err := pvfs.Dial(ctx, s.url, pvfs.Options{})
	if err != nil {
		return err
	}
	defer client.Close()
	h, err := client.Lookup(ctx, s.dir, name)
	if err != nil {
		return err
	}
	a, err := client.GetAttr(ctx, h)
	if err != nil {
		return err
	}
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	defer out.Close()
	f := client.File(a)
	return byPieces(ctx, a.Size, func(ctx context.Context, buf []byte, off int64) error {
		n, err := f.ReadAt(ctx, [][]byte{buf}, off)
		if err == nil {
			_, err = out.WriteAt(buf[:n], off)
		}
		return err
	})
}

// phases are the workloads of names, in their order.
var phases = [3]string{"create", "stat", "remove"}

// names creates, stats and removes files, one after the other.
func names(ctx context.Context, c *config, s *site, v string) (took [3]time.Duration, err error) {
	if v == clib {
		return c.clibNames(ctx, s)
	}
	do, end, err := s.namer(ctx, v)
	if err != nil {
		return took, err
	}
	for phase := range took {
		start := time.Now()
		for i := range c.files {
			if err := do(phase, fmt.Sprint("f", i)); err != nil {
				return took, err
			}
		}
		took[phase] = time.Since(start)
	}
	return took, end()
}

// namer makes a directory and returns how to create, stat and remove in it.
func (s *site) namer(ctx context.Context, v string) (do func(phase int, name string) error, end func() error, err error) {
	dir := fmt.Sprintf("names-%d", time.Now().UnixNano())
	if v == ours {
		a, err := s.client.Mkdir(ctx, s.dir, dir, pvfs.CreateOptions{Mode: 0o755})
		return func(phase int, name string) error {
			switch phase {
			case 0:
				_, err := s.client.Create(ctx, a.Handle, name, pvfs.CreateOptions{Mode: 0o644})
				return err
			case 1:
				h, err := s.client.Lookup(ctx, a.Handle, name)
				if err == nil {
					_, err = s.client.GetAttr(ctx, h)
				}
				return err
			}
			h, err := s.client.Unlink(ctx, a.Handle, name) // as I/O nodes do it
			if err == nil {
				err = s.client.Destroy(ctx, h)
			}
			return err
		}, func() error { return s.client.Rmdir(ctx, s.dir, dir) }, err
	}
	top := filepath.Join(s.mountOf(v), s.base, dir)
	return func(phase int, name string) error {
		path := filepath.Join(top, name)
		switch phase {
		case 0:
			f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		case 1:
			_, err := os.Stat(path)
			return err
		}
		return os.Remove(path)
	}, func() error { return os.Remove(top) }, os.Mkdir(top, 0o755)
}

func (s *site) mountOf(v string) string {
	if v == fuse {
		return s.fuse
	}
	return s.mount
}

// small reads or writes 4 KiB at random places of a file, one after the other
// and past the kernel's cache.
func small(ctx context.Context, c *config, s *site, v string, write bool) (float64, time.Duration, error) {
	if v == clib {
		took, err := c.clibFile(ctx, s, smallFile, map[bool]string{true: "write", false: "read"}[write], int64(c.ops), smallSize, smallFile)
		return float64(c.ops), took, err
	}
	at, end, err := s.opener(ctx, v)
	if err != nil {
		return 0, 0, err
	}
	mem, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // as direct I/O wants it
	if err != nil {
		return 0, 0, err
	}
	defer unix.Munmap(mem)
	for off := int64(0); off < smallFile; off += int64(len(mem)) {
		if err := at(mem, off, true); err != nil {
			return 0, 0, err
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	start := time.Now()
	for range c.ops {
		if err := at(mem[:smallSize], r.Int64N(smallFile/smallSize)*smallSize, write); err != nil {
			return 0, 0, err
		}
	}
	return float64(c.ops), time.Since(start), end()
}

// opener makes a file and returns how to read and write it.
func (s *site) opener(ctx context.Context, v string) (at func(b []byte, off int64, write bool) error, end func() error, err error) {
	if v == ours {
		f, end, err := s.newFile(ctx)
		return func(b []byte, off int64, write bool) (err error) {
			if write {
				_, err = f.WriteAt(ctx, [][]byte{b}, off)
			} else {
				_, err = f.ReadAt(ctx, [][]byte{b}, off)
			}
			return err
		}, end, err
	}
	path := filepath.Join(s.mountOf(v), s.base, fmt.Sprintf("small-%d", time.Now().UnixNano()))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR|unix.O_DIRECT, 0o644)
	return func(b []byte, off int64, write bool) (err error) {
			if write {
				_, err = f.WriteAt(b, off)
			} else {
				_, err = f.ReadAt(b, off)
			}
			return err
		}, func() error {
			if err := f.Close(); err != nil {
				return err
			}
			return os.Remove(path)
		}, err
}
