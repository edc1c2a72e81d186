package fs

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
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

// TestReadAgainCost: what a node has read it reads again, and opens again, with no
// request at all, be it its own file or one that another node has written.
func TestReadAgainCost(t *testing.T) {
	needFUSE(t)
	const size = 16 << 20
	for _, mode := range []consistency.Mode{consistency.Strong, consistency.Commit, consistency.Session} {
		for _, another := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, written by another node: %v", mode, another), func(t *testing.T) {
				t.Parallel()
				r := &rig{ions: startIONs(t)}
				m := r.mount(t, mountArgs{Consistency: mode})
				writer := m
				if another {
					writer = r.mount(t, mountArgs{Consistency: mode})
				}
				want := make([]byte, size)
				rand.NewChaCha8([32]byte{byte(mode)}).Read(want)
				require.NoError(t, os.WriteFile(filepath.Join(writer.Mountpoint(), "f"), want, 0o644))
				asked := func() (n uint64) { // all but what a session needs to stay alive
					var s Snapshot
					m.get(t, statsXattr, &s)
					for kind, k := range s.RPC.Requests {
						if kind != "ping" {
							n += k
						}
					}
					return n
				}
				passes := 1
				for before := asked(); ; passes++ {
					for _, call := range []int{4 << 10, 1 << 20} {
						require.True(t, bytes.Equal(want, readBy(t, filepath.Join(m.Mountpoint(), "f"), call)))
					}
					now := asked()
					if now == before && passes > 1 {
						break
					}
					require.Less(t, passes, 10, "%d requests", now-before) // a lease may lapse on a machine that stands still
					before = now
				}
				t.Log(passes, "passes")
			})
		}
	}
}

// readBy opens a file and reads it with calls of so many bytes.
func readBy(t *testing.T, path string, call int) (out []byte) {
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	p := make([]byte, call)
	for {
		n, err := f.Read(p)
		out = append(out, p[:n]...)
		if err == io.EOF {
			return out
		}
		require.NoError(t, err)
	}
}
