package rpc

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// BenchmarkCall has both ends in one process; internal/bench/rpc compares with
// others.
func BenchmarkCall(b *testing.B) {
	slab := make([]byte, 1<<20)
	s := &service{handle: func(r *Request) {
		switch r.Op {
		case ionpb.Op_WRITE:
			r.Data.CopyTo(slab)
			r.Reply(&Frame{Len: int64(r.Data.Len())})
		case ionpb.Op_READ:
			r.Reply(&Frame{Data: Static(slab)})
		default:
			r.Reply(&Frame{Body: r.Body})
		}
	}}
	for _, w := range []struct {
		name string
		op   ionpb.Op
		size int
		n    int // concurrent callers, times GOMAXPROCS
	}{
		{"write1M", ionpb.Op_WRITE, 1 << 20, 2},
		{"read1M", ionpb.Op_READ, 1 << 20, 2},
		{"echo128", ionpb.Op_GETATTR, 128, 16},
	} {
		b.Run(w.name, func(b *testing.B) {
			c := dial(b, serve(b, s, ServerOptions{Workers: 1}), Options{})
			b.SetBytes(int64(w.size))
			b.SetParallelism(w.n)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				p := make([]byte, w.size)
				for pb.Next() {
					var reply *Frame
					var err error
					f := Frame{Op: w.op, Off: 1 << 30}
					switch w.op {
					case ionpb.Op_WRITE:
						reply, err = c.CallBytes(b.Context(), &f, p)
					case ionpb.Op_READ:
						f.Len = int64(w.size)
						reply, err = c.Call(b.Context(), &f)
					default:
						f.Body = p
						reply, err = c.Call(b.Context(), &f)
					}
					if err != nil {
						b.Error(err)
						return
					}
					reply.Data.Release()
				}
			})
		})
	}
}

// TestAllocations holds the line on garbage per call of both ends together.
func TestAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	s := &service{handle: func(r *Request) { r.Reply(&Frame{Len: int64(r.Data.Len())}) }}
	c := dial(t, serve(t, s, ServerOptions{}), Options{})
	for _, w := range []struct {
		name string
		size int
		most float64
	}{
		{"128 B body, one at a time", 0, 25},
		{"1 MiB payload", 1 << 20, 45},
	} {
		t.Run(w.name, func(t *testing.T) {
			p, body := make([]byte, w.size), make([]byte, 128)
			got := testing.AllocsPerRun(200, func() {
				f := Frame{Op: ionpb.Op_WRITE, Body: body}
				var err error
				if w.size > 0 {
					_, err = c.CallBytes(t.Context(), &f, p)
				} else {
					_, err = c.Call(t.Context(), &f)
				}
				require.NoError(t, err)
			})
			t.Logf("%.1f allocations", got)
			require.LessOrEqual(t, got, w.most)
		})
	}
}
