package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/zoidfs/zoidfs/internal/bench/program"
	"github.com/zoidfs/zoidfs/pvfs"
)

// smallOps makes small operations with the C library in one process.
//
//go:embed cclient/cclient.c
var smallOps []byte

// buildC compiles smallOps against the library of the C tools and returns the
// program; "" without tools, their headers or a compiler.
func (c *config) buildC(ctx context.Context) (string, error) {
	prefix := filepath.Dir(c.ctools)
	if _, err := os.Stat(filepath.Join(prefix, "include", "pvfs2.h")); c.ctools == "" || err != nil {
		return "", nil
	}
	if _, err := exec.LookPath("cc"); err != nil {
		return "", nil
	}
	src, prog := filepath.Join(c.dir, "cclient.c"), filepath.Join(c.dir, "cclient")
	if err := os.WriteFile(src, smallOps, 0o600); err != nil {
		return "", err
	}
	_, err := program.Command(ctx, nil, "cc", "-O2", "-o", prog, src, "-I"+filepath.Join(prefix, "include"), "-L"+filepath.Join(prefix, "lib"), "-lpvfs2")
	return prog, err
}

// clib runs one workload of smallOps on a path of the site and returns how long
// it took by its own account.
func (c *config) clib(ctx context.Context, s *site, workload, name string, args ...int64) (time.Duration, error) {
	argv := []string{workload, filepath.Join(tabMount, s.base, name)}
	for _, a := range args {
		argv = append(argv, fmt.Sprint(a))
	}
	out, err := c.tabbed(ctx, s.url, c.cprog, argv...)
	if err != nil {
		return 0, err
	}
	seconds, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	return time.Duration(seconds * float64(time.Second)), err
}

// clibNames creates, stats and removes files with a process each.
func (c *config) clibNames(ctx context.Context, s *site) (took [3]time.Duration, err error) {
	dir := fmt.Sprintf("names-%d", time.Now().UnixNano())
	if _, err := s.client.Mkdir(ctx, s.dir, dir, pvfs.CreateOptions{Mode: 0o777}); err != nil {
		return took, err
	}
	for phase, what := range phases {
		if took[phase], err = c.clib(ctx, s, what, dir, int64(c.files)); err != nil {
			return took, err
		}
	}
	return took, s.client.Rmdir(ctx, s.dir, dir)
}

// clibFile runs a workload on a new file of size bytes.
func (c *config) clibFile(ctx context.Context, s *site, size int64, workload string, args ...int64) (time.Duration, error) {
	f, end, err := s.newFile(ctx)
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(buf)) {
		if _, err := f.WriteAt(ctx, [][]byte{buf}, off); err != nil {
			return 0, err
		}
	}
	took, err := c.clib(ctx, s, workload, f.name, args...)
	if err != nil {
		return 0, err
	}
	return took, end()
}

// ownFile is a file of this client.
type ownFile struct {
	*pvfs.File
	name string
}

// newFile makes a file of this client; end removes it.
func (s *site) newFile(ctx context.Context) (f *ownFile, end func() error, err error) {
	name := fmt.Sprintf("file-%d", time.Now().UnixNano())
	a, err := s.client.Create(ctx, s.dir, name, pvfs.CreateOptions{Mode: 0o644})
	return &ownFile{s.client.File(a), name}, func() error { return s.client.Remove(ctx, s.dir, name) }, err
}
