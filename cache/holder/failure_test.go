package holder

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
	"github.com/zoidfs/zoidfs/pvfs"
)

// TestReplay: I/O nodes that die with everything that they had in memory lose
// nothing that was written, published or kept back.
func TestReplay(t *testing.T) {
	r := newRig(t, ionserver.Options{WriteBack: time.Hour, Drain: 50 * time.Millisecond})
	p, q := r.nodes()
	for _, m := range []consistency.Mode{consistency.Strong, consistency.Commit, consistency.Session} {
		t.Run(m.String(), func(t *testing.T) {
			h := p.file()
			w := p.open(h, m, rw)
			defer w.close()
			w.write(0, strings.Repeat("a", 3*mib))
			w.flush()
			w.write(5, "bcd")
			w.write(2*mib, "efg")
			for at := int64(mib); at < 2*mib; at += 8 * kib { // retained as one write of many pieces
				w.write(at+100, "hij")
			}
			w.flush()
			w.write(mib, "not published in a weak mode")
			r.crash(0)
			r.crash(1)
			w.flush()
			x := q.open(h, m, syscall.O_RDONLY)
			defer x.close()
			require.Equal(t, "aaaaabcdaa", x.read(0, 10))
			require.Equal(t, "aefga", x.read(2*mib-1, 5))
			require.Equal(t, "anot published in a weak modea", x.read(mib-1, 30))
			require.Equal(t, "a", x.read(3*mib-1, 10))
			for at := int64(mib); at < 2*mib; at += 8 * kib {
				require.Equal(t, "ahija", x.read(at+99, 5))
			}
		})
	}
}

// TestRestartsInARow: what was kept back and sent after the first restart does
// not count as kept back at the second one, under a session that nobody awaits.
func TestRestartsInARow(t *testing.T) {
	r := newRig(t, ionserver.Options{WriteBack: time.Hour, Drain: 50 * time.Millisecond})
	p, q := r.nodes()
	h := p.file()
	w := p.open(h, consistency.Strong, rw)
	for _, off := range []int64{0, mib} { // of both I/O nodes
		w.write(off, "before")
		eventually(t, "a lease to keep writes back", func() bool { return p.sent("write", func() { w.write(off, "BEFORE") }) == 0 })
	}
	for range 3 {
		for i := range r.ions {
			old := p.client.Sessions()[i].ID
			r.crash(i)
			eventually(t, "a new session", func() bool { s := p.client.Sessions()[i]; return s.Up && s.ID != old })
		}
		require.Empty(t, w.file.keptBack(func(int64) bool { return true }))
	}
	w.fsync()
	w.close()
	x := q.open(h, consistency.Strong, syscall.O_RDONLY)
	defer x.close()
	require.Equal(t, "BEFORE", x.read(0, 6))
	require.Equal(t, "BEFORE", x.read(mib, 10))
}

// TestCutIsNotReplayed: what was cut off does not come back when the I/O nodes
// that had it in memory die, also where an answer came late.
func TestCutIsNotReplayed(t *testing.T) {
	r := newRig(t, ionserver.Options{WriteBack: time.Hour, Drain: 50 * time.Millisecond})
	p, q := r.nodes()
	h := p.file()
	a, b := p.open(h, consistency.Commit, rw), q.open(h, consistency.Commit, rw)
	a.write(0, strings.Repeat("a", 2*mib))
	a.flush()
	b.write(5, "bbbbbbbbbb")
	b.flush()
	a.truncate(10)
	r.crash(0)
	r.crash(1)
	a.truncate(mib)
	for _, f := range []*fd{a, b} {
		require.Equal(t, "aaaaabbbbb\x00\x00", f.read(0, 12))
		require.Equal(t, strings.Repeat("\x00", 100), f.read(mib-100, 200))
	}
	a.close()
	b.close()
}

// TestLostSession: a node that was away for longer than its lease has lost what
// it kept back under leases, which each handle reports once; unpublished bytes
// of weak modes it still has.
func TestLostSession(t *testing.T) {
	r := newRig(t, ionserver.Options{Lease: time.Second})
	p, q := r.nodes()
	strong, weak := p.file(), p.file()
	w1, w2 := p.open(strong, consistency.Strong, rw), p.open(strong, consistency.Strong, rw)
	c := p.open(weak, consistency.Commit, rw)
	w1.write(0, "before")
	eventually(t, "a lease to keep writes back", func() bool {
		return p.sent("write", func() { w1.write(0, "BEFORE") }) == 0
	})
	c.write(0, "unpublished")
	p.wire.set(true)
	x := q.open(strong, consistency.Strong, rw)
	require.Equal(t, "before", strings.ToLower(x.read(0, 6)), "waits until the session has ended")
	x.write(0, "behind")
	p.wire.set(false)
	for _, w := range []*fd{w1, w2} {
		eventually(t, "EIO", func() bool { return errno.Of(w.Fsync(context.Background(), false)) == syscall.EIO })
		w.fsync()
	}
	require.Equal(t, "behind", w1.read(0, 6))
	c.fsync()
	y := q.open(weak, consistency.Commit, syscall.O_RDONLY)
	require.Equal(t, "unpublished", y.read(0, 100))
	for _, f := range []*fd{w1, w2, c, x, y} {
		f.close()
	}
}

// TestReplyOfAnEraThatIsOver: an answer that was overtaken by a revocation
// grants nothing.
func TestReplyOfAnEraThatIsOver(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p := r.node(Options{})
	h := p.file()
	w := p.open(h, consistency.Strong, rw)
	defer w.close()
	w.write(0, "x")
	d := w.file.domain(0)
	eventually(t, "a lease", func() bool {
		w.write(0, "x")
		return d.begin().era == 0 && p.sent("read", func() { w.read(0, 1) }) == 0
	})
	d.mu.RLock()
	g := grantFor(d)
	d.mu.RUnlock()
	at := d.begin()
	p.held.Revoke(context.Background(), h, everything, g.Leases)
	require.False(t, d.grant(at, g))
	require.True(t, d.grant(d.begin(), g))
}

// TestAnswersThatOvertake: what came without a lease, and was asked for without one,
// is not kept under a lease that came with the answer to a later request: another
// node may have written in between.
func TestAnswersThatOvertake(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p := r.node(Options{})
	h := p.file()
	w := p.open(h, consistency.Strong, rw)
	defer w.close()
	d := w.file.domain(0)
	old, at, exts := [][]byte{[]byte("old")}, d.begin(), []extent.Extent{{Off: 64 * kib, Len: 3}}
	eventually(t, "a lease", func() bool { w.write(0, "x"); return p.sent("read", func() { w.read(0, 1) }) == 0 })
	require.Equal(t, at.era, d.begin().era, "nothing was revoked")
	require.False(t, d.grant(at, ionclient.Grant{}))
	require.True(t, d.grant(d.begin(), ionclient.Grant{}), "it was held already")
	for _, right := range []right{byLease, byAcquire, byAge} {
		d.insert(at, right, ionclient.Grant{}, exts, old)
		require.False(t, w.file.data.Known(exts[0]), right)
	}
	w.file.data.Insert(exts[0].Off, old) // as Done leaves what was published
	d.published(exts, at, false)
	require.False(t, w.file.data.Known(exts[0]))

	now := d.begin()
	d.insert(now, byLease, ionclient.Grant{}, exts, old)
	require.True(t, w.file.data.Known(exts[0]))
	p.held.Revoke(context.Background(), h, everything, ionclient.LeaseData)
	w.file.data.Insert(exts[0].Off, old)
	d.published(exts, now, true)
	require.False(t, w.file.data.Known(exts[0]), "revoked while it was on its way")
}

// TestAgeOfAnswers: how old bytes are counts from when they were asked for, however
// late the answer comes.
func TestAgeOfAnswers(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p := r.node(Options{Visibility: time.Hour})
	f := p.open(p.file(), consistency.Eventual, syscall.O_RDONLY)
	defer f.close()
	d := f.file.domain(0)
	insert := func(at moment) {
		d.insert(at, byAge, ionclient.Grant{}, []extent.Extent{{Len: 3}}, [][]byte{[]byte("old")})
	}
	insert(d.begin())
	require.True(t, d.mayUse(byAge))
	late := d.begin()
	late.time = late.time.Add(-share(time.Hour))
	insert(late)
	require.False(t, d.mayUse(byAge))
}

// TestDeferredErrors: each handle that was open reports a loss once, at its
// next fsync or close.
func TestDeferredErrors(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p := r.node(Options{})
	h := p.file()
	a, b := p.open(h, consistency.Commit, rw), p.open(h, consistency.Commit, rw)
	a.file.mu.Lock()
	a.file.failLocked(errno.New("test", syscall.ENOSPC))
	a.file.mu.Unlock()
	late := p.open(h, consistency.Commit, rw)
	require.Equal(t, syscall.ENOSPC, errno.Of(a.Flush(context.Background())))
	require.Equal(t, syscall.ENOSPC, errno.Of(b.Fsync(context.Background(), false)))
	for _, f := range []*fd{a, b, late} {
		f.flush()
		f.fsync()
		f.release()
	}
}

// TestFlush: what is unpublished or unstable reaches the servers, or is named.
func TestFlush(t *testing.T) {
	r := newRig(t, ionserver.Options{WriteBack: time.Hour})
	p := r.node(Options{})
	published, unpublished := p.file(), p.file()
	a, b := p.open(published, consistency.Commit, rw), p.open(unpublished, consistency.Commit, rw)
	a.write(0, "published")
	a.flush()
	b.write(0, "unpublished")
	p.wire.set(true)
	soon, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	err := p.held.Flush(soon)
	require.ErrorContains(t, err, fmt.Sprint("file ", published))
	require.ErrorContains(t, err, fmt.Sprint("file ", unpublished))
	p.wire.set(false)
	require.NoError(t, p.held.Flush(context.Background()))
	for handle, want := range map[uint64]int64{published: 9, unpublished: 11} {
		attr, err := r.ions[0].client.GetAttr(context.Background(), pvfs.Handle(handle))
		require.NoError(t, err)
		require.Equal(t, want, attr.Size)
	}
	a.close()
	b.close()
	_, err = p.client.Unlink(context.Background(), p.client.View().Root, "f1", 0)
	require.NoError(t, err)
	require.NoError(t, p.held.Flush(context.Background()))
}
