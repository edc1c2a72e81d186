package systest

import (
	"fmt"
	"math/rand"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func errnoName(e syscall.Errno) string {
	if e == 0 {
		return "none"
	}
	return unix.ErrnoName(e)
}

// Offsets and lengths at which something changes: the page, the strip, the
// stripe over four servers, the file domain, the largest FUSE request.
var (
	edges   = []int64{0, 1, 4 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 8 << 20}
	lengths = []int64{1, 8, 100, 4 << 10, 64 << 10, 256 << 10, 1 << 20}
)

func nearEdge(rng *rand.Rand) int64 {
	return max(0, edges[rng.Intn(len(edges))]+rng.Int63n(9)-4)
}

func nearLength(rng *rand.Rand) int64 {
	return max(1, lengths[rng.Intn(len(lengths))]+rng.Int63n(3)-1)
}

var modelPaths = []string{"a", "b", "c", "d", "e", "d/a", "d/b", "e/a"}

// randomOp draws a call for a process that may have the files 0 to 3 open.
func randomOp(rng *rand.Rand, id uint64) op {
	path := func() string { return modelPaths[rng.Intn(len(modelPaths))] }
	fd := rng.Intn(4)
	switch n := rng.Intn(100); {
	case n < 16:
		flags := []int{unix.O_RDWR, unix.O_RDWR | unix.O_CREAT, unix.O_RDWR | unix.O_CREAT | unix.O_EXCL,
			unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC, unix.O_WRONLY | unix.O_CREAT | unix.O_APPEND, unix.O_RDWR | unix.O_APPEND, unix.O_RDONLY | unix.O_CREAT}
		return op{Do: "open", Path: path(), FD: fd, Flags: unix.O_NOFOLLOW | flags[rng.Intn(len(flags))]}
	case n < 22:
		return op{Do: "close", FD: fd}
	case n < 40:
		return op{Do: "pwrite", FD: fd, Off: nearEdge(rng), Len: nearLength(rng), Fill: id}
	case n < 58:
		return op{Do: "pread", FD: fd, Off: nearEdge(rng), Len: 2 * nearLength(rng)}
	case n < 63:
		return op{Do: "ftruncate", FD: fd, Len: nearEdge(rng)}
	case n < 66:
		return op{Do: "truncate", Path: path(), Len: nearEdge(rng)}
	case n < 72:
		return op{Do: "fstat", FD: fd}
	case n < 78:
		return op{Do: "stat", Path: path()}
	case n < 82:
		return op{Do: "seekend", FD: fd}
	case n < 88:
		flags := []int{0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}
		return op{Do: "rename", Path: path(), To: path(), Flags: flags[rng.Intn(len(flags))]}
	case n < 91:
		return op{Do: "unlink", Path: path()}
	case n < 94:
		return op{Do: "mkdir", Path: path()}
	case n < 95:
		return op{Do: "rmdir", Path: path()}
	case n < 96:
		return op{Do: "symlink", Path: path(), To: fmt.Sprint("target", id)}
	case n < 97:
		return op{Do: "readlink", Path: path()}
	case n < 98:
		return op{Do: "fsync", FD: fd}
	}
	return op{Do: "readdir", Path: []string{"", "d", "e"}[rng.Intn(3)]}
}

// follow plays one call on a process and in the model and fails at the first
// difference. An open of a name of an open file closes that file first. A rename
// for which the kernel must first learn where a directory is now is made again
// when it knows.
func follow(t *testing.T, m *model, ps []*proc, i int, o op, history *[]string) {
	t.Helper()
	if o.Do == "open" && m.fds[modelFD{i, o.FD}] != nil {
		follow(t, m, ps, i, op{Do: "close", FD: o.FD}, history)
	}
	got := ps[i].do(t, o)
	if got.Errno == unix.ESTALE && m.rehangs(o) {
		*history = append(*history, fmt.Sprintf("%s %v -> %v", ps[i].name, o, got))
		follow(t, m, ps, i, op{Do: "stat", Path: o.Path}, history)
		follow(t, m, ps, i, op{Do: "stat", Path: o.To}, history)
		got = ps[i].do(t, o)
	}
	want := m.apply(i, o)
	*history = append(*history, fmt.Sprintf("%s %v -> %v", ps[i].name, o, got))
	if diff := m.check(i, o, want, got); diff != "" {
		for _, line := range (*history)[max(0, len(*history)-60):] {
			t.Log(line)
		}
		require.Failf(t, "not what the model says", "%s after %d calls", diff, len(*history))
	}
}

// testSequential makes random calls from four processes on two nodes, one at a
// time: each must return exactly what the model says.
func testSequential(t *testing.T, r *rig) {
	r = r.subdir(t)
	rng := rand.New(rand.NewSource(seed(t)))
	const rounds, callsEach = 6, 400
	for round := range rounds {
		sequentialRound(t, r.under(t, fmt.Sprint("round", round)), rng, callsEach)
	}
}

func sequentialRound(t *testing.T, r *rig, rng *rand.Rand, n int) {
	t.Helper()
	m, ps, history := newModel(), startProcs(t, r, 4), []string{}
	defer func() {
		for _, p := range ps {
			p.stop()
		}
	}()
	for k := 0; k < n; {
		i, o := rng.Intn(len(ps)), randomOp(rng, uint64(k+1))
		if o.usesFD() && m.fds[modelFD{i, o.FD}] == nil && rng.Intn(20) > 0 {
			continue // mostly leave out what can only return EBADF
		}
		follow(t, m, ps, i, o, &history)
		k++
	}
	for i := range ps {
		for _, dir := range []string{"", "d", "e"} {
			follow(t, m, ps, i, op{Do: "readdir", Path: dir}, &history)
		}
		for _, p := range modelPaths {
			follow(t, m, ps, i, op{Do: "stat", Path: p}, &history)
			if _, _, node, e := m.walk(p); e == 0 && node != nil && node.link == "" {
				follow(t, m, ps, i, op{Do: "readall", Path: p}, &history)
			}
		}
	}
}
