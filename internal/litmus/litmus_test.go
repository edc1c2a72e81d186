package litmus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/history"
)

// workerEnv is set in worker processes to the directory they work on.
const workerEnv = "ZOIDFS_LITMUS_WORKER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(workerEnv); dir != "" {
		if err := Serve(dir, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func startWorker(dir string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workerEnv+"="+dir)
	return cmd
}

// seed is that of the environment, or a new one, which it prints.
func seed(t *testing.T) int64 {
	s := time.Now().UnixNano()
	if v, err := strconv.ParseInt(os.Getenv("ZOIDFS_LITMUS_SEED"), 10, 64); err == nil {
		s = v
	}
	t.Log("ZOIDFS_LITMUS_SEED =", s)
	return s
}

func options(t *testing.T, dir string) Options {
	return Options{Mounts: []string{dir, dir}, Rounds: 3, Random: 15, Seed: seed(t), Start: startWorker, Visibility: 20 * time.Millisecond}
}

// tempDir is a directory on tmpfs if there is one, as rounds are many.
func tempDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "zoidfs-litmus-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// TestDirectory runs everything on one directory that stands for two mounts: a
// local file system keeps the promise of every mode but that of sealed files.
func TestDirectory(t *testing.T) {
	for _, mode := range all {
		t.Run(mode.String(), func(t *testing.T) {
			o := options(t, tempDir(t))
			o.Expect = mode
			var record, table bytes.Buffer
			o.History = history.NewWriter(&record, true)
			res, err := Run(context.Background(), o)
			require.NoError(t, err)
			require.NoError(t, o.History.Close())
			require.NoError(t, res.Table(&table))
			bad := map[string]int{}
			for _, r := range res.Tests {
				if r.Violated > 0 {
					bad[r.Name] = r.Violated
				}
				require.True(t, r.Rounds > 0 || r.NotRun != "", r.Name)
			}
			if mode == history.Laminated {
				require.Equal(t, o.Rounds, bad["LA2"], "a local file system seals nothing")
				delete(bad, "LA2")
			}
			require.Empty(t, bad, table.String())
			left, err := os.ReadDir(o.Mounts[0])
			require.NoError(t, err)
			require.Empty(t, left, "what the run left behind")

			r, err := history.NewReader(&record)
			require.NoError(t, err)
			for again := 0; ; again++ {
				h, err := r.Read()
				if errors.Is(err, io.EOF) {
					require.Greater(t, again, o.Rounds*len(tests)-1)
					break
				}
				require.NoError(t, err)
				if h.Program != "LA2" {
					require.Empty(t, Check(h), h.Program)
				}
			}
		})
	}
}

// TestMutations changes one byte, one size or one time of what correct runs saw:
// where nothing races, there is no other answer, so each must be found.
func TestMutations(t *testing.T) {
	dir := tempDir(t)
	for _, mode := range all {
		t.Run(mode.String(), func(t *testing.T) {
			o := options(t, dir)
			o.Expect = mode
			r, rng := &runner{Options: o}, rand.New(rand.NewSource(o.Seed))
			require.NoError(t, r.prepare())
			defer func() { require.NoError(t, r.finish()) }()
			found := map[string]int{}
			for range 15 {
				s := rng.Int63()
				p := r.program(s, false)
				h, err := r.play(context.Background(), p, 0)
				require.NoError(t, err)
				require.Empty(t, history.Check(h).Violations, "%d: %s", s, p)
				for i := range h.Events {
					for name, g := range mutations(rng, h, i) {
						require.NotEmpty(t, history.Check(g).Violations, "seed %d: %s of event %d, now %v, is not found in\n%s", s, name, i, g.Events[i], p)
						found[name]++
					}
				}
			}
			require.Len(t, found, 5, "%v", found)
			t.Log(found)
		})
	}
}

// mutations are the ways in which event i may be wrong.
func mutations(rng *rand.Rand, h history.History, i int) map[string]history.History {
	out := map[string]history.History{}
	change := func(name string, f func(e *history.Event)) {
		g := h
		g.Events = slices.Clone(h.Events)
		g.Events[i].Seen = slices.Clone(h.Events[i].Seen)
		f(&g.Events[i])
		out[name] = g
	}
	e := h.Events[i]
	sieved := slices.ContainsFunc(h.Events, func(s history.Event) bool { return s.Op == history.Sieve && s.Proc == e.Proc })
	if e.Op == history.Read && len(e.Seen) > 0 && !sieved {
		k := rng.Intn(len(e.Seen))
		was := e.Seen[k].Value
		change("invented", func(e *history.Event) { e.Seen[k].Value = 250 })
		if was > 0 {
			change("lost", func(e *history.Event) { e.Seen[k].Value = 0 })
			change("stale", func(e *history.Event) { e.Seen[k].Value = was%3 + 1 })
			if out["stale"].Events[i].Seen[k].Value == was {
				delete(out, "stale")
			}
		}
		if e.Seen[k].Len > 1 {
			change("torn", func(e *history.Event) {
				e.Seen = slices.Insert(e.Seen, k, history.Run{Len: 1, Value: 251})
				e.Seen[k+1].Len--
			})
		}
	}
	if e.Op == history.Fstat || e.Op == history.SeekEnd {
		change("size", func(e *history.Event) { e.N++ })
	}
	return out
}

// TestSteps requires that leaving out a step keeps the order of the others.
func TestSteps(t *testing.T) {
	step := func(proc int, after ...int) Step {
		return Step{Event: history.Event{Proc: proc, After: after}}
	}
	p := Program{Nodes: []int{0, 1, 2}, Steps: []Step{step(0), step(1, 0), step(1), step(2, 2)}}
	q := p.without(1, 2)
	require.Equal(t, []Step{step(0), step(2, 0)}, q.Steps)
	q = p.without(0, 1)
	require.Equal(t, []Step{step(1), step(1), step(2, 1)}, q.Steps)
	require.Equal(t, p.Steps, p.without(4, 1).Steps)
}

func TestCode(t *testing.T) {
	for _, flat := range []bool{false, true} {
		b := make([]byte, 1000)
		for _, v := range []uint8{1, 7, 254, 255} {
			encode(b[100:900], 5000, v, flat)
			require.Equal(t, []history.Run{{Len: 100}, {Len: 800, Value: v}, {Len: 100}}, decode(b, 4900, flat))
		}
		encode(b, 0, 3, flat)
		require.NotContains(t, b, byte(0))
	}
	b := make([]byte, 1000)
	encode(b, 5000, 3, false)
	require.Greater(t, len(decode(b, 5001, false)), 100, "bytes at a wrong offset")
}

func TestPromises(t *testing.T) {
	f := forward(all)
	for outcome, want := range map[string]bool{"0,0,1,1": true, "0+1,1": true, "1,0": false, "1,0+1": false, "0,1+0,0": true} {
		require.Equal(t, want, f.holds(outcome), outcome)
	}
	require.True(t, without("0", all).holds("1+2,10"))
	require.False(t, without("0", all).holds("1,2+0"))
}

// TestHang requires that a call that never returns ends the round, and that the
// next one finds new workers.
func TestHang(t *testing.T) {
	dir := tempDir(t)
	team := NewTeam([]string{dir, dir}, startWorker)
	defer func() { require.NoError(t, team.Close()) }()
	write := func(deadlock bool) error {
		s := newScript(rand.New(rand.NewSource(1)), 2, 0)
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.shared(x, P, Q)
		P.lock(x)
		s.then()
		if deadlock {
			Q.lock(x)
		}
		s.then()
		P.unlock(x)
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, err := team.Run(ctx, s.Program)
		return err
	}
	require.NoError(t, write(false))
	require.ErrorContains(t, write(true), "a call hangs")
	require.NoError(t, write(false))
}

func TestBadOptions(t *testing.T) {
	o := options(t, t.TempDir())
	o.Tests = []string{"L99"}
	_, err := Run(context.Background(), o)
	require.ErrorContains(t, err, "there is no test L99; there are L1,")
	require.ErrorContains(t, cannotSet("/m", commit, syscall.ENOTSUP), "use --expect commit")
	o.Tests, o.Mounts = nil, o.Mounts[:1]
	_, err = Run(context.Background(), o)
	require.ErrorContains(t, err, "two mounts")
	o.Mounts = []string{t.TempDir(), t.TempDir()}
	_, err = Run(context.Background(), o)
	require.ErrorContains(t, err, "do not show the same files")
	left, err := os.ReadDir(o.Mounts[0])
	require.NoError(t, err)
	require.Empty(t, left)
}
