package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/bench/program"
)

// loadResult is what one load process measured.
type loadResult struct {
	Ops     int     `json:"ops"`
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50"` // of one call, seconds
	P99     float64 `json:"p99"`
	CPU     float64 `json:"cpu"` // seconds
}

// runLoad is an application that reads or writes one file for a while. It says
// "ready", waits for a line and answers with a loadResult.
func runLoad(args []string, in io.Reader, out io.Writer) error {
	fl := flag.NewFlagSet("load", flag.ContinueOnError)
	path := fl.String("path", "", "file")
	what := fl.String("op", "write", "write, read, randwrite, randread or fill")
	bs := fl.Int("bs", 1<<20, "bytes of one call")
	size := fl.Int64("size", 256<<20, "bytes of the file")
	dur := fl.Duration("time", time.Second, "how long")
	if err := fl.Parse(args); err != nil {
		return err
	}
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	buf := make([]byte, *bs)
	for i := range buf {
		buf[i] = byte(i)
	}
	l := &load{path: *path, what: *what, buf: buf, size: *size, rng: rand.New(rand.NewSource(1))}
	if err := l.open(); err != nil {
		return fmt.Errorf("open %s: %w", *path, err)
	}
	if *what == "fill" {
		for off := int64(0); off < *size; off += int64(*bs) {
			if _, err := unix.Pwrite(l.fd, buf, off); err != nil {
				return fmt.Errorf("pwrite %s: %w", *path, err)
			}
		}
		return l.close()
	}
	fmt.Fprintln(out, "ready")
	if _, err := bufio.NewReader(in).ReadString('\n'); err != nil {
		return err
	}
	res, err := l.run(*dur)
	if err != nil {
		return fmt.Errorf("%s %s: %w", *what, *path, err)
	}
	return json.NewEncoder(out).Encode(res)
}

// load is an open file, or a raw connection in the place of one.
type load struct {
	fd   int
	raw  *rawClient // nil for a file
	path string
	what string
	buf  []byte
	size int64
	off  int64
	rng  *rand.Rand
}

func (l *load) open() (err error) {
	if strings.HasPrefix(l.path, rawScheme) {
		l.raw, err = dialRaw(l.path)
		return err
	}
	l.fd, err = unix.Open(l.path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	return err
}

func (l *load) close() error {
	if l.raw != nil {
		return l.raw.conn.Close()
	}
	return unix.Close(l.fd)
}

func (l *load) run(dur time.Duration) (loadResult, error) {
	took := make([]float64, 0, 1<<20)
	cpu, start := program.OwnCPU(), time.Now()
	for last := start; last.Sub(start) < dur; {
		if err := l.call(); err != nil {
			return loadResult{}, err
		}
		now := time.Now()
		took = append(took, now.Sub(last).Seconds())
		last = now
	}
	seconds := time.Since(start).Seconds()
	cpu = program.OwnCPU() - cpu
	slices.Sort(took)
	return loadResult{
		Ops: len(took), Seconds: seconds, CPU: cpu.Seconds(),
		P50: took[len(took)/2], P99: took[len(took)*99/100],
	}, l.close()
}

func (l *load) call() error {
	switch {
	case l.raw != nil && l.what == "write":
		return l.raw.write(l.buf)
	case l.raw != nil:
		return l.raw.read(l.buf)
	}
	n := int64(len(l.buf))
	if l.what == "randwrite" || l.what == "randread" {
		l.off = l.rng.Int63n(l.size/n) * n
	}
	var got int
	var err error
	if l.what == "write" || l.what == "randwrite" {
		got, err = unix.Pwrite(l.fd, l.buf, l.off)
	} else {
		got, err = unix.Pread(l.fd, l.buf, l.off)
	}
	if err != nil {
		return err
	}
	if got != len(l.buf) {
		return fmt.Errorf("%d bytes of %d at %d", got, len(l.buf), l.off)
	}
	if l.off += n; l.off+n > l.size {
		l.off = 0
		if l.what == "read" { // what the kernel kept of the last pass does not count
			if err := unix.Close(l.fd); err != nil {
				return err
			}
			l.fd, err = unix.Open(l.path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		}
	}
	return err
}

// runNames is an application that creates, stats and unlinks files. It says
// "ready" before each phase, waits for a line and answers with a loadResult.
func runNames(args []string, in io.Reader, out io.Writer) error {
	fl := flag.NewFlagSet("names", flag.ContinueOnError)
	dir := fl.String("dir", "", "directory of its own")
	files := fl.Int("files", 200, "number of files")
	if err := fl.Parse(args); err != nil {
		return err
	}
	runtime.LockOSThread()
	lines := bufio.NewReader(in)
	phase := func(call func(path string) error) error {
		fmt.Fprintln(out, "ready")
		if _, err := lines.ReadString('\n'); err != nil {
			return err
		}
		cpu, start := program.OwnCPU(), time.Now()
		for i := range *files {
			if err := call(filepath.Join(*dir, fmt.Sprint("file", i))); err != nil {
				return err
			}
		}
		return json.NewEncoder(out).Encode(loadResult{Ops: *files, Seconds: time.Since(start).Seconds(), CPU: (program.OwnCPU() - cpu).Seconds()})
	}
	for _, call := range []func(string) error{
		func(p string) error {
			fd, err := unix.Open(p, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
			if err != nil {
				return fmt.Errorf("create %s: %w", p, err)
			}
			return unix.Close(fd)
		},
		func(p string) error {
			var st unix.Stat_t
			return unix.Stat(p, &st)
		},
		unix.Unlink,
	} {
		if err := phase(call); err != nil {
			return err
		}
	}
	return nil
}
