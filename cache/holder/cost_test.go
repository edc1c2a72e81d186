package holder

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/extent"
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

// team is ranks on one node, each with a file descriptor of its own.
type team []*fd

func (n *node) team(size int, h uint64, m consistency.Mode) (t team) {
	for range size {
		t = append(t, n.open(h, m, syscall.O_RDONLY))
	}
	return t
}

func (t team) close() {
	for _, f := range t {
		f.close()
	}
}

// read has all ranks read their shares at the same time, as a job would. share is
// where the i-th piece of a rank begins; a negative one ends it.
func (t team) read(want []byte, piece int, share func(rank, i int) int) {
	var group errgroup.Group
	for rank, f := range t {
		group.Go(func() error {
			for i := 0; ; i++ {
				at := share(rank, i)
				if at < 0 || at >= len(want) {
					return nil
				}
				if got := f.read(int64(at), piece); got != string(want[at:min(len(want), at+piece)]) {
					return fmt.Errorf("rank %d: differs at %d", rank, at)
				}
			}
		})
	}
	require.NoError(t[0].t, group.Wait())
}

// TestSharedReads: ranks of two nodes that read a file in small pieces, each
// with a pattern of its own, cost a node about one request a MiB.
func TestSharedReads(t *testing.T) {
	const size, ranks = 16 * mib, 8
	r := newRig(t, ionserver.Options{})
	p, q := r.nodes()
	h := p.file()
	w := p.open(h, consistency.Commit, rw)
	want := w.fill(size, mib)
	w.close()
	for _, tt := range []struct {
		name  string
		piece int
		share func(rank, i int) int
	}{
		{"interleaved", 4 * kib, func(rank, i int) int { return (i*ranks + rank) * 4 * kib }},
		{"every other rank on the other node", 4 * kib, func(rank, i int) int { return (i*ranks + rank%4*2 + rank/4) * 4 * kib }},
		{"nested", 2 * kib, func(rank, i int) int { // rows of 8 KiB, planes of 512 KiB, ranks 4 by 2
			plane, row := i/32, i%32
			return plane*512*kib + (rank/4*32+row)*8*kib + rank%4*2*kib
		}},
		{"block-cyclic", 4 * kib, func(rank, i int) int { // columns of 8 KiB, 16 of a process column, 2 by 4
			block, column := i/16, i%16
			return (block*4+rank/2)*128*kib + column*8*kib + rank%2*4*kib
		}},
	} {
		for _, m := range []consistency.Mode{consistency.Strong, consistency.Commit, consistency.Session} {
			t.Run(tt.name+" "+m.String(), func(t *testing.T) {
				for k, n := range []*node{p, q} {
					if f := n.held.known(h); f != nil {
						f.acquire()
						f.data.Drop(everything)
					}
					team := n.team(ranks/2, h, m)
					sent := n.sent("read", func() {
						team.read(want, tt.piece, func(rank, i int) int { return tt.share(k*ranks/2+rank, i) })
					})
					team.close()
					require.LessOrEqual(t, sent, size/mib+64)
				}
			})
		}
	}
}

// TestReadsWithoutLeases: where nothing may be kept, many ranks of a node that
// read the same cost it far fewer READs than calls, and hardly more than few do.
func TestReadsWithoutLeases(t *testing.T) {
	const size, piece, ranks = 8 * mib, 256 * kib, 32
	r := newRig(t, ionserver.Options{NoDataLeases: true})
	p, q := r.nodes()
	h := p.file()
	w := p.open(h, consistency.Commit, rw)
	want := w.fill(size, mib)
	w.close()
	team := q.team(ranks, h, consistency.Strong)
	defer team.close()
	for i, f := range team {
		f.rank = collective.Member{Job: 7, Rank: collective.Rank(i)}
	}
	before := q.client.Stats()
	team.read(want, piece, func(_, i int) int { return i * piece })
	after := q.client.Stats()
	sent, got := after.Requests["read"]-before.Requests["read"], after.BytesReceived-before.BytesReceived
	t.Logf("%d READs for %d calls, %d bytes", sent, ranks*size/piece, got)
	require.LessOrEqual(t, sent, uint64(ranks*size/piece/3))
	require.LessOrEqual(t, got, uint64(ranks*size/2))
}

// TestMergedReadIsNoOlder: what answers a read is asked for after it was called,
// though an older READ of the same bytes is on its way.
func TestMergedReadIsNoOlder(t *testing.T) {
	r := newRig(t, ionserver.Options{NoDataLeases: true})
	p, q := r.nodes()
	h := p.file()
	w := p.open(h, consistency.Strong, rw)
	defer w.close()
	w.write(0, "00000000")
	team := q.team(8, h, consistency.Strong)
	defer team.close()
	team[0].read(0, 8) // now it is known that nothing may be kept
	var latest atomic.Int64
	var all errgroup.Group
	for _, f := range team {
		all.Go(func() error {
			for {
				before := latest.Load()
				got, err := strconv.ParseInt(f.read(0, 8), 10, 64)
				if err != nil || got < before {
					return fmt.Errorf("read %d (%v) after %d was written", got, err, before)
				}
				if before == 200 {
					return nil
				}
			}
		})
	}
	for i := range int64(200) {
		w.write(0, fmt.Sprintf("%08d", i+1))
		latest.Store(i + 1)
	}
	require.NoError(t, all.Wait())
}

// TestSparseReads: one who reads a small part of a file at a constant distance
// gets it with about a request a MiB, and little else.
func TestSparseReads(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p, q := r.nodes()
	h := p.file()
	w := p.open(h, consistency.Commit, rw)
	want := w.fill(32*mib, mib)
	w.close()
	team := q.team(1, h, consistency.Commit)
	defer team.close()
	before := q.client.Stats()
	team.read(want, 4*kib, func(_, i int) int { return 100 + i*64*kib })
	after := q.client.Stats()
	require.LessOrEqual(t, after.Requests["read"]-before.Requests["read"], uint64(32+16), "of 512 reads")
	require.LessOrEqual(t, after.BytesReceived-before.BytesReceived, uint64(3*mib), "of which 2 MiB were asked for")
}

// TestRandomReads: who reads here and there is not given more than it asks for.
func TestRandomReads(t *testing.T) {
	const size = 32 * mib
	r := newRig(t, ionserver.Options{})
	p, q := r.nodes()
	h := p.file()
	w := p.open(h, consistency.Commit, rw)
	want := w.fill(size, mib)
	w.close()
	team := q.team(4, h, consistency.Strong)
	defer team.close()
	before := q.client.Stats()
	const each = 250
	team.read(want, 8*kib, func(rank, i int) int {
		if i == each {
			return -1
		}
		return int(rand.New(rand.NewPCG(uint64(rank), uint64(i))).Uint64N(size/kib-8)) * kib
	})
	after := q.client.Stats()
	require.LessOrEqual(t, after.BytesReceived-before.BytesReceived, uint64(each*4*8*kib*11/10))
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

// TestReadAheadEnds: nothing is read ahead behind where the file ended when it was
// opened, also while its size is not known under a lease, until it is seen to grow.
func TestReadAheadEnds(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p, q := r.nodes()
	w := p.open(p.file(), consistency.Commit, rw)
	defer w.close()
	w.fill(2*mib, mib)
	w.flush()
	x := q.open(w.file.handle, consistency.Commit, syscall.O_RDONLY)
	defer x.close()
	last, behind := extent.Extent{Off: mib, Len: mib}, extent.Extent{Off: 2 * mib, Len: mib}
	within := func() []extent.Extent { return x.file.readers.within([]extent.Extent{last, behind}) }
	require.Equal(t, []extent.Extent{last}, within())
	w.write(2*mib, "more")
	w.flush()
	require.Equal(t, "more", x.read(2*mib, 4))
	require.Equal(t, []extent.Extent{last, behind}, within())
}
