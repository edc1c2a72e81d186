package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// streamCall is the bytes of one call of a stream through a mount.
const streamCall = 1 << 20

// stream writes a new file through a mount and syncs it, or reads it from the
// servers, as neither client keeps data and the kernel's are dropped.
func stream(ctx context.Context, c *config, s *site, v string, write bool) (float64, time.Duration, error) {
	path := filepath.Join(s.mountOf(v), s.base, fmt.Sprintf("stream-%d", time.Now().UnixNano()))
	start := time.Now()
	if err := c.streamOut(path); err != nil {
		return 0, 0, err
	}
	took := time.Since(start)
	if !write {
		var err error
		if took, err = c.streamIn(path); err != nil {
			return 0, 0, err
		}
	}
	return float64(c.size) / (1 << 20), took, os.Remove(path)
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
