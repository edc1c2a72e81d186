package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/zoidfs/zoidfs/internal/bench/program"
	"github.com/zoidfs/zoidfs/internal/consistency"
)

// ranksC is the program of a rank.
//
//go:embed ranks/ranks.c
var ranksC []byte

// library is an MPI library: its implementation of MPI-IO, the compiler, and how
// to run eight ranks.
type library struct {
	io, cc string
	launch []string
	prog   string
}

func libraries() []library {
	return []library{
		{io: "ROMIO", cc: "mpicc.mpich", launch: []string{"mpirun.mpich", "-n", fmt.Sprint(ranks)}},
		{io: "OMPIO", cc: "mpicc.openmpi", launch: []string{"mpirun.openmpi", "--allow-run-as-root", "--oversubscribe",
			"--mca", "btl", "self,vader,tcp", "--mca", "io", "ompio", "--mca", "mpi_yield_when_idle", "1", "-n", fmt.Sprint(ranks)}},
	}
}

// buildRanks compiles ranksC with each library that is there.
func (c *config) buildRanks(ctx context.Context) (found []library, err error) {
	source := filepath.Join(c.dir, "ranks.c")
	if err := os.WriteFile(source, ranksC, 0o600); err != nil {
		return nil, err
	}
	for _, lib := range libraries() {
		if _, err := exec.LookPath(lib.cc); err != nil {
			continue
		}
		lib.prog = filepath.Join(c.dir, "ranks."+lib.io)
		if _, err := program.Command(ctx, nil, lib.cc, "-O2", "-o", lib.prog, source); err != nil {
			return nil, err
		}
		found = append(found, lib)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no MPI library: want the Debian package libmpich-dev or libopenmpi-dev")
	}
	return found, nil
}

// variant is a way to do it.
type variant struct {
	client string
	mode   consistency.Mode // of zoidfs
	lib    library
	how    string // posix, blind, mpiio

	write, read []float64 // MiB/s
}

func (v *variant) String() string {
	name := v.client + "/" + v.call()
	if !v.ours() {
		return name
	}
	return name + " " + v.mode.String()
}

// ours tells that the client is zoidfs.
func (v *variant) ours() bool { return v.client == on || v.client == off }

func (v *variant) call() string {
	if v.how == "mpiio" {
		return v.lib.io
	}
	return "POSIX"
}

// variants are those that can be measured: the calls of POSIX by ranks of the
// first library.
func (c *config) variants(x *systems, libs []library) []*variant {
	var all []*variant
	add := func(v variant) {
		if x.mounts[v.client] != nil && c.only.MatchString(v.String()) {
			all = append(all, &v)
		}
	}
	for _, mode := range []consistency.Mode{consistency.Strong, consistency.Commit, consistency.Session} {
		for _, client := range []string{on, off} {
			add(variant{client: client, mode: mode, lib: libs[0], how: "posix"})
		}
		for _, lib := range libs {
			if mode != consistency.Session { // in which MPI-IO is not right unchanged
				add(variant{client: on, mode: mode, lib: lib, how: "mpiio"})
			}
		}
	}
	add(variant{client: fuse, lib: libs[0], how: "posix"})
	add(variant{client: null, lib: libs[0], how: "blind"})
	return all
}

// measureRanks prints the table of jobs. A first round is not counted: caches and
// servers use memory then that they have never had.
func (c *config) measureRanks(ctx context.Context, x *systems, libs []library, out io.Writer) error {
	all := c.variants(x, libs)
	for round := range c.rounds + 1 {
		for _, v := range all {
			if round == 1 {
				v.write, v.read = nil, nil
			}
			if err := c.job(ctx, x, v); err != nil {
				return fmt.Errorf("%v: %w", v, err)
			}
		}
	}
	return printRates(all, out)
}

// printRates prints medians, and their ratios to pvfs2fuse and to the same calls
// in the same mode without the engine.
func printRates(all []*variant, out io.Writer) error {
	rates := []func(*variant) []float64{func(v *variant) []float64 { return v.write }, func(v *variant) []float64 { return v.read }}
	tab := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "client\tmode\tcall\twrite MiB/s\tleast\tmost\tx pvfs2fuse\tx off\tread MiB/s\tleast\tmost\tx pvfs2fuse\tx off")
	for _, v := range all {
		peer := func(client string, of func(*variant) []float64) string {
			for _, p := range all {
				if p.client == client && p != v && (client == fuse || p.mode == v.mode && v.client == on) {
					return fmt.Sprintf("%.2f", program.Median(of(v))/program.Median(of(p)))
				}
			}
			return "-"
		}
		mode := v.mode.String()
		if !v.ours() {
			mode = "-"
		}
		fmt.Fprintf(tab, "%s\t%s\t%s", v.client, mode, v.call())
		for _, of := range rates {
			r := of(v)
			fmt.Fprintf(tab, "\t%.1f\t%.1f\t%.1f\t%s\t%s", program.Median(r), slices.Min(r), slices.Max(r), peer(fuse, of), peer(off, of))
		}
		fmt.Fprintln(tab)
	}
	return tab.Flush()
}

// job makes a file, writes it, reads it and removes it. It is there before the
// ranks come, for with pvfs2fuse those that make it at once fail.
func (c *config) job(ctx context.Context, x *systems, v *variant) error {
	mounts := x.mounts[v.client]
	if v.client == null { // in which there is no directory, and every file
		return c.measureJob(ctx, v, mounts, "")
	}
	name := fmt.Sprint("job", time.Now().UnixNano()) // pvfs2fuse remembers what a name has meant
	dir := filepath.Join(mounts[0], name)
	if err := os.Mkdir(dir, 0o777); err != nil {
		return err
	}
	if v.ours() {
		if _, err := program.Command(ctx, nil, c.zoidfs, "consistency", "set", dir, v.mode.String()); err != nil {
			return err
		}
	}
	if err := createFile(filepath.Join(dir, "file")); err != nil {
		return err
	}
	if err := c.measureJob(ctx, v, mounts, name); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// measureJob has the ranks write the file of the directory, and read it.
func (c *config) measureJob(ctx context.Context, v *variant, mounts []string, dir string) error {
	for _, what := range []string{"write", "read"} {
		rate, err := c.launch(ctx, v, mounts, dir, what)
		if err != nil {
			return err
		}
		if what == "write" {
			v.write = append(v.write, rate)
		} else {
			v.read = append(v.read, rate)
		}
	}
	return nil
}

var seconds = regexp.MustCompile(`(?m)^seconds ([0-9.]+)$`)

// launch runs the ranks, each with the mount of its node at /zfs, and returns
// their MiB a second.
func (c *config) launch(ctx context.Context, v *variant, mounts []string, dir, what string) (float64, error) {
	const script = `r=${PMI_RANK:-$OMPI_COMM_WORLD_RANK}
if [ "$r" -lt "$1" ]; then m=$2; else m=$3; fi
shift 3
mount --bind "$m" /zfs && exec "$@"`
	if err := os.MkdirAll("/zfs", 0o755); err != nil {
		return 0, err
	}
	argv := slices.Concat(v.lib.launch[1:], []string{"unshare", "--mount", "sh", "-c", script, "sh", fmt.Sprint(ranks / nodes)}, mounts,
		[]string{v.lib.prog, filepath.Join("/zfs", dir, "file"), v.how, what, fmt.Sprint(c.size)})
	out, err := program.Command(ctx, nil, v.lib.launch[0], argv...)
	if err != nil {
		return 0, err
	}
	m := seconds.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("the ranks printed %q", out)
	}
	took, err := strconv.ParseFloat(string(m[1]), 64)
	return float64(c.size>>20) / took, err
}
