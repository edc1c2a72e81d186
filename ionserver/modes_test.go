package ionserver

import (
	"bytes"
	"context"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

func (m *mount) hold(h uint64) error { return m.atHome(ionpb.Op_HOLD, h, nil, nil) }

// recall has others publish and reports whether they all hold nothing now.
func (m *mount) recall(h uint64) bool {
	m.t.Helper()
	var r ionpb.RecallResp
	_, err := m.call(context.Background(), m.place.Home(h), rpc.Frame{Op: ionpb.Op_RECALL, Handle: h, Off: 3, Len: 1 << 40}, nil, &r)
	require.NoError(m.t, err)
	return r.Quiet
}

// keepsBack makes m a mount that holds data of h unpublished, at offset 0, and
// writes it when it is asked to publish.
func (m *mount) keepsBack(h uint64, data string, clean bool) (published *atomic.Int32) {
	published = new(atomic.Int32)
	m.mu.Lock()
	m.answer = func(f *rpc.Frame) *rpc.Frame {
		r := new(rpc.Frame)
		if f.Op != ionpb.Op_PUBLISH {
			return r
		}
		published.Add(1)
		if err := m.write(h, 0, []byte(data), 0); err != nil {
			r.Failure(err)
			return r
		}
		r.Encode(&ionpb.PublishResp{Clean: clean})
		return r
	}
	m.mu.Unlock()
	return published
}

// TestRecall: what a mount holds unpublished is published when another needs
// it, and home knows who holds something.
func TestRecall(t *testing.T) {
	s := newScene(t)
	require.True(t, s.a.statLeased(s.file).Quiet)
	require.True(t, s.b.recall(s.file), "nobody holds anything")
	published := s.a.keepsBack(s.file, "from a", false)
	require.NoError(t, s.a.hold(s.file))
	require.True(t, s.a.statLeased(s.file).Quiet, "of others")
	require.False(t, s.b.statLeased(s.file).Quiet)
	require.False(t, s.b.recall(s.file), "it may hold more")
	got, err := s.b.read(s.file, 0, 10)
	require.NoError(t, err)
	require.Equal(t, "from a", string(got))
	require.EqualValues(t, 1, published.Load())

	s.a.keepsBack(s.file, "again", true)
	require.True(t, s.b.recall(s.file))
	require.True(t, s.b.statLeased(s.file).Quiet)
	require.NoError(t, s.a.hold(s.file))
	require.Equal(t, attrLease, s.b.revoked(s.file), "b was told that nobody holds anything")
	require.NoError(t, s.a.atHome(ionpb.Op_FSYNC, s.file, &ionpb.FsyncReq{Clean: true}, nil))
	require.True(t, s.b.statLeased(s.file).Quiet)
	require.NoError(t, s.a.hold(s.file))
	_, err = s.a.open(s.file, 0)
	require.NoError(t, err)
	require.NoError(t, s.a.atHome(ionpb.Op_CLOSE, s.file, &ionpb.CloseReq{Count: 1, Clean: true}, nil))
	require.True(t, s.b.statLeased(s.file).Quiet)
}

// TestHoldDuringPublish: a mount that begins to hold again while it publishes
// is not taken to hold nothing.
func TestHoldDuringPublish(t *testing.T) {
	s := newScene(t)
	require.NoError(t, s.a.hold(s.file))
	s.a.answer = func(f *rpc.Frame) *rpc.Frame {
		r := new(rpc.Frame)
		if f.Op == ionpb.Op_PUBLISH {
			if err := s.a.hold(s.file); err != nil {
				r.Failure(err)
			}
			r.Encode(&ionpb.PublishResp{Clean: true})
		}
		return r
	}
	require.False(t, s.b.recall(s.file))
}

// TestTruncateRecalls: bytes written before a truncation do not come back.
func TestTruncateRecalls(t *testing.T) {
	s := newScene(t)
	for name, cut := range map[string]func() error{
		"truncate": func() error { return s.b.truncate(s.file, 0) },
		"open":     func() error { _, err := s.b.open(s.file, syscall.O_TRUNC|syscall.O_RDWR); return err },
	} {
		t.Run(name, func(t *testing.T) {
			published := s.a.keepsBack(s.file, "older than the cut", true)
			require.NoError(t, s.a.hold(s.file))
			require.NoError(t, cut())
			require.EqualValues(t, 1, published.Load())
			require.Zero(t, s.b.statLeased(s.file).Size)
		})
	}
}

// TestHolderDies: what a dead mount held is gone.
func TestHolderDies(t *testing.T) {
	s := startSystem(t, 1, 1, func(_ int, o *Options) { o.Lease = time.Second })
	a, b := s.mount(t), s.alive(t)
	silent := a.pingAll()
	h := b.file(b.root, "f")
	require.NoError(t, a.hold(h))
	silent()
	a.close()
	require.True(t, b.recall(h))
	require.True(t, b.statLeased(h).Quiet)
}

// laminate makes a file laminated and changes its permission bits.
func (m *mount) laminate(h uint64) {
	m.t.Helper()
	require.NoError(m.t, m.atHome(ionpb.Op_SETXATTR, h, &ionpb.SetXattrReq{Name: []byte(consistency.Xattr), Value: []byte("laminated")}, nil))
}

func (m *mount) chmod(h uint64, mode uint32) error {
	_, err := m.setAttr(h, &ionpb.SetAttrReq{Mode: &mode})
	return err
}

func TestSeal(t *testing.T) {
	s := newScene(t)
	size := s.domain + 100 // two owners
	require.NoError(t, s.b.write(s.file, 0, make([]byte, size), 0))
	require.NoError(t, s.b.chmod(s.file, 0o444))
	require.NoError(t, s.b.write(s.file, 0, []byte("x"), 0), "chmod means nothing to files of other modes")
	require.False(t, s.b.statLeased(s.file).Sealed)
	require.NoError(t, s.b.chmod(s.file, 0o644))
	s.b.laminate(s.file)
	require.False(t, s.b.statLeased(s.file).Sealed)
	a, err := s.b.open(s.file, syscall.O_RDWR)
	require.NoError(t, err)
	require.Equal(t, ionpb.Consistency_LAMINATED, a.Consistency)
	require.NoError(t, s.b.write(s.file, 0, []byte("y"), 0))
	require.NoError(t, s.b.write(s.file, s.domain, []byte("y"), 0))

	published := s.a.keepsBack(s.file, "kept back", true)
	require.NoError(t, s.a.hold(s.file))
	require.NoError(t, s.b.chmod(s.file, 0o444))
	require.EqualValues(t, 1, published.Load(), "what was written before is in it")
	require.True(t, s.a.statLeased(s.file).Sealed)
	for name, do := range map[string]func() error{
		"write":                func() error { return s.b.write(s.file, 0, []byte("x"), 0) },
		"write to the other":   func() error { return s.b.write(s.file, s.domain, []byte("x"), 0) },
		"append":               func() error { _, err := s.b.append(s.file, []byte("x")); return err },
		"truncate":             func() error { return s.b.truncate(s.file, 1) },
		"truncate to the same": func() error { return s.b.truncate(s.file, size) },
		"hold":                 func() error { return s.a.hold(s.file) },
		"open for writing":     func() error { _, err := s.b.open(s.file, syscall.O_WRONLY); return err },
		"open to truncate":     func() error { _, err := s.b.open(s.file, syscall.O_TRUNC); return err },
	} {
		require.ErrorIs(t, do(), syscall.EPERM, name)
	}
	a, err = s.b.open(s.file, syscall.O_RDONLY)
	require.NoError(t, err)
	require.True(t, a.Sealed)
	got, err := s.b.read(s.file, 0, 9)
	require.NoError(t, err)
	require.Equal(t, "kept back", string(got))

	require.NoError(t, s.b.chmod(s.file, 0o644))
	require.NoError(t, s.b.write(s.file, 0, []byte("x"), 0), "unsealed")
	require.NoError(t, s.b.chmod(s.file, 0o444))
	require.ErrorIs(t, s.b.write(s.file, 0, []byte("x"), 0), syscall.EPERM)
	require.NoError(t, s.b.atHome(ionpb.Op_REMOVEXATTR, s.file, &ionpb.NameReq{Name: []byte(consistency.Xattr)}, nil))
	require.NoError(t, s.b.write(s.file, 0, []byte("x"), 0), "not laminated any more")
	s.b.laminate(s.file)
	require.ErrorIs(t, s.b.write(s.file, 0, []byte("x"), 0), syscall.EPERM, "sealed by its mode")
}

// TestSealIsFinal: however many writers race with it, what one sees once the
// file is sealed does not change any more.
func TestSealIsFinal(t *testing.T) {
	s := newScene(t)
	size := int(s.domain) + 4096
	require.NoError(t, s.b.write(s.file, 0, make([]byte, size), 0))
	s.b.laminate(s.file)
	for round := range 5 {
		require.NoError(t, s.b.chmod(s.file, 0o644))
		done := make(chan error, 2)
		for i, m := range []*mount{s.a, s.mount(t)} {
			go func() {
				data := make([]byte, 64)
				for k := 0; ; k++ {
					data[0] = byte(round*50 + k)
					off := int64(k%2) * s.domain
					if err := m.write(s.file, off+int64(i)*64, data, 0); err != nil {
						done <- err
						return
					}
				}
			}()
		}
		time.Sleep(5 * time.Millisecond)
		require.NoError(t, s.b.chmod(s.file, 0o444))
		first, err := s.b.read(s.file, 0, size)
		require.NoError(t, err)
		for range 2 {
			require.ErrorIs(t, <-done, syscall.EPERM)
		}
		last, err := s.b.read(s.file, 0, size)
		require.NoError(t, err)
		require.True(t, bytes.Equal(first, last))
	}
}

// TestVersion: it changes with the content and with nothing else.
func TestVersion(t *testing.T) {
	s := newScene(t)
	last := s.a.statLeased(s.file).Version
	require.NotZero(t, last)
	seen := map[uint64]bool{last: true}
	step := func(changes bool, do func() error) {
		t.Helper()
		require.NoError(t, do())
		v := s.a.statLeased(s.file).Version
		require.Equal(t, changes, v != last)
		require.Equal(t, changes, !seen[v], "no version comes back")
		last, seen[v] = v, true
	}
	step(true, func() error { return s.b.write(s.file, 0, []byte("x"), 0) })
	step(true, func() error { return s.b.write(s.file, 0, []byte("x"), 0) })
	step(true, func() error { return s.b.write(s.file, s.domain, []byte("x"), 0) })
	step(true, func() error { _, err := s.b.append(s.file, []byte("x")); return err })
	step(true, func() error { return s.b.truncate(s.file, 0) })
	step(false, func() error { return s.b.chmod(s.file, 0o600) })
	step(false, func() error { return s.b.atHome(ionpb.Op_FSYNC, s.file, &ionpb.FsyncReq{}, nil) })
	home := s.nodes[s.a.place.Home(s.file)]
	step(false, func() error { home.home.persistAll(t.Context(), time.Second); return nil })
	step(true, func() error { // needlessly, when it is forgotten
		home.home.versions.mu.Lock()
		home.home.versions.max = 1
		home.home.versions.mu.Unlock()
		for i := range uint64(2) {
			home.home.versions.changed(i + 1)
		}
		return nil
	})
	step(true, func() error { return s.b.write(s.file, 0, []byte("x"), 0) })
}

// TestFloor: bytes that an owner has and PVFS2 does not show count in the size
// until it does or they are cut off.
func TestFloor(t *testing.T) {
	s := newScene(t)
	at := s.a.place.Home(s.file)
	h := s.nodes[at].home
	say := func(end int64) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.learnLocked(s.file, h.inodeLocked(s.file), at, &ionpb.CollectResp{End: end})
	}
	require.NoError(t, s.b.write(s.file, 49, []byte("x"), 0))
	require.EqualValues(t, 50, s.b.statLeased(s.file).Size)
	say(100)
	require.EqualValues(t, 100, s.b.statLeased(s.file).Size)
	require.NoError(t, s.b.truncate(s.file, 50))
	require.EqualValues(t, 50, s.a.statLeased(s.file).Size)
	say(100)
	require.NoError(t, h.settle(t.Context(), background{}, s.file, false), "the owner has nothing")
	require.EqualValues(t, 50, s.a.statLeased(s.file).Size)
}

// TestLooksAtOnce: of two looks at a size, the one that asked the servers first knows of
// bytes which they had not then, even if the other one has had them forgotten.
func TestLooksAtOnce(t *testing.T) {
	s := newScene(t)
	at := s.a.place.Home(s.file)
	h := s.nodes[at].home
	h.mu.Lock()
	h.learnLocked(s.file, h.inodeLocked(s.file), at, &ionpb.CollectResp{End: 100})
	h.mu.Unlock()
	first, second := h.overlaying(s.file), h.overlaying(s.file)
	late := pvfs.Attr{Handle: pvfs.Handle(s.file), Size: 100}
	second(&late)
	early := pvfs.Attr{Handle: pvfs.Handle(s.file), Size: 50}
	first(&early)
	require.EqualValues(t, 100, early.Size)
	h.overlay(&early)
	again := pvfs.Attr{Handle: pvfs.Handle(s.file), Size: 50}
	h.overlaying(s.file)(&again)
	require.EqualValues(t, 50, again.Size, "it was forgotten")
}

// looking is the waiter of who asks peers, and looks meanwhile.
type looking func()

func (look looking) wait(fn func() error) error { look(); return fn() }

// TestSettle: while an owner is asked how far its bytes reach, what is known of that
// goes on counting: reads of other bytes look at it.
func TestSettle(t *testing.T) {
	s := newScene(t)
	at := s.a.place.Home(s.file)
	home := s.nodes[at]
	far := int64(0)
	for s.a.place.Owner(s.file, far) == at {
		far += s.domain
	}
	require.NoError(t, s.b.write(s.file, far, []byte("x"), 0))
	require.EqualValues(t, far+1, s.a.statLeased(s.file).Size)
	before := home.quiet(s.file)
	require.False(t, before.none)
	looks := 0
	require.NoError(t, home.home.settle(t.Context(), looking(func() {
		looks++
		require.Equal(t, before, home.quiet(s.file))
	}), s.file, false))
	require.Equal(t, 1, looks)
	require.EqualValues(t, far+1, s.a.statLeased(s.file).Size)
}
