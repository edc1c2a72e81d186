package fs

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/cache/holder"
	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/history"
	"github.com/zoidfs/zoidfs/ionserver"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// bareMount is a mount without FUSE.
func (x *ions) bareMount(t testing.TB) *mount {
	t.Helper()
	return x.bareMountBy(t, nil)
}

// bareMountBy is bareMount over connections that dial makes.
func (x *ions) bareMountBy(t testing.TB, dial dialer) *mount {
	t.Helper()
	p := x.peerBy(t, dial)
	held, err := holder.New(p.client, p.known, holder.Options{Bytes: 8 << 20})
	require.NoError(t, err)
	p.holdWith(held)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- held.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return &mount{client: p.client, known: p.known, held: held}
}

// actor is a process on a node that has one file open.
type actor struct {
	*mount
	*holder.Handle
	inode  uint64
	proc   int
	rnd    *rand.Rand
	start  time.Time
	events []history.Event
}

// span is where random calls begin and end, of a file whose domains have that size.
func span(rnd *rand.Rand, domain int64) (borders []int64) {
	at := []int64{0, 4093, 64<<10 - 9, domain - 9, domain - 4100}[rnd.IntN(5)]
	for range 5 {
		borders = append(borders, at)
		at += []int64{1, 7, 100, 4097, 70001}[rnd.IntN(5)]
	}
	return borders
}

// call makes a random call, whose value, if it writes, is like no other's.
func (a *actor) call(ctx context.Context, borders []int64, value uint8) error {
	from, to := borders[a.rnd.IntN(len(borders))], borders[a.rnd.IntN(len(borders))]
	if from == to {
		to = borders[len(borders)-1] + 100
	}
	from, to = min(from, to), max(from, to)
	e := history.Event{Proc: a.proc, Node: a.proc % 2, Ino: a.inode, Off: from, Len: to - from, Call: int64(time.Since(a.start))}
	var err error
	switch dice := a.rnd.IntN(20); {
	case dice < 8:
		e.Op = history.Read
		var b *holder.Bytes
		if b, err = a.Read(ctx, e.Off, int(e.Len)); err == nil {
			e.Seen, e.N = runs(b.Slices()), int64(b.Len())
			b.Release()
		}
	case dice < 13:
		e.Op, e.Value, e.N = history.Write, value, e.Len
		p := bytes.Repeat([]byte{value}, int(e.Len))
		err = a.Write(ctx, e.Off, p, []uint32{0, 0, 0, ionclient.Sync, ionclient.KillPriv}[a.rnd.IntN(5)])
	case dice < 15:
		e.Op, e.Off, e.Len = history.Truncate, 0, from
		_, err = a.setAttr(ctx, a.inode, ionclient.SetAttr{Size: &from})
	case dice < 16:
		e.Op = history.Fsync
		err = a.Fsync(ctx, false)
	default:
		e.Op, e.Off, e.Len = history.Fstat, 0, 0
		var at ionclient.Attr
		at, err = a.getAttr(ctx, a.inode)
		e.N = at.Size
	}
	e.Return = int64(time.Since(a.start))
	a.events = append(a.events, e)
	return err
}

// runs is how many bytes of which values follow one another.
func runs(pieces [][]byte) (out []history.Run) {
	for _, p := range pieces {
		for len(p) > 0 {
			n := int64(len(p))
			for bytes.Count(p[:n], p[:1]) < int(n) {
				n = (n + 1) / 2
			}
			if k := len(out); k > 0 && out[k-1].Value == p[0] {
				out[k-1].Len += n
			} else {
				out = append(out, history.Run{Len: n, Value: p[0]})
			}
			p = p[n:]
		}
	}
	return out
}

// TestLinearizable: whatever the processes of two nodes do to a file in strong, there
// is an order of the calls that explains what each has seen of the bytes and of the
// size.
func TestLinearizable(t *testing.T) {
	rounds := 10
	if n, err := strconv.Atoi(os.Getenv("ZOIDFS_TEST_ROUNDS")); err == nil {
		rounds = n
	}
	const domain, procs, calls = 256 << 10, 4, 12
	x := startIONsWith(t, func(o *ionserver.Options) { o.DomainSize, o.CacheBytes = domain, ionserver.MinCache })
	mounts := []*mount{x.bareMount(t), x.bareMount(t)}
	root := mounts[0].client.View().Root
	for round := range rounds {
		seed := rand.Uint64()
		rnd := rand.New(rand.NewPCG(seed, 0))
		borders := span(rnd, domain)
		made, err := mounts[0].known.Create(t.Context(), root, strconv.Itoa(round), 0o644, 0, 0)
		require.NoError(t, err)
		var g sync.WaitGroup
		actors, start := make([]*actor, procs), time.Now()
		for i := range actors {
			m := mounts[i%2]
			a, err := m.known.Open(t.Context(), made.Handle, syscall.O_RDWR, false)
			require.NoError(t, err)
			actors[i] = &actor{mount: m, Handle: m.held.Open(&a, consistency.Strong, true), inode: made.Handle, proc: i, rnd: rand.New(rand.NewPCG(seed, uint64(i+1))), start: start}
		}
		jitter := []int{0, 1, 100, 1000}[rnd.IntN(4)]
		for i, a := range actors {
			g.Go(func() {
				for k := range calls {
					if jitter > 0 {
						time.Sleep(time.Duration(a.rnd.IntN(jitter)) * time.Microsecond)
					}
					if err := a.call(t.Context(), borders, uint8(1+k*procs+i)); err != nil {
						t.Errorf("seed %d: %v: %v", seed, a.events[len(a.events)-1], err)
						return
					}
				}
			})
		}
		g.Wait()
		h := history.History{Header: history.Header{Mode: history.Strong, Atomic: domain}}
		for _, a := range actors {
			h.Events = append(h.Events, a.events...)
			require.NoError(t, a.Release(t.Context(), func(clean bool) error { return a.known.Close(t.Context(), a.inode, clean) }))
		}
		if bad := history.Check(h).Violations; len(bad) > 0 {
			t.Errorf("seed %d, borders %v: %v", seed, borders, bad)
			for _, e := range h.Events {
				t.Logf("%9d %9d %v", e.Call/1000, e.Return/1000, e)
			}
		}
	}
}
