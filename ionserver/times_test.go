package ionserver

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/pvfs"
)

// past is a modification time that files are given before they are written.
const past = 1000

// old makes a file with home 1 whose modification time is past, and that owner 0 has
// written to before that was set. The mount keeps writes back there.
func (s *system) old(t *testing.T, m *mount) (h uint64, off int64) {
	h, _ = m.fileHomedAt(m.root, "f", 1)
	off = m.offOwnedBy(h, 0)
	_, err := m.open(h, 0)
	require.NoError(t, err)
	require.NotZero(t, m.put(h, off, "x", leaseWrite).Flags&leaseWrite)
	m.touch(h, past)
	return h, off
}

// touch sets the modification time.
func (m *mount) touch(h uint64, mtime int64) {
	m.t.Helper()
	a, err := m.setAttr(h, &ionpb.SetAttrReq{Mtime: &mtime})
	require.NoError(m.t, err)
	require.Equal(m.t, mtime, a.Mtime)
}

// mtime is the modification time that the servers have.
func (s *system) mtime(h uint64) int64 {
	s.t.Helper()
	c, err := pvfs.Dial(context.Background(), s.pvfs.URL(), pvfs.Options{})
	require.NoError(s.t, err)
	defer c.Close()
	a, err := c.GetAttr(context.Background(), pvfs.Handle(h))
	require.NoError(s.t, err)
	return a.Mtime
}

// TestTimesOutliveAnOrderlyEnd: when all I/O nodes stop, in whatever order, the servers
// have the times of all that was written.
func TestTimesOutliveAnOrderlyEnd(t *testing.T) {
	for name, end := range map[string]func(s *system, write func()){
		"the owner first": func(s *system, write func()) {
			write()
			s.stop(0)
			s.stop(1)
		},
		"the home first": func(s *system, write func()) {
			s.stop(1)
			write()
			s.stop(0)
		},
		"the home was killed": func(s *system, write func()) {
			write()
			s.crash(1)
			s.stop(0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := startSystem(t, 2, 1, lazy)
			m := s.mount(t)
			h, off := s.old(t, m)
			end(s, func() { m.put(h, off, "y", leaseWrite) })
			require.Greater(t, s.mtime(h), int64(past))
		})
	}
}

// TestTimesOutliveAKilledNode: whoever is killed, and whatever mounts and homes have
// heard before, the time of a write is not lost, and none that was set after it.
func TestTimesOutliveAKilledNode(t *testing.T) {
	quick := func(i int, o *Options) {
		lazy(i, o)
		o.WriteBack = 50 * time.Millisecond
	}
	dropped := func(m *mount, h uint64) {
		until(m.t, "it may drop its bytes", func() bool {
			all := m.stables(h)
			return len(all) > 0 && all[len(all)-1].Drop
		})
	}
	back := func(s *system, m *mount, at int) {
		s.crash(at)
		s.restart(at, lazy)
		m.resume(at, true)
		m.reclaimed(at)
	}
	for name, x := range map[string]struct {
		edit  func(i int, o *Options)
		crash func(s *system, m *mount, h uint64)
		set   bool
	}{
		"the home has looked": {lazy, func(s *system, m *mount, h uint64) {
			_, err := m.stat(h)
			require.NoError(m.t, err)
			back(s, m, 1)
		}, false},
		"the owner has told mounts": {quick, func(s *system, m *mount, h uint64) {
			dropped(m, h)
			back(s, m, 0)
		}, false},
		"both are killed": {quick, func(s *system, m *mount, h uint64) {
			dropped(m, h)
			s.crash(0)
			back(s, m, 1)
			s.restart(0, lazy)
			m.resume(0, true)
			m.reclaimed(0)
		}, false},
		"another one was set": {lazy, func(s *system, m *mount, h uint64) {
			_, err := m.stat(h)
			require.NoError(m.t, err)
			m.touch(h, past)
			back(s, m, 1)
			s.nodes[0].owner.keepTold(m.t.Context(), time.Minute)
			s.nodes[1].home.persistAll(m.t.Context(), time.Minute)
		}, true},
		"another one was set after it was saved": {lazy, func(s *system, m *mount, h uint64) {
			s.nodes[1].home.persistAll(m.t.Context(), time.Minute)
			m.touch(h, past)
			back(s, m, 1)
			s.nodes[0].owner.keepTold(m.t.Context(), time.Minute)
			s.nodes[1].home.persistAll(m.t.Context(), time.Minute)
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := startSystem(t, 2, 1, x.edit)
			m := s.mount(t)
			h, off := s.old(t, m)
			m.callbacks()
			require.NoError(t, m.write(h, off, []byte("y"), 0))
			x.crash(s, m, h)
			a, err := m.stat(h)
			require.NoError(t, err)
			if x.set {
				require.EqualValues(t, past, a.Mtime)
			} else {
				require.Greater(t, a.Mtime, int64(past))
			}
		})
	}
}

// TestTimeToldLate: what an owner has told of a write before another time was set does
// not count when it arrives after that.
func TestTimeToldLate(t *testing.T) {
	s := startSystem(t, 2, 1, lazy)
	m := s.mount(t)
	h, off := s.old(t, m)
	stamp := m.put(h, off, "y", 0).Off
	m.touch(h, past)
	require.Empty(t, s.nodes[1].home.times(t.Context(), 0, &ionpb.TimesReq{Handles: []uint64{h}, Stamps: []uint64{uint64(stamp)}}))
	a, err := m.stat(h)
	require.NoError(t, err)
	require.EqualValues(t, past, a.Mtime)
	require.EqualValues(t, past, s.mtime(h))
}

// TestLaterTimesStay: a home that was killed is told again of a write whose time it had
// saved, and leaves the later one of another change alone.
func TestLaterTimesStay(t *testing.T) {
	s := startSystem(t, 2, 1, lazy)
	m := s.mount(t)
	h, off := s.old(t, m)
	require.NoError(t, m.write(h, off, []byte("y"), 0))
	s.nodes[1].home.persistAll(t.Context(), time.Minute)
	later := time.Now().Unix() + 100
	require.NoError(t, s.nodes[0].client.SetAttr(t.Context(), pvfs.Handle(h), pvfs.SetAttr{Mtime: &later}))
	s.crash(1)
	s.restart(1, lazy)
	m.resume(1, true)
	m.reclaimed(1)
	for range 2 {
		a, err := m.stat(h)
		require.NoError(t, err)
		require.Equal(t, later, a.Mtime)
		s.nodes[1].home.persistAll(t.Context(), time.Minute)
	}
	require.Equal(t, later, s.mtime(h))
}

// TestTimesOfOneNode: an I/O node that is home and owner has saved the time of what
// mounts may drop.
func TestTimesOfOneNode(t *testing.T) {
	s := startSystem(t, 1, 1, func(i int, o *Options) {
		lazy(i, o)
		o.WriteBack = 50 * time.Millisecond
	})
	m := s.mount(t)
	h := m.file(m.root, "f")
	m.touch(h, past)
	require.NoError(t, m.write(h, 0, []byte("x"), 0))
	until(t, "it may drop its bytes", func() bool { return len(m.stables(h)) > 0 })
	s.crash(0)
	require.Greater(t, s.mtime(h), int64(past))
}
