package holder

import (
	"context"
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
