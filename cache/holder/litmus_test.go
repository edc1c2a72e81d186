package holder

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/ionserver"
)

const rw = syscall.O_RDWR

// must is the modes in which the reader of a litmus test must see the write.
type must []consistency.Mode

var (
	always     = must(consistency.All())
	onlyStrong = must{consistency.Strong}
	published  = must{consistency.Strong, consistency.Commit, consistency.Laminated}
	reopened   = must{consistency.Strong, consistency.Commit, consistency.Laminated, consistency.Session}
)

func (m must) in(x consistency.Mode) bool {
	for _, y := range m {
		if x == y {
			return true
		}
	}
	return false
}

// world is two nodes that both have a file open.
type world struct {
	p, q *fd
	t    *testing.T
	mode consistency.Mode
}

// reopen closes and opens q's descriptor.
func (w *world) reopen() {
	w.q.close()
	w.q = w.q.n.open(w.q.file.handle, w.mode, syscall.O_RDONLY)
}

const old, new1 = "0000", "1111"

// TestLitmus runs the programs of docs/consistency.md at several sizes and
// places. The file has old bytes, which q has read.
func TestLitmus(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p, q := r.nodes()
	for _, c := range []struct {
		name string
		must must
		run  func(w *world, x int64) string // what q reads at x
	}{
		{"L1 write, read", onlyStrong, func(w *world, x int64) string {
			w.p.write(x, new1)
			return w.q.read(x, 4)
		}},
		{"L2 write, fsync, read", published, func(w *world, x int64) string {
			w.p.write(x, new1)
			w.p.fsync()
			return w.q.read(x, 4)
		}},
		{"L3 write, close, open, read", reopened, func(w *world, x int64) string {
			w.p.write(x, new1)
			w.p.flush()
			w.reopen()
			return w.q.read(x, 4)
		}},
		{"L4 write, close, read", published, func(w *world, x int64) string {
			w.p.write(x, new1)
			w.p.flush()
			return w.q.read(x, 4)
		}},
		{"L6 write, open, read", onlyStrong, func(w *world, x int64) string {
			w.p.write(x, new1)
			w.reopen()
			return w.q.read(x, 4)
		}},
		{"L12 write, unlock, lock, read", always, func(w *world, x int64) string {
			w.p.write(x, new1)
			require.NoError(w.t, w.p.n.held.PublishAll(context.Background(), w.p.file.handle))
			w.q.n.held.Acquired(w.q.file.handle)
			return w.q.read(x, 4)
		}},
		{"L10 ordered overwrites", reopened, func(w *world, x int64) string {
			w.p.write(x, "2222")
			w.p.flush()
			q := w.q.n.open(w.q.file.handle, w.mode, rw)
			q.write(x, new1)
			q.close()
			p := w.p.n.open(w.p.file.handle, w.mode, syscall.O_RDONLY)
			defer p.close()
			return p.read(x, 4)
		}},
		{"what was seen never goes away", always, func(w *world, x int64) string {
			w.p.write(x, new1)
			w.p.fsync()
			seen := w.q.read(x, 4)
			again := w.q.read(x, 4)
			if seen == new1 {
				require.Equal(w.t, new1, again)
			}
			return new1
		}},
		{"own writes", always, func(w *world, x int64) string {
			other := w.p.n.open(w.p.file.handle, w.mode, syscall.O_RDONLY)
			defer other.close()
			require.Equal(w.t, old, other.read(x, 4))
			w.p.write(x, new1)
			return other.read(x, 4)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, m := range consistency.All() {
				for _, x := range []int64{0, 4093, mib - 2, 5*mib - 1} {
					h := p.file()
					w := &world{p: p.open(h, m, rw), q: q.open(h, m, syscall.O_RDONLY), t: t, mode: m}
					w.p.write(x, old)
					w.p.fsync()
					w.reopen()
					require.Equal(t, old, w.q.read(x, 4))
					got := c.run(w, x)
					if c.must.in(m) {
						require.Equal(t, new1, got, "%v at %d", m, x)
					}
					for i := range got {
						require.Contains(t, old+new1, string(got[i]), "%v at %d: invented", m, x)
					}
					w.p.close()
					w.q.close()
				}
			}
		})
	}
}

// eachMode runs f for each mode with descriptors of two nodes, both writable.
func eachMode(t *testing.T, f func(t *testing.T, p, q *fd)) {
	r := newRig(t, ionserver.Options{})
	p, q := r.nodes()
	for _, m := range consistency.All() {
		t.Run(m.String(), func(t *testing.T) {
			h := p.file()
			a, b := p.open(h, m, rw), q.open(h, m, rw)
			a.t, b.t = t, t
			f(t, a, b)
			a.close()
			b.close()
		})
	}
}

// TestL9 is two writers of disjoint bytes of one page.
func TestL9(t *testing.T) {
	eachMode(t, func(t *testing.T, p, q *fd) {
		for i := range int64(32) {
			p.write(4*i, "pp")
			q.write(4*i+2, "qq")
		}
		p.flush()
		q.flush()
		again := p.n.open(p.file.handle, p.Mode(), syscall.O_RDONLY)
		defer again.close()
		require.Equal(t, strings.Repeat("ppqq", 32), again.read(0, 128))
	})
}

// TestWritingBackWhatWasRead: a library reads a range in which another node has
// unpublished bytes, and writes it back with bytes of its own changed.
func TestWritingBackWhatWasRead(t *testing.T) {
	eachMode(t, func(t *testing.T, p, q *fd) {
		p.write(0, strings.Repeat(".", 100))
		p.flush()
		require.Equal(t, strings.Repeat(".", 100), q.read(0, 100))
		for i := range int64(10) { // published
			p.write(10*i, "p")
		}
		p.flush()
		b := []byte(q.read(0, 100))
		copy(b[5:], "q")
		q.write(0, string(b))
		q.flush()
		again := p.n.open(p.file.handle, p.Mode(), syscall.O_RDONLY)
		defer again.close()
		require.Equal(t, "p....q....p.........", again.read(0, 20))
	})
}

// TestL14 is truncation, which is seen at once.
func TestL14(t *testing.T) {
	eachMode(t, func(t *testing.T, p, q *fd) {
		p.write(0, strings.Repeat("x", 3*mib))
		p.truncate(10)
		require.EqualValues(t, 10, q.size())
		require.EqualValues(t, 10, p.size())
		require.Equal(t, strings.Repeat("x", 10), p.read(0, 100))
		p.truncate(2 * mib)
		require.Equal(t, strings.Repeat("\x00", 50), p.read(2*mib-50, 100))
		p.write(20, "y")
		require.Equal(t, strings.Repeat("x", 10)+strings.Repeat("\x00", 10)+"y\x00", p.read(0, 22))
	})
}

// TestL15 is records appended by two nodes.
func TestL15(t *testing.T) {
	eachMode(t, func(t *testing.T, p, q *fd) {
		var group sync.WaitGroup
		for _, f := range []*fd{p, q} {
			group.Go(func() {
				for i := range 20 {
					_, n, err := f.Append(context.Background(), fmt.Appendf(nil, "%02d;", i), 0)
					if err != nil || n != 3 {
						t.Errorf("appended %d: %v", n, err)
					}
				}
			})
		}
		group.Wait()
		got := p.read(0, 1000)
		require.Len(t, got, 2*20*3)
		for i := range 20 {
			require.Equal(t, 2, strings.Count(got, fmt.Sprintf("%02d;", i)))
		}
	})
}

// TestSizes: a node sees its own end of a file, others at the latest when it
// is published; bytes between are zero.
func TestSizes(t *testing.T) {
	eachMode(t, func(t *testing.T, p, q *fd) {
		require.EqualValues(t, 0, p.size())
		require.Empty(t, p.read(0, 10))
		p.write(3*mib+5, "end")
		require.EqualValues(t, 3*mib+8, p.size())
		require.Equal(t, "\x00\x00end", p.read(3*mib+3, 100))
		require.Equal(t, "\x00\x00", p.read(mib-1, 2))
		p.fsync()
		require.EqualValues(t, 3*mib+8, q.size())
		again := q.n.open(q.file.handle, q.Mode(), syscall.O_RDONLY)
		defer again.close()
		require.Equal(t, strings.Repeat("\x00", 2*mib), again.read(mib/2, 2*mib))
		require.Equal(t, "\x00end", again.read(3*mib+4, 100))
	})
}

// TestEventual: what was written is seen in time, with no call by the writer,
// and by a reader that had cached what was there.
func TestEventual(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	soon := Options{Visibility: 200_000_000}
	p, q := r.node(soon), r.node(soon)
	h := p.file()
	w, x := p.open(h, consistency.Eventual, rw), q.open(h, consistency.Eventual, syscall.O_RDONLY)
	defer w.close()
	defer x.close()
	w.write(0, old)
	w.fsync()
	require.Equal(t, old, x.read(0, 4))
	w.write(0, new1)
	eventually(t, "the write shows", func() bool { return x.read(0, 4) == new1 })
}

// TestHoleBeforeTheUnpublished: what a handle that may write reads it may write
// back, so it sees zeros before bytes that another node has not published, and
// no end of file.
func TestHoleBeforeTheUnpublished(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	for _, m := range []consistency.Mode{consistency.Commit, consistency.Session, consistency.Eventual, consistency.Laminated} {
		t.Run(m.String(), func(t *testing.T) {
			p, q := r.nodes()
			h := p.file()
			w, back := p.open(h, m, rw), q.open(h, m, rw)
			require.Empty(t, back.read(100, 3))
			w.write(9<<20, "far")
			require.Equal(t, "\x00\x00\x00", back.read(100, 3))
			require.Equal(t, "far", back.read(9<<20, 3))
		})
	}
}
