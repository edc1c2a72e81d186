package ionserver

import (
	"bytes"
	"fmt"
	"math"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// fast makes what waits for time wait a short one.
func fast(_ int, o *Options) { o.Drain, o.Persist = 200*time.Millisecond, 100*time.Millisecond }

// offOwnedBy is the begin of a domain that I/O node at owns.
func (m *mount) offOwnedBy(h uint64, at int) int64 {
	for k := int64(1); ; k++ {
		if off := k * m.view.DomainSize; m.place.Owner(h, off) == at {
			return off
		}
	}
}

// briefGrace is for a node that is restarted and whose mounts of before do not
// reclaim: it does not wait for them as long as their leases lasted. Who waits for
// that must be alive.
func briefGrace(edit func(i int, o *Options)) func(i int, o *Options) {
	return func(i int, o *Options) {
		edit(i, o)
		o.Lease = 2 * time.Second
	}
}

// TestWriteWaitsForItsHome: an owner whose file's home is away answers when
// the home is back.
func TestWriteWaitsForItsHome(t *testing.T) {
	s := startSystem(t, 2, 1, fast)
	m := s.mount(t)
	h, _ := m.fileHomedAt(m.root, "f", 1)
	off := m.offOwnedBy(h, 0)
	s.stop(1)
	until(t, "the loss is noticed", func() bool { up, _ := s.nodes[0].peers[1].state(); return !up })
	wrote := make(chan error, 1)
	go func() { wrote <- m.write(h, off, []byte("patience"), 0) }()
	select {
	case err := <-wrote:
		t.Fatalf("written without the home: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	s.restart(1, briefGrace(fast))
	require.NoError(t, <-wrote)
	at, err := s.alive(t).stat(h)
	require.NoError(t, err)
	require.Equal(t, off+8, at.Size)
}

// TestTimesOutliveTheHome: a write that was announced to a home that crashed
// shows its time at the next one.
func TestTimesOutliveTheHome(t *testing.T) {
	slow := func(_ int, o *Options) { o.Drain, o.Persist = 50*time.Millisecond, time.Hour }
	s := startSystem(t, 2, 1, slow)
	m := s.mount(t)
	h, _ := m.fileHomedAt(m.root, "f", 1)
	past := int64(1000)
	_, err := m.setAttr(h, &ionpb.SetAttrReq{Mtime: &past})
	require.NoError(t, err)
	before := time.Now().Unix()
	require.NoError(t, m.write(h, m.offOwnedBy(h, 0), []byte("x"), 0))
	s.crash(1)
	s.restart(1, briefGrace(slow))
	m = s.alive(t)
	until(t, "the owner announces again", func() bool { return s.nodes[1].home.dirty(h) })
	at, err := m.stat(h)
	require.NoError(t, err)
	require.GreaterOrEqual(t, at.Mtime, before)
}

// TestStopSavesTimes: an orderly end leaves nothing unsaved.
func TestStopSavesTimes(t *testing.T) {
	slow := func(_ int, o *Options) { o.Persist = time.Hour }
	s := startSystem(t, 1, 1, slow)
	m := s.mount(t)
	h := m.file(m.root, "f")
	past := int64(1000)
	_, err := m.setAttr(h, &ionpb.SetAttrReq{Mtime: &past})
	require.NoError(t, err)
	require.NoError(t, m.write(h, 0, []byte("x"), 0))
	s.stop(0)
	s.restart(0, briefGrace(slow))
	at, err := s.alive(t).stat(h)
	require.NoError(t, err)
	require.Greater(t, at.Mtime, past)
}

// TestTimesAreSavedByAndBy: without any call, and while the file is open.
func TestTimesAreSavedByAndBy(t *testing.T) {
	s := startSystem(t, 2, 1, fast)
	m := s.mount(t)
	h, _ := m.fileHomedAt(m.root, "f", 1)
	_, err := m.open(h, 0)
	require.NoError(t, err)
	require.NoError(t, m.write(h, m.offOwnedBy(h, 0), []byte("x"), 0))
	require.True(t, s.nodes[1].home.dirty(h))
	until(t, "it is saved", func() bool { return !s.nodes[1].home.dirty(h) })
}

// TestServerOfPVFS2IsAway: calls wait for it and go on.
func TestServerOfPVFS2IsAway(t *testing.T) {
	s := startSystem(t, 2, 2, func(_ int, o *Options) { o.ViewInterval = 50 * time.Millisecond })
	m := s.mount(t)
	h := m.file(m.root, "f")
	want := pattern(1<<20, 3)
	require.NoError(t, m.write(h, 0, want, 0))
	s.pvfs.Kill(0)
	time.Sleep(200 * time.Millisecond) // the looks for a newer view have failed for longer than one is good for
	done := make(chan error, 2)
	go func() {
		_, err := m.stat(h)
		done <- err
	}()
	go func() {
		got, err := m.read(h, 0, len(want))
		if err == nil && !bytes.Equal(want, got) {
			err = fmt.Errorf("read %d other bytes", len(got))
		}
		done <- err
	}()
	time.Sleep(100 * time.Millisecond)
	s.pvfs.Restart(0)
	for range 2 {
		require.NoError(t, <-done)
	}
}

// TestOpenTruncates: O_TRUNC is carried out by OPEN, also for what others have
// just written.
func TestOpenTruncates(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	a, b := s.mount(t), s.mount(t)
	h := a.file(a.root, "f")
	require.NoError(t, a.write(h, 0, pattern(1<<20, 4), 0))
	at, err := b.open(h, syscall.O_TRUNC)
	require.NoError(t, err)
	require.Zero(t, at.Size)
	got, err := a.read(h, 0, 10)
	require.NoError(t, err)
	require.Empty(t, got)
	for _, c := range []struct {
		name        string
		open        *ionpb.OpenReq
		armed, left uint32
	}{
		{"of one who keeps them", &ionpb.OpenReq{Flags: syscall.O_TRUNC}, 0o6755, 0o6755},
		{"without O_TRUNC", &ionpb.OpenReq{KillSuid: true}, 0o6755, 0o6755},
		{"setgid without group execute", &ionpb.OpenReq{Flags: syscall.O_TRUNC, KillSuid: true}, 0o6644, 0o2644},
		{"both", &ionpb.OpenReq{Flags: syscall.O_TRUNC, KillSuid: true}, 0o6755, 0o755},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := a.setAttr(h, &ionpb.SetAttrReq{Mode: &c.armed})
			require.NoError(t, err)
			require.NoError(t, b.atHome(ionpb.Op_OPEN, h, c.open, at))
			require.Equal(t, c.left, at.Mode)
			at, err = a.stat(h)
			require.NoError(t, err)
			require.Equal(t, c.left, at.Mode)
		})
	}
	d := a.mkdir(a.root, "d")
	_, err = a.open(d, syscall.O_TRUNC)
	require.ErrorIs(t, err, syscall.EISDIR)
	require.False(t, s.nodes[a.place.Home(d)].home.hasOpens(d), "a failed open is not counted")
}

func (h *home) hasOpens(handle uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.inodes[handle]
	return i != nil && len(i.opens) > 0
}

// TestAppendOverDomains: records that lie in several domains of several owners
// are whole.
func TestAppendOverDomains(t *testing.T) {
	s := startSystem(t, 2, 2, func(_ int, o *Options) { o.DomainSize = 1000 })
	mounts := []*mount{s.mount(t), s.mount(t)}
	h := mounts[0].file(mounts[0].root, "log")
	const writers, records, size = 4, 10, 2300
	var wg sync.WaitGroup
	for id := range writers {
		wg.Go(func() {
			for range records {
				if _, err := mounts[id%2].append(h, bytes.Repeat([]byte{byte('a' + id)}, size)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, err := mounts[1].read(h, 0, writers*records*size+1)
	require.NoError(t, err)
	require.Len(t, got, writers*records*size)
	count := map[byte]int{}
	for ; len(got) > 0; got = got[size:] {
		require.Equal(t, bytes.Repeat(got[:1], size), got[:size])
		count[got[0]]++
	}
	for id := range writers {
		require.Equal(t, records, count[byte('a'+id)])
	}
	require.ErrorIs(t, mounts[0].truncate(h, math.MaxInt64), syscall.EFBIG)
	require.NoError(t, mounts[0].truncate(h, 1<<40))
	off, err := mounts[0].append(h, []byte("x"))
	require.NoError(t, err)
	require.EqualValues(t, 1<<40, off)
}

// TestOneWorker: nodes with one worker a class do not lock each other out,
// whatever waits for whatever.
func TestOneWorker(t *testing.T) {
	s := startSystem(t, 2, 2, func(_ int, o *Options) { o.Workers, o.DomainSize = 1, 4096 })
	mounts := []*mount{s.mount(t), s.mount(t)}
	dir := mounts[0].mkdir(mounts[0].root, "d")
	h := mounts[0].file(dir, "f")
	var wg sync.WaitGroup
	for id := range 8 {
		m := mounts[id%2]
		wg.Go(func() {
			for k := range 15 {
				var err error
				switch (id + k) % 5 {
				case 0:
					err = m.write(h, int64(k)*4096, make([]byte, 4096), uint32(ionpb.Flag_KILL_PRIV))
				case 1:
					_, err = m.append(h, make([]byte, 100))
				case 2:
					err = m.truncate(h, int64(k)*1000)
				case 3:
					_, err = m.stat(h)
				case 4:
					name := fmt.Sprint("x", id)
					if _, _, err = m.create(dir, name, true); err == nil {
						if _, err = m.rename(dir, name, m.root, name, 0); err == nil {
							_, err = m.unlink(m.root, name)
						}
					}
				}
				if err != nil {
					t.Errorf("%d %d: %v", id, k, err)
				}
			}
		})
	}
	wg.Wait()
	for _, n := range s.nodes {
		running, queued := n.sched.load()
		require.Zero(t, running+queued)
		require.Empty(t, n.names.queues)
		require.Empty(t, n.home.ops.queues)
	}
}

// BenchmarkWrite is one mount writing 1 MiB at a time.
func BenchmarkWrite(b *testing.B) {
	s := startSystem(b, 1, 4, func(_ int, o *Options) { o.DomainSize = 4 << 20 })
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			m := s.mount(b)
			h := m.file(m.root, fmt.Sprint("f", size, b.N))
			p := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			off := int64(0)
			for b.Loop() {
				if err := m.write(h, off%(1<<28), p, 0); err != nil {
					b.Fatal(err)
				}
				off += int64(size)
			}
		})
	}
}

// BenchmarkMeta is one mount looking at and creating files.
func BenchmarkMeta(b *testing.B) {
	s := startSystem(b, 1, 4, nil)
	m := s.mount(b)
	b.Run("ping", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := m.call(b.Context(), 0, rpc.Frame{Op: ionpb.Op_PING}, nil, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	h := m.file(m.root, fmt.Sprint("stat", b.N))
	b.Run("stat", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := m.stat(h); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("create and unlink", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.file(m.root, "bench")
			if _, err := m.unlink(m.root, "bench"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestDestroyedIsForgotten: no owner keeps the time of a write, which the home
// has not asked for yet, of a file that is destroyed.
func TestDestroyedIsForgotten(t *testing.T) {
	s := startSystem(t, 2, 1, func(_ int, o *Options) { o.Persist = 50 * time.Millisecond })
	m := s.mount(t)
	for home := range 2 {
		h, name := m.fileHomedAt(m.root, fmt.Sprint("f", home, "."), home)
		_, err := m.open(h, 0)
		require.NoError(t, err)
		_, err = m.unlink(m.root, name)
		require.NoError(t, err)
		for at := range 2 {
			require.NoError(t, m.write(h, m.offOwnedBy(h, at), []byte("x"), 0))
		}
		m.closeFile(h)
		until(t, "forgotten", func() bool {
			for _, n := range s.nodes {
				n.owner.mu.Lock()
				f := n.owner.files[h]
				n.owner.mu.Unlock()
				if f != nil {
					return false
				}
			}
			return true
		})
	}
}

// TestNothingIsKept: files that nobody uses any more leave nothing behind, and
// neither do requests about files that never were.
func TestNothingIsKept(t *testing.T) {
	s := startSystem(t, 2, 1, fast)
	m := s.mount(t)
	for i := range 10 {
		h := m.file(m.root, fmt.Sprint("f", i))
		_, err := m.open(h, 0)
		require.NoError(t, err)
		require.NoError(t, m.write(h, m.offOwnedBy(h, i%2), []byte("x"), uint32(ionpb.Flag_KILL_PRIV)))
		require.NoError(t, m.lock(t.Context(), h, 1, ionpb.LockType_WRITE_LOCK, false))
		require.NoError(t, m.lock(t.Context(), h, 1, ionpb.LockType_UNLOCK, false))
		m.closeFile(h)
		require.ErrorIs(t, m.write(h+1000, 0, []byte("x"), 0), syscall.ESTALE)
		require.ErrorIs(t, m.truncate(h+1000, 5), syscall.ESTALE)
	}
	until(t, "nothing is kept", func() bool {
		kept := 0
		for _, n := range s.nodes {
			n.home.mu.Lock()
			kept += len(n.home.inodes)
			n.home.mu.Unlock()
			n.locks.mu.Lock()
			kept += len(n.locks.table.files)
			n.locks.mu.Unlock()
			n.owner.expire(time.Now().Add(time.Hour))
			n.owner.mu.Lock()
			kept += len(n.owner.files)
			n.owner.mu.Unlock()
		}
		return kept == 0
	}, func() {
		for _, n := range s.nodes {
			for h, i := range n.home.inodes {
				t.Logf("inode %x: %+v", h, *i)
			}
			for h, f := range n.owner.files {
				t.Logf("file %x: refs %d stamp %d timed %d", h, f.refs, f.stamp, f.timed)
			}
		}
	})
	for _, l := range m.links {
		sess := s.nodes[0].sessions.get(l.session)
		if sess != nil {
			require.Less(t, sess.replies.Len(), 5)
		}
	}
}

// TestReplyOfWriteIsKept: a write sent again after others wrote does not undo
// what they wrote.
func TestReplyOfWriteIsKept(t *testing.T) {
	s := startSystem(t, 1, 1, nil)
	a, b := s.mount(t), s.mount(t)
	h := a.file(a.root, "f")
	send := func() {
		r, err := a.links[0].data.Call(t.Context(), &rpc.Frame{ID: 5000, Acked: 4999, Op: ionpb.Op_WRITE,
			Handle: h, Epoch: a.view.Epoch, Data: rpc.Static([]byte("first"))})
		require.NoError(t, err)
		require.NoError(t, r.Err())
		require.EqualValues(t, 5, r.Len)
	}
	send()
	require.NoError(t, b.write(h, 0, []byte("SECOND"), 0))
	send()
	got, err := b.read(h, 0, 100)
	require.NoError(t, err)
	require.Equal(t, "SECOND", string(got))
}
