package fs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sort"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// peer is what a mount knows, without the mount.
type peer struct {
	*known
	t testing.TB
}

func (x *ions) peer(t testing.TB) *peer {
	t.Helper()
	return x.peerBy(t, nil)
}

// dialer makes connections, as ionclient.Options has it; nil: as mounts do.
type dialer func(ctx context.Context, addr string) (net.Conn, error)

// peerBy is peer over connections that dial makes.
func (x *ions) peerBy(t testing.TB, dial dialer) *peer {
	t.Helper()
	c, err := ionclient.Dial(t.Context(), ionclient.Options{Addrs: x.addrs, Dialer: dial})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		require.NoError(t, c.Close(ctx))
	})
	return &peer{newKnown(c, nil, false), t}
}

// sent is how many requests f makes this mount send.
func (p *peer) sent(f func()) (n uint64) {
	count := func() (n uint64) {
		for op, k := range p.client.Stats().Requests {
			switch op {
			case "hello", "bye", "ping", "revoke", "stable": // come when they come
			default:
				n += k
			}
		}
		return n
	}
	before := count()
	f()
	return count() - before
}

func (p *peer) make(dir uint64, name string) uint64 {
	p.t.Helper()
	a, err := p.Create(p.t.Context(), dir, name, 0o644, 0, 0)
	require.NoError(p.t, err)
	return a.Handle
}

func (p *peer) size(h uint64) int64 {
	p.t.Helper()
	a, err := p.GetAttr(p.t.Context(), h)
	require.NoError(p.t, err)
	return a.Size
}

func (p *peer) write(h uint64, off int64, n int) {
	p.t.Helper()
	_, _, err := p.client.Write(p.t.Context(), h, []extent.Extent{{Off: off, Len: int64(n)}}, [][]byte{make([]byte, n)}, 0)
	require.NoError(p.t, err)
}

// TestKnownCosts: what is known costs no request, and what another mount
// changes is seen at once.
func TestKnownCosts(t *testing.T) {
	x := startIONs(t)
	a, b := x.peer(t), x.peer(t)
	ctx, root := t.Context(), a.client.View().Root
	h := a.make(root, "f")
	look := func() {
		_, err := a.Lookup(ctx, root, "f")
		require.NoError(t, err)
		_, err = a.Lookup(ctx, root, "missing")
		require.ErrorIs(t, err, syscall.ENOENT)
		_, err = a.GetXattr(ctx, h, "security.capability")
		require.ErrorIs(t, err, syscall.ENODATA)
		_, err = a.ReadDir(ctx, root)
		require.NoError(t, err)
		a.size(h)
		a.size(root)
	}
	look()
	require.Zero(t, a.sent(look))
	a.open(h, syscall.O_RDONLY) // which tells the mode, if the home did not know it
	require.Zero(t, a.sent(func() { a.close(h); a.open(h, syscall.O_RDONLY) }))
	require.Zero(t, a.sent(look), "an open changes nothing")

	b.write(h, 0, 100)
	require.EqualValues(t, 100, a.size(h), "written by another mount")
	_, err := b.SetAttr(ctx, h, ionclient.SetAttr{Size: new(int64)})
	require.NoError(t, err)
	require.Zero(t, a.size(h), "cut by another mount")
	made := b.make(root, "missing")
	got, err := a.Lookup(ctx, root, "missing")
	require.NoError(t, err, "made by another mount after it was missing")
	require.Equal(t, made, got.Handle)
	require.NoError(t, b.Unlink(ctx, root, "f", 0))
	_, err = a.Lookup(ctx, root, "f")
	require.ErrorIs(t, err, syscall.ENOENT)
	got, err = a.GetAttr(ctx, h)
	require.NoError(t, err, "it is open")
	require.Zero(t, got.Nlink)
	require.NoError(t, b.client.SetXattr(ctx, made, "user.x", []byte("1"), 0))
	v, err := a.GetXattr(ctx, made, "user.x")
	require.NoError(t, err)
	require.Equal(t, "1", string(v))
	require.EqualValues(t, 1, a.sent(func() { require.NoError(t, a.Close(ctx, h, false)) }), "its home was told")
}

// TestOwnWrites: a mount's own writes bring its attributes up to date.
func TestOwnWrites(t *testing.T) {
	x := startIONs(t)
	a := x.peer(t)
	h := a.make(a.client.View().Root, "f")
	a.size(h)
	require.Zero(t, a.sent(func() { a.size(h) }))
	for i := range int64(5) {
		a.write(h, i*10, 10)
		require.Zero(t, a.sent(func() { require.EqualValues(t, (i+1)*10, a.size(h)) }))
	}
	known, err := a.GetAttr(t.Context(), h)
	require.NoError(t, err)
	told, err := a.client.GetAttr(t.Context(), h)
	require.NoError(t, err)
	require.Equal(t, told.Mtime, known.Mtime)
	require.Equal(t, told.Blocks, known.Blocks)
}

// TestCreateStorm: two mounts that make files in one directory in turns send
// no more than half as much again as without leases, when it is three requests
// a file.
func TestCreateStorm(t *testing.T) {
	const files = 100
	x := startIONs(t)
	a, b := x.peer(t), x.peer(t)
	dir, err := a.Mkdir(t.Context(), a.client.View().Root, "d", 0o755, 0, 0)
	require.NoError(t, err)
	before := total(a) + total(b)
	for i := range files {
		for _, p := range []*peer{a, b} {
			name := fmt.Sprint(i, p == a)
			_, err := p.Lookup(t.Context(), dir.Handle, name)
			require.ErrorIs(t, err, syscall.ENOENT)
			p.size(dir.Handle)
			p.make(dir.Handle, name)
		}
	}
	sent := total(a) + total(b) - before
	t.Logf("%d files: %d messages", 2*files, sent)
	require.LessOrEqual(t, sent, uint64(2*files*3*3/2))
}

// total is all messages of a mount but those that keep sessions alive.
func total(p *peer) (n uint64) {
	for op, k := range p.client.Stats().Requests {
		if op != "ping" && op != "stable" {
			n += k
		}
	}
	return n
}

// TestNamesModel: random changes by two mounts, one after the other, and what
// each of them knows in between is what a model knows.
func TestNamesModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	x := startIONs(t)
	peers := []*peer{x.peer(t), x.peer(t)}
	m := newModel(t, peers[0])
	for range 600 {
		m.change(peers[rnd.IntN(2)], rnd)
		m.check(peers[rnd.IntN(2)], rnd)
	}
}

// model is two directories and what is in them.
type model struct {
	t     testing.TB
	dirs  [2]uint64
	names [2]map[string]uint64
	sizes map[uint64]int64
}

func newModel(t testing.TB, p *peer) *model {
	m := &model{t: t, names: [2]map[string]uint64{{}, {}}, sizes: map[uint64]int64{}}
	for i := range m.dirs {
		a, err := p.Mkdir(t.Context(), p.client.View().Root, fmt.Sprint("dir", i), 0o755, 0, 0)
		require.NoError(t, err)
		m.dirs[i] = a.Handle
	}
	return m
}

func (m *model) change(p *peer, rnd *rand.Rand) {
	ctx, d, e := m.t.Context(), rnd.IntN(2), rnd.IntN(2)
	name, other := fmt.Sprint(rnd.IntN(6)), fmt.Sprint(rnd.IntN(6))
	h := m.names[d][name]
	missing := func(err error) { require.ErrorIs(m.t, err, syscall.ENOENT) }
	switch op := rnd.IntN(6); {
	case op == 0:
		a, err := p.Create(ctx, m.dirs[d], name, 0o644, 0, 0)
		if h != 0 {
			require.ErrorIs(m.t, err, syscall.EEXIST)
			return
		}
		require.NoError(m.t, err)
		m.names[d][name], m.sizes[a.Handle] = a.Handle, 0
	case op == 1 && h == 0:
		missing(p.Unlink(ctx, m.dirs[d], name, 0))
	case op == 1:
		require.NoError(m.t, p.Unlink(ctx, m.dirs[d], name, 0))
		delete(m.names[d], name)
	case op == 2 && h == 0:
		missing(p.Rename(ctx, ionclient.Name{Dir: m.dirs[d], Name: name}, ionclient.Name{Dir: m.dirs[e], Name: other}, 0))
	case op == 2:
		require.NoError(m.t, p.Rename(ctx, ionclient.Name{Dir: m.dirs[d], Name: name}, ionclient.Name{Dir: m.dirs[e], Name: other}, 0))
		delete(m.names[d], name)
		m.names[e][other] = h
	case h == 0:
	case op == 3:
		off := rnd.Int64N(1000)
		p.write(h, off, 10)
		m.sizes[h] = max(m.sizes[h], off+10)
	case op == 4:
		size := rnd.Int64N(1000)
		a, err := p.SetAttr(ctx, h, ionclient.SetAttr{Size: &size})
		require.NoError(m.t, err)
		require.Equal(m.t, size, a.Size)
		m.sizes[h] = size
	case op == 5:
		off, n, err := p.client.Append(ctx, h, make([]byte, 7), 0)
		require.NoError(m.t, err)
		require.Equal(m.t, m.sizes[h], off)
		m.sizes[h] += int64(n)
	}
}

func (m *model) check(p *peer, rnd *rand.Rand) {
	d, name := rnd.IntN(2), fmt.Sprint(rnd.IntN(6))
	h := m.names[d][name]
	a, err := p.Lookup(m.t.Context(), m.dirs[d], name)
	if h == 0 {
		require.ErrorIs(m.t, err, syscall.ENOENT)
	} else {
		require.NoError(m.t, err)
		require.Equal(m.t, h, a.Handle)
		require.Equal(m.t, m.sizes[h], a.Size)
		require.Equal(m.t, ionpb.ObjType_FILE, a.Type)
	}
	all, err := p.ReadDir(m.t.Context(), m.dirs[d])
	require.NoError(m.t, err)
	var got, want []string
	for _, e := range all {
		got = append(got, e.Name)
	}
	for n := range m.names[d] {
		want = append(want, n)
	}
	sort.Strings(got)
	sort.Strings(want)
	require.Equal(m.t, want, got)
}

// TestConcurrentNames: mounts that change and look at the same names at the
// same time; when all is over, all know the same.
func TestConcurrentNames(t *testing.T) {
	x := startIONs(t)
	peers := []*peer{x.peer(t), x.peer(t), x.peer(t)}
	dir, err := peers[0].Mkdir(t.Context(), peers[0].client.View().Root, "d", 0o755, 0, 0)
	require.NoError(t, err)
	for round := range 5 {
		var wg sync.WaitGroup
		for i, p := range append(peers, peers...) {
			rnd := rand.New(rand.NewPCG(uint64(round), uint64(i)))
			wg.Go(func() {
				for range 40 {
					if err := p.anything(t.Context(), dir.Handle, rnd); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		for _, name := range []string{"0", "1", "2"} {
			truth, _, want := peers[0].client.Lookup(t.Context(), dir.Handle, name)
			for _, p := range peers {
				a, err := p.Lookup(t.Context(), dir.Handle, name)
				require.Equal(t, errno.Of(want), errno.Of(err), name)
				require.Equal(t, truth.Handle, a.Handle)
				if err == nil {
					told, err := p.client.GetAttr(t.Context(), a.Handle)
					require.NoError(t, err)
					require.Equal(t, told.Size, a.Size)
					require.Equal(t, told.Mode, a.Mode)
				}
			}
		}
	}
}

// anything does something with a name; that it is there or not is no error.
func (p *peer) anything(ctx context.Context, dir uint64, rnd *rand.Rand) (err error) {
	name := fmt.Sprint(rnd.IntN(3))
	a, lookErr := p.Lookup(ctx, dir, name)
	switch rnd.IntN(6) {
	case 0:
		_, err = p.Create(ctx, dir, name, 0o644, 0, 0)
	case 1:
		err = p.Unlink(ctx, dir, name, 0)
	case 2:
		err = p.Rename(ctx, ionclient.Name{Dir: dir, Name: name}, ionclient.Name{Dir: dir, Name: fmt.Sprint(rnd.IntN(3))}, 0)
	case 3:
		_, err = p.ReadDir(ctx, dir)
	case 4:
		if lookErr == nil {
			mode := uint32(0o600 + rnd.IntN(64))
			_, err = p.SetAttr(ctx, a.Handle, ionclient.SetAttr{Mode: &mode})
		}
	case 5:
		if lookErr == nil {
			_, _, err = p.client.Write(ctx, a.Handle, []extent.Extent{{Off: rnd.Int64N(1000), Len: 1}}, [][]byte{[]byte("x")}, 0)
		}
	}
	for _, e := range []syscall.Errno{syscall.ENOENT, syscall.EEXIST, syscall.ESTALE} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}
