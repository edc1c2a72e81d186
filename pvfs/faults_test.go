package pvfs_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
)

// frail is a connection that breaks after a number of bytes in one direction.
type frail struct {
	net.Conn
	mu   sync.Mutex
	left [2]int // guarded by mu; bytes that can still be read and written
}

func (f *frail) take(dir, n int) (int, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n = min(n, f.left[dir])
	f.left[dir] -= n
	return n, f.left[dir] > 0
}

func (f *frail) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	if n, ok := f.take(0, n); !ok {
		_ = f.Close()
		return n, net.ErrClosed
	}
	return n, err
}

func (f *frail) Write(b []byte) (int, error) {
	n, ok := f.take(1, len(b))
	m, err := f.Conn.Write(b[:n])
	if !ok && err == nil {
		_ = f.Close()
		err = net.ErrClosed
	}
	return m, err
}

// TestConnectionsBreakAtRandom compares a file with a slice of bytes, and a
// directory with a set, while every connection breaks sooner or later, in the
// middle of messages.
func TestConnectionsBreakAtRandom(t *testing.T) {
	fs := pvfsdtest.Start(t, 3, pvfsdtest.Options{})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	var mu sync.Mutex
	dialFrail := func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		nc, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		return &frail{Conn: nc, left: [2]int{3000 + r.IntN(2000000), 1000 + r.IntN(2000000)}}, nil
	}
	c := dial(t, fs.URL(), pvfs.Options{Dial: dialFrail})
	ctx := t.Context()
	a, err := c.Create(ctx, c.Root(), "f", pvfs.CreateOptions{StripSize: 10000})
	require.NoError(t, err)
	f := c.File(a)
	var model []byte
	rounds := 300
	if testing.Short() {
		rounds = 100
	}
	rr := rand.New(rand.NewPCG(seed, 2))
	for i := range rounds {
		off, n := rr.IntN(300000), 1+rr.IntN(200000)
		b := bytes.Repeat([]byte{byte(i + 1)}, n)
		_, err := f.WriteAt(ctx, [][]byte{b}, int64(off))
		require.NoError(t, err)
		if off+n > len(model) {
			model = append(model, make([]byte, off+n-len(model))...)
		}
		copy(model[off:], b)
		got := make([]byte, 500001)
		n, err = f.ReadAt(ctx, [][]byte{got}, 0)
		require.NoError(t, err)
		require.True(t, bytes.Equal(model, got[:n]), "round %d", i)

		name := fmt.Sprintf("n%d", i)
		made, err := c.Create(ctx, c.Root(), name, pvfs.CreateOptions{})
		require.NoError(t, err)
		h, err := c.Lookup(ctx, c.Root(), name)
		require.NoError(t, err)
		require.Equal(t, made.Handle, h)
		require.NoError(t, c.Rename(ctx, c.Root(), name, c.Root(), name+"x"))
		require.NoError(t, c.Remove(ctx, c.Root(), name+"x"))
	}
	s := c.Stats()
	t.Logf("%d retries, %d connections", s.Retries, s.Connects)
	require.Greater(t, s.Retries, int64(5))
	ents, _, _, err := c.ReadDir(ctx, c.Root(), 0, 1000)
	require.NoError(t, err)
	names := []string{}
	for _, e := range ents {
		names = append(names, e.Name)
	}
	require.ElementsMatch(t, []string{"f", "lost+found"}, names)
}
