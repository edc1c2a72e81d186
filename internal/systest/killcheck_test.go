package systest

import (
	"fmt"
	"math/rand"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/fsck"
)

// TestKillThenCheck has groups of processes, each group on both mounts and with a
// directory of its own, make random calls while I/O nodes are killed and started again.
// Every call must return what the model says, and no file may show a time before that of
// its last write. When mounts and I/O nodes have ended in
// good order nothing is wrong on the servers, and when they have started again all is there.
func TestKillThenCheck(t *testing.T) {
	c, long := upToKill(t)
	r, first := c.rig().subdir(t), seed(t)
	groups := make([]*killGroup, 4)
	for i := range groups {
		g := &killGroup{name: fmt.Sprint("group", i), m: newModel(), rng: rand.New(rand.NewSource(first + int64(i))), written: map[*modelNode]int64{}}
		g.ps = startProcs(t, r.under(t, g.name), 2)
		groups[i] = g
	}
	stop := killing(t, c)
	var all sync.WaitGroup
	for _, g := range groups {
		all.Go(func() { g.play(time.Now().Add(long)) })
	}
	all.Wait()
	kills := stop()
	for _, g := range groups {
		g.look(t)
		for _, p := range g.ps {
			p.stop()
		}
		t.Logf("%s: %d calls", g.name, g.calls)
	}
	t.Logf("%d kills", kills)
	requireSound(t, c, kills)
	c.up(t)
	for _, g := range groups {
		g.m.fds = map[modelFD]*modelOpen{} // all are closed
		for i, dir := range r.dirs {
			g.ps[i] = startProc(t, &rig{dirs: []string{filepath.Join(dir, g.name)}, cluster: c}, 0)
		}
		g.look(t)
	}
	c.noPanics(t)
}

// requireSound ends mounts and I/O nodes in good order, the latter at the same time, and
// has the servers checked. A kill may have left an object whose entry was not made yet,
// or was gone already.
func requireSound(t *testing.T, c *cluster, kills int) {
	t.Helper()
	f := c.file(t)
	client, err := pvfs.Dial(t.Context(), f.PVFS, pvfs.Options{})
	require.NoError(t, err)
	defer client.Close()
	check := func() *fsck.Report {
		rep, err := fsck.Check(t.Context(), client, fsck.Options{})
		require.NoError(t, err)
		return rep
	}
	for check().Open > 0 { // the I/O nodes are about to remove what was open when they were killed
		time.Sleep(100 * time.Millisecond)
	}
	for _, n := range f.Nodes {
		kill(t, n.PID, syscall.SIGTERM)
	}
	for _, n := range f.IONs {
		require.NoError(t, syscall.Kill(n.PID, syscall.SIGTERM))
	}
	for _, n := range f.IONs {
		for running(n.PID) {
			time.Sleep(10 * time.Millisecond)
		}
	}
	nameless := 0
	for _, x := range check().Findings {
		if x.Kind == fsck.Orphan && x.Type != "datafile" {
			nameless++
			t.Log(x.String())
			continue
		}
		t.Error(x.String())
	}
	require.LessOrEqual(t, nameless, 2*kills)
}

// killGroup is a process on each mount, of which one makes a call at a time, and the
// model of what they see.
type killGroup struct {
	name    string
	m       *model
	ps      []*proc
	rng     *rand.Rand
	calls   int
	history []string
	failed  string // what was not as the model says

	// written is when the last write to a file began, in seconds, if nothing else has
	// changed it since.
	written map[*modelNode]int64
}

// play makes random calls until end, or until one fails.
func (g *killGroup) play(end time.Time) {
	for id := uint64(1); time.Now().Before(end) && g.failed == ""; id++ {
		i, o := g.rng.Intn(len(g.ps)), randomOp(g.rng, id)
		if o.usesFD() && g.m.fds[modelFD{i, o.FD}] == nil && g.rng.Intn(20) > 0 {
			continue // mostly leave out what can only return EBADF
		}
		g.follow(i, o)
	}
}

// call makes a call of process i.
func (g *killGroup) call(i int, o op) result {
	res, err := g.ps[i].run([]op{o})
	if err != nil {
		g.failed = err.Error()
		return result{Errno: unix.EBADE}
	}
	g.calls++
	if len(g.history) == 100 {
		g.history = append([]string{}, g.history[50:]...)
	}
	g.history = append(g.history, fmt.Sprintf("%s %s %v -> %v", time.Now().Format("05.000"), g.ps[i].name, o, res[0]))
	return res[0]
}

// follow makes a call of process i and has the model make it.
func (g *killGroup) follow(i int, o op) {
	if o.Do == "open" && g.m.fds[modelFD{i, o.FD}] != nil {
		g.follow(i, op{Do: "close", FD: o.FD})
	}
	began := time.Now().Unix()
	got := g.call(i, o)
	// While other processes rename, the kernel may fail to move what it has of a
	// directory to where that is now.
	for try := 0; got.Errno == unix.ESTALE && try < 20; try++ {
		for _, path := range []string{o.Path, o.To} {
			g.call(i, op{Do: "stat", Path: path})
		}
		got = g.call(i, o)
	}
	if g.failed != "" {
		return
	}
	if diff := g.m.check(i, o, g.m.apply(i, o), got); diff != "" {
		g.failed = fmt.Sprintf("%s: %v", diff, o)
	}
	g.time(i, o, got, began)
}

// time checks the modification time of what was written last.
func (g *killGroup) time(i int, o op, got result, began int64) {
	h := g.m.fds[modelFD{i, o.FD}]
	if got.Errno != 0 {
		return
	}
	switch o.Do {
	case "pwrite":
		g.written[h.node] = began
		if h.flags&unix.O_APPEND != 0 {
			delete(g.written, h.node)
		}
	case "ftruncate":
		delete(g.written, h.node)
	case "open":
		if o.Flags&unix.O_TRUNC != 0 {
			delete(g.written, h.node)
		}
	case "truncate":
		_, _, n, _ := g.m.walk(o.Path)
		delete(g.written, n)
	case "stat":
		_, _, n, _ := g.m.walk(o.Path)
		if at := g.written[n]; at > got.Mtime {
			g.failed = fmt.Sprintf("modified at %d, written at %d: %v", got.Mtime, at, o)
		}
	}
}

// look compares all that there is, on both mounts, with the model.
func (g *killGroup) look(t *testing.T) {
	t.Helper()
	for i := range g.ps {
		for _, dir := range []string{"", "d", "e"} {
			g.follow(i, op{Do: "readdir", Path: dir})
		}
		for _, p := range modelPaths {
			g.follow(i, op{Do: "stat", Path: p})
			if _, _, n, e := g.m.walk(p); e == 0 && n != nil && n.link == "" {
				g.follow(i, op{Do: "readall", Path: p})
			}
		}
		if g.failed != "" {
			for _, line := range g.history {
				t.Log(line)
			}
			t.Fatalf("%s: %s", g.name, g.failed)
		}
	}
}
