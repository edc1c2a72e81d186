package fs

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// These tests look at one file system from two nodes, with a process on each.

func TestWriteIsSeenAtOnce(t *testing.T) {
	r := newRig(t, 2)
	a, b := startWorker(t), startWorker(t)
	fa := a.open(r.path(0, "f"), unix.O_RDWR|unix.O_CREAT)
	fb := b.open(r.path(1, "f"), unix.O_RDWR)
	for i := range 50 {
		s := fmt.Sprintf("%08d", i)
		a.write(fa, 0, s)
		require.Equal(t, s, b.read(fb, 0, 8), "overwritten on the other node")
		a.write(fa, int64(8+i), "x")
		require.EqualValues(t, 9+i, b.do(request{Op: "fstat", FD: fb}).Size)
		b.write(fb, 0, "b")
		require.Equal(t, "b"+s[1:], a.read(fa, 0, 8))
	}
	big := strings.Repeat("0123456789abcdef", 3<<20/16)
	a.write(fa, 12345, big)
	require.Equal(t, big, b.read(fb, 12345, int64(len(big))+10), "larger than one request, not aligned")
}

func TestTruncateIsSeenAtOnce(t *testing.T) {
	r := newRig(t, 2)
	a, b := startWorker(t), startWorker(t)
	fa := a.open(r.path(0, "f"), unix.O_RDWR|unix.O_CREAT)
	a.write(fa, 0, "hello world")
	fb := b.open(r.path(1, "f"), unix.O_RDWR)
	b.do(request{Op: "truncate", Path: r.path(1, "f"), Len: 5})
	require.Equal(t, "hello", a.read(fa, 0, 100))
	b.do(request{Op: "truncate", Path: r.path(1, "f"), Len: 8})
	require.Equal(t, "hello\x00\x00\x00", a.read(fa, 0, 100))
	b.open(r.path(1, "f"), unix.O_RDWR|unix.O_TRUNC)
	require.Empty(t, a.read(fa, 0, 100), "truncated by open")
	require.Zero(t, a.do(request{Op: "fstat", FD: fa}).Size)
	a.write(fa, 3, "x")
	require.Equal(t, "\x00\x00\x00x", b.read(fb, 0, 100))
}

func TestAppendFromTwoNodes(t *testing.T) {
	r := newRig(t, 2)
	const records = 150
	var wg sync.WaitGroup
	for node := range 2 {
		w := startWorker(t)
		fd := w.open(r.path(node, "log"), unix.O_WRONLY|unix.O_CREAT)
		w.do(request{Op: "setfl", FD: fd, Flags: unix.O_APPEND}) // after open: only each write tells
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range records {
				w.do(request{Op: "write", FD: fd, Data: fmt.Appendf(nil, "node %d record %04d\n", node, i)})
			}
		}()
	}
	wg.Wait()
	b, err := os.ReadFile(r.path(0, "log"))
	require.NoError(t, err)
	next := []int{0, 0}
	for line := range strings.Lines(string(b)) {
		var node, i int
		n, err := fmt.Sscanf(line, "node %d record %d\n", &node, &i)
		require.NoError(t, err, "%d %q", n, line)
		require.Equal(t, next[node], i, "records of one process stay in order")
		next[node]++
	}
	require.Equal(t, []int{records, records}, next)
}

func TestNamesAreSeenAtOnce(t *testing.T) {
	r := newRig(t, 2)
	require.NoError(t, os.WriteFile(r.path(0, "a"), []byte("one"), 0o644))
	require.NoError(t, os.Rename(r.path(1, "a"), r.path(1, "b")))
	_, err := os.Stat(r.path(0, "a"))
	require.ErrorIs(t, err, syscall.ENOENT)
	b, err := os.ReadFile(r.path(0, "b"))
	require.NoError(t, err)
	require.Equal(t, "one", string(b))

	require.NoError(t, os.WriteFile(r.path(1, "c"), []byte("two"), 0o644))
	err = unix.Renameat2(unix.AT_FDCWD, r.path(0, "b"), unix.AT_FDCWD, r.path(0, "c"), unix.RENAME_NOREPLACE)
	require.ErrorIs(t, err, syscall.EEXIST)
	err = unix.Renameat2(unix.AT_FDCWD, r.path(0, "b"), unix.AT_FDCWD, r.path(0, "c"), unix.RENAME_WHITEOUT)
	require.ErrorIs(t, err, syscall.EINVAL)
	require.NoError(t, unix.Renameat2(unix.AT_FDCWD, r.path(0, "b"), unix.AT_FDCWD, r.path(0, "c"), unix.RENAME_EXCHANGE))
	for name, want := range map[string]string{"b": "two", "c": "one"} {
		b, err := os.ReadFile(r.path(1, name))
		require.NoError(t, err)
		require.Equal(t, want, string(b), "exchanged")
	}

	_, err = os.OpenFile(r.path(0, "b"), os.O_CREATE|os.O_EXCL, 0o644)
	require.ErrorIs(t, err, syscall.EEXIST)
	require.NoError(t, os.Mkdir(r.path(0, "d"), 0o755))
	require.ErrorIs(t, os.Mkdir(r.path(1, "d"), 0o755), syscall.EEXIST)
	require.NoError(t, os.Remove(r.path(1, "d")))
	_, err = os.Stat(r.path(0, "d"))
	require.ErrorIs(t, err, syscall.ENOENT)
}

// TestCreateRace has many processes open one new file with O_CREAT at once:
// all get it, whoever made it.
func TestCreateRace(t *testing.T) {
	r := newRig(t, 2)
	var workers []*worker
	for range 8 {
		workers = append(workers, startWorker(t))
	}
	for round := range 20 {
		name := fmt.Sprint("f", round)
		for i, w := range workers {
			w.start(request{Op: "open", Path: r.path(i%2, name), Flags: unix.O_CREAT | unix.O_RDWR, Mode: 0o644})
		}
		for _, w := range workers {
			require.Zero(t, w.wait().Errno)
		}
	}
	for round := range 20 {
		name := fmt.Sprint("x", round)
		for i, w := range workers {
			w.start(request{Op: "open", Path: r.path(i%2, name), Flags: unix.O_CREAT | unix.O_EXCL | unix.O_RDWR, Mode: 0o644})
		}
		made := 0
		for _, w := range workers {
			switch e := w.wait().Errno; e {
			case 0:
				made++
			default:
				require.Equal(t, syscall.EEXIST, e)
			}
		}
		require.Equal(t, 1, made, "exactly one makes it with O_EXCL")
	}
}

func TestUnlinkedFileLivesUntilClosed(t *testing.T) {
	r := newRig(t, 2)
	w := startWorker(t)
	fd := w.open(r.path(0, "f"), unix.O_RDWR|unix.O_CREAT)
	w.write(fd, 0, "still here")
	require.NoError(t, os.Remove(r.path(1, "f")))
	require.Equal(t, "still here", w.read(fd, 0, 100))
	w.write(fd, 0, "S")
	require.Equal(t, "Still here", w.read(fd, 0, 100))
	require.Zero(t, w.do(request{Op: "fstat", FD: fd}).Nlink)

	require.NoError(t, os.WriteFile(r.path(1, "f"), []byte("new"), 0o644))
	fd2 := w.open(r.path(0, "f"), unix.O_RDONLY)
	require.NoError(t, os.WriteFile(r.path(1, "g"), []byte("newer"), 0o644))
	require.NoError(t, os.Rename(r.path(1, "g"), r.path(1, "f")))
	require.Equal(t, "new", w.read(fd2, 0, 100), "replaced by rename while open")
	require.Zero(t, w.do(request{Op: "fstat", FD: fd2}).Nlink)
	require.Equal(t, "Still here", w.read(fd, 0, 100))
}

func TestMapAcrossNodes(t *testing.T) {
	r := newRig(t, 2)
	a, b := startWorker(t), startWorker(t)
	fa := a.open(r.path(0, "f"), unix.O_RDWR|unix.O_CREAT)
	a.write(fa, 0, strings.Repeat("-", 10000))
	fb := b.open(r.path(1, "f"), unix.O_RDWR)

	a.do(request{Op: "mmap", FD: fa, Len: 10000, Flags: unix.MAP_SHARED})
	a.do(request{Op: "mset", FD: fa, Off: 5000, Data: []byte("mapped")})
	require.Equal(t, "-mapped-", a.read(fa, 4999, 8), "pread on the same node sees the mapping")
	a.do(request{Op: "msync", FD: fa})
	require.Equal(t, "-mapped-", b.read(fb, 4999, 8))
	require.EqualValues(t, 10000, b.do(request{Op: "fstat", FD: fb}).Size, "pages are not written beyond the end")

	a.do(request{Op: "mset", FD: fa, Off: 0, Data: []byte("closed")})
	a.do(request{Op: "munmap", FD: fa})
	a.do(request{Op: "close", FD: fa})
	require.Equal(t, "closed-", b.read(fb, 0, 7), "written back when closed")

	b.write(fb, 9000, "fresh")
	fa = a.open(r.path(0, "f"), unix.O_RDWR)
	a.do(request{Op: "mmap", FD: fa, Len: 10000, Flags: unix.MAP_SHARED})
	require.Equal(t, "-fresh-", string(a.do(request{Op: "mget", FD: fa, Off: 8999, Len: 7}).Data))
	b.write(fb, 9000, "later")
	a.do(request{Op: "munmap", FD: fa})
	a.do(request{Op: "mmap", FD: fa, Len: 10000, Flags: unix.MAP_SHARED})
	require.Equal(t, "-later-", string(a.do(request{Op: "mget", FD: fa, Off: 8999, Len: 7}).Data), "a new mapping is fresh")

	b.do(request{Op: "mmap", FD: fb, Len: 10000, Flags: unix.MAP_PRIVATE})
	b.do(request{Op: "mset", FD: fb, Off: 0, Data: []byte("hidden")})
	b.do(request{Op: "munmap", FD: fb})
	require.Equal(t, "closed", b.read(fb, 0, 6), "a private mapping is private")
}

// eventually is for what the kernel does after a close returned.
func eventually(t *testing.T, ok func() bool, msg string) {
	t.Helper()
	require.Eventually(t, ok, 10*time.Second, 2*time.Millisecond, msg)
}
