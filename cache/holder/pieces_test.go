package holder

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// ranksOf is so many ranks on each of two nodes that write a file in turn, and
// calls do for each, side by side.
func ranksOf(each int, p, q *node, do func(rank int, n *node)) {
	var ranks sync.WaitGroup
	for rank := range 2 * each {
		ranks.Go(func() { do(rank, []*node{p, q}[rank/each]) })
	}
	ranks.Wait()
}

// TestInterleavedStrongWrites: small pieces that ranks of two nodes write in turn
// at the same time in strong mode are kept back, for the most part, as nobody
// else writes them.
func TestInterleavedStrongWrites(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p, q := r.nodes()
	h := p.file()
	want := make([]byte, 16*mib)
	rand.NewChaCha8([32]byte{9}).Read(want)
	const ranks = 8
	sent := p.sent("write", func() {
		ranksOf(ranks/2, p, q, func(rank int, n *node) {
			fd := n.open(h, consistency.Strong, rw)
			for at := rank * 4 * kib; at < len(want); at += ranks * 4 * kib {
				fd.write(int64(at), string(want[at:at+4*kib]))
			}
			fd.close()
		})
	})
	require.LessOrEqual(t, sent, len(want)/(4*kib)/2/4)
	x := p.open(h, consistency.Strong, syscall.O_RDONLY)
	defer x.close()
	x.requireContent(want)
}

// TestStrongPiecesUnderContention: ranks of two nodes write their own registers
// over and over, in a form that is recognised, some of them durably. Readers on both
// nodes see no value older than one whose write had returned before.
func TestStrongPiecesUnderContention(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p, q := r.nodes()
	h := p.file()
	const ranks, registers, rounds, size = 6, 40, 4, 600
	var begun, done [registers][ranks]atomic.Uint64
	at := func(rank, i int) int64 { return int64(i*ranks+rank) * size }
	var over atomic.Bool
	var readers sync.WaitGroup
	for k := range 2 {
		x := []*node{p, q}[k].open(h, consistency.Strong, syscall.O_RDONLY)
		readers.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(k), 3))
			for !over.Load() {
				rank, i := rnd.IntN(ranks), rnd.IntN(registers)
				least := done[i][rank].Load()
				b, err := x.Read(context.Background(), at(rank, i), 8)
				if err != nil {
					t.Errorf("read: %v", err)
					return
				}
				var buf [8]byte
				b.CopyTo(buf[:])
				b.Release()
				if v := binary.BigEndian.Uint64(buf[:]); v < least || v > begun[i][rank].Load() {
					t.Errorf("register %d of %d: read %d, of which %d were there before", i, rank, v, least)
					return
				}
			}
			x.close()
		})
	}
	ranksOf(ranks/2, p, q, func(rank int, n *node) {
		fd := n.open(h, consistency.Strong, rw)
		rnd := rand.New(rand.NewPCG(uint64(rank), 4))
		for v := uint64(1); v <= rounds; v++ {
			for i := range registers {
				begun[i][rank].Store(v)
				flags := uint32(0)
				if rnd.IntN(50) == 0 {
					flags = ionclient.Sync
				}
				b := bytes.Repeat(binary.BigEndian.AppendUint64(nil, v), size/8)
				if err := fd.Write(context.Background(), at(rank, i), b, flags); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				done[i][rank].Store(v)
			}
		}
		fd.close()
	})
	over.Store(true)
	readers.Wait()
}

// TestMine: what is under LEASE_PIECES.
func TestMine(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p, _ := r.nodes()
	h := p.file()
	fd := p.open(h, consistency.Strong, rw)
	defer fd.close()
	fd.write(0, "x") // for a tenure
	d := fd.file.domain(0)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pieces = []extent.Extent{{Off: 10, Len: 10}, {Off: 30, Len: 10}}
	for _, tt := range []struct {
		e    extent.Extent
		mine bool
	}{
		{extent.Extent{Off: 10, Len: 10}, true},
		{extent.Extent{Off: 35, Len: 5}, true},
		{extent.Extent{Off: 9, Len: 2}, false},
		{extent.Extent{Off: 19, Len: 2}, false},
		{extent.Extent{Off: 10, Len: 30}, false},
		{extent.Extent{Off: 40, Len: 1}, false},
		{extent.Extent{Off: 0, Len: 1}, false},
	} {
		require.Equal(t, tt.mine, d.mineLocked(tt.e), tt.e)
	}
}
