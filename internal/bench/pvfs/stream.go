package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/pvfs"
)

// streamCall is the bytes of one call of a stream through a mount.
const streamCall = 1 << 20

// The streams through mounts.
const (
	streamWrite = "write through a mount"      // a new file, and fsync
	streamRead  = "read through a mount"       // of which neither the mount nor its I/O node has a byte
	streamAgain = "read again through a mount" // what the same mount has just read
)

// stream moves a file through a mount, in calls of 1 MiB. What is read was written
// by another client, and what the kernel keeps of it is dropped before.
func stream(ctx context.Context, c *config, s *site, v, what string) (mib float64, took time.Duration, err error) {
	name := fmt.Sprintf("stream-%d", time.Now().UnixNano())
	if what != streamWrite {
		dir := name
		name = filepath.Join(dir, "file")
		if err := s.fill(ctx, dir, c.size); err != nil {
			return 0, 0, err
		}
		defer func() { err = errors.Join(err, os.Remove(filepath.Join(s.mount, s.base, dir))) }()
	}
	path, err := s.streamPath(v, name)
	if err != nil {
		return 0, 0, err
	}
	switch what {
	case streamWrite:
		start := time.Now()
		err = c.streamOut(path)
		took = time.Since(start)
	case streamAgain:
		if _, err = c.streamIn(path); err != nil {
			break
		}
		fallthrough
	default:
		took, err = c.streamIn(path)
	}
	if err != nil {
		return 0, 0, err
	}
	return float64(c.size) / (1 << 20), took, os.Remove(path)
}

// streamPath is where a variant has the file of a name.
func (s *site) streamPath(v, name string) (string, error) {
	if v != mountCommit {
		return filepath.Join(s.mountOf(v), s.base, name), nil
	}
	dir := filepath.Join(s.mount, s.base, "commit")
	err := os.Mkdir(dir, 0o777)
	if err == nil {
		err = unix.Setxattr(dir, consistency.Xattr, []byte(consistency.Commit.String()), 0)
	} else if os.IsExist(err) {
		err = nil
	}
	return filepath.Join(dir, name), err
}

// fill makes a file of this client's in a new directory of the mount, which has not
// looked into it: only there is it seen at once what another client makes.
func (s *site) fill(ctx context.Context, dir string, size int64) error {
	if err := os.Mkdir(filepath.Join(s.mount, s.base, dir), 0o777); err != nil {
		return err
	}
	h, err := s.client.Lookup(ctx, s.dir, dir)
	if err != nil {
		return err
	}
	a, err := s.client.Create(ctx, h, "file", pvfs.CreateOptions{Mode: 0o644})
	if err != nil {
		return err
	}
	f := s.client.File(a)
	buf := make([]byte, streamCall)
	for off := int64(0); off < size; off += streamCall {
		if _, err := f.WriteAt(ctx, [][]byte{buf}, off); err != nil {
			return err
		}
	}
	return nil
}

func (c *config) streamOut(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, streamCall)
	for off := int64(0); off < c.size; off += streamCall {
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

func (c *config) streamIn(path string) (time.Duration, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return 0, err
	}
	buf := make([]byte, streamCall)
	start := time.Now()
	for n := int64(0); ; {
		m, err := f.Read(buf)
		n += int64(m)
		switch {
		case err == io.EOF && n != c.size:
			return 0, fmt.Errorf("%d bytes of %d came back", n, c.size)
		case err == io.EOF:
			return time.Since(start), nil
		case err != nil:
			return 0, err
		}
	}
}
