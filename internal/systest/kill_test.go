package systest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/history"
	"github.com/zoidfs/zoidfs/internal/litmus"
)

// killTimeEnv makes TestKillIONs go on for longer, in each mode, and TestKillThenCheck.
const killTimeEnv = "ZOIDFS_SYSTEST_KILL"

// TestKillIONs kills I/O nodes, one after the other and over and over again,
// under litmus tests, random programs, and a writer that never syncs. The file
// system must keep its promises as if nothing had happened.
func TestKillIONs(t *testing.T) {
	c, long := upToKill(t)
	for _, mode := range []history.Mode{history.Strong, history.Commit} {
		t.Run(mode.String(), func(t *testing.T) { killUnderLitmus(t, c, mode, long) })
	}
	t.Run("writer", func(t *testing.T) { killUnderWriter(t, c) })
	c.noPanics(t)
}

// upToKill starts a system whose I/O nodes are to be killed for so long.
func upToKill(t *testing.T) (c *cluster, long time.Duration) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a whole system")
	}
	t.Parallel()
	if os.Getenv("ZOIDFS_SYSTEST_DIRS") != "" {
		t.Skip("needs a zoidfs system")
	}
	long = 9 * time.Second
	if s := os.Getenv(killTimeEnv); s != "" {
		var err error
		long, err = time.ParseDuration(s)
		require.NoError(t, err)
	}
	c = newCluster(t, shortTempDir(t))
	c.up(t)
	return c, long
}

// killing kills I/O nodes in turn and starts them again, until the test ends or
// has what it wants and calls what killing returns: with the number of kills.
func killing(t *testing.T, c *cluster) (stop func() int) {
	t.Helper()
	rng := rand.New(rand.NewSource(seed(t)))
	end := make(chan struct{})
	var kills int
	var loop sync.WaitGroup
	loop.Go(func() {
		for victim := 0; ; victim = 1 - victim {
			select {
			case <-end:
				return
			case <-time.After(time.Duration(300+rng.Intn(1200)) * time.Millisecond):
			}
			ion := c.file(t).IONs[victim]
			if err := syscall.Kill(ion.PID, syscall.SIGKILL); err != nil {
				t.Errorf("kill %d: %v", ion.PID, err)
				return
			}
			kills++
			for running(ion.PID) || listening(ion.Addr) { // its threads end one by one
				time.Sleep(10 * time.Millisecond)
			}
			if out, err := c.try(append([]string{"up", "--dir", c.dir}, c.args...)...); err != nil {
				t.Errorf("up: %v: %s", err, out)
				return
			}
		}
	})
	stop = sync.OnceValue(func() int {
		close(end)
		loop.Wait()
		return kills
	})
	t.Cleanup(func() { stop() })
	return stop
}

// listening reports whether somebody has a TCP address.
func listening(addr string) bool {
	nc, err := net.Dial("tcp", addr)
	if err == nil {
		nc.Close()
	}
	return err == nil
}

// killTests are litmus tests whose calls may be carried out twice: an I/O node
// that dies may have done what it had not answered.
var killTests = []string{
	"L1", "L1n", "L1h", "L2", "L2s", "L3", "L4", "L5", "L6", "L7", "L8", "L9", "L9a", "L10", "L11", "L12a",
	"L14", "L14r", "L18", "L19", "L20", "L20f", "L20o", "L22",
}

func killUnderLitmus(t *testing.T, c *cluster, mode history.Mode, long time.Duration) {
	r := c.rig().subdir(t)
	stop := killing(t, c)
	first, rounds := seed(t), 0
	for end := time.Now().Add(long); time.Now().Before(end) && !t.Failed(); rounds++ {
		o := litmusOptions(t, r.dirs)
		o.Seed, o.Rounds, o.Random, o.Repeatable, o.Atomic = first+int64(rounds), 1, 4, true, stripe
		o.Tests = append([]string{"random"}, killTests...)
		if mode != history.Strong {
			o.Mode = mode
		}
		res, err := litmus.Run(t.Context(), o)
		require.NoError(t, err)
		var table bytes.Buffer
		require.NoError(t, res.Table(&table))
		if !res.Conforms() {
			t.Errorf("seed %d: %s", o.Seed, table.String())
		}
	}
	kills := stop()
	t.Logf("%d times all tests, %d kills", rounds, kills)
	require.GreaterOrEqual(t, kills, 3)
}

// killUnderWriter has a program write 200 MiB without ever syncing. It is not the
// program that starts I/O nodes again: one that begins with files open for
// writing closes them first, which waits for the I/O nodes.
func killUnderWriter(t *testing.T, c *cluster) {
	r := c.rig().subdir(t)
	const size, step = 200 << 20, 1 << 20
	w := startProc(t, r, 0)
	w.ok(t, op{Do: "open", Path: "big", FD: 1, Flags: os.O_WRONLY | os.O_CREATE})
	stop := killing(t, c)
	rng, want := rand.New(rand.NewSource(seed(t))), sha256.New()
	for off := int64(0); off < size; off += step {
		p := op{Do: "pwrite", FD: 1, Off: off, Len: step, Fill: rng.Uint64()}
		want.Write(fill(p.Fill, p.Len))
		require.EqualValues(t, step, w.ok(t, p).N, "at %d", off)
		if off%(20*step) == 0 {
			time.Sleep(400 * time.Millisecond) // there is more than one kill in it
		}
	}
	w.ok(t, op{Do: "close", FD: 1})
	kills := stop()
	t.Logf("%d kills", kills)
	require.GreaterOrEqual(t, kills, 2)
	for _, dir := range r.dirs {
		g, err := os.Open(filepath.Join(dir, "big"))
		require.NoError(t, err)
		defer g.Close()
		got := sha256.New()
		n, err := g.WriteTo(got)
		require.NoError(t, err)
		require.EqualValues(t, size, n)
		require.Equal(t, fmt.Sprintf("%x", want.Sum(nil)), fmt.Sprintf("%x", got.Sum(nil)), "bytes are lost, as %s shows", dir)
	}
	require.NoError(t, unix.Unlink(filepath.Join(r.dirs[0], "big")))
}
