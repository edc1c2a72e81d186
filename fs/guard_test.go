package fs

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

// guarded mounts twice in a mode with a guard, and returns one file as both
// mounts see it, made and open for writing on the first.
func guarded(t *testing.T, mode consistency.Mode, g Guard) (a, b *mountProc, file *os.File, path string) {
	t.Helper()
	r := newRig(t, 1)
	a, b = r.mount(t, mountArgs{Consistency: mode, Guard: g}), r.mount(t, mountArgs{Consistency: mode, Guard: g})
	dir := filepath.Base(r.dirs[0])
	file, err := os.Create(filepath.Join(a.point, dir, "f"))
	require.NoError(t, err)
	t.Cleanup(func() { file.Close() })
	return a, b, file, filepath.Join(b.point, dir, "f")
}

func (m *mountProc) races(t *testing.T) uint64 {
	t.Helper()
	var s Status
	m.get(t, statusXattr, &s)
	return s.Races
}

func writeAt(t *testing.T, f *os.File, off, n int64) {
	t.Helper()
	_, err := f.WriteAt(make([]byte, n), off)
	require.NoError(t, err)
}

// raceOn does what is a race until a guard says so, at one of 20 places, with longer
// and longer pauses: how old a byte is, is known to the time that a request
// takes, and what is in doubt is not taken for a race.
func raceOn(t *testing.T, noticed func() bool, race func(off int64, pause func())) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for round := int64(0); !noticed(); round++ {
		require.True(t, time.Now().Before(deadline), "the guard notices")
		race(round%20*10000, func() { time.Sleep(time.Duration(round) * time.Millisecond) })
	}
}

// TestGuardWarns has two nodes write, and one read what the other has not
// published. What is synchronised is no race.
func TestGuardWarns(t *testing.T) {
	for _, mode := range []consistency.Mode{consistency.Commit, consistency.Session} {
		t.Run(mode.String(), func(t *testing.T) {
			a, b, f, path := guarded(t, mode, GuardWarn)
			g, err := os.OpenFile(path, os.O_WRONLY, 0)
			require.NoError(t, err)
			for off := range int64(20) {
				off *= 10000
				writeAt(t, f, off, 100)
				require.NoError(t, f.Sync())
				writeAt(t, g, off+50, 100) // f has published
				require.NoError(t, g.Sync())
				writeAt(t, f, off+200, 50)
				writeAt(t, g, off+250, 50) // neighbours
				require.NoError(t, f.Sync())
				require.NoError(t, g.Sync())
				b, err := os.ReadFile(path)
				require.NoError(t, err)
				require.Len(t, b, int(off)+300)
			}
			races := func() uint64 { return a.races(t) + b.races(t) }
			require.Zero(t, races())

			raceOn(t, func() bool { return races() > 0 }, func(off int64, pause func()) {
				writeAt(t, f, off, 100)
				writeAt(t, g, off+50, 100)
				pause()
				require.NoError(t, f.Sync())
				require.NoError(t, g.Sync())
			})
			if mode == consistency.Session { // the node may answer by what it has read before
				require.NoError(t, g.Close())
				return
			}
			before := races()
			raceOn(t, func() bool { return races() > before }, func(off int64, pause func()) {
				h, err := os.Open(path)
				require.NoError(t, err)
				writeAt(t, f, off, 100)
				pause()
				_, err = h.ReadAt(make([]byte, 10), off)
				require.NoError(t, err)
				require.NoError(t, f.Sync())
				require.NoError(t, h.Close())
			})
			require.NoError(t, g.Close())
		})
	}
}

func TestGuardFails(t *testing.T) {
	_, _, f, path := guarded(t, consistency.Session, GuardFail)
	g, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	var got error
	raceOn(t, func() bool { return got != nil }, func(off int64, pause func()) {
		writeAt(t, f, off, 100)
		writeAt(t, g, off+50, 100)
		pause()
		require.NoError(t, g.Sync())
		got = f.Sync()
	})
	require.ErrorIs(t, got, RaceErrno)
	require.NoError(t, f.Sync(), "it is told once")
	require.NoError(t, g.Close())
	b, err := os.ReadFile(path)
	require.NoError(t, err, "it was opened after that")
	require.GreaterOrEqual(t, len(b), 150, "and what was written is there")
}

func TestGuardUpgrades(t *testing.T) {
	_, _, f, path := guarded(t, consistency.Session, GuardUpgrade)
	g, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	value := make([]byte, 16)
	raceOn(t, func() bool {
		n, err := unix.Getxattr(path, consistency.Xattr, value)
		return err == nil && string(value[:n]) == "strong"
	}, func(off int64, pause func()) {
		writeAt(t, f, off, 100)
		writeAt(t, g, off+50, 100)
		pause()
		require.NoError(t, f.Sync())
		require.NoError(t, g.Sync())
	})
	require.NoError(t, g.Close())
}

// TestGuardCostsNoRequest counts the requests of one program with a guard and
// without.
func TestGuardCostsNoRequest(t *testing.T) {
	counts := map[Guard]map[string]uint64{}
	for _, what := range []Guard{GuardOff, GuardWarn} {
		a, _, f, path := guarded(t, consistency.Session, what)
		for i := range int64(50) {
			writeAt(t, f, i*1000, 1000)
		}
		require.NoError(t, f.Sync())
		_, err := os.ReadFile(path)
		require.NoError(t, err)
		var s Snapshot
		a.get(t, statsXattr, &s)
		counts[what] = map[string]uint64{"write": s.RPC.Requests["write"], "hold": s.RPC.Requests["hold"], "fsync": s.RPC.Requests["fsync"]}
		require.Zero(t, a.races(t))
	}
	require.Equal(t, counts[GuardOff], counts[GuardWarn])
	require.NotZero(t, counts[GuardOff]["write"])
}
