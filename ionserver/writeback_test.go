package ionserver

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
)

// keeps is the stamp of the last write that m keeps of h; 0 for none.
func (s *system) keeps(h uint64, m *mount) int64 {
	o := s.nodes[0].owner
	f := o.get(h)
	defer o.put(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.unstable.last[m.links[0].session]
}

// TestWriteBackByAge, by pressure, and when asked.
func TestWriteBackByAge(t *testing.T) {
	s := startSystem(t, 1, 2, func(i int, o *Options) {
		lazy(i, o)
		o.WriteBack = 500 * time.Millisecond
	})
	m := s.mount(t)
	h := m.file(m.root, "f")
	begin := time.Now()
	m.put(h, 0, "young", 0)
	require.Zero(t, s.stored(h))
	until(t, "it is written back", func() bool { return s.stored(h) == 5 })
	require.Greater(t, time.Since(begin), 200*time.Millisecond)
	until(t, "the mount may drop it", func() bool { return s.keeps(h, m) == 0 })
}

func TestWriteBackWhenAsked(t *testing.T) {
	s := startSystem(t, 1, 2, lazy)
	m, other := s.mount(t), s.mount(t)
	for name, ask := range map[string]func(h uint64) error{
		"COMMIT": m.commit,
		"FSYNC":  func(h uint64) error { return other.atHome(ionpb.Op_FSYNC, h, &ionpb.FsyncReq{}, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			h := m.file(m.root, name)
			m.put(h, 0, "data", 0)
			require.Zero(t, s.stored(h))
			require.NoError(t, ask(h))
			require.EqualValues(t, 4, s.stored(h))
			m.reads(h, 0, "data")
		})
	}
}

// TestWriteBackByPressure: writers that need the memory get it, and nothing of
// more than there is is lost.
func TestWriteBackByPressure(t *testing.T) {
	s := startSystem(t, 1, 2, func(i int, o *Options) {
		lazy(i, o)
		o.CacheBytes = MinCache
	})
	m := s.mount(t)
	h := m.file(m.root, "f")
	const steps, step = 40, 1 << 20 // half of the memory may be unstable
	for i := range steps {
		require.NoError(t, m.write(h, int64(i)*step, pattern(step, byte(i)), 0))
	}
	require.Positive(t, s.stored(h))
	require.LessOrEqual(t, s.nodes[0].owner.store.Snapshot().BytesDirty, int64(MinCache))
	for i := range steps {
		got, err := m.read(h, int64(i)*step, step)
		require.NoError(t, err)
		require.True(t, bytes.Equal(pattern(step, byte(i)), got), "MiB %d", i)
	}
}

// TestWriteBackOfWholeDomains: when there are enough to fill a flow, and those
// that are not whole stay. Mounts need not keep what is through.
func TestWriteBackOfWholeDomains(t *testing.T) {
	s := startSystem(t, 1, 1, patient)
	m, other := s.mount(t), s.mount(t)
	h := m.file(m.root, "f")
	other.put(h, s.domain+5, "part", 0)
	var want []int64
	for off := 2 * s.domain; off < collective.FlowSize+2*s.domain; off += s.domain {
		require.Empty(t, m.stables(h))
		require.NoError(t, m.write(h, off, pattern(int(s.domain), 1), 0))
		want = append(want, off)
	}
	until(t, "the mounts are told", func() bool { return len(m.stables(h)) == 2 && len(other.stables(h)) == 2 })
	for i, r := range m.stables(h) {
		require.Equal(t, want, r.Domains)
		require.Equal(t, i == 1, r.Drop)
	}
	require.EqualValues(t, 1, s.asked("io"))
	require.EqualValues(t, 4, s.nodes[0].owner.store.Snapshot().BytesDirty)
	require.NotZero(t, s.keeps(h, other))
	require.NoError(t, m.commit(h))
	until(t, "nothing is kept", func() bool { return s.keeps(h, m) == 0 && s.keeps(h, other) == 0 })
	require.Empty(t, m.stables(h)[3].Domains)
}

// TestFlowsGrow: a stream begins with short flows, and gets long ones the longer it
// is, until it was synced.
func TestFlowsGrow(t *testing.T) {
	s := startSystem(t, 1, 1, patient)
	m := s.mount(t)
	h := m.file(m.root, "f")
	require.NoError(t, m.write(h, 0, []byte("part"), 0))
	end, rounds, part := s.domain, int64(0), int64(4)
	write := func(n int64) {
		for to := end + n; end < to; end += s.domain {
			require.Equal(t, rounds, s.asked("io"), "of %d MiB", end>>20)
			require.NoError(t, m.write(h, end, pattern(int(s.domain), 1), 0))
		}
		rounds++
		until(t, "they are written back", func() bool { return s.nodes[0].owner.store.Snapshot().BytesDirty == part })
		require.Equal(t, rounds, s.asked("io"), "of %d MiB", end>>20)
	}
	for _, flows := range []int64{1, 1, 2, 4, 4} {
		write(flows * collective.FlowSize)
	}
	require.NoError(t, m.commit(h))
	part, rounds = 0, s.asked("io")
	write(collective.FlowSize)
}

// roomy is a system whose servers have as much room as setRoom leaves them: at
// first more than what must be free beyond what is unstable.
func roomy(t *testing.T, edit func(int, *Options)) (s *system, setRoom func(spare int64)) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a tmpfs")
	}
	dir := filepath.Join(t.TempDir(), "room")
	require.NoError(t, os.Mkdir(dir, 0o700))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", 2*spaceReserve)); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return startSystemOn(t, pvfsdtest.Start(t, 1, pvfsdtest.Options{Dir: dir}), 1, edit), func(spare int64) {
		var st syscall.Statfs_t
		require.NoError(t, syscall.Statfs(dir, &st))
		size := int64(st.Blocks-st.Bfree)*st.Bsize + spare
		require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", size)))
	}
}

// TestNoSpaceIsToldOnce: however often the write-back is tried, and by whom;
// the bytes stay, and go where they belong once there is room.
func TestNoSpaceIsToldOnce(t *testing.T) {
	s, setRoom := roomy(t, func(i int, o *Options) {
		lazy(i, o)
		o.WriteBack, o.Persist = 100*time.Millisecond, 100*time.Millisecond
	})
	m := s.mount(t)
	h := m.file(m.root, "f")
	failures := func() (n int) {
		for _, r := range m.stables(h) {
			if r.Errno != 0 {
				require.Equal(t, syscall.ENOSPC, syscall.Errno(r.Errno))
				n++
			}
		}
		return n
	}
	owned := s.nodes[0].owner.get(h)
	defer s.nodes[0].owner.put(owned)
	leave, err := owned.takeBack(background{}, t.Context()) // all is acknowledged before any of it is written back
	require.NoError(t, err)
	want := pattern(14<<20, 1)
	for off := 0; off < len(want); off += 1 << 20 {
		require.NoError(t, m.write(h, int64(off), want[off:][:1<<20], 0))
	}
	setRoom(9 << 20)
	require.Zero(t, s.asked("io"))
	leave()
	require.ErrorIs(t, m.commit(h), syscall.ENOSPC)
	require.Equal(t, 1, failures(), "the mount knows before the answer")
	require.ErrorIs(t, m.commit(h), syscall.ENOSPC)
	tried := s.asked("io")
	until(t, "it is tried again and again", func() bool { return s.asked("io") > tried+2 })
	require.Equal(t, 1, failures())
	require.ErrorIs(t, m.write(h, int64(len(want)), want[:1<<20], 0), syscall.ENOSPC, "there is no room for more")
	got, err := m.read(h, 0, len(want))
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "what was written can be read")
	told := failures() // once more at the most, for what was written in vain
	require.LessOrEqual(t, told, 2)
	setRoom(2 * spaceReserve)
	until(t, "it is written back", func() bool { return s.stored(h) >= int64(len(want)) && s.keeps(h, m) == 0 })
	require.NoError(t, m.commit(h))
	require.Equal(t, told, failures())
}

// TestNothingOlderIsKept: no mount keeps bytes, to replay them, that have been
// cut off, or written over by what is durable and kept by nobody.
func TestNothingOlderIsKept(t *testing.T) {
	s := startSystem(t, 1, 1, lazy)
	a, b := s.mount(t), s.mount(t)
	for name, change := range map[string]func(h uint64){
		"O_TRUNC": func(h uint64) {
			_, err := b.open(h, syscall.O_TRUNC|syscall.O_RDWR)
			require.NoError(t, err)
			require.Equal(t, uint32(ionpb.Flag_STABLE_WRITE), b.put(h, 0, "aa", uint32(ionpb.Flag_SYNC)).Flags)
		},
		"O_SYNC": func(h uint64) {
			b.put(h, 1, "bbb", uint32(ionpb.Flag_SYNC))
			require.NoError(t, b.truncate(h, 1))
			require.NoError(t, b.write(h, 1, []byte("a"), 0))
		},
		"O_APPEND": func(h uint64) {
			_, err := b.append(h, []byte("bb"))
			require.NoError(t, err)
			require.NoError(t, b.truncate(h, 2))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := a.file(a.root, name)
			stamp := a.put(h, 0, "aaaa", 0).Off
			change(h)
			last := a.stables(h)[len(a.stables(h))-1]
			require.True(t, last.Drop)
			require.GreaterOrEqual(t, last.Stamp, stamp)
			require.Zero(t, s.keeps(h, a))
			b.reads(h, 0, "aa")
			at, err := b.stat(h)
			require.NoError(t, err)
			require.EqualValues(t, 2, at.Size)
		})
	}
}

// TestCutIsNotKept: when a truncation returns, no mount keeps what it has cut
// off, also if nothing can be written back.
func TestCutIsNotKept(t *testing.T) {
	s, setRoom := roomy(t, lazy)
	a, b := s.mount(t), s.mount(t)
	h := a.file(a.root, "f")
	b.put(h, 100, "late", 0)
	setRoom(3 << 20)
	for off := int64(1 << 20); off < 9<<20; off += 1 << 20 {
		if a.write(h, off, pattern(1<<20, 2), 0) != nil {
			break
		}
	}
	require.ErrorIs(t, a.commit(h), syscall.ENOSPC)
	require.NoError(t, b.truncate(h, 102))
	for _, m := range []*mount{a, b} {
		last := m.stables(h)[len(m.stables(h))-1]
		require.EqualValues(t, 102, last.GetCut())
		require.True(t, last.Drop)
		require.GreaterOrEqual(t, last.Stamp, s.keeps(h, m))
		require.NotZero(t, s.keeps(h, m), "there is more to be kept")
	}
	b.reads(h, 100, "la")
	setRoom(2 * spaceReserve)
	require.NoError(t, a.commit(h))
	require.EqualValues(t, 102, s.stored(h))
}

// TestStopWritesBack: what is unstable when a node is stopped is written back,
// however short the time is for which it trusts its view.
func TestStopWritesBack(t *testing.T) {
	s := startSystem(t, 1, 1, func(i int, o *Options) {
		lazy(i, o)
		o.ViewInterval, o.Drain = 2*time.Millisecond, time.Minute
	})
	m := s.mount(t)
	data := pattern(1<<20, 1)
	var files []uint64
	for i := range 5 * backFiles {
		files = append(files, m.file(m.root, fmt.Sprint("f", i)))
		require.NoError(t, m.write(files[i], 0, data, 0))
	}
	begin := time.Now()
	s.stop(0)
	require.Less(t, time.Since(begin), 30*time.Second)
	s.restart(0, lazy)
	for _, h := range files {
		require.EqualValues(t, len(data), s.stored(h))
	}
}

// TestStopNamesWhatIsNotWritten: a node that ends says what it could not write
// back, and why.
func TestStopNamesWhatIsNotWritten(t *testing.T) {
	s, setRoom := roomy(t, func(i int, o *Options) {
		lazy(i, o)
		o.Drain = 10 * time.Second
	})
	m := s.mount(t)
	h := m.file(m.root, "f")
	setRoom(3 << 20)
	for off := int64(0); off < 8<<20; off += 1 << 20 {
		if m.write(h, off, pattern(1<<20, 2), 0) != nil {
			break
		}
	}
	n := s.nodes[0]
	s.nodes[0] = nil
	n.stop()
	err := <-n.done
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, fmt.Sprintf("file %d is not written back", h))
	require.NoError(t, n.client.Close())
}
