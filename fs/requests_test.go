package fs

import (
	"errors"
	"fmt"
	"os"
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

// TestFsyncAgain: an fsync of a file that nobody has changed since the last one asks
// for nothing; after a change, by whomever, it does.
func TestFsyncAgain(t *testing.T) {
	r := newRig(t, 2)
	m := r.nodes[0]
	f, err := os.Create(r.path(0, "f"))
	require.NoError(t, err)
	defer f.Close()
	fsyncs := func() uint64 {
		t.Helper()
		_, err := f.Stat() // so that the mount would hear of a change by others
		require.NoError(t, err)
		before := m.requests(t, "fsync")
		for range 8 {
			require.NoError(t, f.Sync())
		}
		return m.requests(t, "fsync") - before
	}
	for what, change := range map[string]func() error{
		"written":  func() error { _, err := f.WriteAt([]byte("x"), 7); return err },
		"cut":      func() error { return f.Truncate(3) },
		"appended": func() error { return appendTo(r.path(0, "f"), "x") },
	} {
		require.NoError(t, change(), what)
		n := fsyncs()
		require.Positive(t, n, what)
		require.LessOrEqual(t, n, uint64(2), what)
		require.Zero(t, fsyncs(), what)
	}
	require.NoError(t, appendTo(r.path(1, "f"), "y"))
	require.Positive(t, fsyncs(), "another node")
}

func appendTo(path, data string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(data)
	return errors.Join(err, f.Close())
}
