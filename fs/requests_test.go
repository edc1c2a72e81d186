package fs

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/collective"
)

// TestCreateRequests: an open that creates is one request, wherever the home of the
// file is, and what it does to the directory comes with the answer; mknod opens
// nothing.
func TestCreateRequests(t *testing.T) {
	r := newRig(t, 1)
	w := startWorker(t)
	m := r.nodes[0]
	var s Status
	m.get(t, statusXattr, &s)
	place, err := collective.NewPlacement(s.View.Members, s.View.DomainSize)
	require.NoError(t, err)
	ino := func(path string) uint64 {
		var st unix.Stat_t
		require.NoError(t, unix.Stat(path, &st))
		return st.Ino
	}
	dir := ino(r.dirs[0])
	create, open, getattr := m.requests(t, "create"), m.requests(t, "open"), m.requests(t, "getattr")
	const files = 20
	elsewhere := 0
	for i := range files {
		f := r.path(0, fmt.Sprint("f", i))
		w.open(f, unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC|[]int{0, unix.O_EXCL}[i%2])
		if place.Home(ino(f)) != place.Home(dir) {
			elsewhere++
		}
	}
	require.Equal(t, create+files, m.requests(t, "create"))
	require.Equal(t, open, m.requests(t, "open"))
	require.Less(t, elsewhere, files)
	require.Less(t, m.requests(t, "getattr"), getattr+files/2, "when what the home of the directory knows is too old")
	for i := range files {
		require.NoError(t, unix.Mknod(r.path(0, fmt.Sprint("m", i)), unix.S_IFREG|0o600, 0))
	}
	require.Equal(t, create+2*files, m.requests(t, "create"))
	require.Equal(t, open, m.requests(t, "open"))
}
