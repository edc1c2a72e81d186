package fs

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

// TestReadAgainCost: what a node has read it opens, reads and maps again with no
// request at all, be it its own file or one that another node has written.
func TestReadAgainCost(t *testing.T) {
	const size = 4 << 20
	r := newRig(t, 2)
	w := startWorker(t)
	want := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(want)
	var files []string
	for _, mode := range []string{"strong", "commit", "session"} {
		require.NoError(t, os.Mkdir(r.path(0, mode), 0o777))
		require.NoError(t, unix.Setxattr(r.path(0, mode), consistency.Xattr, []byte(mode), 0))
		for writer, name := range []string{"own", "other's"} {
			name = filepath.Join(mode, name)
			require.NoError(t, os.WriteFile(r.path(writer, name), want, 0o644))
			files = append(files, r.path(0, name))
		}
	}
	for _, f := range files {
		r.nodes[0].readAgain(t, w, f, want)
	}
}

// readAgain reads a file, and has w map it, until that costs no request: no leases
// are given for a second after another node has changed the file, and one may
// lapse because the machine stands still.
func (m *mountProc) readAgain(t *testing.T, w *worker, path string, want []byte) {
	before, end := m.allRequests(t), time.Now().Add(time.Minute)
	buf := make([]byte, len(want))
	for pass := 1; ; pass++ {
		f, err := os.Open(path)
		require.NoError(t, err)
		for _, call := range []int{4 << 10, 1 << 20} {
			clear(buf)
			for off := 0; off < len(buf); off += call {
				_, err := f.ReadAt(buf[off:off+call], int64(off))
				require.NoError(t, err)
			}
			require.True(t, bytes.Equal(want, buf))
		}
		require.NoError(t, f.Close())
		fd := w.open(path, unix.O_RDONLY)
		w.do(request{Op: "mmap", FD: fd, Len: int64(len(want)), Flags: unix.MAP_PRIVATE})
		for off := int64(0); off < int64(len(want)); off += int64(len(want)) / 4 {
			require.Equal(t, want[off:off+100], w.do(request{Op: "mget", FD: fd, Off: off, Len: 100}).Data)
		}
		w.do(request{Op: "munmap", FD: fd})
		w.do(request{Op: "close", FD: fd})
		after := m.allRequests(t)
		if after == before && pass > 1 {
			return
		}
		require.True(t, time.Now().Before(end), "%s still costs %d requests", path, after-before)
		before = after
	}
}

// allRequests is how many requests the mount has sent, but those by which a
// session stays alive.
func (m *mountProc) allRequests(t *testing.T) (n uint64) {
	var s Snapshot
	m.get(t, statsXattr, &s)
	for kind, k := range s.RPC.Requests {
		if kind != "ping" {
			n += k
		}
	}
	return n
}
