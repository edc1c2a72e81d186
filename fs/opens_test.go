package fs

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// TestOpensTable: what a home must know of the opens of a node.
func TestOpensTable(t *testing.T) {
	const h = 7
	yes, no := func() bool { return true }, func() bool { return false }
	all := func(uint64) bool { return true }

	var o opens
	require.True(t, o.addLeased(h, 2, false, yes))
	require.False(t, o.addLeased(h, 1, true, yes), "who may write is counted")
	require.False(t, o.addLeased(h, 1, false, no))
	counted, told := o.drop(h)
	require.Zero(t, counted)
	require.False(t, told, "one is left")
	require.True(t, o.tell(h), "it is open")
	require.True(t, o.tell(h), "and the answer may have been lost")
	require.True(t, o.addLeased(h, 1, true, yes), "its home knows now")
	o.drop(h)
	counted, told = o.drop(h)
	require.Zero(t, counted)
	require.True(t, told)
	require.False(t, o.tell(h), "nothing is open")
	require.Empty(t, o.files)

	o.add(h, 3, 1)
	require.False(t, o.tell(h), "its home has counted it")
	require.False(t, o.any(all))
	require.Empty(t, o.count(all))
	o.drop(h)
	o.drop(h)
	counted, told = o.drop(h)
	require.EqualValues(t, 1, counted)
	require.False(t, told)

	require.True(t, o.addLeased(h, 1, false, yes))
	require.True(t, o.any(all))
	require.Equal(t, []uint64{h}, o.count(all))
	require.Empty(t, o.count(all), "it has been counted")
	counted, _ = o.drop(h)
	require.EqualValues(t, 1, counted)

	require.False(t, o.remove(h))
	require.False(t, o.addLeased(h, 1, false, yes), "its name is being removed")
	o.removed(h)
	require.True(t, o.addLeased(h, 1, false, yes))
	require.True(t, o.remove(h), "its home must be told")
	o.removed(h)
	o.drop(h)
	require.Empty(t, o.files)
}

// file makes a file of some bytes that nobody has seen, and forgets it.
func (p *peer) file(name string) uint64 {
	h := p.make(p.client.View().Root, name)
	p.write(h, 0, 100)
	return h
}

// requireAlive fails the test unless the bytes of a file are there.
func (p *peer) requireAlive(h uint64) {
	p.t.Helper()
	_, err := p.GetAttr(p.t.Context(), h)
	require.NoError(p.t, err)
	data, _, err := p.client.Read(p.t.Context(), h, []extent.Extent{{Off: 0, Len: 100}}, 0)
	require.NoError(p.t, err)
	require.EqualValues(p.t, 100, data.Len())
	data.Release()
}

func (p *peer) requireGone(h uint64) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		_, err := p.client.GetAttr(p.t.Context(), h)
		return err != nil
	}, 20*time.Second, 20*time.Millisecond)
}

func (p *peer) open(h uint64, flags uint32) {
	p.t.Helper()
	_, err := p.Open(p.t.Context(), h, flags, false)
	require.NoError(p.t, err)
}

func (p *peer) close(h uint64) {
	p.t.Helper()
	require.NoError(p.t, p.Close(p.t.Context(), h, false))
}

// TestOpenStorm: however many open, look at and close a file, each mount asks its
// home once; who writes once more, and says at the end that it is closed.
func TestOpenStorm(t *testing.T) {
	x := startIONs(t)
	maker := x.peer(t)
	h := maker.file("f")
	root := maker.client.View().Root
	for _, kind := range []struct {
		name   string
		flags  uint32
		open   uint64
		closes uint64
	}{{"read", syscall.O_RDONLY, 1, 0}, {"write", syscall.O_RDWR, 1, 1}} {
		t.Run(kind.name, func(t *testing.T) {
			for range 2 {
				p := x.peer(t)
				storm := func() {
					var g sync.WaitGroup
					for range 50 {
						g.Go(func() {
							a, err := p.Lookup(t.Context(), root, "f")
							if err != nil || a.Handle != h {
								t.Errorf("lookup: %d, %v", a.Handle, err)
							}
							p.open(h, kind.flags)
							if _, err := p.GetAttr(t.Context(), h); err != nil {
								t.Error(err)
							}
							if _, err := p.ReadDir(t.Context(), root); err != nil {
								t.Error(err)
							}
						})
					}
					g.Wait()
				}
				n := p.sent(storm)
				require.LessOrEqual(t, n, 3+kind.open, "lookup and getattr, readdir, open")
				require.Equal(t, kind.closes, p.sent(func() {
					for range 50 {
						p.close(h)
					}
				}))
				require.Empty(t, p.opens.files)
			}
		})
	}
}

// TestRemovedUnderLease: a file lives on while a mount has it open of which its
// home was never told: removed or replaced by another mount or by itself, and over
// a restart of its home.
func TestRemovedUnderLease(t *testing.T) {
	x := startIONs(t)
	a, b := x.peer(t), x.peer(t)
	ctx, root := t.Context(), a.client.View().Root
	open := map[uint64]string{}
	name := func(n string) ionclient.Name { return ionclient.Name{Dir: root, Name: n} }
	for i, kind := range []struct {
		name string
		away func(n string, h uint64) error
	}{
		{"unlinked by another", func(n string, h uint64) error { return b.Unlink(ctx, root, n, h) }},
		{"unlinked by itself", func(n string, h uint64) error { return a.Unlink(ctx, root, n, h) }},
		{"unlinked by itself, unseen", func(n string, _ uint64) error { return a.Unlink(ctx, root, n, 0) }},
		{"replaced by another", func(n string, h uint64) error {
			b.make(root, "new")
			return b.Rename(ctx, name("new"), ionclient.Name{Dir: root, Name: n, Handle: h}, 0)
		}},
		{"replaced by itself", func(n string, h uint64) error {
			a.make(root, "new")
			return a.Rename(ctx, name("new"), ionclient.Name{Dir: root, Name: n, Handle: h}, 0)
		}},
	} {
		n := fmt.Sprint("f", i)
		h := a.file(n)
		a.open(h, syscall.O_RDONLY)
		require.Zero(t, a.sent(func() { a.open(h, syscall.O_RDONLY) }))
		require.NoError(t, kind.away(n, h), kind.name)
		open[h] = kind.name
	}
	time.Sleep(lingered)
	for h, how := range open {
		t.Run(how, func(t *testing.T) {
			a.requireAlive(h)
			a.close(h)
			a.requireAlive(h)
			a.close(h)
			a.requireGone(h)
		})
	}
	t.Run("over a restart", func(t *testing.T) {
		h := a.file("f")
		a.open(h, syscall.O_RDONLY)
		require.True(t, a.Opens(func(uint64) bool { return true }), "its home does not know")
		for i := range x.stops {
			x.stop(i)
			x.start(i)
		}
		require.NoError(t, b.Unlink(ctx, root, "f", h))
		a.requireAlive(h)
		a.close(h)
		a.requireGone(h)
	})
}

// lingered is longer than the home keeps what nobody has open.
const lingered = 2500 * time.Millisecond

// TestOpenLeft: who leaves while a file is opened for it leaves nothing open.
func TestOpenLeft(t *testing.T) {
	x := startIONs(t)
	a, b := x.peer(t), x.peer(t)
	h := a.file("f")
	var g sync.WaitGroup
	for i := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		g.Go(func() {
			flags := uint32(syscall.O_RDONLY)
			if i%2 == 0 {
				flags = syscall.O_RDWR
			}
			if _, err := b.Open(ctx, h, flags, false); err == nil {
				b.close(h)
			}
		})
		g.Go(cancel)
	}
	g.Wait()
	require.Eventually(t, func() bool {
		b.opens.mu.Lock()
		defer b.opens.mu.Unlock()
		return len(b.opens.files) == 0
	}, 10*time.Second, time.Millisecond)
	require.NoError(t, a.Unlink(t.Context(), a.client.View().Root, "f", h))
	a.requireGone(h)
}
