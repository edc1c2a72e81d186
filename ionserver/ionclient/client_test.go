package ionclient

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

func TestDialTellsWhatIsWrong(t *testing.T) {
	r := newRig(t, 1, 1<<16)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := lis.Addr().String()
	lis.Close()
	for _, c := range []struct {
		name string
		opt  Options
		want syscall.Errno
		text string
	}{
		{"no address", Options{}, syscall.EINVAL, "no address"},
		{"nobody there", Options{Addrs: []string{nobody}}, syscall.ECONNREFUSED, nobody},
		{"not an I/O node", Options{Addrs: []string{newProxy(t).addr}}, syscall.EPROTO, "not a zoidfs I/O node"},
		{"another file system", Options{Addrs: r.view.Members, FSID: 7}, syscall.ENODEV, "another file system"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.opt.DialWait = 100 * time.Millisecond
			_, err := Dial(t.Context(), c.opt)
			require.ErrorContains(t, err, c.text)
			require.Equal(t, c.want, errno.Of(err), "%v", err)
		})
	}
}

func TestViewFromTheSecondAddress(t *testing.T) {
	r := newRig(t, 2, 1<<16)
	r.proxies[0].setBackend("127.0.0.1:1")
	c, err := Dial(t.Context(), Options{Addrs: r.view.Members})
	require.NoError(t, err)
	v := c.View()
	require.Equal(t, View{Epoch: 1, Members: r.view.Members, FSID: 42, FSName: "test", Root: 1, DomainSize: 1 << 16}, v)
	require.NoError(t, c.Close(t.Context()))
}

// TestBytesAcrossOwners: reads and writes of any range, cut at domains, reach
// their owners (the rig refuses others) and are put together again.
func TestBytesAcrossOwners(t *testing.T) {
	r := newRig(t, 3, 16<<10)
	c := r.dial(t)
	rnd := rand.New(rand.NewPCG(1, 1))
	const size = 100_000
	model := make([]byte, 0, size)
	for range 60 {
		off, n := rnd.IntN(size/2), 1+rnd.IntN(size/2)
		if rnd.IntN(2) == 0 {
			p := make([]byte, n)
			for i := range p {
				p[i] = byte(rnd.Uint32())
			}
			got, err := write(t.Context(), c, 77, int64(off), p)
			require.NoError(t, err)
			require.EqualValues(t, n, got)
			if need := off + n - len(model); need > 0 {
				model = append(model, make([]byte, need)...)
			}
			copy(model[off:], p)
			continue
		}
		got, err := read(t.Context(), c, 77, int64(off), int64(n))
		require.NoError(t, err)
		want := model[min(off, len(model)):min(off+n, len(model))]
		require.True(t, bytes.Equal(want, got))
	}
	_, _, err := c.Read(t.Context(), 77, []extent.Extent{{Off: -1, Len: 5}}, 0)
	require.ErrorIs(t, err, syscall.EINVAL)
}

// TestCutConnectionsLoseAndRepeatNothing: connections break all the time, in
// the middle of messages, and every call that is not idempotent is still
// carried out once.
func TestCutConnectionsLoseAndRepeatNothing(t *testing.T) {
	r := newRig(t, 2, 1<<16)
	c := r.dial(t)
	// One cut for every few calls, while the others are under way.
	const callers, each, callsPerCut = 8, 25, 7
	progress := make(chan struct{}, 2*callers*each)
	var cutter sync.WaitGroup
	cutter.Go(func() {
		rnd := rand.New(rand.NewPCG(3, 3))
		n := 0
		for range progress {
			if n++; n%callsPerCut == 0 {
				time.Sleep(time.Duration(rnd.IntN(2000)) * time.Microsecond)
				r.proxies[rnd.IntN(2)].cut()
			}
		}
	})
	var wg sync.WaitGroup
	for g := range callers {
		wg.Go(func() {
			h := uint64(5000 + g)
			p := make([]byte, 60_000)
			for i := range each {
				name := fmt.Sprintf("f%d-%d", g, i)
				if _, err := c.CreateOpen(context.Background(), 1, name, 0o644, 0, 0); err != nil {
					t.Errorf("create %s: %v", name, err)
					return
				}
				progress <- struct{}{}
				for k := range p {
					p[k] = byte(i)
				}
				off, n, err := c.Append(context.Background(), h, p, 0)
				if err != nil || n != len(p) || off != int64(i*len(p)) {
					t.Errorf("append %d went to %d: %v", i, off, err)
					return
				}
				progress <- struct{}{}
				clear(p)
			}
		})
	}
	wg.Wait()
	close(progress)
	cutter.Wait()
	require.Equal(t, callers*each, r.applied(ionpb.Op_CREATE))
	require.Equal(t, callers*each, r.applied(ionpb.Op_APPEND))
	require.Equal(t, callers*each, r.opens(), "each is open once")
	for g := range callers {
		data := r.store.files[uint64(5000+g)]
		require.Len(t, data, each*60_000)
		for k, b := range data {
			if b != byte(k/60_000) {
				t.Fatalf("byte %d of file %d is %d", k, g, b)
			}
		}
	}
}

func (r *rig) homeOf(c *Client, h uint64) int { return c.current.Load().place.Home(h) }

// TestRestartedNodeIsToldWhatWeHold: opens and locks are there again before
// other calls go on.
func TestRestartedNodeIsToldWhatWeHold(t *testing.T) {
	r := newRig(t, 2, 1<<16)
	c := r.dial(t)
	const h = 77
	i := r.homeOf(c, h)
	for range 3 {
		_, err := c.Open(t.Context(), h, 0, false)
		require.NoError(t, err)
	}
	require.NoError(t, c.CloseFile(t.Context(), h, Closing{Count: 1}))
	lock := Lock{Owner: 5, Start: 10, End: toEOF, Type: ionpb.LockType_WRITE_LOCK}
	require.NoError(t, c.SetLock(t.Context(), h, lock, false))
	r.stop(i)
	got := make(chan error, 1)
	go func() {
		_, err := write(context.Background(), c, h, 0, []byte("after"))
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("a call did not wait for the I/O node: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	r.start(i)
	if r.homeOf(c, h) == c.current.Load().place.Owner(h, 0) {
		require.NoError(t, <-got)
	}
	n := r.ions[i]
	n.mu.Lock()
	defer n.mu.Unlock()
	require.Len(t, n.sessions, 1)
	for _, s := range n.sessions {
		require.Equal(t, map[uint64]int{h: 2}, s.opens)
		require.Equal(t, lockTable{{Owner: s.id<<8 | 5, Start: 10, End: toEOF, Type: ionpb.LockType_WRITE_LOCK}}, n.locks[h])
	}
	until(t, func() bool { return c.Sessions()[i].Up })
}

// TestUnlinkOverARestart: the I/O node unlinks, dies before it answers, and
// comes back without a record of it. The name is gone, as asked. A name that
// was not there in the first place is no success, restart or not, and one that
// is made may be somebody else's.
func TestUnlinkOverARestart(t *testing.T) {
	r := newRig(t, 1, 1<<16)
	c := r.dial(t)
	_, err := c.Create(t.Context(), 1, "a", 0o644, 0, 0)
	require.NoError(t, err)
	overRestart := func(op ionpb.Op, call func() error) error {
		r.ions[0].mute.Store(true)
		before, done := r.applied(op), make(chan error, 1)
		go func() { done <- call() }()
		until(t, func() bool { return r.applied(op) > before })
		r.stop(0)
		r.start(0)
		return <-done
	}
	unlink := func() error {
		_, err := c.Unlink(t.Context(), 1, "a", 0)
		return err
	}
	require.NoError(t, overRestart(ionpb.Op_UNLINK, unlink))
	require.Equal(t, 2, r.applied(ionpb.Op_UNLINK))
	require.ErrorIs(t, unlink(), syscall.ENOENT)
	require.ErrorIs(t, overRestart(ionpb.Op_CREATE, func() error {
		_, err := c.Create(t.Context(), 1, "b", 0o644, 0, 0)
		return err
	}), syscall.EEXIST)
}

// TestCreateOpen: a new file is open, by one request where that can be, also
// if the I/O node is restarted or its answer comes too late for the caller.
func TestCreateOpen(t *testing.T) {
	r := newRig(t, 2, 1<<16)
	c := r.dial(t)
	const files = 20
	here := 0
	for i := range files {
		a, err := c.CreateOpen(t.Context(), 1, fmt.Sprint("f", i), 0o644, 0, 0)
		require.NoError(t, err)
		if r.homeOf(c, a.Handle) == r.homeOf(c, 1) {
			here++
		}
	}
	require.NotContains(t, []int{0, files}, here, "both cases were met")
	require.Equal(t, files-here, r.applied(ionpb.Op_OPEN))
	require.Equal(t, files, r.opens())
	_, err := c.CreateOpen(t.Context(), 1, "f0", 0o644, 0, 0)
	require.ErrorIs(t, err, syscall.EEXIST)
	for i := range r.ions {
		r.stop(i)
		r.start(i)
	}
	until(t, func() bool { return r.opens() == files })

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.CreateOpen(ctx, 1, "unwanted", 0o644, 0, 0)
	require.ErrorIs(t, err, syscall.EINTR)
	until(t, func() bool { return r.applied(ionpb.Op_CLOSE) == 1 })
	require.Equal(t, files, r.opens())
}

// TestForgottenSession: an I/O node that lives on but has dropped our session.
func TestForgottenSession(t *testing.T) {
	r := newRig(t, 1, 1<<16)
	c := r.dial(t)
	_, err := c.Open(t.Context(), 77, 0, false)
	require.NoError(t, err)
	n := r.ions[0]
	n.mu.Lock()
	clear(n.sessions)
	n.mu.Unlock()
	_, err = write(t.Context(), c, 77, 0, []byte("x"))
	require.NoError(t, err)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.sessions {
		require.Equal(t, map[uint64]int{77: 1}, s.opens)
	}
}

// TestForgottenMeanwhile: what is granted by an answer that the I/O node has
// forgotten by the time it is noted is told again.
func TestForgottenMeanwhile(t *testing.T) {
	r := newRig(t, 1, 1<<16)
	c := r.dial(t)
	_, err := c.GetAttr(t.Context(), 77)
	require.ErrorIs(t, err, syscall.ENOENT)
	old := &link{id: c.current.Load().sessions[0].lastID() - 1}
	create := request{frame: rpc.Frame{Op: ionpb.Op_CREATE, Handle: 1}, granted: func(*rpc.Frame) uint64 { return c.openedLocked(77) }}
	c.note(c.current.Load().sessions[0], old, create, nil)
	until(t, func() bool { return r.opens() == 1 })
}

func TestCancelWhileTheNodeIsAway(t *testing.T) {
	r := newRig(t, 1, 1<<16)
	c := r.dial(t)
	_, err := write(t.Context(), c, 77, 0, []byte("x"))
	require.NoError(t, err)
	r.stop(0)
	for name, call := range map[string]func(context.Context) error{
		"getattr": func(ctx context.Context) error { _, err := c.GetAttr(ctx, 77); return err },
		"write":   func(ctx context.Context) error { _, err := write(ctx, c, 77, 0, make([]byte, 1<<17)); return err },
		"open":    func(ctx context.Context) error { _, err := c.Open(ctx, 77, 0, false); return err },
		"lock": func(ctx context.Context) error {
			return c.SetLock(ctx, 77, Lock{Owner: 1, End: 5, Type: ionpb.LockType_READ_LOCK}, true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(10*time.Millisecond, cancel)
			start := time.Now()
			require.Equal(t, syscall.EINTR, errno.Of(call(ctx)))
			require.Less(t, time.Since(start), 30*time.Second)
		})
	}
	r.start(0)
	_, err = write(t.Context(), c, 77, 0, []byte("y"))
	require.NoError(t, err)
	// What was cancelled leaves nothing behind.
	n := r.ions[0]
	until(t, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, s := range n.sessions {
			if s.opens[77] != 0 {
				return false
			}
		}
		return len(n.locks[77]) == 0 && len(n.waiting) == 0
	})
}

func TestLockWaitsAndIsCancelled(t *testing.T) {
	r := newRig(t, 1, 1<<16)
	a, b := r.dial(t), r.dial(t)
	l := Lock{Owner: 1, Start: 0, End: 99, Type: ionpb.LockType_WRITE_LOCK}
	require.NoError(t, a.SetLock(t.Context(), 77, l, true))
	require.ErrorIs(t, b.SetLock(t.Context(), 77, l, false), syscall.EAGAIN)

	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	require.ErrorIs(t, b.SetLock(ctx, 77, l, true), syscall.EINTR)
	require.Empty(t, r.ions[0].waiting)

	got := make(chan error, 1)
	go func() { got <- b.SetLock(context.Background(), 77, l, true) }()
	time.Sleep(10 * time.Millisecond)
	r.proxies[0].cut() // the wait survives
	time.Sleep(10 * time.Millisecond)
	free := l
	free.Type = ionpb.LockType_UNLOCK
	require.NoError(t, a.SetLock(t.Context(), 77, free, false))
	require.NoError(t, <-got)
	before := a.Stats().Requests["lock"]
	require.NoError(t, a.SetLock(t.Context(), 77, free, false))
	require.Equal(t, before, a.Stats().Requests["lock"], "nothing held, nobody asked")
	free.Start = 99
	require.NoError(t, b.SetLock(t.Context(), 77, free, false))
	free.Start, free.End = 98, 98
	require.NoError(t, b.SetLock(t.Context(), 77, free, false))
	require.Empty(t, r.ions[0].locks[77].within(Lock{Owner: r.ions[0].last<<8 | 1, Start: 98, End: 99}))
}

// TestLockCancelRace: whether the grant or the cancellation wins, what the
// caller was told is what the I/O node thinks.
func TestLockCancelRace(t *testing.T) {
	r := newRig(t, 1, 1<<16)
	a, b := r.dial(t), r.dial(t)
	l := Lock{Owner: 1, Start: 0, End: 99, Type: ionpb.LockType_WRITE_LOCK}
	free := l
	free.Type = ionpb.LockType_UNLOCK
	granted := 0
	for i := range 60 {
		require.NoError(t, a.SetLock(t.Context(), 77, l, true))
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error, 1)
		go func() { got <- b.SetLock(ctx, 77, l, true) }()
		time.Sleep(time.Duration(i%5) * 200 * time.Microsecond)
		go cancel()
		require.NoError(t, a.SetLock(t.Context(), 77, free, false))
		err := <-got
		n := r.ions[0]
		n.mu.Lock()
		held, waiting := len(n.locks[77]), len(n.waiting)
		n.mu.Unlock()
		require.Zero(t, waiting)
		if err == nil {
			granted++
			require.Equal(t, 1, held)
			require.NoError(t, b.SetLock(t.Context(), 77, free, false))
		} else {
			require.Equal(t, syscall.EINTR, errno.Of(err))
			require.Zero(t, held)
		}
	}
	t.Log("granted", granted, "of 60")
}

// TestNewView: one I/O node leaves, what we hold and what we send moves, and
// what it alone had is lost.
func TestNewView(t *testing.T) {
	r := newRig(t, 3, 4096)
	c := r.dial(t)
	d := new(diary)
	c.SetKeeper(d)
	for h := uint64(1); h <= 20; h++ {
		_, err := c.Open(t.Context(), h, 0, false)
		require.NoError(t, err)
	}
	next := proto.CloneOf(r.view)
	next.Epoch, next.Members = 2, r.view.Members[:2]
	r.view = next
	r.ions[0].setView(next)
	r.ions[1].setView(next)
	r.stop(2)
	p := bytes.Repeat([]byte("z"), 50_000)
	n, err := write(t.Context(), c, 9, 0, p)
	require.NoError(t, err)
	require.EqualValues(t, len(p), n)
	require.EqualValues(t, 2, c.View().Epoch)
	require.Len(t, c.Sessions(), 2)
	until(t, func() bool {
		place := c.current.Load().place
		for h := uint64(1); h <= 20; h++ {
			i := r.ions[place.Home(h)]
			i.mu.Lock()
			opens := 0
			for _, s := range i.sessions {
				opens += s.opens[h]
			}
			i.mu.Unlock()
			if opens != 1 {
				return false
			}
		}
		return true
	})
	gone := "lost false"
	until(t, func() bool { return slices.Contains(d.take(), gone) })
}

// TestCloseEndsWhatWaits: calls under way get an error, sessions end.
func TestCloseEndsWhatWaits(t *testing.T) {
	r := newRig(t, 2, 1<<16)
	c, err := Dial(t.Context(), Options{Addrs: r.view.Members})
	require.NoError(t, err)
	i := r.homeOf(c, 77)
	_, err = c.Open(t.Context(), 77, 0, false)
	require.NoError(t, err)
	until(t, func() bool { return c.Sessions()[1-i].Up })
	session := c.Sessions()[1-i].ID
	r.stop(i)
	got := make(chan error, 1)
	go func() {
		_, err := c.GetAttr(context.Background(), 77)
		got <- err
	}()
	time.Sleep(20 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, c.Close(ctx))
	require.Equal(t, syscall.ESHUTDOWN, errno.Of(<-got))
	_, err = c.GetAttr(t.Context(), 77)
	require.Equal(t, syscall.ESHUTDOWN, errno.Of(err))
	_, err = c.Open(t.Context(), 77, 0, false)
	require.Equal(t, syscall.ESHUTDOWN, errno.Of(err))
	other := r.ions[1-i]
	other.mu.Lock()
	defer other.mu.Unlock()
	require.NotContains(t, other.sessions, session, "the other one was told goodbye")
}
