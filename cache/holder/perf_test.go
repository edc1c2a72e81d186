package holder

import (
	"context"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/ionserver"
)

// BenchmarkSmallWrite is what a write of 4 KiB in commit mode costs the node, beside
// what the kernel and the requests of full chunks cost.
func BenchmarkSmallWrite(b *testing.B) {
	r := newRig(b, ionserver.Options{})
	p := r.node(Options{})
	w := p.open(p.file(), consistency.Commit, rw)
	buf := make([]byte, 4*kib)
	require.NoError(b, w.Write(context.Background(), 0, buf, 0))
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		_ = w.Write(context.Background(), int64(i%128)*4*kib, buf, 0)
	}
	b.StopTimer()
	w.close()
}

// BenchmarkSmallRead is what a read of 4 KiB that the node knows costs it, in
// commit mode.
func BenchmarkSmallRead(b *testing.B) {
	const blocks = 256
	r := newRig(b, ionserver.Options{})
	p := r.node(Options{})
	file := p.file()
	w := p.open(file, consistency.Commit, rw)
	require.NoError(b, w.Write(context.Background(), 0, make([]byte, blocks*4*kib), 0))
	w.close()
	w = p.open(file, consistency.Commit, syscall.O_RDONLY)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		data, err := w.Read(context.Background(), int64(i*389%blocks)*4*kib, 4*kib)
		if err == nil {
			data.Release()
		}
	}
	b.StopTimer()
	w.close()
}
