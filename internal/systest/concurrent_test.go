package systest

import (
	"encoding/binary"
	"fmt"
	"math/rand"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/history"
)

// stripe is the unit within which `strong` promises that a write is seen as a
// whole: one strip of 64 KiB from each of four servers.
const stripe = 256 << 10

// id32 is a fill value that names a write in each of its 32-bit words, so that
// parts of a write can be told apart too.
func id32(id int) uint64 { return uint64(id)<<32 | uint64(id) }

// testRegisters lets six processes on two nodes write and read ranges at the
// same time and checks each range as a register.
func testRegisters(t *testing.T, r *rig) {
	r = r.subdir(t)
	rng := rand.New(rand.NewSource(seed(t)))
	ranges := []struct{ off, len int64 }{
		{0, 4}, {4, 8}, // share a page
		{4096 - 4, 8},                  // two pages
		{64<<10 - 4, 8},                // two servers
		{128 << 10, 64<<10 + 4},        // a strip and a word
		{stripe - 4, 8},                // two stripes
		{4<<20 - 2048, 4096},           // two owners
		{4<<20 + stripe - 100, stripe}, // two stripes of another owner
		{9 << 20, 4096},                // sparse, a third domain
	}
	const files, procs, calls = 3, 6, 220
	ps := startProcs(t, r, procs)
	scripts := make([][]op, procs)
	var ids [files]int
	for f := range files {
		ps[0].ok(t, op{Do: "open", Path: fmt.Sprint("f", f), FD: 99, Flags: unix.O_CREAT | unix.O_RDWR})
		for _, p := range ps {
			p.ok(t, op{Do: "open", Path: fmt.Sprint("f", f), FD: f, Flags: unix.O_RDWR})
		}
	}
	for i := range scripts {
		for range calls {
			x := ranges[rng.Intn(len(ranges))]
			o := op{Do: "preadids", FD: rng.Intn(files), Off: x.off, Len: x.len}
			if rng.Intn(5) < 2 {
				ids[o.FD]++
				require.Less(t, ids[o.FD], 256, "ids of writes")
				o.Do, o.Fill = "pwrite", id32(ids[o.FD])
			}
			scripts[i] = append(scripts[i], o)
		}
	}
	h := strongHistory(t)
	for i, res := range runAll(t, ps, scripts) {
		for k, got := range res {
			o := scripts[i][k]
			require.Zerof(t, got.Errno, "%s: %v: %v", ps[i].name, o, got)
			require.True(t, o.Do == "preadids" || got.N == o.Len, "short write")
			e := history.Event{Proc: i, Ino: uint64(o.FD + 1), Off: o.Off, Len: o.Len, N: got.N, Op: history.Write, Value: uint8(o.Fill)}
			if o.Do == "preadids" {
				e.Op, e.Value = history.Read, 0
				for n, p := range pieces(o.Off, o.Len) {
					e.Seen = append(e.Seen, history.Run{Len: p.len, Value: uint8(got.IDs[n])})
				}
			}
			h.Events = append(h.Events, got.event(e))
		}
	}
	requireKept(t, h)
}

// strongHistory is an empty history that is to be what strong promises.
func strongHistory(t *testing.T) history.History {
	return history.History{Header: history.Header{Program: t.Name(), Mode: history.Strong, Atomic: stripe}}
}

// event fills in when the call was made.
func (r result) event(e history.Event) history.Event {
	e.Call, e.Return, e.Errno = r.Start, r.End, r.Errno
	return e
}

// requireKept fails the test if the history breaks a promise, and leaves it in
// a file.
func requireKept(t *testing.T, h history.History) {
	t.Helper()
	bad := history.Check(h).Violations
	if len(bad) == 0 {
		return
	}
	f, err := os.CreateTemp("", "zoidfs-*.jsonl")
	require.NoError(t, err)
	w := history.NewWriter(f, false)
	require.NoError(t, w.Write(h))
	require.NoError(t, w.Close())
	require.Failf(t, "a promise is broken", "zoidfs litmus check %s\n%v", f.Name(), bad)
}

type piece struct{ off, len int64 }

// pieces cuts a range at the borders of stripes.
func pieces(off, length int64) (out []piece) {
	for length > 0 {
		n := min(length, stripe-off%stripe)
		out = append(out, piece{off, n})
		off, length = off+n, length-n
	}
	return out
}

// preadIDs reads a range and answers with the id of the write that each piece
// holds. A piece with words of two writes is torn: EBADMSG. What is beyond the
// end of the file counts as zeros.
func (k *worker) preadIDs(o op, _ []byte) (result, error) {
	buf := make([]byte, o.Len)
	n, err := unix.Pread(k.fd(o.FD), buf, o.Off)
	if err != nil {
		return result{}, err
	}
	res := result{N: int64(n)}
	for _, p := range pieces(o.Off, o.Len) {
		b := buf[p.off-o.Off:][:p.len]
		first := binary.LittleEndian.Uint32(b)
		for i := 4; i < len(b); i += 4 {
			if v := binary.LittleEndian.Uint32(b[i:]); v != first {
				res.Text = fmt.Sprintf("torn: write %d at %d, write %d at %d", first, p.off, v, p.off+int64(i))
				return res, unix.EBADMSG
			}
		}
		res.IDs = append(res.IDs, first)
	}
	return res, nil
}

// testSizes lets six processes extend, truncate and stat a file at once. A write
// may show up stripe by stripe, so it counts as one call a stripe.
func testSizes(t *testing.T, r *rig) {
	r = r.subdir(t)
	rng := rand.New(rand.NewSource(seed(t)))
	const rounds, procs, calls = 8, 6, 12
	ps := startProcs(t, r, procs)
	for round := range rounds {
		name, scripts := fmt.Sprint("f", round), make([][]op, procs)
		for i, p := range ps {
			p.ok(t, op{Do: "open", Path: name, FD: 0, Flags: unix.O_CREAT | unix.O_RDWR})
			for range calls {
				o := op{FD: 0, Path: name}
				switch n := rng.Intn(10); {
				case n < 3:
					// The kernel cuts what is longer into requests of its own.
					o.Do, o.Off, o.Len, o.Fill = "pwrite", nearEdge(rng), min(1<<20, nearLength(rng)), 1
				case n < 4:
					o.Do, o.Len = []string{"ftruncate", "truncate"}[rng.Intn(2)], nearEdge(rng)
				default:
					o.Do = []string{"stat", "fstat", "seekend"}[rng.Intn(3)]
				}
				scripts[i] = append(scripts[i], o)
			}
		}
		h := strongHistory(t)
		for i, res := range runAll(t, ps, scripts) {
			for k, got := range res {
				o := scripts[i][k]
				require.Zerof(t, got.Errno, "%s: %v: %v", ps[i].name, o, got)
				e := history.Event{Proc: i, Ino: 1, Op: history.Fstat, N: got.N}
				switch o.Do {
				case "pwrite":
					require.Equal(t, o.Len, got.N)
					e.Op, e.Off, e.Len = history.Write, o.Off, o.Len
				case "truncate", "ftruncate":
					e.Op, e.Len = history.Truncate, o.Len
				}
				h.Events = append(h.Events, got.event(e))
			}
		}
		requireKept(t, h)
		for _, p := range ps {
			p.ok(t, op{Do: "close", FD: 0})
		}
	}
}

// testAppends lets six processes append to a file, read it and truncate it.
// The records lie in one domain, and the kernel asks for all of them at once,
// so a read of them all is one step.
func testAppends(t *testing.T, r *rig) {
	r = r.subdir(t)
	rng := rand.New(rand.NewSource(seed(t)))
	const rounds, procs, calls = 8, 6, 8
	ps := startProcs(t, r, procs)
	for round := range rounds {
		id := 0
		name, scripts := fmt.Sprint("f", round), make([][]op, procs)
		recordLen := []int64{8, 4096, 1000, 20 << 10}[round%4] // in all less than 1 MiB
		for i, p := range ps {
			p.ok(t, op{Do: "open", Path: name, FD: 0, Flags: unix.O_CREAT | unix.O_WRONLY | unix.O_APPEND})
			p.ok(t, op{Do: "open", Path: name, FD: 1, Flags: unix.O_RDWR})
			for range calls {
				id++
				choice := []op{
					{Do: "write", FD: 0, Len: recordLen, Fill: id32(id)},
					{Do: "write", FD: 0, Len: recordLen, Fill: id32(id)},
					{Do: "readids", FD: 1, Off: recordLen, Len: recordLen * procs * calls},
					{Do: "stat", Path: name},
					{Do: "ftruncate", FD: 1},
				}
				n := rng.Intn(len(choice))
				if n == 4 && rng.Intn(3) > 0 {
					n = 0
				}
				scripts[i] = append(scripts[i], choice[n])
			}
		}
		h := strongHistory(t)
		for i, res := range runAll(t, ps, scripts) {
			for k, got := range res {
				o := scripts[i][k]
				require.Zerof(t, got.Errno, "%s: %v: %v", ps[i].name, o, got)
				e := history.Event{Proc: i, Ino: 1, Op: history.Fstat, N: got.N}
				switch o.Do {
				case "write":
					require.Equal(t, o.Len, got.N)
					e.Op, e.Len, e.Value = history.Append, o.Len, uint8(o.Fill)
				case "readids":
					e.Op, e.Len = history.Read, o.Len+1
					for _, id := range got.IDs {
						e.Seen = append(e.Seen, history.Run{Len: recordLen, Value: uint8(id)})
					}
				case "ftruncate":
					e.Op = history.Truncate
				}
				h.Events = append(h.Events, got.event(e))
			}
		}
		requireKept(t, h)
		for _, p := range ps {
			p.ok(t, op{Do: "close", FD: 0})
			p.ok(t, op{Do: "close", FD: 1})
		}
	}
}

// readIDs reads records of Off bytes each from the beginning of a file, Len
// bytes at most in one call, and answers with their ids.
func (k *worker) readIDs(o op, _ []byte) (result, error) {
	buf := make([]byte, o.Len)
	n, err := unix.Pread(k.fd(o.FD), buf, 0)
	if err != nil {
		return result{}, err
	}
	res := result{N: int64(n)}
	for b := buf[:n]; len(b) > 0; b = b[o.Off:] {
		if int64(len(b)) < o.Off {
			return result{Text: fmt.Sprint(res.IDs, " and part of a record")}, unix.EBADMSG
		}
		want := fill(binary.LittleEndian.Uint64(b), o.Off)
		if string(b[:o.Off]) != string(want) {
			return result{Text: fmt.Sprint(res.IDs, " and a torn record")}, unix.EBADMSG
		}
		res.IDs = append(res.IDs, binary.LittleEndian.Uint32(b))
	}
	return res, nil
}

// testNames lets six processes create, unlink, rename and stat four names.
func testNames(t *testing.T, r *rig) {
	r = r.subdir(t)
	rng := rand.New(rand.NewSource(seed(t)))
	const rounds, procs, calls, names = 10, 6, 14, 4
	ps := startProcs(t, r, procs)
	dos := []string{"excl", "create", "unlink", "unlink", "rename", "rename", "noreplace", "exchange", "stat", "stat", "stat"}
	for round := range rounds {
		// Two directories, so that most renames have two homes.
		dirs := []string{fmt.Sprint("d", round), fmt.Sprint("e", round)}
		for _, d := range dirs {
			ps[0].ok(t, op{Do: "mkdir", Path: d})
		}
		name := func(n int) string { return fmt.Sprintf("%s/n%d", dirs[n%2], n) }
		scripts := make([][]op, procs)
		for i := range ps {
			for range calls {
				n := rng.Intn(names)
				to := (n + 1 + rng.Intn(names-1)) % names
				scripts[i] = append(scripts[i], namesOp(dos[rng.Intn(len(dos))], name(n), name(to)))
			}
		}
		h := strongHistory(t)
		for i, res := range runAll(t, ps, scripts) {
			for k, got := range res {
				o := scripts[i][k]
				e := history.Event{Proc: i, Op: history.Op(o.Do), Name: o.Path, To: o.To, Flags: o.Flags, Ino: got.Ino, N: got.N}
				if o.Do == "touch" {
					e.Op = history.Open
				}
				h.Events = append(h.Events, got.event(e))
			}
		}
		requireKept(t, h)
	}
}

func namesOp(do, name, to string) op {
	switch do {
	case "excl":
		return op{Do: "touch", Path: name, Flags: unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY}
	case "create":
		return op{Do: "touch", Path: name, Flags: unix.O_CREAT | unix.O_RDONLY}
	case "rename":
		return op{Do: "rename", Path: name, To: to}
	case "noreplace":
		return op{Do: "rename", Path: name, To: to, Flags: unix.RENAME_NOREPLACE}
	case "exchange":
		return op{Do: "rename", Path: name, To: to, Flags: unix.RENAME_EXCHANGE}
	}
	return op{Do: do, Path: name}
}

// touch opens a file, answers with its inode number and closes it.
func (k *worker) touch(o op, _ []byte) (result, error) {
	fd, err := unix.Open(k.path(o.Path), o.Flags|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return result{}, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return result{Text: "fstat after open"}, err
	}
	return result{Ino: st.Ino}, nil
}

// testReplace lets writers on both nodes replace a file by renaming a complete
// one over it, while others read it by name: they find it always, whole, and
// never an older one than before.
func testReplace(t *testing.T, r *rig) {
	r = r.subdir(t)
	const writers, readers, calls = 2, 4, 30
	const size = stripe - 4
	ps := startProcs(t, r, writers+readers)
	ps[0].ok(t, op{Do: "open", Path: "final", FD: 0, Flags: unix.O_CREAT | unix.O_RDWR})
	ps[0].ok(t, op{Do: "pwrite", FD: 0, Len: size, Fill: id32(0)})
	scripts := make([][]op, len(ps))
	for i := range ps {
		for n := range calls {
			if i >= writers {
				scripts[i] = append(scripts[i],
					op{Do: "open", Path: "final", FD: 1, Flags: unix.O_RDONLY},
					op{Do: "fstat", FD: 1},
					op{Do: "preadids", FD: 1, Len: size},
					op{Do: "close", FD: 1})
				continue
			}
			tmp := fmt.Sprint("tmp", i)
			scripts[i] = append(scripts[i],
				op{Do: "open", Path: tmp, FD: 1, Flags: unix.O_CREAT | unix.O_EXCL | unix.O_RDWR},
				op{Do: "pwrite", FD: 1, Len: size, Fill: id32(n*writers + i + 1)},
				op{Do: "close", FD: 1},
				op{Do: "rename", Path: tmp, To: "final"})
		}
	}
	h := strongHistory(t)
	for i, res := range runAll(t, ps, scripts) {
		for k, got := range res {
			o := scripts[i][k]
			require.Zerof(t, got.Errno, "%s: %v: %v", ps[i].name, o, got)
			switch o.Do {
			case "fstat":
				require.EqualValues(t, size, got.N, "%s: size of a complete file", ps[i].name)
			case "rename":
				h.Events = append(h.Events, got.event(history.Event{Proc: i, Ino: 1, Op: history.Write, Len: 1, N: 1, Value: uint8(scripts[i][k-2].Fill)}))
			case "preadids": // the name was resolved in the open
				opened := res[k-2]
				e := history.Event{Proc: i, Ino: 1, Op: history.Read, Len: 1}
				if got.IDs[0] != 0 { // not the one before all others
					e.N, e.Seen = 1, []history.Run{{Len: 1, Value: uint8(got.IDs[0])}}
				}
				h.Events = append(h.Events, opened.event(e))
			}
		}
	}
	requireKept(t, h)
}
