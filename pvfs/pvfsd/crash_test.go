package pvfsd_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// startProcesses starts n servers whose directories spread over up to spread.
func startProcesses(t *testing.T, n int, durable bool, spread int) *pvfsdtest.Processes {
	return pvfsdtest.StartProcesses(t, n, func(g *fsconf.GenOptions) {
		g.SyncMeta, g.NoStuffing, g.DistrDirServersMax = durable, true, spread
	})
}

// model is what the file system must hold after a crash.
type model struct {
	mu      sync.Mutex
	names   map[string]wire.Handle // entries that were answered for
	unsure  map[string]bool        // asked for and not answered: either way is right
	data    map[wire.Handle][]byte // what a datafile held when it was flushed
	handles map[wire.Handle]bool   // all that were ever given out
	twice   []wire.Handle          // given out twice
}

func (m *model) do(fn func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn()
}

// workload changes things until the server fails.
func workload(c *client, m *model, id string, dd wire.Handle, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 2))
	var mine []string
	for i := 0; ; i++ {
		name := fmt.Sprintf("%s-%d", id, i)
		var f wire.CreateResp
		if c.try(c.all(root), 0, &wire.CreateReq{FSID: c.fsid, Cred: c.cred, Attr: fileAttr(), NumDFiles: 2, Layout: wire.Layout{Type: wire.LayoutNone}}, &f) != nil {
			return
		}
		m.do(func() {
			for _, h := range append(f.Attr.DFiles, f.Handle) {
				if m.handles[h] {
					m.twice = append(m.twice, h)
				}
				m.handles[h] = true
			}
			m.unsure[name] = true
		})
		p := pattern(uint64(i), 1+r.IntN(6000))
		df := f.Attr.DFiles[0]
		if c.writeSmall(f.Handle, df, 0, p) != nil {
			return
		}
		if i%3 == 0 {
			if c.try(nil, 0, &wire.FlushReq{Handle: df, FSID: c.fsid}, nil) != nil {
				return
			}
			m.do(func() { m.data[df] = p })
		}
		if c.link(root, dd, name, f.Handle) != nil {
			return
		}
		m.do(func() { m.names[name] = f.Handle; delete(m.unsure, name) })
		mine = append(mine, name)
		if len(mine) < 3 || r.IntN(3) > 0 {
			continue
		}
		k := r.IntN(len(mine))
		victim := mine[k]
		mine = append(mine[:k], mine[k+1:]...)
		m.do(func() { delete(m.names, victim); m.unsure[victim] = true })
		if _, err := c.unlink(dd, victim); err != nil {
			return
		}
		m.do(func() { delete(m.unsure, victim) })
	}
}

// A server is killed in the middle of things, again and again. Whatever it had
// answered is there afterwards, what it had not is there or not, and nothing
// else.
func TestKilledServer(t *testing.T) {
	rounds := 24
	if testing.Short() {
		rounds = 6
	}
	// The death of a process loses no commit, synced or not.
	t.Run("synced", func(t *testing.T) { killServers(t, rounds, true) })
	t.Run("unsynced", func(t *testing.T) { killServers(t, rounds/2, false) })
}

func killServers(t *testing.T, rounds int, durable bool) {
	p := startProcesses(t, 2, durable, 1)
	dial(t, p.Addr(0), p.Conf).emptyRoot()
	m := &model{names: make(map[string]wire.Handle), unsure: make(map[string]bool), data: make(map[wire.Handle][]byte), handles: make(map[wire.Handle]bool)}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	for round := range rounds {
		var wg sync.WaitGroup
		for k := range 4 {
			c := dial(t, p.Addr(0), p.Conf)
			dd := c.dirdata(root)
			wg.Add(1)
			go func() {
				defer wg.Done()
				defer c.nc.Close()
				workload(c, m, fmt.Sprintf("r%d-%d", round, k), dd, seed+uint64(round*10+k))
			}()
		}
		time.Sleep(time.Duration(20+r.IntN(150)) * time.Millisecond)
		if round%4 == 3 {
			p.Kill(1) // the one whose datafiles the pools hold
			require.NoError(t, pvfsd.CheckStore(filepath.Join(p.Dirs[1], "meta", "meta.db")))
			p.Start(1)
			p.Await(1)
		}
		p.Kill(0)
		wg.Wait()
		require.NoError(t, pvfsd.CheckStore(filepath.Join(p.Dirs[0], "meta", "meta.db")))
		p.Start(0)
		p.Await(0)
		verify(t, dial(t, p.Addr(0), p.Conf), m)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d entries, %d handles, %d flushed datafiles", len(m.names), len(m.handles), len(m.data))
}

// verify compares the root directory with the model, which it brings up to date.
func verify(t *testing.T, c *client, m *model) {
	t.Helper()
	require.Empty(t, m.twice, "handles given out twice")
	dd := c.dirdata(root)
	got := make(map[string]wire.Handle)
	for _, e := range c.list(dd, 500) {
		got[e.Name] = e.Handle
	}
	require.EqualValues(t, len(got), c.getattr(dd, wire.AttrDirentCount).DirentCount)
	seen := maps.Clone(got)
	for name := range m.unsure {
		if h, ok := got[name]; ok {
			m.names[name] = h
		} else {
			delete(m.names, name)
		}
	}
	clear(m.unsure)
	require.Equal(t, m.names, seen)
	for name, h := range got {
		a := c.getattr(h, wire.AttrAll)
		require.Len(t, a.DFiles, 2, name)
		if want, ok := m.data[a.DFiles[0]]; ok {
			p, err := c.readSmall(h, a.DFiles[0], 0, 16000)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, p), name)
		}
	}
}

// list reads a whole directory, count entries at a time.
func (c *client) list(dd wire.Handle, count uint32) []wire.Dirent {
	c.t.Helper()
	var out []wire.Dirent
	for token := wire.TokenStart; token != wire.TokenEnd; {
		var resp wire.ReadDirResp
		c.call(c.all(dd), 0, &wire.ReadDirReq{Dirdata: dd, FSID: c.fsid, Count: count, Token: token}, &resp)
		require.Less(c.t, resp.Token, uint64(1)<<48)
		out = append(out, resp.Dirents...)
		token = resp.Token
	}
	return out
}
