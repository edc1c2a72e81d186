package pvfsd_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const serverEnv = "PVFSD_TEST_SERVER" // alias of the server to be, which reads its fs.conf from stdin

// runAsServer turns the test binary into a server when the crash test starts it.
func runAsServer() bool {
	alias := os.Getenv(serverEnv)
	if alias == "" {
		return false
	}
	text, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = serveUntilKilled(string(text), alias)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
	return true
}

func serveUntilKilled(text, alias string) error {
	conf, err := fsconf.Parse(text)
	if err != nil {
		return err
	}
	srv, err := pvfsd.Open(pvfsd.Options{Config: conf, Alias: alias})
	if err != nil {
		return err
	}
	return srv.Run(context.Background())
}

// processes are the servers of a file system, each a process of its own.
type processes struct {
	t    *testing.T
	conf *fsconf.Config
	dirs []string
	cmds []*exec.Cmd
	errs []bytes.Buffer // what they wrote to stderr: reports of the race detector
}

// startProcesses starts n servers whose directories spread over up to spread.
func startProcesses(t *testing.T, n int, durable bool, spread int) *processes {
	gen := fsconf.GenOptions{FSName: "zoidfs", FSID: 4711, SyncMeta: durable, NoStuffing: true, DistrDirServersMax: spread}
	p := &processes{t: t, cmds: make([]*exec.Cmd, n), errs: make([]bytes.Buffer, n)}
	for i := range n {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 15000+rand.IntN(17000)))
		require.NoError(t, err)
		dir := filepath.Join(t.TempDir(), fmt.Sprintf("s%d", i))
		gen.Servers = append(gen.Servers, fsconf.ServerSpec{Alias: fmt.Sprintf("s%d", i), Addr: l.Addr().String(), Dir: dir})
		p.dirs = append(p.dirs, dir)
		l.Close()
	}
	text, err := fsconf.Generate(gen)
	require.NoError(t, err)
	p.conf, err = fsconf.Parse(text)
	require.NoError(t, err)
	t.Cleanup(func() {
		for i := range p.cmds {
			p.kill(i)
		}
	})
	for i := range n {
		p.start(i)
	}
	return p
}

func (p *processes) addr(i int) string {
	addr, _ := p.conf.Addr(fmt.Sprintf("s%d", i))
	return addr
}

func (p *processes) start(i int) {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=s%d", serverEnv, i))
	cmd.Stdin = bytes.NewReader([]byte(p.conf.Text))
	cmd.Stderr = &p.errs[i]
	require.NoError(p.t, cmd.Start())
	p.cmds[i] = cmd
	require.Eventually(p.t, func() bool {
		nc, err := net.Dial("tcp", p.addr(i))
		if err == nil {
			nc.Close()
		}
		return err == nil
	}, 20*time.Second, 5*time.Millisecond)
}

func (p *processes) kill(i int) {
	if p.cmds[i] == nil {
		return
	}
	p.cmds[i].Process.Kill()
	p.cmds[i].Wait()
	p.cmds[i] = nil
	require.Empty(p.t, p.errs[i].String())
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
	dial(t, p.addr(0), p.conf).emptyRoot()
	m := &model{names: make(map[string]wire.Handle), unsure: make(map[string]bool), data: make(map[wire.Handle][]byte), handles: make(map[wire.Handle]bool)}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	for round := range rounds {
		var wg sync.WaitGroup
		for k := range 4 {
			c := dial(t, p.addr(0), p.conf)
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
			p.kill(1) // the one whose datafiles the pools hold
			require.NoError(t, pvfsd.CheckStore(filepath.Join(p.dirs[1], "meta", "meta.db")))
			p.start(1)
		}
		p.kill(0)
		wg.Wait()
		require.NoError(t, pvfsd.CheckStore(filepath.Join(p.dirs[0], "meta", "meta.db")))
		p.start(0)
		verify(t, dial(t, p.addr(0), p.conf), m)
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
