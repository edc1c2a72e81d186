package pvfsd

import (
	"fmt"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// However many bytestreams are in use, few files are open.
func TestOpenFilesAreBounded(t *testing.T) {
	s, err := openStreams(t.TempDir(), nil, 1)
	require.NoError(t, err)
	s.exists = func(wire.Handle) error { return nil }
	s.syncData = func() bool { return false }
	before := openFiles(t)
	var wg sync.WaitGroup
	for i := range 2000 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			h := wire.Handle(i % 500)
			err := s.write(h, func(f *os.File) error {
				_, err := f.WriteAt([]byte(fmt.Sprintf("%04d", h)), int64(i/500)*4)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	require.LessOrEqual(t, openFiles(t)-before, minOpen)
	for h := range wire.Handle(500) {
		require.NoError(t, s.read(h, func(f *os.File) error {
			b, err := io.ReadAll(io.NewSectionReader(f, 0, 100))
			want := fmt.Sprintf("%04d", h)
			require.Equal(t, want+want+want+want, string(b))
			return err
		}))
	}
	require.LessOrEqual(t, openFiles(t)-before, minOpen)
	s.close()
	require.LessOrEqual(t, openFiles(t), before)
}

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(fds)
}

func TestMissingStreamIsEmpty(t *testing.T) {
	s, err := openStreams(t.TempDir(), nil, 1)
	require.NoError(t, err)
	defer s.close()
	s.exists = func(wire.Handle) error { return os.ErrNotExist }
	s.syncData = func() bool { return true }
	n, err := s.size(7)
	require.NoError(t, err)
	require.Zero(t, n)
	require.NoError(t, s.read(7, func(f *os.File) error {
		require.Nil(t, f)
		return nil
	}))
	require.NoError(t, s.truncate(7, 0))
	require.NoError(t, s.flush(7))
	require.NoError(t, s.remove(7))
	require.ErrorIs(t, s.truncate(7, 1), os.ErrNotExist, "no object, no file")
}
