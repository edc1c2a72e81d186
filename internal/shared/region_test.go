package shared

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestOthersSeeARegion(t *testing.T) {
	r, err := New(1 << 20)
	require.NoError(t, err)
	copy(r.Bytes()[4096:], "hello")
	var seen []byte
	require.True(t, r.Show(func(fd int) {
		seen, err = Map(fd)
		require.NoError(t, err)
		_, err := unix.Mmap(fd, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		require.ErrorIs(t, err, unix.EPERM, "nobody else can write to it")
		_, err = unix.Pwrite(fd, []byte("x"), 0)
		require.ErrorIs(t, err, unix.EPERM)
		require.ErrorIs(t, unix.Ftruncate(fd, 0), unix.EPERM, "nor take it away")
	}))
	require.Len(t, seen, 1<<20)
	require.Equal(t, "hello", string(seen[4096:4101]))
	copy(r.Bytes()[4096:], "world")
	require.Equal(t, "world", string(seen[4096:4101]))

	require.NoError(t, r.Close())
	require.Equal(t, "world", string(seen[4096:4101]), "it stays as long as somebody sees it")
	require.False(t, r.Show(func(int) { t.Error("a closed region is shown") }))
	require.NoError(t, Unmap(seen))
}

func TestOffset(t *testing.T) {
	r, err := New(8192)
	require.NoError(t, err)
	off, ok := r.Offset(r.Bytes()[5:10])
	require.True(t, ok)
	require.Equal(t, int64(5), off)
	off, ok = r.Offset(r.Bytes()[8191:])
	require.True(t, ok)
	require.Equal(t, int64(8191), off)
	_, ok = r.Offset(make([]byte, 1))
	require.False(t, ok)
	mem := r.Bytes()
	require.NoError(t, r.Close())
	_, ok = r.Offset(mem[:1:1])
	require.False(t, ok, "what lies there now is something else")
}

// TestOnlySealedMemory: whoever could cut the file off could have us killed.
func TestOnlySealedMemory(t *testing.T) {
	fd, err := unix.MemfdCreate("unsealed", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.Ftruncate(fd, 4096))
	_, err = Map(fd)
	require.ErrorIs(t, err, errUnsealed)

	f, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer f.Close()
	_, err = Map(int(f.Fd()))
	require.Error(t, err, "no memory at all")
}
