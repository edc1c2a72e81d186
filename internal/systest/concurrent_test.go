package systest

import (
	"encoding/binary"
	"fmt"
	"math/rand"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
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
	id := 0
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
				id++
				o.Do, o.Fill = "pwrite", id32(id)
			}
			scripts[i] = append(scripts[i], o)
		}
	}
	type key struct {
		file int
		off  int64
	}
	histories := map[key]*history{}
	for i, res := range runAll(t, ps, scripts) {
		for k, got := range res {
			o := scripts[i][k]
			require.Zerof(t, got.Errno, "%s: %v: %v", ps[i].name, o, got)
			for n, piece := range pieces(o.Off, o.Len) {
				h := histories[key{o.FD, piece.off}]
				if h == nil {
					h = new(history)
					histories[key{o.FD, piece.off}] = h
				}
				c := registerCall{write: o.Do == "pwrite", value: o.Fill & 0xffffffff}
				if !c.write {
					require.Equal(t, o.Len, got.N)
					c.value = uint64(got.IDs[n])
				}
				h.add(i, got, c)
			}
		}
	}
	for k, h := range histories {
		h.requireLinearizable(t, registerModel, fmt.Sprintf("file %d at %d", k.file, k.off))
	}
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
	if _, err := unix.Pread(k.fd(o.FD), buf, o.Off); err != nil {
		return result{}, err
	}
	res := result{N: o.Len}
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
		var h history
		for i, res := range runAll(t, ps, scripts) {
			for k, got := range res {
				o := scripts[i][k]
				require.Zerof(t, got.Errno, "%s: %v: %v", ps[i].name, o, got)
				switch o.Do {
				case "pwrite":
					require.Equal(t, o.Len, got.N)
					for _, p := range pieces(o.Off, o.Len) {
						h.add(i, got, sizeCall{"write", p.off + p.len})
					}
				case "truncate", "ftruncate":
					h.add(i, got, sizeCall{"truncate", o.Len})
				default:
					h.add(i, got, sizeCall{o.Do, got.N})
				}
			}
		}
		h.requireLinearizable(t, sizeModel, name)
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
	id := 0
	for round := range rounds {
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
		var h history
		for i, res := range runAll(t, ps, scripts) {
			for k, got := range res {
				o := scripts[i][k]
				require.Zerof(t, got.Errno, "%s: %v: %v", ps[i].name, o, got)
				switch o.Do {
				case "write":
					require.Equal(t, o.Len, got.N)
					h.add(i, got, logCall{do: "append", records: []int{int(o.Fill & 0xffffffff)}})
				case "readids":
					h.add(i, got, logCall{do: "read", records: parseIDs(got.Text)})
				case "stat":
					require.Zero(t, got.N%recordLen, "size in the middle of a record")
					h.add(i, got, logCall{do: "count", count: int(got.N / recordLen)})
				default:
					h.add(i, got, logCall{do: "truncate"})
				}
			}
		}
		h.requireLinearizable(t, logModel(h), name)
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
	var ids strings.Builder
	for b := buf[:n]; len(b) > 0; b = b[o.Off:] {
		if int64(len(b)) < o.Off {
			return result{Text: ids.String() + "part of a record"}, unix.EBADMSG
		}
		want := fill(binary.LittleEndian.Uint64(b), o.Off)
		if string(b[:o.Off]) != string(want) {
			return result{Text: ids.String() + "torn record"}, unix.EBADMSG
		}
		fmt.Fprint(&ids, binary.LittleEndian.Uint32(b), ",")
	}
	return result{N: int64(n), Text: ids.String()}, nil
}

// testNames lets six processes create, unlink, rename and stat four names.
func testNames(t *testing.T, r *rig) {
	r = r.subdir(t)
	rng := rand.New(rand.NewSource(seed(t)))
	const rounds, procs, calls = 10, 6, 14
	ps := startProcs(t, r, procs)
	dos := []string{"excl", "create", "unlink", "unlink", "rename", "rename", "noreplace", "exchange", "stat", "stat", "stat"}
	for round := range rounds {
		// Two directories, so that most renames have two homes.
		dirs := []string{fmt.Sprint("d", round), fmt.Sprint("e", round)}
		for _, d := range dirs {
			ps[0].ok(t, op{Do: "mkdir", Path: d})
		}
		name := func(n int) string { return fmt.Sprintf("%s/n%d", dirs[n%2], n) }
		scripts, inputs := make([][]op, procs), make([][]namesCall, procs)
		for i := range ps {
			for range calls {
				c := namesCall{do: dos[rng.Intn(len(dos))], name: rng.Intn(maxNames)}
				c.to = (c.name + 1 + rng.Intn(maxNames-1)) % maxNames
				inputs[i] = append(inputs[i], c)
				scripts[i] = append(scripts[i], namesOp(c, name))
			}
		}
		var h history
		for i, res := range runAll(t, ps, scripts) {
			for k, got := range res {
				c := inputs[i][k]
				c.errno, c.ino = got.Errno, got.Ino
				h.add(i, got, c)
			}
		}
		h.markRaces()
		h.requireLinearizable(t, namesModel, dirs[0])
	}
}

func namesOp(c namesCall, name func(int) string) op {
	o := op{Do: c.do, Path: name(c.name)}
	switch c.do {
	case "excl":
		o.Do, o.Flags = "touch", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY
	case "create":
		o.Do, o.Flags = "touch", unix.O_CREAT|unix.O_RDONLY
	case "rename":
		o.To = name(c.to)
	case "noreplace":
		o.Do, o.To, o.Flags = "rename", name(c.to), unix.RENAME_NOREPLACE
	case "exchange":
		o.Do, o.To, o.Flags = "rename", name(c.to), unix.RENAME_EXCHANGE
	}
	return o
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
	var h history
	for i, res := range runAll(t, ps, scripts) {
		for k, got := range res {
			o := scripts[i][k]
			require.Zerof(t, got.Errno, "%s: %v: %v", ps[i].name, o, got)
			switch o.Do {
			case "fstat":
				require.EqualValues(t, size, got.N, "%s: size of a complete file", ps[i].name)
			case "rename":
				h.add(i, got, registerCall{write: true, value: scripts[i][k-2].Fill & 0xffffffff})
			case "preadids": // the name was resolved in the open
				opened := res[k-2]
				h.add(i, result{Start: opened.Start, End: opened.End}, registerCall{value: uint64(got.IDs[0])})
			}
		}
	}
	h.requireLinearizable(t, registerModel, "final")
}
