package ionserver

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs"
)

// fileOp is one call on one file; out is what it returned.
type fileOp struct {
	kind string // write, read, truncate, append, stat
	off  int64
	data string
	n    int64
}

type fileOut struct {
	data string
	n    int64 // offset of an append, size of a stat
}

func (o fileOp) String() string {
	return fmt.Sprintf("%s(off %d, %q, n %d)", o.kind, o.off, o.data, o.n)
}

// fileModel is a file as one string of bytes.
var fileModel = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(string), input.(fileOp), output.(fileOut)
		switch in.kind {
		case "write":
			return true, splice(s, in.off, in.data)
		case "append":
			return out.n == int64(len(s)), s + in.data
		case "truncate":
			if in.n < int64(len(s)) {
				return true, s[:in.n]
			}
			return true, splice(s, in.n, "")
		case "read":
			from := min(in.off, int64(len(s)))
			return out.data == s[from:min(in.off+in.n, int64(len(s)))], s
		default:
			return out.n == int64(len(s)), s
		}
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprint(in, " -> ", out) },
}

func splice(s string, off int64, data string) string {
	if gap := off - int64(len(s)); gap > 0 {
		s += strings.Repeat("\x00", int(gap))
	}
	if tail := off + int64(len(data)); tail < int64(len(s)) {
		return s[:off] + data + s[tail:]
	}
	return s[:off] + data
}

// TestLinearizable: whatever several mounts do to one file at the same time
// through several owners, there is an order of the calls, in agreement with
// when they were made, that explains every result.
func TestLinearizable(t *testing.T) {
	rounds := 6
	if n, err := strconv.Atoi(os.Getenv("ZOIDFS_TEST_ROUNDS")); err == nil {
		rounds = n
	}
	for _, c := range []struct {
		name    string
		servers int
		strip   int64
		domain  int64
	}{
		{"stuffed", 2, 0, 64},
		{"striped", 3, 16, 64},
		{"a stripe is a domain", 4, 32, 128},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startSystem(t, 2, c.servers, func(_ int, o *Options) { o.DomainSize = c.domain })
			mounts := []*mount{s.mount(t), s.mount(t)}
			for round := range rounds {
				h := s.stripedFile(mounts[0], fmt.Sprint("file", round), c.strip)
				ops := randomHistory(t, mounts, h, c.domain, uint64(round)+rand.Uint64N(1<<32)<<8)
				result, info := porcupine.CheckOperationsVerbose(fileModel, ops, 5*time.Second)
				if result == porcupine.Illegal {
					f, err := os.CreateTemp("", "zoidfs-history-*.html")
					require.NoError(t, err)
					require.NoError(t, porcupine.Visualize(fileModel, info, f))
					f.Close()
					t.Fatalf("no order explains round %d; see %s", round, f.Name())
				}
				if result == porcupine.Unknown {
					t.Logf("round %d: not decided in time", round)
				}
			}
		})
	}
}

// stripedFile makes a file in the root with a strip size of its own.
func (s *system) stripedFile(m *mount, name string, strip int64) uint64 {
	s.t.Helper()
	if strip == 0 {
		return m.file(m.root, name)
	}
	a, err := s.nodes[0].client.Create(s.t.Context(), pvfs.Handle(m.root), name, pvfs.CreateOptions{Mode: 0o644, StripSize: strip})
	require.NoError(s.t, err)
	return uint64(a.Handle)
}

// randomHistory lets two threads of each mount do random calls.
func randomHistory(t *testing.T, mounts []*mount, h uint64, domain int64, seed uint64) []porcupine.Operation {
	t.Logf("seed %d", seed)
	const threads, calls = 2, 18
	start := time.Now()
	var mu sync.Mutex
	var ops []porcupine.Operation
	var wg sync.WaitGroup
	for i, m := range mounts {
		for j := range threads {
			id := i*threads + j
			rnd := rand.New(rand.NewPCG(seed, uint64(id)))
			wg.Go(func() {
				for k := range calls {
					in := randomOp(rnd, domain, rune('a'+id), k)
					call := time.Since(start)
					out, err := in.do(m, h)
					ret := time.Since(start)
					if err != nil {
						t.Errorf("%v: %v", in, err)
						return
					}
					mu.Lock()
					ops = append(ops, porcupine.Operation{ClientId: id, Input: in, Call: int64(call), Output: out, Return: int64(ret)})
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	return ops
}

func randomOp(rnd *rand.Rand, domain int64, who rune, k int) fileOp {
	size := 8 * domain
	data := strings.Repeat(string(who), 1+rnd.IntN(int(domain)/2)) + strconv.Itoa(k)
	off := rnd.Int64N(size)
	room := domain - off%domain // a frame never crosses a domain
	switch rnd.IntN(10) {
	case 0, 1, 2:
		return fileOp{kind: "write", off: off, data: data[:min(int64(len(data)), room)]}
	case 3, 4:
		return fileOp{kind: "read", off: off, n: 1 + rnd.Int64N(room)}
	case 5:
		return fileOp{kind: "truncate", n: rnd.Int64N(size)}
	case 6, 7:
		return fileOp{kind: "append", data: data}
	default:
		return fileOp{kind: "stat"}
	}
}

func (o fileOp) do(m *mount, h uint64) (out fileOut, err error) {
	switch o.kind {
	case "write":
		err = m.write(h, o.off, []byte(o.data), 0)
	case "read":
		var p []byte
		p, err = m.read(h, o.off, int(o.n))
		out.data = string(p)
	case "truncate":
		err = m.truncate(h, o.n)
	case "append":
		out.n, err = m.append(h, []byte(o.data))
	case "stat":
		a, e := m.stat(h)
		out.n, err = a.Size, e
	}
	return out, err
}

// TestRegisters: single bytes written and read from all sides are registers.
func TestRegisters(t *testing.T) {
	s := startSystem(t, 2, 2, func(_ int, o *Options) { o.DomainSize = 8 })
	mounts := []*mount{s.mount(t), s.mount(t), s.mount(t)}
	h := mounts[0].file(mounts[0].root, "f")
	require.NoError(t, mounts[0].write(h, 0, make([]byte, 8), 0))
	require.NoError(t, mounts[0].write(h, 8, make([]byte, 8), 0))
	model := porcupine.Model{
		Init: func() any { return byte(0) },
		Step: func(state, input, output any) (bool, any) {
			if in := input.(fileOp); in.kind == "write" {
				return true, in.data[0]
			}
			return output.(fileOut).data[0] == state.(byte), state
		},
	}
	var mu sync.Mutex
	ops := map[int64][]porcupine.Operation{}
	start := time.Now()
	var wg sync.WaitGroup
	for id, m := range mounts {
		rnd := rand.New(rand.NewPCG(uint64(id), 99))
		wg.Go(func() {
			for k := range 150 {
				in := fileOp{kind: "read", off: rnd.Int64N(16), n: 1}
				if rnd.IntN(2) == 0 {
					in = fileOp{kind: "write", off: in.off, data: string([]byte{byte(1 + (id*83+k)%255)})}
				}
				call := time.Since(start)
				out, err := in.do(m, h)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				ops[in.off] = append(ops[in.off], porcupine.Operation{ClientId: id, Input: in, Call: int64(call), Output: out, Return: int64(time.Since(start))})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for off, history := range ops {
		require.True(t, porcupine.CheckOperations(model, history), "byte %d", off)
	}
}
