package fs

import (
	"cmp"
	"context"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/ionserver"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// laggard dials connections on which what comes is read up to a while later.
type laggard struct{ us atomic.Int64 }

type lagging struct {
	net.Conn
	by *laggard
}

func (l *laggard) dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	return lagging{c, l}, err
}

func (c lagging) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if us := c.by.us.Load(); us > 0 && n > 0 && rand.IntN(2) == 0 {
		time.Sleep(time.Duration(rand.Int64N(us)) * time.Microsecond)
	}
	return n, err
}

// TestNamesLinearizable: whatever the processes of several nodes do to names and what
// they stand for, there is an order of the calls that explains what each has seen.
// Of a list, each entry is a call of its own.
func TestNamesLinearizable(t *testing.T) {
	rounds := 30
	if n, err := strconv.Atoi(os.Getenv("ZOIDFS_TEST_ROUNDS")); err == nil {
		rounds = n
	}
	x := startIONsWith(t, func(o *ionserver.Options) { o.CacheBytes, o.Calm = ionserver.MinCache, time.Millisecond })
	lag := new(laggard)
	mounts := []*mount{x.bareMountBy(t, lag.dial), x.bareMountBy(t, lag.dial), x.bareMountBy(t, lag.dial)}
	for round := range rounds {
		seed := rand.Uint64()
		lag.us.Store(0)
		begin, f := plant(t, mounts[0], strconv.Itoa(round))
		calls := walk(t, mounts, f, seed, lag)
		if !judge(t, begin, f, calls) {
			t.Errorf("seed %d: no order of the calls explains them", seed)
		}
	}
}

// plant makes a directory, and in it two others and a file.
func plant(t *testing.T, m *mount, name string) (tree, *forest) {
	ctx := t.Context()
	f := &forest{names: []string{"a", "b", "c"}, number: make(map[uint64]inode), start: time.Now()}
	var begin tree
	add := func(a ionclient.Attr, err error) uint64 {
		require.NoError(t, err)
		begin.inodes[f.see(a.Handle, a.Type)] = treeInode{life: named, kind: uint8(a.Type)}
		f.modes[f.see(a.Handle, a.Type)] = a.Mode
		return a.Handle
	}
	top := add(m.known.Mkdir(ctx, m.client.View().Root, name, 0o755, 0, 0))
	for i, name := range f.names {
		var h uint64
		if i < 2 {
			h = add(m.known.Mkdir(ctx, top, name, 0o755, 0, 0))
		} else {
			h = add(m.known.Create(ctx, top, name, 0o644, 0, 0))
		}
		begin.entries[f.number[top]][i] = f.number[h]
	}
	return begin, f
}

// walk lets processes loose in a forest.
func walk(t *testing.T, mounts []*mount, f *forest, seed uint64, lag *laggard) []treeCall {
	const perProc = 10
	rnd := rand.New(rand.NewPCG(seed, 0))
	nodes := 2 + rnd.IntN(len(mounts)-1)
	var weights [11]int
	for i, often := range [...]int{6, 3, 3, 2, 1, 3, 2, 4, 4, 3, 4} {
		weights[i] = often * []int{0, 1, 1, 4}[rnd.IntN(4)]
	}
	weights[0]++
	f.used = [2]int{1 + rnd.IntN(3), 1 + rnd.IntN(len(f.names))}
	jitter := []int{0, 1, 100, 1000}[rnd.IntN(4)]
	lag.us.Store([]int64{0, 0, 300, 2000}[rnd.IntN(4)])
	seen := make([]sync.Map, nodes)
	walkers := make([]*walker, nodes*(1+rnd.IntN(6/nodes)))
	f.start = time.Now()
	var g sync.WaitGroup
	for i := range walkers {
		w := &walker{mount: mounts[i%nodes], forest: f, proc: i, rnd: rand.New(rand.NewPCG(seed, uint64(i+1))), seen: &seen[i%nodes]}
		walkers[i] = w
		g.Go(func() {
			for range perProc {
				if jitter > 0 {
					time.Sleep(time.Duration(w.rnd.IntN(jitter)) * time.Microsecond)
				}
				w.call(t.Context(), weights)
			}
		})
	}
	g.Wait()
	var calls []treeCall
	for i, w := range walkers {
		for len(w.open) > 0 {
			w.closeFile(t.Context())
		}
		if i < nodes { // what it all came to
			for _, h := range slices.Clone(f.dirs) {
				w.getAttr(t.Context(), h)
				w.list(t.Context(), h)
				for _, name := range f.names {
					w.lookup(t.Context(), entryKey{h, name})
				}
			}
		}
		calls = append(calls, w.calls...)
	}
	return calls
}

// judge reports whether there is an order of the calls, and times never go back.
func judge(t *testing.T, begin tree, f *forest, calls []treeCall) bool {
	slices.SortStableFunc(calls, func(a, b treeCall) int { return cmp.Compare(a.call, b.call) })
	ok := inOrder(t, treeModel(begin), calls)
	ok = timesInOrder(t, calls) && ok
	for i := range inode(maxTreeInodes) {
		var ofOne []treeCall
		if f.modes[i] != 0 {
			ofOne = append(ofOne, treeCall{op: treeMake, inode: i, mode: f.modes[i], call: -2, ret: -1})
		}
		for _, c := range calls {
			if c.inode == i && c.errno == 0 && c.mode != 0 {
				ofOne = append(ofOne, c)
			}
		}
		ok = inOrder(t, modeModel, ofOne) && ok
	}
	return ok
}

// inOrder reports whether there is an order of the calls that a model allows.
func inOrder(t *testing.T, m porcupine.Model, calls []treeCall) bool {
	var ops []porcupine.Operation
	for _, c := range calls {
		require.Less(t, int(max(c.inode, c.at.dir, c.to.dir)), maxTreeInodes)
		ops = append(ops, porcupine.Operation{ClientId: c.proc, Call: c.call, Return: c.ret, Input: c})
	}
	result, info := porcupine.CheckOperationsVerbose(m, ops, time.Minute)
	if result == porcupine.Ok {
		return true
	}
	var best []int
	for _, orders := range info.PartialLinearizations() {
		for _, order := range orders {
			if len(order) > len(best) {
				best = order
			}
		}
	}
	t.Logf("%v: at most %d of %d calls can be put in order", result, len(best), len(calls))
	for i, c := range calls {
		mark := ' '
		if !slices.Contains(best, i) {
			mark = '?'
		}
		t.Logf("%c %v", mark, c)
	}
	return false
}

// timesInOrder reports whether no time that was seen of an inode is older than one
// that was seen before.
func timesInOrder(t *testing.T, calls []treeCall) bool {
	ok := true
	for _, a := range calls {
		for _, b := range calls {
			if a.inode != b.inode || a.ret >= b.call || a.times[1] == 0 || b.times[1] == 0 || a.errno != 0 || b.errno != 0 {
				continue
			}
			if a.times[0] > b.times[0] || a.times[1] > b.times[1] {
				t.Logf("times go back:\n%v %v\n%v %v", a, a.times, b, b.times)
				ok = false
			}
		}
	}
	return ok
}
