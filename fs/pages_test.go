package fs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

// mapFile opens a file and maps n bytes of it.
func (w *worker) mapFile(path string, n int64, openFlags, flags int) int {
	w.t.Helper()
	fd := w.open(path, openFlags)
	w.do(request{Op: "mmap", FD: fd, Len: n, Flags: flags})
	return fd
}

// load is the bytes at off of what fd maps.
func (w *worker) load(fd int, off int64, n int) string {
	w.t.Helper()
	return string(w.do(request{Op: "mget", FD: fd, Off: off, Len: int64(n)}).Data)
}

// sees returns when loads have want at off.
func (w *worker) sees(fd int, off int64, want string) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		got := w.load(fd, off, len(want))
		if got == want {
			return
		}
		require.True(w.t, time.Now().Before(end), "%q stays, instead of %q", got, want)
	}
}

// inMode makes a directory of a mode in that of the test.
func (r *rig) inMode(t *testing.T, mode string) {
	t.Helper()
	require.NoError(t, os.Mkdir(r.path(0, mode), 0o777))
	require.NoError(t, unix.Setxattr(r.path(0, mode), consistency.Xattr, []byte(mode), 0))
}

// TestMappingSeesOthers: a load from a mapping sees what other nodes write, without
// any call.
func TestMappingSeesOthers(t *testing.T) {
	const size = 3 << 12
	r := newRig(t, 2)
	for mode, rounds := range map[string]int{"strong": 30, "commit": 30, "laminated": 5, "eventual": 1} {
		t.Run(mode, func(t *testing.T) {
			r.inMode(t, mode)
			name := filepath.Join(mode, "f")
			require.NoError(t, os.WriteFile(r.path(1, name), make([]byte, size), 0o644))
			reader, writer := startWorker(t), startWorker(t)
			shared := reader.mapFile(r.path(0, name), size, unix.O_RDONLY, unix.MAP_PRIVATE)
			private := reader.mapFile(r.path(0, name), size, unix.O_RDWR, unix.MAP_SHARED)
			fd := writer.open(r.path(1, name), unix.O_RDWR)
			for i := range rounds {
				text := fmt.Sprintf("round %9d", i)
				writer.write(fd, 5000, text)
				if mode != "strong" && mode != "eventual" {
					writer.do(request{Op: "fsync", FD: fd})
				}
				reader.sees(shared, 5000, text)
				reader.sees(private, 5000, text)
			}
		})
	}
}

// TestMappingSeesLock: in session a lock begins the view anew, of mappings soon after.
func TestMappingSeesLock(t *testing.T) {
	r := newRig(t, 2)
	r.inMode(t, "session")
	require.NoError(t, os.WriteFile(r.path(1, "session/f"), []byte("old"), 0o644))
	w := startWorker(t)
	fd := w.mapFile(r.path(0, "session/f"), 3, unix.O_RDONLY, unix.MAP_PRIVATE)
	require.Equal(t, "old", w.load(fd, 0, 3))
	f, err := os.OpenFile(r.path(1, "session/f"), os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString("new")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	w.do(request{Op: "lock", FD: fd, Type: unix.F_RDLCK, Lock: unix.F_SETLKW})
	w.sees(fd, 0, "new")
}

// TestMappingSeesTruncation: what others cut off goes from mappings.
func TestMappingSeesTruncation(t *testing.T) {
	r := newRig(t, 2)
	for _, mode := range []string{"strong", "commit", "session"} {
		r.inMode(t, mode)
		name := filepath.Join(mode, "f")
		require.NoError(t, os.WriteFile(r.path(1, name), []byte(strings.Repeat("-", 4000)), 0o644))
		w := startWorker(t)
		fd := w.mapFile(r.path(0, name), 4000, unix.O_RDONLY, unix.MAP_PRIVATE)
		require.Equal(t, "--------", w.load(fd, 100, 8))
		require.NoError(t, os.Truncate(r.path(1, name), 104))
		w.sees(fd, 100, "----\x00\x00\x00\x00")
	}
}

// TestDirtyMappingSeesOthers: pages that are dirty are written back before they are
// dropped.
func TestDirtyMappingSeesOthers(t *testing.T) {
	const size = 3 << 12
	r := newRig(t, 2)
	for _, mode := range []string{"strong", "commit"} {
		r.inMode(t, mode)
		name := filepath.Join(mode, "f")
		require.NoError(t, os.WriteFile(r.path(1, name), make([]byte, size), 0o644))
		a, b := startWorker(t), startWorker(t)
		mine := a.mapFile(r.path(0, name), size, unix.O_RDWR, unix.MAP_SHARED)
		fd := b.open(r.path(1, name), unix.O_RDWR)
		for i := range 20 {
			text := fmt.Sprintf("round %9d", i)
			a.load(mine, 0, size)
			a.do(request{Op: "mset", FD: mine, Off: 10, Data: []byte(text)})
			b.write(fd, 2<<12, text)
			b.do(request{Op: "fsync", FD: fd})
			a.sees(mine, 2<<12, text)
			require.Equal(t, text, a.load(mine, 10, len(text)))
		}
		a.do(request{Op: "msync", FD: mine})
		require.Equal(t, a.load(mine, 0, size), b.read(fd, 0, size))
	}
}

// TestMappingsUnderLoad: processes of two nodes store, write and load for some hundred
// rounds, each into a page of its own. Nobody hangs, loads never go backwards, and at
// last all see all.
func TestMappingsUnderLoad(t *testing.T) {
	const rounds, workers, page = 200, 4, 1 << 12
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := newRig(t, 2)
	for _, mode := range []string{"strong", "commit"} {
		r.inMode(t, mode)
		name := filepath.Join(mode, "f")
		require.NoError(t, os.WriteFile(r.path(0, name), []byte(strings.Repeat("0", workers*page)), 0o644))
		var group errgroup.Group
		var fds []int
		var ws []*worker
		for i := range workers {
			w := startWorker(t)
			ws, fds = append(ws, w), append(fds, w.mapFile(r.path(i%2, name), workers*page, unix.O_RDWR, unix.MAP_SHARED))
		}
		for i, w := range ws {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			group.Go(func() error {
				var last [workers]int
				for round := range rounds {
					text := fmt.Sprintf("%09d", round+1)
					if random.IntN(2) == 0 {
						w.do(request{Op: "mset", FD: fds[i], Off: int64(i * page), Data: []byte(text)})
						if random.IntN(4) == 0 {
							w.do(request{Op: "msync", FD: fds[i]})
						}
					} else {
						w.write(fds[i], int64(i*page), text)
					}
					for j := range workers {
						n, err := strconv.Atoi(w.load(fds[i], int64(j*page), 9))
						if err != nil || n < last[j] {
							return fmt.Errorf("%s: worker %d saw %d of worker %d after %d: %v", mode, i, n, j, last[j], err)
						}
						last[j] = n
					}
					if last[i] != round+1 {
						return fmt.Errorf("%s: worker %d sees %d of its own in round %d", mode, i, last[i], round+1)
					}
				}
				w.do(request{Op: "fsync", FD: fds[i]})
				return nil
			})
		}
		require.NoError(t, group.Wait())
		for i, w := range ws {
			for j := range workers {
				w.sees(fds[i], int64(j*page), fmt.Sprintf("%09d", rounds))
			}
		}
	}
}

// TestWhenPagesAreDropped: at once when they may not be kept any more, and once more
// when a READ that was under way then is answered; in vain for no file.
func TestWhenPagesAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open openModes
		p, n := newPages("", nil, &open), &node{handle: 7}
		due := func() bool {
			f, _ := p.next(time.Now())
			if f != nil {
				require.Same(t, n, f.node)
				p.ended(f)
			}
			time.Sleep(dropPause)
			return f != nil
		}
		open.add(7, consistency.Strong)
		p.stale(7)
		require.False(t, due(), "no page was filled")
		read := p.fill(n, 0)
		read.end()
		require.False(t, due(), "they may be kept")
		p.stale(7)
		require.True(t, due())
		p.stale(7)
		require.False(t, due(), "there are none any more")

		read = p.fill(n, 0)
		p.stale(7)
		p.stale(7)
		require.True(t, due())
		require.False(t, due())
		read.end()
		require.True(t, due(), "an old page was filled since")
		require.False(t, due())

		read = p.fill(n, 0)
		read.keep = time.Now().Add(time.Second)
		read.end()
		require.False(t, due())
		time.Sleep(time.Second)
		require.True(t, due())

		p.fill(n, 0)
		p.stale(7)
		p.closed(7)
		require.True(t, due(), "it is open still")
		p.stale(7)
		open.drop(7, consistency.Strong)
		p.closed(7)
		require.False(t, due())
		require.Empty(t, p.files)
	})
}

// TestExecuteAgain: a program that has not changed is executed again without any READ,
// by several processes at once too, and one that another node has changed is the new
// one at once.
func TestExecuteAgain(t *testing.T) {
	r := newRig(t, 2)
	for _, mode := range []string{"strong", "commit"} {
		r.inMode(t, mode)
		yes, no := readFile(t, "/bin/true"), readFile(t, "/bin/false")
		path := r.path(0, filepath.Join(mode, "program"))
		require.NoError(t, os.WriteFile(path, yes, 0o755))
		// A shell forks: while we did, nobody else would run here, nor the I/O nodes.
		run := func() error { return exec.Command("/bin/sh", "-c", path+"; exit $?").Run() }
		reads := func() uint64 {
			var s Snapshot
			r.nodes[0].get(t, statsXattr, &s)
			return s.App.Calls["read"]
		}
		for end, before := time.Now().Add(time.Minute), reads(); ; {
			require.NoError(t, exec.Command("/bin/sh", "-c", strings.Repeat(path+" & ", 8)+"wait").Run())
			after := reads()
			t.Log(mode, after-before, "READs by 8 processes")
			if after == before {
				break
			}
			require.True(t, time.Now().Before(end), "still %d READs", after-before)
			before = after
		}
		f, err := os.Open(path) // by direct I/O
		require.NoError(t, err)
		w, err := os.OpenFile(r.path(1, filepath.Join(mode, "program")), os.O_WRONLY, 0)
		require.NoError(t, err)
		for range 20 {
			for _, image := range [][]byte{no, yes} {
				_, err = w.WriteAt(image, 0)
				require.NoError(t, err)
				require.NoError(t, w.Truncate(int64(len(image))))
				require.NoError(t, w.Sync())
				var exit *exec.ExitError
				if err := run(); &image[0] == &yes[0] {
					require.NoError(t, err)
				} else {
					require.ErrorAs(t, err, &exit)
					require.Equal(t, 1, exit.ExitCode())
				}
			}
		}
		require.NoError(t, w.Close())
		require.NoError(t, f.Close())
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}
