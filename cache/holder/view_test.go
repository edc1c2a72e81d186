package holder

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/ionserver"
)

// shadow is a file and what each byte of it must be.
type shadow struct {
	*fd
	want []byte
}

func (s *shadow) scribble(r *rand.Rand, n int) {
	for range n {
		off := r.Int64N(int64(len(s.want) - 70*kib))
		p := make([]byte, 1+r.IntN(70*kib))
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		copy(s.want[off:], p)
		s.write(off, string(p))
	}
}

// TestViewChanges: the list of I/O nodes shrinks, and grows again, after they
// were killed with everything that they had in memory. What nodes had published
// or kept back is at the new owners, from where it is written back, or sent again
// after another crash; nobody sees an error.
func TestViewChanges(t *testing.T) {
	r := newRig(t, ionserver.Options{WriteBack: time.Hour, Drain: 50 * time.Millisecond, ViewInterval: 50 * time.Millisecond, Persist: 100 * time.Millisecond})
	p, q := r.nodes()
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var files []*shadow
	for _, m := range []consistency.Mode{consistency.Strong, consistency.Commit, consistency.Session} {
		h := p.file()
		want := make([]byte, 6*mib)
		mine, others := &shadow{p.open(h, m, rw), want}, &shadow{q.open(h, m, rw), want}
		mine.write(int64(len(want)-1), "\x00")
		mine.scribble(random, 20)
		mine.flush()
		others.scribble(random, 10)
		others.flush()
		mine.scribble(random, 10) // unpublished, or kept back under leases
		files = append(files, mine)
		defer others.close()
	}
	both := r.addrs
	for _, peers := range [][]string{both[:1], both, both[1:]} {
		up := []int{0, 1}
		if len(r.peers) == 1 {
			up = up[:1]
		}
		r.kill(up...)
		r.peers = peers
		for i, addr := range both {
			if addr == peers[0] || len(peers) == 2 {
				r.restart(i)
			}
		}
		for _, f := range files {
			f.flush()
			require.NoError(t, f.Fsync(context.Background(), false))
		}
		eventually(t, "nothing is retained any more", func() bool { return p.held.retained.Load() == 0 && q.held.retained.Load() == 0 })
		for _, f := range files {
			x := q.open(f.file.handle, consistency.Session, 0)
			got := []byte(x.read(0, len(f.want)))
			require.True(t, bytes.Equal(f.want, got), "other bytes from %d on", firstDifference(f.want, got))
			x.close()
			f.scribble(random, 10)
			f.flush()
		}
	}
	for _, f := range files {
		f.close()
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
