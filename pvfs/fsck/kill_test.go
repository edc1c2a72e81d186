package fsck_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/fsck"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
)

// Servers are killed 240 times, at any moment, one or several at once, while
// clients create, write, rename, replace, truncate and remove. No call may
// fail: clients wait for their servers. Whatever was answered is there in the
// end, down to the last byte. What a kill may leave is what the documentation
// says: objects without a name, made by requests whose answer was lost; never
// datafiles, which servers make for each other's pools.
func TestKilledServers(t *testing.T) {
	kills := 80
	if testing.Short() {
		kills = 20
	}
	t.Run("directories that split", func(t *testing.T) {
		killServers(t, kills, func(o *fsconf.GenOptions) { o.DistrDirServersMax, o.DistrDirSplitSize = 3, 3 })
	})
	t.Run("metadata synced", func(t *testing.T) {
		killServers(t, kills, func(o *fsconf.GenOptions) { o.SyncMeta = true })
	})
	t.Run("unsynced, no stuffing", func(t *testing.T) {
		killServers(t, kills, func(o *fsconf.GenOptions) { o.NoStuffing = true })
	})
}

func killServers(t *testing.T, kills int, edit func(*fsconf.GenOptions)) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	p := pvfsdtest.StartProcesses(t, 3, edit)
	c, err := pvfs.Dial(t.Context(), p.URL(), pvfs.Options{})
	require.NoError(t, err)
	defer c.Close()
	workers := make([]*worker, 4)
	for i := range workers {
		workers[i], err = newWorker(t.Context(), c, i, seed)
		require.NoError(t, err)
	}
	var g errgroup.Group
	var stop atomic.Bool
	for _, w := range workers {
		g.Go(func() error {
			for !stop.Load() {
				if err := w.step(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	began := time.Now()
	r := rand.New(rand.NewPCG(seed, 99))
	for done := 0; done < kills; {
		time.Sleep(time.Duration(r.IntN(80)) * time.Millisecond)
		victims := r.Perm(3)[:1+r.IntN(8)/6+r.IntN(8)/7] // mostly one
		for _, i := range victims {
			p.Kill(i)
		}
		for _, i := range victims {
			p.Start(i)
			if r.IntN(5) == 0 { // again while it is starting
				time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
				p.Kill(i)
				p.Start(i)
				done++
			}
		}
		for _, i := range victims {
			p.Await(i)
		}
		done += len(victims)
	}
	stop.Store(true)
	require.NoError(t, g.Wait())
	took := time.Since(began)

	steps := 0
	for _, w := range workers {
		w.verify(t)
		steps += w.steps
	}
	opt := fsck.Options{Settle: 300 * time.Millisecond} // servers may be filling their pools
	rep, err := fsck.Check(t.Context(), c, opt)
	require.NoError(t, err)
	for i := range rep.Findings {
		f := &rep.Findings[i]
		require.Equal(t, fsck.Orphan, f.Kind, f.String())
		require.NotEqual(t, "datafile", f.Type, f.String())
	}
	t.Logf("%d kills and %d steps in %v; %v; %d orphans", kills, steps, took.Round(time.Millisecond), rep.Objects, len(rep.Findings))
	for tries := 0; len(rep.Findings) > 0; tries++ {
		require.Less(t, tries, 6, "it never gets clean")
		require.NoError(t, fsck.Repair(t.Context(), c, rep, opt, fsck.RepairOptions{Orphans: true, Force: true}))
		for i := range rep.Findings { // servers may be removing what they had begun to remove
			if f := &rep.Findings[i]; !f.Repaired {
				require.Equal(t, "left: it has changed", f.Repair, f.String())
			}
		}
		rep, err = fsck.Check(t.Context(), c, opt)
		require.NoError(t, err)
		require.Zero(t, rep.More)
	}
	for _, w := range workers {
		w.verify(t) // repairing has not taken anything away
	}
}

// Clients are killed in the middle of things. What they leave is what the
// documentation says, and all but second names is repaired.
func TestKilledClients(t *testing.T) {
	r := newRig(t, spread)
	for round := range 20 {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), clientEnv+"="+r.cl.URL())
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		require.NoError(t, cmd.Start())
		_, err = out.Read(make([]byte, 1))
		require.NoError(t, err)
		time.Sleep(time.Duration(rand.IntN(80)) * time.Millisecond)
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		require.Empty(t, stderr.String(), round)
	}
	opt := fsck.Options{Settle: 300 * time.Millisecond}
	time.Sleep(time.Second) // servers still carry out what the dead have sent
	rep, err := fsck.Check(t.Context(), r.c, opt)
	require.NoError(t, err)
	require.NoError(t, fsck.Repair(t.Context(), r.c, rep, opt, fsck.RepairOptions{Orphans: true, Entries: true, Force: true}))
	count := map[fsck.Kind]int{}
	for i := range rep.Findings {
		f := &rep.Findings[i]
		count[f.Kind]++
		require.Equal(t, f.Kind != fsck.Shared, f.Repaired, f.String())
	}
	t.Logf("%d entries; %v", rep.Entries, count)
	for _, f := range r.check().Findings {
		require.Equal(t, fsck.Shared, f.Kind, f.String())
	}
}
