package ionserver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

// leased asks for op at the home of handle, and for the leases of homes.
func (m *mount) leased(op ionpb.Op, handle uint64, req, resp proto.Message) (entries bool, err error) {
	f, err := m.call(context.Background(), m.place.Home(handle), rpc.Frame{Op: op, Handle: handle, Flags: homeLeases}, req, resp)
	return f != nil && f.Flags&entriesLease != 0, err
}

// statLeased looks at attributes and reports whether they may be kept.
func (m *mount) statLeased(h uint64) *ionpb.Attr {
	m.t.Helper()
	a := new(ionpb.Attr)
	_, err := m.leased(ionpb.Op_GETATTR, h, nil, a)
	require.NoError(m.t, err)
	return a
}

// lookupLeased looks a name up and reports whether the entry may be kept.
func (m *mount) lookupLeased(dir uint64, name string) (h uint64, kept bool) {
	m.t.Helper()
	var r ionpb.EntryResp
	kept, err := m.leased(ionpb.Op_LOOKUP, dir, &ionpb.NameReq{Name: []byte(name)}, &r)
	if !errors.Is(err, syscall.ENOENT) {
		require.NoError(m.t, err)
	}
	return r.Handle, kept
}

// revoked is what the callbacks since last time took away from inode h.
func (m *mount) revoked(h uint64) (kinds uint32) {
	for _, f := range m.callbacks() {
		if f.Op == ionpb.Op_REVOKE && f.Handle == h {
			kinds |= f.Flags & homeLeases
		}
	}
	return kinds
}

// scene is what a change is made in: directories and files with their homes on
// any I/O node.
type scene struct {
	*system
	a, b             *mount // a has leases, b changes things
	dir, other       uint64
	file, sub, empty uint64
}

// newScene makes a system where leases are given again at once.
func newScene(t *testing.T) *scene {
	s := &scene{system: startSystem(t, 2, 2, nil)}
	s.calm(0)
	s.a, s.b = s.mount(t), s.mount(t)
	return s.fresh("")
}

// fresh is a scene of its own in the same system.
func (s scene) fresh(name string) *scene {
	s.dir, s.other = s.b.mkdir(s.b.root, "dir"+name), s.b.mkdir(s.b.root, "other"+name)
	s.file, s.sub, s.empty = s.b.file(s.dir, "file"), s.b.mkdir(s.dir, "sub"), s.b.mkdir(s.dir, "empty")
	return &s
}

// calm sets how long an inode must not be fought over.
func (s *system) calm(d time.Duration) {
	for _, n := range s.nodes {
		n.home.grants.mu.Lock()
		n.home.grants.calm = d
		n.home.grants.mu.Unlock()
	}
}

// TestRevoked: every operation that changes what a lease covers takes it away
// from other mounts before it is answered, and leaves it to its own.
func TestRevoked(t *testing.T) {
	u32 := func(v uint32) *uint32 { return &v }
	now := time.Now().Unix()
	atHome := func(op ionpb.Op, h func(*scene) uint64, req proto.Message) func(*scene, *mount) error {
		return func(s *scene, m *mount) error { return m.atHome(op, h(s), req, nil) }
	}
	file := func(s *scene) uint64 { return s.file }
	dir := func(s *scene) uint64 { return s.dir }
	sub := func(s *scene) uint64 { return s.sub }
	empty := func(s *scene) uint64 { return s.empty }
	other := func(s *scene) uint64 { return s.other }
	whole := newScene(t)
	name := func(n string) *ionpb.NameReq { return &ionpb.NameReq{Name: []byte(n)} }
	for _, c := range []struct {
		name  string
		of    func(*scene) uint64 // whose lease goes
		kinds uint32
		do    func(*scene, *mount) error
	}{
		{"write", file, attrLease, func(s *scene, m *mount) error { return m.write(s.file, 0, []byte("x"), 0) }},
		{"write at the second owner", file, attrLease, func(s *scene, m *mount) error { return m.write(s.file, s.domain, []byte("x"), 0) }},
		{"append", file, attrLease, func(s *scene, m *mount) error { _, err := m.append(s.file, []byte("x")); return err }},
		{"truncate", file, attrLease, func(s *scene, m *mount) error { return m.truncate(s.file, 10) }},
		{"open with O_TRUNC", file, attrLease, func(s *scene, m *mount) error { _, err := m.open(s.file, syscall.O_TRUNC|syscall.O_WRONLY); return err }},
		{"chmod", file, attrLease, atHome(ionpb.Op_SETATTR, file, &ionpb.SetAttrReq{Mode: u32(0o600)})},
		{"chmod of a directory", dir, attrLease, atHome(ionpb.Op_SETATTR, dir, &ionpb.SetAttrReq{Mode: u32(0o700)})},
		{"chown", file, attrLease, atHome(ionpb.Op_SETATTR, file, &ionpb.SetAttrReq{Uid: u32(7)})},
		{"utimes", file, attrLease, atHome(ionpb.Op_SETATTR, file, &ionpb.SetAttrReq{Mtime: &now})},
		{"setxattr", file, attrLease, atHome(ionpb.Op_SETXATTR, file, &ionpb.SetXattrReq{Name: []byte("user.x"), Value: []byte("v")})},
		{"hold", file, attrLease, atHome(ionpb.Op_HOLD, file, nil)},
		{"unlink, the inode", file, attrLease, func(s *scene, m *mount) error {
			return m.atHome(ionpb.Op_UNLINK, s.dir, &ionpb.NameReq{Name: []byte("file"), Unopened: s.file}, nil)
		}},
		{"unlink, the directory", dir, homeLeases, atHome(ionpb.Op_UNLINK, dir, name("file"))},
		{"rmdir, the inode", empty, homeLeases, func(s *scene, m *mount) error {
			return m.atHome(ionpb.Op_RMDIR, s.dir, &ionpb.NameReq{Name: []byte("empty"), Unopened: s.empty}, nil)
		}},
		{"rmdir, the directory", dir, homeLeases, atHome(ionpb.Op_RMDIR, dir, name("empty"))},
		{"create", dir, homeLeases, atHome(ionpb.Op_CREATE, dir, &ionpb.CreateReq{Name: []byte("new"), Mode: 0o644, Excl: true})},
		{"mkdir", dir, homeLeases, atHome(ionpb.Op_MKDIR, dir, &ionpb.MkdirReq{Name: []byte("new"), Mode: 0o755})},
		{"symlink", dir, homeLeases, atHome(ionpb.Op_SYMLINK, dir, &ionpb.SymlinkReq{Name: []byte("new"), Target: []byte("x")})},
		{"rename from here", dir, homeLeases, func(s *scene, m *mount) error { _, err := m.rename(s.dir, "file", s.other, "new", 0); return err }},
		{"rename to here", other, homeLeases, func(s *scene, m *mount) error { _, err := m.rename(s.dir, "file", s.other, "new", 0); return err }},
		{"rename of it", file, attrLease, func(s *scene, m *mount) error { _, err := m.rename(s.dir, "file", s.other, "new", 0); return err }},
		{"rename of a directory", sub, homeLeases, func(s *scene, m *mount) error {
			return m.atHome(ionpb.Op_RENAME, s.other, &ionpb.RenameReq{OldDir: s.dir, OldName: []byte("sub"), NewName: []byte("sub"), Meant: s.sub}, nil)
		}},
		{"rename over it", file, attrLease, func(s *scene, m *mount) error {
			s.b.file(s.other, "tmp")
			return m.atHome(ionpb.Op_RENAME, s.dir, &ionpb.RenameReq{OldDir: s.other, OldName: []byte("tmp"), NewName: []byte("file"), Unopened: s.file}, nil)
		}},
		{"rename over a directory", empty, homeLeases, func(s *scene, m *mount) error {
			return m.atHome(ionpb.Op_RENAME, s.dir, &ionpb.RenameReq{OldDir: s.dir, OldName: []byte("sub"), NewName: []byte("empty"), Unopened: s.empty}, nil)
		}},
		{"exchange", file, attrLease, func(s *scene, m *mount) error { _, err := m.rename(s.dir, "sub", s.dir, "file", 2); return err }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := whole.fresh(c.name)
			h := c.of(s)
			take := func(m *mount) {
				require.True(t, m.statLeased(h).Leased)
				if c.kinds&entriesLease != 0 {
					for _, n := range s.nodes { // said from a list it is for one answer
						n.home.dirs.expire(time.Now().Add(time.Hour))
					}
					_, kept := m.lookupLeased(h, "nothing")
					require.True(t, kept)
				}
				m.callbacks()
			}
			take(s.a)
			take(s.b)
			require.NoError(t, c.do(s, s.b))
			require.Equal(t, c.kinds, s.a.revoked(h), "others")
			if own := s.b.revoked(h); c.name[:min(5, len(c.name))] != "write" { // owners do not say yet who writes
				require.Zero(t, own, "its own")
			}
		})
	}
}

// TestRevocationIsWaitedFor: the change is answered when the mount has answered,
// and nothing is given out meanwhile.
func TestRevocationIsWaitedFor(t *testing.T) {
	s := newScene(t)
	require.True(t, s.a.statLeased(s.file).Leased)
	asked, let := make(chan struct{}), make(chan struct{})
	s.a.answer = func(*rpc.Frame) *rpc.Frame {
		close(asked)
		<-let
		return new(rpc.Frame)
	}
	done := make(chan error, 1)
	go func() { done <- s.b.truncate(s.file, 5) }()
	<-asked
	c := s.mount(t)
	require.False(t, c.statLeased(s.file).Leased, "while it is being changed")
	require.Zero(t, c.statLeased(s.file).Size)
	require.Empty(t, done)
	close(let)
	require.NoError(t, <-done)
	require.EqualValues(t, 5, c.statLeased(s.file).Size)
}

// TestDirectoryIsThereWhileLeased: a directory is taken away, or moved, after the leases
// on it.
func TestDirectoryIsThereWhileLeased(t *testing.T) {
	for name, remove := range map[string]func(*scene) error{
		"rename of it": func(s *scene) error { _, err := s.b.rename(s.dir, "empty", s.other, "moved", 0); return err },
		"rmdir": func(s *scene) error {
			return s.b.atHome(ionpb.Op_RMDIR, s.dir, &ionpb.NameReq{Name: []byte("empty")}, nil)
		},
		"rename over it": func(s *scene) error { _, err := s.b.rename(s.dir, "sub", s.dir, "empty", 0); return err },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			require.True(t, s.a.statLeased(s.empty).Leased)
			asked, let := make(chan struct{}), make(chan struct{})
			goOn := sync.OnceFunc(func() { close(let) })
			defer goOn()
			s.a.answer = func(f *rpc.Frame) *rpc.Frame {
				if f.Handle == s.empty {
					close(asked)
					<-let
				}
				return new(rpc.Frame)
			}
			done := make(chan error, 1)
			go func() { done <- remove(s) }()
			<-asked
			in, err := s.nodes[0].pvfs.GetXattr(t.Context(), pvfs.Handle(s.empty), parentXattr)
			require.NoError(t, err)
			require.Equal(t, parentNote(pvfs.Handle(s.dir)).Value, in)
			require.False(t, s.mount(t).statLeased(s.empty).Leased)
			goOn()
			require.NoError(t, <-done)
			if _, err = s.a.stat(s.empty); name != "rename of it" {
				require.ErrorIs(t, err, syscall.ESTALE)
			}
		})
	}
}

// TestDeadMountHoldsNobodyUpForLong: leases of a mount that does not answer end
// with its session.
func TestDeadMountHoldsNobodyUpForLong(t *testing.T) {
	const lease = time.Second
	s := startSystem(t, 1, 1, func(_ int, o *Options) { o.Lease = lease })
	a, b := s.mount(t), s.alive(t)
	silent := a.pingAll()
	h := a.file(a.root, "f")
	a.mu.Lock()
	a.answer = func(*rpc.Frame) *rpc.Frame { return nil }
	a.mu.Unlock()
	require.True(t, a.statLeased(h).Leased)
	start := time.Now()
	silent()
	require.NoError(t, b.truncate(h, 5))
	took := time.Since(start)
	require.Less(t, took, 10*lease)
	require.Greater(t, took, lease/2, "it was waited for")
	require.NotEmpty(t, a.callbacks())
	require.EqualValues(t, 5, b.statLeased(h).Size)
}

// alive is a mount that keeps its sessions alive until the test ends.
func (s *system) alive(t testing.TB) *mount {
	t.Helper()
	m := s.mount(t)
	t.Cleanup(m.pingAll())
	return m
}

// pingAll keeps the mount's sessions alive until stop.
func (m *mount) pingAll() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			for at := range m.links {
				_, _ = m.call(ctx, at, rpc.Frame{Op: ionpb.Op_PING}, nil, nil)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	return func() { cancel(); <-ended }
}

// TestGrantAfterWrite: attributes are given out only when nobody else may be
// writing, and a write after that is announced anew.
func TestGrantAfterWrite(t *testing.T) {
	s := newScene(t)
	for i := range 3 {
		require.NoError(t, s.b.write(s.file, int64(i), []byte("x"), 0))
		a := s.a.statLeased(s.file)
		require.True(t, a.Leased)
		require.EqualValues(t, i+1, a.Size)
		s.a.callbacks()
	}
}

// TestFewerRevocationsInAFight: two mounts that make files in one directory in
// turns take leases from each other now and then only.
func TestFewerRevocationsInAFight(t *testing.T) {
	s := newScene(t)
	s.calm(calmTime)
	start := time.Now()
	revoked := 0
	const files = 100
	for i := range files {
		for _, m := range []*mount{s.a, s.b} {
			m.lookupLeased(s.dir, fmt.Sprint("f", i))
			m.statLeased(s.dir)
			m.file(s.dir, fmt.Sprint(m.id, i))
		}
	}
	for _, m := range []*mount{s.a, s.b} {
		revoked += len(m.callbacks())
	}
	require.LessOrEqual(t, revoked, 4+4*int(time.Since(start)/calmTime))
	until(t, "leases are given again", func() bool { _, kept := s.a.lookupLeased(s.dir, "nothing"); return kept })
}

// TestLeasesAreBounded: a session that has too many loses the oldest.
func TestLeasesAreBounded(t *testing.T) {
	s := startSystem(t, 1, 1, nil)
	a, b := s.mount(t), s.mount(t)
	table := s.nodes[0].home.grants
	table.mu.Lock()
	table.max = 10
	table.mu.Unlock()
	var hs []uint64
	for i := range 12 {
		h := a.file(a.root, fmt.Sprint("f", i))
		hs = append(hs, h)
		require.True(t, a.statLeased(h).Leased)
	}
	require.LessOrEqual(t, table.count(), 10)
	require.Equal(t, attrLease, a.revoked(hs[0]))
	require.NoError(t, b.truncate(hs[0], 3))
	require.Zero(t, a.revoked(hs[0]), "it had gone")
	require.NoError(t, b.truncate(hs[11], 3))
	require.Equal(t, attrLease, a.revoked(hs[11]))
	a.close()
	s.nodes[0].endSession(s.nodes[0].sessions.get(a.links[0].session))
	require.Zero(t, table.count())
}

// TestGrantTable: random looks and changes; whoever has a lease knows the truth.
func TestGrantTable(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		table := newGrantTable(calmTime)
		sessions := newSessionTable(time.Hour)
		var all []*session
		for i := range 3 {
			all = append(all, sessions.open(&ionpb.HelloReq{Mount: uint64(i + 1)}, ""))
		}
		type reading struct {
			*look
			value int
		}
		type writing struct {
			*change
			revoke []*holder
		}
		truth, known := 0, map[*session]int{}
		reads, writes := map[*session]*reading{}, map[*session]*writing{}
		for range 20000 {
			s := all[rnd.IntN(len(all))]
			switch r, w := reads[s], writes[s]; rnd.IntN(7) {
			case 0:
				if r == nil {
					reads[s] = &reading{look: table.look(1, s), value: -1}
				}
			case 1:
				if r != nil {
					r.value = truth
				}
			case 2:
				if r != nil && r.value >= 0 {
					if given, _ := r.grant(attrLease); given != 0 {
						known[s] = r.value
					}
					r.done()
					delete(reads, s)
				}
			case 3:
				if w == nil && len(writes) == 0 {
					w = new(writing)
					w.change, w.revoke = table.change(1, s.mount, attrLease)
					writes[s] = w
				}
			case 4:
				if w != nil && len(w.revoke) > 0 {
					h := w.revoke[0]
					w.revoke = w.revoke[1:]
					delete(known, h.sess)
					table.mu.Lock()
					table.takeLocked(h, attrLease)
					table.mu.Unlock()
				}
			case 5:
				if w != nil && len(w.revoke) == 0 {
					truth++
					if r != nil && r.value >= 0 {
						r.value = truth // a mount sorts out its own changes
					}
					if _, ok := known[s]; ok {
						known[s] = truth
					}
					w.end()
					delete(writes, s)
				}
			case 6:
				time.Sleep(time.Duration(rnd.IntN(600)) * time.Millisecond)
			}
			for s, v := range known {
				require.Equal(t, truth, v, "mount %d", s.mount)
				require.Contains(t, table.inodes[1].holders, s)
			}
		}
	})
}

// TestOrphanIsNotLeased: what ends with its last close is nothing to go by.
func TestOrphanIsNotLeased(t *testing.T) {
	s := newScene(t)
	_, err := s.a.open(s.file, syscall.O_RDONLY)
	require.NoError(t, err)
	require.True(t, s.a.statLeased(s.file).Leased)
	_, err = s.b.unlink(s.dir, "file")
	require.NoError(t, err)
	a := s.a.statLeased(s.file)
	require.Zero(t, a.Nlink)
	require.False(t, a.Leased)
	s.a.closeFile(s.file)
}
