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
)

// TestStrongUnderContention: registers in one domain, each written by one node
// with growing values, are read by both, while leases come and go. Nobody reads
// a value older than one whose write had returned before, or one whose write
// has not begun.
func TestStrongUnderContention(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p, q := r.nodes()
	h := p.file()
	const registers, each = 6, 300
	var begun, done [registers]atomic.Uint64
	at := func(i int) int64 { return int64(i) * 1000 }
	var writers, readers sync.WaitGroup
	var over atomic.Bool
	for i := range registers {
		n := []*node{p, q}[i%2]
		w := n.open(h, consistency.Strong, rw)
		writers.Go(func() {
			for v := uint64(1); v <= each; v++ {
				begun[i].Store(v)
				if err := w.Write(context.Background(), at(i), binary.BigEndian.AppendUint64(nil, v), 0); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				done[i].Store(v)
			}
			w.close()
		})
	}
	for k := range 4 {
		n := []*node{p, q}[k%2]
		x := n.open(h, consistency.Strong, syscall.O_RDONLY)
		readers.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(k), 1))
			for !over.Load() {
				i := rnd.IntN(registers)
				least := done[i].Load()
				b, err := x.Read(context.Background(), at(i), 8)
				if err != nil {
					t.Errorf("read: %v", err)
					return
				}
				var buf [8]byte
				b.CopyTo(buf[:])
				b.Release()
				if v := binary.BigEndian.Uint64(buf[:]); v < least || v > begun[i].Load() {
					t.Errorf("register %d: read %d, of which %d were there before", i, v, least)
					return
				}
			}
			x.close()
		})
	}
	writers.Wait()
	over.Store(true)
	readers.Wait()
}

// TestSequentialHistories: random calls, one after the other, on two nodes in
// any mode, with what each mode asks for in between, leave and show the bytes
// that they would in memory.
func TestSequentialHistories(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	nodes := []*node{r.node(Options{Bytes: minBytes}), r.node(Options{Bytes: minBytes})}
	for seed := range uint64(5) {
		for _, m := range consistency.All() {
			if m == consistency.Eventual {
				continue // there is nothing to wait for but time
			}
			rnd := rand.New(rand.NewPCG(seed, uint64(m)))
			h := nodes[0].file()
			var model []byte
			for step := range 40 {
				n := nodes[rnd.IntN(2)]
				f := n.open(h, m, rw)
				for range 1 + rnd.IntN(3) {
					off, length := rnd.Int64N(3*mib), 1+rnd.IntN(1<<rnd.IntN(20))
					switch rnd.IntN(5) {
					case 0:
						size := rnd.Int64N(3 * mib)
						f.truncate(size)
						model = append(model, make([]byte, max(0, size-int64(len(model))))...)[:size]
					case 1, 2:
						b := bytes.Repeat([]byte{byte(1 + step)}, length)
						f.write(off, string(b))
						model = append(model, make([]byte, max(0, off+int64(length)-int64(len(model))))...)
						copy(model[off:], b)
					default:
						e := extent.Extent{Off: off, Len: int64(length)}.Intersect(extent.Extent{Len: int64(len(model))})
						got := f.read(off, length)
						require.True(t, bytes.Equal(model[e.Off:e.End()], []byte(got)), "seed %d, %v, step %d: %d bytes at %d", seed, m, step, length, off)
					}
					require.EqualValues(t, len(model), f.size())
				}
				f.close()
			}
		}
	}
}
