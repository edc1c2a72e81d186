package systest

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// What nodes see of each other besides data and size, which the litmus tests
// are for, is strong in every mode.

// edgeSizes are the sizes at which something changes, and their neighbours.
var edgeSizes = []int64{1, 4095, 4096, 4097, 64<<10 - 1, 64 << 10, 64<<10 + 1, stripe - 1, stripe, stripe + 1, 1<<20 + 1, 4<<20 + 1}

const (
	rdwr   = unix.O_RDWR
	create = unix.O_RDWR | unix.O_CREAT
)

func testAcross(t *testing.T, r *rig) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, *rig)
	}{
		{"counter under locks", acrossCounter},
		{"create after a failed lookup", acrossCreate},
		{"mtime moves with a write elsewhere", acrossMtime},
		{"attributes set elsewhere", acrossAttributes},
		{"unlinked while open elsewhere", acrossUnlinked},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, r.subdir(t)) })
	}
}

// pair starts P and Q, which have the file x open.
func pair(t *testing.T, r *rig) (p, q *proc) {
	t.Helper()
	p, q = startProc(t, r, 0), startProc(t, r, 1)
	p.ok(t, op{Do: "open", Path: "x", FD: 1, Flags: create})
	q.ok(t, op{Do: "open", Path: "x", FD: 1, Flags: rdwr})
	return p, q
}

// requireRead reads [off, off+n) of open file 1 and requires the bytes that a
// write of v put there.
func requireRead(t *testing.T, p *proc, off, n int64, v uint64) {
	t.Helper()
	got := p.ok(t, op{Do: "pread", FD: 1, Off: off, Len: n})
	require.Equal(t, n, got.N, "%s: length of the read of %d at %d", p.name, n, off)
	want := fill(v, n)
	if got.Sum != "" {
		require.Equal(t, digest(want), got.Sum, "%s: bytes of the read of %d at %d", p.name, n, off)
		return
	}
	require.Equal(t, want, got.Data, "%s: bytes of the read of %d at %d", p.name, n, off)
}

func acrossCounter(t *testing.T, r *rig) {
	const procs, each = 4, 25
	ps := startProcs(t, r, procs)
	for _, flock := range []int{0, 1} {
		off := int64(64<<10 - 4) // the counter lies on two servers
		for i, p := range ps {
			p.ok(t, op{Do: "open", Path: fmt.Sprint("counter", flock), FD: i, Flags: create})
		}
		scripts := make([][]op, procs)
		for i := range ps {
			scripts[i] = []op{{Do: "incr", FD: i, Off: off, Len: each, Flags: flock}}
		}
		for i, res := range runAll(t, ps, scripts) {
			require.Zerof(t, res[0].Errno, "%s: %v", ps[i].name, res[0])
		}
		for i, p := range ps {
			got := p.ok(t, op{Do: "pread", FD: i, Off: off, Len: 8})
			require.EqualValues(t, procs*each, binary.LittleEndian.Uint64(got.Data), "flock=%d", flock)
		}
	}
}

func acrossCreate(t *testing.T, r *rig) {
	ps := startProcs(t, r, 4)
	for i := range 20 {
		name := fmt.Sprint("f", i)
		for _, p := range ps {
			require.Equal(t, unix.ENOENT, p.do(t, op{Do: "stat", Path: name}).Errno)
		}
		creator := ps[i%len(ps)]
		creator.ok(t, op{Do: "open", Path: name, FD: 1, Flags: create | unix.O_EXCL})
		creator.ok(t, op{Do: "close", FD: 1})
		for _, p := range ps {
			require.Equal(t, unix.EEXIST, p.do(t, op{Do: "open", Path: name, FD: 1, Flags: create | unix.O_EXCL}).Errno)
			p.ok(t, op{Do: "open", Path: name, FD: 1, Flags: rdwr})
			p.ok(t, op{Do: "close", FD: 1})
			require.Contains(t, p.ok(t, op{Do: "readdir"}).Names, name)
		}
	}
}

func acrossMtime(t *testing.T, r *rig) {
	p, q := pair(t, r)
	now := func() int64 {
		var ts unix.Timespec
		require.NoError(t, unix.ClockGettime(unix.CLOCK_REALTIME, &ts))
		return ts.Sec
	}
	const old = 1_000_000_000
	for _, change := range []op{
		{Do: "pwrite", FD: 1, Off: 0, Len: 10, Fill: 1},
		{Do: "pwrite", FD: 1, Off: 5 << 20, Len: 10, Fill: 1}, // another owner
		{Do: "ftruncate", FD: 1, Len: 3},
	} {
		p.ok(t, op{Do: "utime", Path: "x", Off: old, Len: old})
		require.EqualValues(t, old, q.ok(t, op{Do: "stat", Path: "x"}).Mtime)
		before := now()
		p.ok(t, change)
		got := q.ok(t, op{Do: "stat", Path: "x"}).Mtime
		require.GreaterOrEqual(t, got, before-1, "%v", change)
		require.LessOrEqual(t, got, now()+1, "%v", change)
		require.Equal(t, got, p.ok(t, op{Do: "fstat", FD: 1}).Mtime)
	}
	q.ok(t, op{Do: "utime", Path: "x", Off: old, Len: old})
	require.EqualValues(t, old, p.ok(t, op{Do: "fstat", FD: 1}).Mtime, "an older write comes back after utimens")
}

func acrossAttributes(t *testing.T, r *rig) {
	p, q := pair(t, r)
	for _, mode := range []uint32{0o600, 0o755, 0o444, 0, 0o4755, 0o2711, 0o644} {
		p.ok(t, op{Do: "chmod", Path: "x", Flags: int(mode)})
		require.Equal(t, mode, q.ok(t, op{Do: "stat", Path: "x"}).Mode&0o7777)
		require.Equal(t, mode, q.ok(t, op{Do: "fstat", FD: 1}).Mode&0o7777)
	}
}

func acrossUnlinked(t *testing.T, r *rig) {
	p, q := pair(t, r)
	p.ok(t, op{Do: "pwrite", FD: 1, Len: stripe + 1, Fill: 1})
	q.ok(t, op{Do: "unlink", Path: "x"})
	require.Equal(t, unix.ENOENT, p.do(t, op{Do: "stat", Path: "x"}).Errno)
	for _, w := range []*proc{p, q} {
		require.Empty(t, w.ok(t, op{Do: "readdir"}).Names)
		st := w.ok(t, op{Do: "fstat", FD: 1})
		require.EqualValues(t, stripe+1, st.N)
		require.Zero(t, st.Nlink)
		requireRead(t, w, 0, stripe+1, 1)
	}
	p.ok(t, op{Do: "pwrite", FD: 1, Off: 4 << 20, Len: 100, Fill: 2})
	requireRead(t, q, 4<<20, 100, 2)
	p.ok(t, op{Do: "close", FD: 1})
	requireRead(t, q, 4<<20, 100, 2)
	p.ok(t, op{Do: "open", Path: "x", FD: 1, Flags: create | unix.O_EXCL})
	require.Zero(t, p.ok(t, op{Do: "fstat", FD: 1}).N, "a new file of the same name is empty")
	requireRead(t, q, 4<<20, 100, 2)
	// One renamed over while it is open stays readable too.
	p.ok(t, op{Do: "pwrite", FD: 1, Len: 10, Fill: 3})
	q.ok(t, op{Do: "open", Path: "y", FD: 2, Flags: create})
	q.ok(t, op{Do: "rename", Path: "y", To: "x"})
	requireRead(t, p, 0, 10, 3)
	require.Zero(t, p.ok(t, op{Do: "fstat", FD: 1}).Nlink)
}
