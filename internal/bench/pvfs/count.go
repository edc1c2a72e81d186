package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/zoidfs/zoidfs/pvfs"
)

// repeats is how often an operation is made to count its requests.
const repeats = 20

// counted is an operation; do makes it once on the file of a number.
type counted struct {
	name string
	do   func(i int) error
}

// countAll prints how many requests operations take, on the first site.
func (c *config) countAll(ctx context.Context, sites []*site, out io.Writer) error {
	s := sites[0]
	if !c.only.MatchString("requests/" + s.name) {
		return nil
	}
	p, err := newProxy(s.client)
	if err != nil {
		return err
	}
	s.ends.Add(p.stop)
	tab := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "\noperation\tclient\trequests\twhich")
	if err := c.countOurs(ctx, s, p, tab); err != nil {
		return err
	}
	if c.ctools != "" {
		if err := c.countTools(ctx, s, p, tab); err != nil {
			return err
		}
	}
	if c.cprog != "" {
		if err := c.countLibrary(ctx, s, p, tab); err != nil {
			return err
		}
	}
	if s.fuse != "" {
		if err := c.countFuse(ctx, s, p, tab); err != nil {
			return err
		}
	}
	return tab.Flush()
}

// printRow prints what was counted over a number of operations.
func printRow(out io.Writer, op, client string, diff map[string]int64, ops int) {
	var parts []string
	total := 0.0
	for name, n := range diff {
		if n != 0 && name != "getconfig" {
			total += float64(n) / float64(ops)
			parts = append(parts, fmt.Sprintf("%.3g %s", float64(n)/float64(ops), name))
		}
	}
	slices.Sort(parts)
	fmt.Fprintf(out, "%s\t%s\t%.3g\t%s\n", op, client, total, strings.Join(parts, ", "))
}

func minus(a, b map[string]int64) map[string]int64 {
	out := map[string]int64{}
	for name, n := range a {
		out[name] = n - b[name]
	}
	return out
}

// countOps counts operations of one process.
func countOps(out io.Writer, p *proxy, client string, ops []counted) error {
	for _, o := range ops {
		before := p.snapshot()
		for i := range repeats {
			if err := o.do(i); err != nil {
				return fmt.Errorf("%s, %s: %w", o.name, client, err)
			}
		}
		printRow(out, o.name, client, minus(p.snapshot(), before), repeats)
	}
	return nil
}

// countOurs counts those of this client, and compares with what it says itself.
func (c *config) countOurs(ctx context.Context, s *site, p *proxy, out io.Writer) error {
	client, err := pvfs.Dial(ctx, p.url, pvfs.Options{})
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.Create(ctx, s.dir, "ours-warm", pvfs.CreateOptions{Mode: 0o644}); err != nil {
		return err
	}
	client.ResetStats()
	before := p.snapshot()
	var files [2 * repeats]*pvfs.File
	create := func(i int) error {
		a, err := client.Create(ctx, s.dir, fmt.Sprint("ours-", i), pvfs.CreateOptions{Mode: 0o644})
		files[i] = client.File(a)
		return err
	}
	for i := repeats; i < 2*repeats; i++ { // for the large writes
		if err := create(i); err != nil {
			return err
		}
	}
	write := func(i, n int) error {
		_, err := files[i].WriteAt(ctx, [][]byte{make([]byte, n)}, 0)
		return err
	}
	err = countOps(out, p, ours, []counted{
		{"create", create},
		{"open and stat", func(i int) error {
			h, err := client.Lookup(ctx, s.dir, fmt.Sprint("ours-", i))
			if err == nil {
				_, err = client.GetAttr(ctx, h)
			}
			return err
		}},
		{"write 4 KiB, new file", func(i int) error { return write(i, 4<<10) }},
		{"write 1 MiB, new file", func(i int) error { return write(repeats+i, 1<<20) }},
		{"write 1 MiB again", func(i int) error { return write(repeats+i, 1<<20) }},
		{"read 4 KiB", func(i int) error {
			_, err := files[repeats+i].ReadAt(ctx, [][]byte{make([]byte, smallSize)}, 0)
			return err
		}},
		{"write strided", func(i int) error {
			_, err := files[repeats+i].WriteExtents(ctx, stridedExtents(0), [][]byte{make([]byte, pieces*smallSize)})
			return err
		}},
		{"remove", func(i int) error {
			h, err := client.Unlink(ctx, s.dir, fmt.Sprint("ours-", i))
			if err == nil {
				err = client.Destroy(ctx, h)
			}
			return err
		}},
	})
	if err != nil {
		return err
	}
	for name, n := range minus(p.snapshot(), before) {
		if said := client.Stats().Requests[name]; said != n {
			return fmt.Errorf("%d %s passed the proxy, %d the client says", n, name, said)
		}
	}
	return nil
}

// countTools counts those of the C library as its tools use it: what they need
// for many files more than for one, or for a full one more than for an empty.
func (c *config) countTools(ctx context.Context, s *site, p *proxy, out io.Writer) error {
	run := func(name string, args ...string) (map[string]int64, error) {
		before := p.snapshot()
		err := c.tool(ctx, p.url, name, args...)
		return minus(p.snapshot(), before), err
	}
	path := func(prefix string, n int) (names []string) {
		for i := range n {
			names = append(names, filepath.Join(tabMount, s.base, fmt.Sprint(prefix, i)))
		}
		return names
	}
	for _, x := range []struct{ op, tool, one, many string }{
		{"create", "pvfs2-touch", "touch-one", "touch-many"}, {"open and stat", "pvfs2-stat", "touch-one", "touch-many"},
	} {
		one, err := run(x.tool, path(x.one, 1)...)
		if err != nil {
			return err
		}
		many, err := run(x.tool, path(x.many, repeats+1)...)
		if err != nil {
			return err
		}
		printRow(out, x.op, x.tool, minus(many, one), repeats)
	}
	var empty map[string]int64
	for _, x := range []struct {
		op   string
		size int
	}{{"", 0}, {"write 4 KiB, new file", 4 << 10}, {"write 1 MiB, new file", 1 << 20}} {
		src := filepath.Join(c.dir, "few")
		if err := os.WriteFile(src, make([]byte, x.size), 0o644); err != nil {
			return err
		}
		got, err := run("pvfs2-cp", src, filepath.Join(tabMount, s.base, fmt.Sprint("cp-", x.size)))
		if err != nil {
			return err
		}
		if x.size == 0 {
			empty = got
			continue
		}
		printRow(out, x.op, "pvfs2-cp", minus(got, empty), 1)
	}
	return nil
}

// countLibrary counts those of the C library in one process: what it needs for
// many operations more than for one.
func (c *config) countLibrary(ctx context.Context, s *site, p *proxy, out io.Writer) error {
	through := &site{client: s.client, dir: s.dir, base: s.base, url: p.url}
	dir := fmt.Sprint("names-", clib)
	made, err := s.client.Mkdir(ctx, s.dir, dir, pvfs.CreateOptions{Mode: 0o777})
	if err != nil {
		return err
	}
	f, end, err := s.newFile(ctx)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(ctx, [][]byte{make([]byte, unstuffed)}, 0); err != nil {
		return err
	}
	for _, x := range []struct {
		op, workload, on string
		args             []int64 // behind the number of operations
	}{
		{"create", "create", dir, nil}, {"open and stat", "stat", dir, nil}, {"remove", "remove", dir, nil},
		{"write 4 KiB", "write", f.name, []int64{smallSize, unstuffed}}, {"read 4 KiB", "read", f.name, []int64{smallSize, unstuffed}},
		{"write strided", "strided", f.name, []int64{pieces, smallSize, stride}},
	} {
		var got [2]map[string]int64
		for i, n := range []int64{1, repeats} {
			on := x.on
			if x.args == nil { // each time in a directory of its own
				on = filepath.Join(on, fmt.Sprint(n))
			}
			if x.op == "create" {
				if _, err := s.client.Mkdir(ctx, made.Handle, fmt.Sprint(n), pvfs.CreateOptions{Mode: 0o777}); err != nil {
					return err
				}
			}
			before := p.snapshot()
			if _, err := c.clib(ctx, through, x.workload, on, append([]int64{n}, x.args...)...); err != nil {
				return err
			}
			got[i] = minus(p.snapshot(), before)
		}
		printRow(out, x.op, clib, minus(got[1], got[0]), repeats-1)
	}
	return end()
}

// countFuse counts those of the C client behind a mount.
func (c *config) countFuse(ctx context.Context, s *site, p *proxy, out io.Writer) error {
	dir, err := c.mountFuse(ctx, s, "counted", p.url)
	if err != nil {
		return err
	}
	name := func(i int) string { return filepath.Join(dir, s.base, fmt.Sprint("fuse-", i)) }
	write := func(i, n int) error {
		f, err := os.OpenFile(name(i), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Write(make([]byte, n))
		return err
	}
	return countOps(out, p, fuse, []counted{
		{"create", func(i int) error {
			f, err := os.OpenFile(name(i), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}},
		{"stat", func(i int) error {
			_, err := os.Stat(name(i))
			return err
		}},
		{"open, write 4 KiB, close", func(i int) error { return write(i, 4<<10) }},
		{"open, write 1 MiB, close", func(i int) error { return write(i, 1<<20) }},
	})
}
