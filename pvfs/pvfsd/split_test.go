package pvfsd_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// spreadCluster is n servers whose directories begin with initial buckets, one
// a server, of four entries each.
func spreadCluster(t *testing.T, n, initial int) *pvfsdtest.Cluster {
	return pvfsdtest.Start(t, n, pvfsdtest.Options{Gen: func(o *fsconf.GenOptions) {
		o.DistrDirServersInitial, o.DistrDirServersMax, o.DistrDirSplitSize = initial, n, 4
	}})
}

// clients connects to every server.
func clients(t *testing.T, cl *pvfsdtest.Cluster) []*client {
	out := make([]*client, cl.Len())
	for i := range out {
		out[i] = dial(t, cl.Addr(i), cl.Config())
	}
	return out
}

func (c *client) distDir(dir wire.Handle) wire.DistDir {
	c.t.Helper()
	a := c.getattr(dir, wire.AttrAll)
	require.Equal(c.t, wire.TypeDirectory, a.Type)
	return a.DistDir
}

// entries lists the active buckets of a directory. No name is in two of them.
func entries(t *testing.T, cs []*client, cl *pvfsdtest.Cluster, d wire.DistDir) map[string]wire.Handle {
	t.Helper()
	out := make(map[string]wire.Handle)
	for i, h := range d.Dirdata {
		if !d.Active(i) {
			continue
		}
		c := cs[owner(t, cl, h)]
		ents := c.list(h, 7)
		require.EqualValues(t, len(ents), c.getattr(h, wire.AttrDirentCount).DirentCount)
		for _, e := range ents {
			require.NotContains(t, out, e.Name)
			out[e.Name] = e.Handle
		}
	}
	return out
}

func TestSpreadDirectory(t *testing.T) {
	cl := spreadCluster(t, 4, 1)
	cs := clients(t, cl)
	dir := cs[1].mkdir()
	d := cs[1].distDir(dir)
	require.Equal(t, []int{1, 2, 3, 0}, owners(t, cl, d.Dirdata))
	require.Equal(t, []uint32{1}, d.Bitmap)
	require.Equal(t, []int32{2, 4, -1}, []int32{d.TreeHeight, d.SplitSize, d.ServerNo})
	require.Len(t, cs[1].getattr(dir, wire.AttrCapability).Cap.Handles, 5)

	// A client that knows of the first bucket alone hears EAGAIN, now and then.
	want := make(map[string]wire.Handle)
	again := 0
	for i := range 100 {
		name, h := fmt.Sprintf("%d-%0*d", i, i, i), wire.Handle(5000+i)
		if err := cs[1].link(dir, d.Dirdata[0], name, h); err != nil {
			require.ErrorIs(t, err, syscall.EAGAIN)
			again++
			continue
		}
		want[name] = h
	}
	require.Positive(t, again)
	require.Greater(t, len(want), 4)
	d = cs[1].distDir(dir)
	require.Equal(t, []uint32{7}, d.Bitmap, "the first bucket has two children")
	require.Equal(t, want, entries(t, cs, cl, d))

	// Whoever looks for a name finds it, and finds it from the old bucket.
	for name, h := range want {
		got, err := cs[1].lookup(dir, name)
		require.NoError(t, err)
		require.Equal(t, []wire.Handle{h}, got.Handles)
		var ent wire.GetDirentResp
		cs[1].call(nil, 0, &wire.GetDirentReq{Dirdata: d.Dirdata[0], FSID: cs[1].fsid, Name: name}, &ent)
		require.Equal(t, wire.GetDirentResp{Handle: h}, ent)
		var ch wire.ChDirentResp
		cs[1].call(cs[1].all(d.Dirdata[0]), 0, &wire.ChDirentReq{Name: name, Handle: h + 1000, Dirdata: d.Dirdata[0], FSID: cs[1].fsid}, &ch)
		require.Equal(t, h, ch.Handle)
		want[name] = h + 1000
	}
	require.Equal(t, want, entries(t, cs, cl, d))
	_, err := cs[1].lookup(dir, "nobody")
	require.ErrorIs(t, err, syscall.ENOENT)

	remove := &wire.RemoveReq{Handle: dir, FSID: cs[1].fsid, Cred: cs[1].cred}
	cs[1].refuse(syscall.ENOTEMPTY, cs[1].all(root), root, remove)
	for i := 0; ; i++ { // it is open again
		if name := fmt.Sprint("new", i); pvfsd.BucketOf(d, name) == 0 {
			require.NoError(t, cs[1].link(dir, d.Dirdata[0], name, 77))
			want[name] = 77
			break
		}
	}
	for name, h := range want {
		old, err := cs[1].unlink(d.Dirdata[0], name)
		require.NoError(t, err)
		require.Equal(t, h, old)
	}
	require.Empty(t, entries(t, cs, cl, d))
	cs[1].call(cs[1].all(root), root, remove, nil)
	cs[1].refuse(syscall.ENOENT, nil, 0, &wire.GetAttrReq{Handle: dir, FSID: cs[1].fsid, Cred: cs[1].cred})
	for _, h := range d.Dirdata {
		gone(t, cs[owner(t, cl, h)], h)
	}
}

// gone waits until there is no object h.
func gone(t *testing.T, c *client, h wire.Handle) {
	t.Helper()
	require.Eventually(t, func() bool {
		err := c.try(nil, 0, &wire.GetAttrReq{Handle: h, FSID: c.fsid, Cred: c.cred}, &wire.GetAttrResp{})
		return err != nil
	}, 20*time.Second, 5*time.Millisecond)
}

// A server that is down when a directory is made is done without.
func TestSpreadWithoutServer(t *testing.T) {
	cl := spreadCluster(t, 3, 3)
	c := dial(t, cl.Addr(0), cl.Config())
	d := c.distDir(c.mkdir())
	require.Equal(t, []uint32{7}, d.Bitmap)
	cl.Kill(2)
	require.Len(t, c.distDir(c.mkdir()).Dirdata, 1)
	cl.Restart(2)
	require.Len(t, c.distDir(c.mkdir()).Dirdata, 3)
}

// The root gets its buckets once all servers are there.
func TestSpreadRoot(t *testing.T) {
	cl := spreadCluster(t, 3, 2)
	cs := clients(t, cl)
	require.Eventually(t, func() bool { return len(cs[0].distDir(root).Dirdata) == 3 }, 20*time.Second, 5*time.Millisecond)
	d := cs[0].distDir(root)
	require.Equal(t, []uint32{1}, d.Bitmap)
	require.NoError(t, cs[0].link(root, d.Dirdata[0], "x", 5))
	cl.Restart(0)
	cs[0] = dial(t, cl.Addr(0), cl.Config())
	require.Equal(t, d, cs[0].distDir(root))
	require.Contains(t, entries(t, cs, cl, d), "x")
}

// While the directory's server is away, a split that is decided can neither be
// finished nor given up: what moves stays as it is until that server is back,
// whichever servers are started again meanwhile.
func TestSplitWithoutDirectory(t *testing.T) {
	t.Parallel()
	cl := spreadCluster(t, 4, 2)
	cs := clients(t, cl)
	dir := cs[0].mkdir()
	d := cs[0].distDir(dir)
	after := d
	after.Bitmap = []uint32{0b1011}
	var moving, staying []string
	for i := 0; len(moving) < 3 || len(staying) < 3; i++ {
		name := fmt.Sprint(i)
		switch pvfsd.BucketOf(after, name) {
		case 1:
			staying = append(staying, name)
		case 3:
			moving = append(moving, name)
		}
	}
	cl.Kill(0)
	link := func(name string) error { return cs[1].link(dir, d.Dirdata[1], name, 1<<61) }
	for _, name := range []string{moving[0], moving[1], staying[0], staying[1]} {
		require.NoError(t, link(name))
	}
	unchanged := func() {
		t.Helper()
		require.NoError(t, link(staying[2]))
		_, err := cs[1].unlink(d.Dirdata[1], staying[2])
		require.NoError(t, err)
		_, err = cs[1].unlink(d.Dirdata[1], moving[0])
		require.ErrorIs(t, err, syscall.EAGAIN)
	}
	unchanged()
	cl.Restart(1)
	cl.Restart(3)
	cs[1], cs[3] = dial(t, cl.Addr(1), cl.Config()), dial(t, cl.Addr(3), cl.Config())
	unchanged()
	cl.Restart(0)
	cs[0] = dial(t, cl.Addr(0), cl.Config())
	require.Eventually(t, func() bool { d = cs[0].distDir(dir); return d.Active(3) }, 20*time.Second, 5*time.Millisecond)
	require.ElementsMatch(t, []string{moving[0], moving[1], staying[0], staying[1]}, slices.Collect(maps.Keys(entries(t, cs, cl, d))))
	_, err := cs[1].unlink(d.Dirdata[1], moving[0])
	require.NoError(t, err, "it is found where it went")
}

// A split that cannot begin leaves everything as it was, and is done later.
func TestSplitWithoutChild(t *testing.T) {
	cl := spreadCluster(t, 2, 1)
	cs := clients(t, cl)
	dir := cs[0].mkdir()
	d := cs[0].distDir(dir)
	cl.Kill(1)
	want := make(map[string]wire.Handle)
	link := func(i int) {
		t.Helper()
		want[fmt.Sprint(i)] = 77
		require.NoError(t, cs[0].link(dir, d.Dirdata[0], fmt.Sprint(i), 77))
	}
	for i := range 8 {
		link(i)
	}
	require.Equal(t, d, cs[0].distDir(dir))
	require.Equal(t, want, entries(t, cs, cl, d))
	cl.Restart(1)
	cs[1] = dial(t, cl.Addr(1), cl.Config())
	link(8)
	d = cs[0].distDir(dir)
	require.Equal(t, []uint32{3}, d.Bitmap)
	require.Equal(t, want, entries(t, cs, cl, d))
}

// splitter changes a directory while servers are killed, and keeps book.
type splitter struct {
	c      *pvfs.Client
	dir    pvfs.Handle
	id     string
	names  map[string]pvfs.Handle // entries that are there
	unsure map[string]bool        // entries of which that is not known
}

func (w *splitter) work(ctx context.Context, n int) {
	for i := range n {
		name, h := fmt.Sprintf("%s-%d", w.id, i), pvfs.Handle(1<<40+i)
		w.note(name, h, w.c.Link(ctx, w.dir, name, h))
		if i%3 == 2 {
			old := fmt.Sprintf("%s-%d", w.id, i-2)
			_, err := w.c.Unlink(ctx, w.dir, old)
			w.note(old, 0, err)
		}
	}
}

func (w *splitter) note(name string, h pvfs.Handle, err error) {
	delete(w.names, name)
	switch {
	case err != nil:
		w.unsure[name] = true
	case h != 0:
		w.names[name] = h
	}
}

// Servers are killed while directories split. No entry is lost, comes back or is
// there twice.
func TestKilledWhileSplitting(t *testing.T) {
	t.Parallel()
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	const n = 4
	p := startProcesses(t, n, false, n)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 5))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var cs []*pvfs.Client
	for range 3 {
		c, err := pvfs.Dial(ctx, "tcp://"+p.Addr(0)+"/zoidfs", pvfs.Options{})
		require.NoError(t, err)
		defer c.Close()
		cs = append(cs, c)
	}
	for round := range rounds {
		maker := dial(t, p.Addr(r.IntN(n)), p.Conf)
		dir := maker.mkdirSplitting(4)
		var wg sync.WaitGroup
		var ws []*splitter
		for i, c := range cs {
			w := &splitter{c: c, dir: dir, id: fmt.Sprint(i), names: map[string]pvfs.Handle{}, unsure: map[string]bool{}}
			ws = append(ws, w)
			wg.Go(func() { w.work(ctx, 30) })
		}
		for range 2 {
			time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
			i := r.IntN(n)
			p.Kill(i)
			require.NoError(t, pvfsd.CheckStore(filepath.Join(p.Dirs[i], "meta", "meta.db")))
			p.Start(i)
			p.Await(i)
		}
		wg.Wait()
		verifySplit(ctx, t, cs[round%len(cs)], dir, ws)
	}
}

// mkdirSplitting makes a directory with one bucket of split entries that may
// become more.
func (c *client) mkdirSplitting(split int32) wire.Handle {
	c.t.Helper()
	var resp wire.MkdirResp
	c.call(c.all(root), 0, &wire.MkdirReq{FSID: c.fsid, Cred: c.cred, ServersInitial: 1, SplitSize: split, Attr: wire.Attr{
		Perms: 0o755, Type: wire.TypeDirectory, Mask: wire.AttrCommon | wire.AttrDirHint,
	}}, &resp)
	require.Len(c.t, c.distDir(resp.Handle).Dirdata, 4)
	return resp.Handle
}

func verifySplit(ctx context.Context, t *testing.T, c *pvfs.Client, dir pvfs.Handle, ws []*splitter) {
	t.Helper()
	want := make(map[string]pvfs.Handle)
	unsure := make(map[string]bool)
	for _, w := range ws {
		maps.Copy(want, w.names)
		maps.Copy(unsure, w.unsure)
	}
	require.NotEmpty(t, want)
	got := make(map[string]pvfs.Handle)
	var token pvfs.DirToken
	for eof := false; !eof; {
		var ents []pvfs.Dirent
		var err error
		ents, token, eof, err = c.ReadDir(ctx, dir, token, 10)
		require.NoError(t, err)
		for _, e := range ents {
			require.NotContains(t, got, e.Name, "twice")
			got[e.Name] = e.Handle
		}
	}
	for name, h := range got {
		if unsure[name] {
			want[name] = h
		}
		found, err := c.Lookup(ctx, dir, name)
		require.NoError(t, err)
		require.Equal(t, h, found)
	}
	require.Equal(t, want, got)
	for name := range got {
		_, err := c.Unlink(ctx, dir, name)
		require.NoError(t, err)
	}
	require.NoError(t, c.Destroy(ctx, dir), "nothing is left")
}
