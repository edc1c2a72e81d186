package holder

import (
	"bytes"
	"context"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/ionserver"
)

// fill writes n bytes in pieces of size, and returns them.
func (f *fd) fill(n, size int) []byte {
	f.t.Helper()
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(size)}).Read(b)
	for at := 0; at < n; at += size {
		require.NoError(f.t, f.Write(context.Background(), int64(at), b[at:min(n, at+size)], 0))
	}
	return b
}

func (f *fd) requireContent(want []byte) {
	f.t.Helper()
	for at := 0; at < len(want); at += mib {
		part := want[at:min(len(want), at+mib)]
		require.True(f.t, bytes.Equal(part, []byte(f.read(int64(at), len(part)))), "at %d", at)
	}
	require.Empty(f.t, f.read(int64(len(want)), 100))
}

// TestSmallWritesBecomeLargeOnes: where writes may return before they are
// published, many small ones cost one request a chunk.
func TestSmallWritesBecomeLargeOnes(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p, q := r.nodes()
	for _, m := range consistency.All() {
		t.Run(m.String(), func(t *testing.T) {
			h := p.file()
			w := p.open(h, m, rw)
			var want []byte
			n := p.sent("write", func() {
				want = w.fill(8*mib, 4*kib)
				w.fsync()
			})
			if m == consistency.Strong { // the first of each domain asks for the lease
				require.LessOrEqual(t, n, 16)
			} else {
				require.LessOrEqual(t, n, 8)
			}
			w.close()
			x := q.open(h, m, syscall.O_RDONLY)
			x.requireContent(want)
			x.close()
		})
	}
}

// TestInterleavedWritesAreOne: small pieces that two nodes write in turn cost
// each of them one request a chunk, whatever lies in between.
func TestInterleavedWritesAreOne(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p, q := r.nodes()
	for _, m := range []consistency.Mode{consistency.Commit, consistency.Session, consistency.Eventual} {
		t.Run(m.String(), func(t *testing.T) {
			h := p.file()
			fds := []*fd{p.open(h, m, rw), q.open(h, m, rw)}
			want := make([]byte, 4*mib)
			rand.NewChaCha8([32]byte{9}).Read(want)
			write := func(k int) {
				for at := k * 4 * kib; at < len(want); at += 8 * kib {
					fds[k].write(int64(at), string(want[at:at+4*kib]))
				}
				fds[k].close()
			}
			require.LessOrEqual(t, p.sent("write", func() { write(0) }), 4)
			require.LessOrEqual(t, q.sent("write", func() { write(1) }), 4)
			x := p.open(h, m, syscall.O_RDONLY)
			defer x.close()
			x.requireContent(want)
		})
	}
}

// TestRereadIsFree: what was read or written is read again without a request,
// until somebody else writes.
func TestRereadIsFree(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p, q := r.nodes()
	for _, m := range consistency.All() {
		t.Run(m.String(), func(t *testing.T) {
			h := p.file()
			w := p.open(h, m, rw)
			text := strings.Repeat("0123456789abcdef", 3*mib/16)
			w.write(0, text)
			w.fsync()
			x := q.open(h, m, syscall.O_RDONLY)
			defer x.close()
			require.Equal(t, text, x.read(0, len(text)))
			eventually(t, "reads are free", func() bool { // in strong, soon after the write
				return q.sent("read", func() {
					for at := int64(0); at < 3*mib; at += 100 * kib {
						n := min(100*kib, 3*mib-at)
						require.Equal(t, text[at:at+n], x.read(at, int(n)))
					}
				}) == 0
			})
			w.write(mib, "new")
			w.close()
			x = q.open(h, m, syscall.O_RDONLY)
			if m != consistency.Eventual {
				require.Equal(t, "new"+text[3:7], x.read(mib, 7))
			}
		})
	}
}

// TestBudget: a cache that is far smaller than what is written costs time and
// nothing else.
func TestBudget(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p, q := r.node(Options{Bytes: minBytes}), r.node(Options{Bytes: minBytes})
	for _, size := range []int{5000, mib} {
		h := p.file()
		w := p.open(h, consistency.Session, rw)
		want := w.fill(4*minBytes, size)
		w.close()
		require.LessOrEqual(t, p.held.store.Snapshot().Unclean, int64(minBytes))
		x := q.open(h, consistency.Session, syscall.O_RDONLY)
		x.requireContent(want)
		x.close()
	}
}

// TestReadAhead: sequential small reads become few large ones.
func TestReadAhead(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p, q := r.nodes()
	h := p.file()
	w := p.open(h, consistency.Commit, rw)
	want := w.fill(8*mib, mib)
	w.close()
	x := q.open(h, consistency.Commit, syscall.O_RDONLY)
	defer x.close()
	n := q.sent("read", func() {
		for at := 0; at < len(want); at += 4 * kib {
			require.True(t, bytes.Equal(want[at:at+4*kib], []byte(x.read(int64(at), 4*kib))))
		}
	})
	require.Less(t, n, 100, "of 2048 reads")
}
