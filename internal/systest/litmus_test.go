package systest

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The litmus tests of the consistency modes, for `strong`. P is a process on
// the first node, Q on the second; an arrow of the tables is the driver, which
// makes a call only when the one before it has returned.

// litmusSizes are the sizes at which something changes, and their neighbours.
var litmusSizes = []int64{1, 4095, 4096, 4097, 64<<10 - 1, 64 << 10, 64<<10 + 1, stripe - 1, stripe, stripe + 1, 1<<20 + 1, 4<<20 + 1}

const (
	rdwr   = unix.O_RDWR
	create = unix.O_RDWR | unix.O_CREAT
)

func testLitmus(t *testing.T, r *rig) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, *rig)
	}{
		{"L1 write then read by open files", litmusL1},
		{"L9 disjoint bytes of one page", litmusL9},
		{"L10 ordered overwrites", litmusL10},
		{"L12 counter under locks", litmusL12},
		{"L13 create after a failed lookup", litmusL13},
		{"L14 truncate then fstat", litmusL14},
		{"L15 appends of all", litmusL15},
		{"L17 mmap store then read", litmusL17},
		{"L18 close of a dup", litmusL18},
		{"L19 close by a child", litmusL19},
		{"L20 size by stat alone", litmusL20},
		{"L21 rename after close", litmusL21},
		{"mtime moves with a write elsewhere", litmusMtime},
		{"attributes set elsewhere", litmusAttributes},
		{"unlinked while open elsewhere", litmusUnlinked},
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

func litmusL1(t *testing.T, r *rig) {
	p, q := pair(t, r)
	v := uint64(0x0101010101010100)
	for _, off := range []int64{0, 1, stripe - 3, 4<<20 - 5} {
		for _, n := range litmusSizes {
			v++
			p.ok(t, op{Do: "pwrite", FD: 1, Off: off, Len: n, Fill: v})
			requireRead(t, q, off, n, v)
			v++
			q.ok(t, op{Do: "pwrite", FD: 1, Off: off, Len: n, Fill: v})
			requireRead(t, p, off, n, v)
		}
	}
}

func litmusL9(t *testing.T, r *rig) {
	p, q := pair(t, r)
	for _, off := range []int64{0, 4096 - 2, 64<<10 - 1, stripe - 1, 4<<20 - 2} {
		for round := range 8 {
			// P writes the even bytes and Q the odd ones, at the same time.
			var even, odd []op
			want := make([]byte, 64)
			for i := range int64(32) {
				a, b := byte(2*round+1), byte(2*round+2)
				even = append(even, op{Do: "pwrite", FD: 1, Off: off + 2*i, Len: 1, Fill: uint64(a)})
				odd = append(odd, op{Do: "pwrite", FD: 1, Off: off + 2*i + 1, Len: 1, Fill: uint64(b)})
				want[2*i], want[2*i+1] = a, b
			}
			for _, res := range runAll(t, []*proc{p, q}, [][]op{even, odd}) {
				for _, x := range res {
					require.Zero(t, x.Errno)
				}
			}
			for _, w := range []*proc{p, q} {
				require.Equal(t, want, w.ok(t, op{Do: "pread", FD: 1, Off: off, Len: 64}).Data, "at %d", off)
			}
		}
	}
}

func litmusL10(t *testing.T, r *rig) {
	p, q := pair(t, r)
	for _, n := range litmusSizes {
		p.ok(t, op{Do: "pwrite", FD: 1, Len: n, Fill: 0x11})
		p.ok(t, op{Do: "fsync", FD: 1})
		q.ok(t, op{Do: "pwrite", FD: 1, Len: n, Fill: 0x22})
		q.ok(t, op{Do: "fsync", FD: 1})
		requireRead(t, p, 0, n, 0x22)
		requireRead(t, q, 0, n, 0x22)
	}
}

func litmusL12(t *testing.T, r *rig) {
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

func litmusL13(t *testing.T, r *rig) {
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

func litmusL14(t *testing.T, r *rig) {
	p, q := pair(t, r)
	for _, n := range litmusSizes {
		for _, to := range []int64{0, n / 2, n + 12345} {
			p.ok(t, op{Do: "pwrite", FD: 1, Len: n, Fill: 0x33})
			require.Equal(t, max(n, q.ok(t, op{Do: "fstat", FD: 1}).N), q.ok(t, op{Do: "fstat", FD: 1}).N)
			p.ok(t, op{Do: "ftruncate", FD: 1, Len: to})
			require.Equal(t, to, q.ok(t, op{Do: "fstat", FD: 1}).N)
			require.Equal(t, to, q.ok(t, op{Do: "seekend", FD: 1}).N)
			got := q.ok(t, op{Do: "pread", FD: 1, Len: n + 20000, Raw: true})
			want := append(fill(0x33, min(n, to)), make([]byte, max(0, to-n))...)
			require.Equal(t, min(to, n+20000), got.N)
			require.True(t, slices.Equal(want, got.Data), "bytes after truncate of %d to %d", n, to)
			q.ok(t, op{Do: "ftruncate", FD: 1, Len: 0})
			require.Zero(t, p.ok(t, op{Do: "fstat", FD: 1}).N)
		}
	}
}

func litmusL15(t *testing.T, r *rig) {
	const procs, each = 6, 20
	ps := startProcs(t, r, procs)
	for _, n := range []int64{1, 8, 4097, 64<<10 + 1} {
		// Appends begin where the first domain ends, so most lie on a border
		// of some kind and some have two owners.
		base, name := int64(4<<20)-n*procs*each/2-1, fmt.Sprint("log", n)
		scripts := make([][]op, procs)
		for i, p := range ps {
			p.ok(t, op{Do: "open", Path: name, FD: 1, Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_APPEND})
			for k := range each {
				scripts[i] = append(scripts[i], op{Do: "write", FD: 1, Len: n, Fill: uint64(i*each+k+1) * 0x0101010101010101})
			}
		}
		ps[0].ok(t, op{Do: "ftruncate", FD: 1, Len: base})
		for i, res := range runAll(t, ps, scripts) {
			for _, x := range res {
				require.Zerof(t, x.Errno, "%s: %v", ps[i].name, x)
				require.Equal(t, n, x.N)
			}
		}
		for _, p := range ps[:2] {
			require.Equal(t, base+n*procs*each, p.ok(t, op{Do: "stat", Path: name}).N)
			p.ok(t, op{Do: "open", Path: name, FD: 2, Flags: rdwr})
			got := p.ok(t, op{Do: "pread", FD: 2, Off: base, Len: n * procs * each, Raw: true})
			seen, last := map[byte]bool{}, map[int]byte{}
			for b := got.Data; len(b) > 0; b = b[n:] {
				require.Equal(t, fill(uint64(b[0])*0x0101010101010101, n), b[:n], "whole record of %d bytes", n)
				require.False(t, seen[b[0]], "record %d twice", b[0])
				seen[b[0]] = true
				writer := (int(b[0]) - 1) / each
				require.Greater(t, b[0], last[writer], "records of one writer in its order")
				last[writer] = b[0]
			}
			require.Len(t, seen, procs*each)
		}
	}
}

func litmusL17(t *testing.T, r *rig) {
	p, q := pair(t, r)
	p.ok(t, op{Do: "ftruncate", FD: 1, Len: 5 << 20})
	for i, off := range []int64{0, 4096, 4090, 64<<10 - 10, stripe - 1, 4<<20 - 100} {
		v := uint64(0x5500 + i)
		p.ok(t, op{Do: "store", FD: 1, Off: off, Len: 5000, Fill: v})
		requireRead(t, q, off, 5000, v)
		require.Equal(t, fill(v, 5000), q.ok(t, op{Do: "load", FD: 1, Off: off, Len: 5000}).Data, "mapping of the other node at %d", off)
		q.ok(t, op{Do: "pwrite", FD: 1, Off: off, Len: 5000, Fill: v + 99})
		require.Equal(t, fill(v+99, 5000), p.ok(t, op{Do: "load", FD: 1, Off: off, Len: 5000}).Data, "new mapping after a write at %d", off)
	}
}

func litmusL18(t *testing.T, r *rig) {
	p, q := pair(t, r)
	for i, n := range litmusSizes {
		p.ok(t, op{Do: "pwrite", FD: 1, Len: n, Fill: uint64(i + 1)})
		p.ok(t, op{Do: "dup", FD: 1, FD2: 2})
		p.ok(t, op{Do: "close", FD: 2})
		q.ok(t, op{Do: "open", Path: "x", FD: 1, Flags: rdwr})
		requireRead(t, q, 0, n, uint64(i+1))
	}
}

func litmusL19(t *testing.T, r *rig) {
	p, q := pair(t, r)
	for i, n := range []int64{1, 4097, stripe + 1} {
		p.ok(t, op{Do: "pwrite", FD: 1, Len: n, Fill: uint64(i + 1)})
		p.ok(t, op{Do: "forkexit", FD: 1})
		q.ok(t, op{Do: "open", Path: "x", FD: 1, Flags: rdwr})
		requireRead(t, q, 0, n, uint64(i+1))
		p.ok(t, op{Do: "pwrite", FD: 1, Len: n, Fill: uint64(i + 77)})
		requireRead(t, q, 0, n, uint64(i+77))
	}
}

func litmusL20(t *testing.T, r *rig) {
	p, q := pair(t, r)
	size := int64(0)
	for _, n := range slices.Concat(litmusSizes, litmusSizes) {
		p.ok(t, op{Do: "pwrite", FD: 1, Off: size, Len: n, Fill: 9})
		size += n
		require.Equal(t, size, q.ok(t, op{Do: "stat", Path: "x"}).N)
		require.Equal(t, size, q.ok(t, op{Do: "fstat", FD: 1}).N)
		require.Equal(t, size, q.ok(t, op{Do: "seekend", FD: 1}).N)
	}
}

func litmusL21(t *testing.T, r *rig) {
	p, q := startProc(t, r, 0), startProc(t, r, 1)
	q.do(t, op{Do: "stat", Path: "final"})
	for i, n := range litmusSizes {
		p.ok(t, op{Do: "open", Path: "tmp", FD: 1, Flags: create | unix.O_EXCL})
		p.ok(t, op{Do: "pwrite", FD: 1, Len: n, Fill: uint64(i + 1)})
		p.ok(t, op{Do: "close", FD: 1})
		p.ok(t, op{Do: "rename", Path: "tmp", To: "final"})
		q.ok(t, op{Do: "open", Path: "final", FD: 1, Flags: rdwr})
		require.Equal(t, n, q.ok(t, op{Do: "fstat", FD: 1}).N)
		requireRead(t, q, 0, n, uint64(i+1))
		q.ok(t, op{Do: "close", FD: 1})
		require.Equal(t, unix.ENOENT, q.do(t, op{Do: "stat", Path: "tmp"}).Errno)
	}
}

func litmusMtime(t *testing.T, r *rig) {
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

func litmusAttributes(t *testing.T, r *rig) {
	p, q := pair(t, r)
	for _, mode := range []uint32{0o600, 0o755, 0o444, 0, 0o4755, 0o2711, 0o644} {
		p.ok(t, op{Do: "chmod", Path: "x", Flags: int(mode)})
		require.Equal(t, mode, q.ok(t, op{Do: "stat", Path: "x"}).Mode&0o7777)
		require.Equal(t, mode, q.ok(t, op{Do: "fstat", FD: 1}).Mode&0o7777)
	}
}

func litmusUnlinked(t *testing.T, r *rig) {
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
