package ionserver

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

// patient is an I/O node that writes nothing back for its age, and ends no session
// for its silence, however slow the machine is.
func patient(_ int, o *Options) { o.WriteBack = time.Hour }

// asked is how many requests of a kind all nodes have sent to PVFS2 servers.
func (s *system) asked(kind string) (n int64) {
	for _, n1 := range s.nodes {
		n += n1.client.Stats().Requests[kind]
	}
	return n
}

// TestCostOfWriting: however many ranks write however small pieces in whatever
// order, the servers get the file in flows of full length.
func TestCostOfWriting(t *testing.T) {
	const size, piece, ranks, servers = 64 << 20, 32 << 10, 8, 4
	for name, order := range map[string]func(rank, i int) int{
		"one after the other": func(rank, i int) int { return rank*(size/piece/ranks) + i },
		"interleaved":         func(rank, i int) int { return i*ranks + rank },
		"blocks of 4":         func(rank, i int) int { return (i/4*ranks+rank)*4 + i%4 },
	} {
		t.Run(name, func(t *testing.T) {
			s := startSystem(t, 2, servers, patient)
			ms := []*mount{s.mount(t), s.mount(t)}
			h := ms[0].file(ms[0].root, "f")
			data := pattern(piece, 7)
			var ranksDone sync.WaitGroup
			for r := range ranks {
				ranksDone.Go(func() {
					m, rng := ms[r%2], rand.New(rand.NewPCG(uint64(r), 1))
					var ahead []int // ranks are not in step
					for i := range size / piece / ranks {
						if ahead = append(ahead, i); len(ahead) > 8 {
							at := rng.IntN(len(ahead))
							writePiece(m, h, order(r, ahead[at]), data)
							ahead = append(ahead[:at], ahead[at+1:]...)
						}
					}
					for _, i := range ahead {
						writePiece(m, h, order(r, i), data)
					}
				})
			}
			ranksDone.Wait()
			for _, m := range ms {
				require.NoError(t, m.atHome(ionpb.Op_FSYNC, h, &ionpb.FsyncReq{}, nil))
			}
			ios, least := s.asked("io"), int64(size/collective.FlowSize)
			t.Logf("%d requests, at least %d", ios, least)
			require.LessOrEqual(t, ios, least*11/10+servers)
			require.EqualValues(t, size, s.stored(h))
			require.EqualValues(t, size, s.nodes[0].client.Stats().BytesWritten+s.nodes[1].client.Stats().BytesWritten)
			until(t, "mounts may drop it", func() bool { return s.keeps(h, ms[0]) == 0 && s.keeps(h, ms[1]) == 0 })
		})
	}
}

// TestCostOfReading: of a file that the ranks of two nodes read as a whole, in
// small pieces, until the nodes have found out and ask for chunks, the servers
// are asked in flows of full length, and for each byte once.
func TestCostOfReading(t *testing.T) {
	const size, chunk, piece, ranks, servers = 64 << 20, 1 << 20, 4 << 10, 4, 4
	s := startSystem(t, 2, servers, func(i int, o *Options) {
		patient(i, o)
		o.DomainSize = 4 << 20
	})
	ms := []*mount{s.mount(t), s.mount(t)}
	h := ms[0].file(ms[0].root, "f")
	data := pattern(chunk, 7)
	for off := int64(0); off < size; off += chunk {
		require.NoError(t, ms[0].write(h, off, data, 0))
	}
	require.NoError(t, ms[0].atHome(ionpb.Op_FSYNC, h, &ionpb.FsyncReq{}, nil))
	for _, n := range s.nodes {
		f := n.owner.get(h)
		f.data.Drop(extent.ToEnd(0))
		n.owner.put(f)
		n.client.ResetStats()
	}
	read := func(m *mount, off int64, n int) {
		if got, err := m.read(h, off, n); err != nil || !bytes.Equal(data[off%chunk:][:n], got) {
			panic(fmt.Sprint("bytes at ", off, ": ", err))
		}
	}
	var all sync.WaitGroup
	for k, m := range ms {
		m.job = 7
		next := new(atomic.Int64)
		for r := range int64(ranks) {
			all.Go(func() {
				for i := range int64(4) {
					read(m, ((i*2+int64(k))*ranks+r)*piece, piece)
				}
				for off := next.Add(chunk) - chunk; off < size; off = next.Add(chunk) - chunk {
					read(m, off, chunk)
				}
			})
		}
	}
	all.Wait()
	asked := s.asked("io") + s.asked("small_io")
	t.Logf("%d requests, of them %d small ones; %d at least", asked, s.asked("small_io"), size/collective.FlowSize)
	require.LessOrEqual(t, asked, int64(size/collective.FlowSize+servers+2*ranks))
	require.EqualValues(t, size, s.nodes[0].client.Stats().BytesRead+s.nodes[1].client.Stats().BytesRead)
}

func writePiece(m *mount, h uint64, i int, data []byte) {
	if err := m.write(h, int64(i*len(data)), data, 0); err != nil {
		panic(fmt.Sprintf("piece %d: %v", i, err))
	}
}

// TestCostOfFlushing: FSYNCs of one file that come while another one is at work
// cost the servers one flush together.
func TestCostOfFlushing(t *testing.T) {
	const many, servers = 12, 4
	s := startSystem(t, 2, servers, patient)
	m, keeps := s.mount(t), s.mount(t)
	h := m.file(m.root, "f")
	require.NoError(t, m.write(h, 0, pattern(1<<20, 1), 0)) // all servers have some of it
	require.Equal(t, leaseWrite, keeps.put(h, 0, "x", leaseWrite).Flags&leaseWrite)
	release := make(chan struct{})
	keeps.mu.Lock()
	keeps.answer = func(f *rpc.Frame) *rpc.Frame {
		if f.Op == ionpb.Op_REVOKE {
			<-release
		}
		return new(rpc.Frame)
	}
	keeps.mu.Unlock()
	home := s.nodes[m.place.Home(h)]
	received := func() uint64 { return home.counters.Snapshot().Requests[ionpb.Op_FSYNC.Key()] }
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			if err := m.atHome(ionpb.Op_FSYNC, h, &ionpb.FsyncReq{}, nil); err != nil {
				panic(err)
			}
		})
		until(t, "it is at the home", func() bool { return received() == uint64(i+1) })
	}
	close(release)
	all.Wait()
	one := int64(servers + 1) // datafiles, and the file itself
	t.Logf("%d requests to flush, one FSYNC takes %d", s.asked("flush"), one)
	require.LessOrEqual(t, s.asked("flush"), 3*one)
	require.EqualValues(t, 1<<20, s.stored(h))
}

// TestCostOfStatFS: mounts that ask how full the file system is while the servers
// are being asked get one answer together.
func TestCostOfStatFS(t *testing.T) {
	const many, servers = 24, 2
	s := startSystem(t, 1, servers, patient)
	ms := []*mount{s.mount(t), s.mount(t)}
	received := func() uint64 { return s.nodes[0].counters.Snapshot().Requests[ionpb.Op_STATFS.Key()] }
	s.pvfs.Kill(1)
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			var r ionpb.StatFSResp
			if _, err := ms[i%2].call(t.Context(), 0, rpc.Frame{Op: ionpb.Op_STATFS, Handle: ms[0].root}, nil, &r); err != nil || r.Blocks == 0 {
				panic(fmt.Sprint(r.Blocks, " blocks: ", err))
			}
		})
	}
	until(t, "all are at the I/O node", func() bool { return received() == many })
	s.pvfs.Restart(1)
	all.Wait()
	t.Logf("%d requests to servers for %d questions", s.asked("statfs"), many)
	require.Less(t, s.asked("statfs"), int64(many))
}

// TestCostOfTimes: the modification times of files that were written in the same
// second are saved together.
func TestCostOfTimes(t *testing.T) {
	const files, ions, servers = 36, 2, 2
	s := startSystem(t, ions, servers, func(_ int, o *Options) { o.Persist = time.Hour })
	m := s.mount(t)
	var hs []uint64
	for i := range files {
		hs = append(hs, m.file(m.root, fmt.Sprint("f", i)))
		require.NoError(t, m.write(hs[i], 0, []byte("x"), 0))
	}
	times := make(map[uint64]int64)
	distinct := make(map[int64]bool)
	for _, h := range hs {
		a, err := m.stat(h)
		require.NoError(t, err)
		times[h] = a.Mtime
		distinct[a.Mtime] = true
	}
	saves := func() int64 { return s.asked("setattr") + s.asked("tree_setattr") + s.asked("listattr") }
	before := saves() // the links that are traces of sessions take some
	for _, n := range s.nodes {
		n.home.persistAll(t.Context(), time.Minute)
	}
	sent := saves() - before
	t.Logf("%d requests for %d files of %d times", sent, files, len(distinct))
	require.LessOrEqual(t, sent, int64(2*ions*servers*len(distinct)))
	for h, mtime := range times {
		a, err := s.nodes[0].client.GetAttr(t.Context(), pvfs.Handle(h))
		require.NoError(t, err)
		require.Equal(t, mtime, a.Mtime)
	}
	for _, n := range s.nodes {
		n.home.persistAll(t.Context(), time.Minute)
	}
	require.Equal(t, before+sent, saves(), "nothing is left to be saved")
}

// TestCostOfFlushingAgain: what the servers have flushed they are not asked to flush
// again, whoever asks; whatever changes the file has them asked anew.
func TestCostOfFlushingAgain(t *testing.T) {
	const servers = 3
	s := startSystem(t, 2, servers, patient)
	m, other := s.mount(t), s.mount(t)
	h := m.file(m.root, "f")
	for _, x := range []*mount{m, other} {
		_, err := x.open(h, syscall.O_RDWR)
		require.NoError(t, err)
	}
	require.NoError(t, m.write(h, 0, pattern(1<<20, 1), 0))
	flushes := func(what string) (n int64) {
		t.Helper()
		for i := range 6 {
			before := s.asked("flush")
			for _, x := range []*mount{m, other} {
				require.NoError(t, x.atHome(ionpb.Op_FSYNC, h, &ionpb.FsyncReq{DataOnly: i%2 == 1}, nil))
			}
			n = max(n, s.asked("flush")-before)
			require.Truef(t, i == 0 || s.asked("flush") == before, "%s: round %d", what, i)
		}
		return n
	}
	require.Positive(t, flushes("written"))
	require.Zero(t, flushes("nothing has changed"))
	for _, change := range []struct {
		what string
		do   func() error
	}{
		{"written by another mount, at another owner", func() error {
			return other.write(h, other.offOwnedBy(h, 1-other.place.Home(h)), []byte("x"), 0)
		}},
		{"written at home", func() error { return m.write(h, 0, []byte("x"), 0) }},
		{"written, and written back by itself", func() error {
			if err := other.write(h, 0, []byte("y"), 0); err != nil {
				return err
			}
			return other.commit(h)
		}},
		{"appended", func() error { _, err := m.append(h, []byte("more")); return err }},
		{"cut off", func() error { return m.truncate(h, 1<<19) }},
		{"kept back by another mount", func() error {
			other.put(h, 0, "z", leaseWrite)
			return m.write(h, 1<<18, []byte("x"), 0)
		}},
	} {
		require.NoError(t, change.do(), change.what)
		require.Positive(t, flushes(change.what), change.what)
	}
}
