package fs

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/ionserver"
)

// TestSmallWritesCost: a large file written with small calls in commit mode costs
// the I/O nodes a request a chunk, and the PVFS2 servers a flow of full length for
// each 4 MiB.
func TestSmallWritesCost(t *testing.T) {
	needFUSE(t)
	const (
		call, chunk, flow = 4 << 10, 1 << 20, 4 << 20
		size              = 16 << 20
		// What the last rounds of two I/O nodes have left for two servers each, and
		// what a full memory or a machine that stood still for seconds divides.
		few = 12
	)
	r := &rig{ions: startIONsWith(t, func(o *ionserver.Options) { o.WriteBack = time.Hour })}
	m := r.mount(t, mountArgs{Consistency: consistency.Commit})
	f, err := os.Create(filepath.Join(m.Mountpoint(), "f"))
	require.NoError(t, err)
	writes, holds := m.requests(t, "write"), m.requests(t, "hold")
	io := r.ions.asked("io") + r.ions.asked("small_io")
	p := make([]byte, call)
	for off := int64(0); off < size; off += call {
		_, err := f.WriteAt(p, off)
		require.NoError(t, err)
	}
	require.NoError(t, f.Sync())
	require.LessOrEqual(t, m.requests(t, "write")-writes, uint64(size/chunk+few))
	require.LessOrEqual(t, m.requests(t, "hold")-holds, uint64(1))
	sent := r.ions.asked("io") + r.ions.asked("small_io") - io
	t.Log(sent, "requests to servers")
	require.LessOrEqual(t, sent, int64(size/flow+few))
	require.NoError(t, f.Close())
}
