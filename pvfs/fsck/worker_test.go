package fsck_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs"
)

// worker changes things in two directories of its own and knows what must be
// in them.
type worker struct {
	c     *pvfs.Client
	ctx   context.Context
	r     *rand.Rand
	dirs  [2]pvfs.Handle
	names [2]map[string]*thing
	steps int
}

// thing is what a name stands for.
type thing struct {
	attr   pvfs.Attr
	dir    bool
	target string // of a symlink
	data   []byte // of a file
	xattr  string
}

func newWorker(ctx context.Context, c *pvfs.Client, id int, seed uint64) (*worker, error) {
	w := &worker{c: c, ctx: ctx, r: rand.New(rand.NewPCG(seed, uint64(id)))}
	for i := range w.dirs {
		a, err := c.Mkdir(ctx, c.Root(), fmt.Sprintf("w%d-%d", id, i), pvfs.CreateOptions{Mode: 0o755})
		if err != nil {
			return nil, err
		}
		w.dirs[i], w.names[i] = a.Handle, map[string]*thing{}
	}
	return w, nil
}

// pick chooses one of the worker's things; nil if there is none.
func (w *worker) pick() (d int, name string, x *thing) {
	d = w.r.IntN(2)
	if len(w.names[d]) == 0 {
		return d, "", nil
	}
	all := slices.Sorted(maps.Keys(w.names[d]))
	name = all[w.r.IntN(len(all))]
	return d, name, w.names[d][name]
}

// step does one thing and tells what went wrong.
func (w *worker) step() error {
	w.steps++
	d, name, x := w.pick()
	op := w.r.IntN(12)
	var err error
	switch {
	case x == nil || op < 3 && len(w.names[d]) < 20:
		op, name = 0, fmt.Sprintf("n%d", w.steps)
		err = w.make(d, name)
	case op < 5:
		err = w.rename(d, name, x)
	case op < 7:
		err = w.remove(d, name, x)
	case x.dir || x.target != "":
		return nil
	case op == 7:
		n := w.r.IntN(200_000)
		if err = w.c.File(x.attr).Truncate(w.ctx, int64(n)); err == nil {
			x.data = append(x.data, make([]byte, max(0, n-len(x.data)))...)[:n]
		}
	case op == 8:
		v := fmt.Sprint(w.steps)
		if err = w.c.SetXattr(w.ctx, x.attr.Handle, "user.k", []byte(v), 0); err == nil {
			x.xattr = v
		}
	case op == 9:
		err = w.c.File(x.attr).Flush(w.ctx)
	case op == 10:
		err = w.compare(x)
	default:
		err = w.write(x)
	}
	if err != nil {
		return fmt.Errorf("step %d, op %d of %q: %w", w.steps, op, name, err)
	}
	return nil
}

func (w *worker) make(d int, name string) (err error) {
	x := &thing{}
	opt := pvfs.CreateOptions{Mode: 0o644}
	switch w.r.IntN(6) {
	case 0:
		x.dir = true
		x.attr, err = w.c.Mkdir(w.ctx, w.dirs[d], name, opt)
	case 1:
		x.target = name + "-target"
		x.attr, err = w.c.Symlink(w.ctx, w.dirs[d], name, x.target, 0, 0)
	default:
		if x.attr, err = w.c.Create(w.ctx, w.dirs[d], name, opt); err == nil {
			w.names[d][name] = x
			return w.write(x)
		}
	}
	if err == nil {
		w.names[d][name] = x
	}
	return err
}

func (w *worker) write(x *thing) error {
	off, p := w.r.IntN(100_000), make([]byte, 1+w.r.IntN(150_000))
	for i := range p {
		p[i] = byte(w.r.Uint32())
	}
	x.data = append(x.data, make([]byte, max(0, off+len(p)-len(x.data)))...)
	copy(x.data[off:], p)
	_, err := w.c.File(x.attr).WriteAt(w.ctx, [][]byte{p}, int64(off))
	return err
}

// rename moves x to a new name or over another thing of its kind.
func (w *worker) rename(d int, name string, x *thing) error {
	to, over, y := w.pick()
	if y == nil || x == y || x.dir != y.dir || w.r.IntN(2) == 0 {
		over = fmt.Sprintf("r%d", w.steps)
	}
	if err := w.c.Rename(w.ctx, w.dirs[d], name, w.dirs[to], over); err != nil {
		return err
	}
	delete(w.names[d], name)
	w.names[to][over] = x
	return nil
}

func (w *worker) remove(d int, name string, x *thing) (err error) {
	if x.dir {
		err = w.c.Rmdir(w.ctx, w.dirs[d], name)
	} else {
		err = w.c.Remove(w.ctx, w.dirs[d], name)
	}
	if err == nil {
		delete(w.names[d], name)
	}
	return err
}

// compare reads x and compares it with what was written.
func (w *worker) compare(x *thing) error {
	a, err := w.c.GetAttr(w.ctx, x.attr.Handle)
	if err != nil {
		return err
	}
	if x.dir || x.target != "" {
		if a.Type != x.attr.Type || a.Target != x.target {
			return fmt.Errorf("%v with target %q instead of %v, %q", a.Type, a.Target, x.attr.Type, x.target)
		}
		return nil
	}
	if a.Size != int64(len(x.data)) {
		return fmt.Errorf("size %d instead of %d", a.Size, len(x.data))
	}
	p := make([]byte, len(x.data)+1)
	n, err := w.c.File(a).ReadAt(w.ctx, [][]byte{p}, 0)
	if err == nil && !bytes.Equal(p[:n], x.data) {
		err = errors.New("other bytes than were written")
	}
	if err != nil || x.xattr == "" {
		return err
	}
	v, err := w.c.GetXattr(w.ctx, x.attr.Handle, "user.k")
	if err == nil && string(v) != x.xattr {
		err = fmt.Errorf("xattr %q instead of %q", v, x.xattr)
	}
	return err
}

// verify compares both directories with what must be in them.
func (w *worker) verify(t *testing.T) {
	t.Helper()
	for d, dir := range w.dirs {
		got := map[string]pvfs.Handle{}
		var token pvfs.DirToken
		for eof := false; !eof; {
			var ents []pvfs.Dirent
			var err error
			ents, token, eof, err = w.c.ReadDir(w.ctx, dir, token, 100)
			require.NoError(t, err)
			for _, e := range ents {
				got[e.Name] = e.Handle
			}
		}
		want := map[string]pvfs.Handle{}
		for name, x := range w.names[d] {
			want[name] = x.attr.Handle
		}
		require.Equal(t, want, got)
		for name, x := range w.names[d] {
			require.NoError(t, w.compare(x), name)
		}
	}
}
