package holder

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/ionserver"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
	"github.com/zoidfs/zoidfs/pvfs"
)

// TestExclusiveOverACrash: I/O nodes that are killed after they have made a name,
// and before anybody heard of it, do not make a call find what it has made itself.
// Of two calls that want one name, one gets it.
func TestExclusiveOverACrash(t *testing.T) {
	r := newRig(t, ionserver.Options{Drain: 50 * time.Millisecond, Persist: 100 * time.Millisecond})
	p, q := r.nodes()
	ctx, root := context.Background(), p.client.View().Root
	for _, c := range []struct {
		name string
		call func(n *node, name string) error
	}{
		{"create", func(n *node, name string) error { _, err := n.client.Create(ctx, root, name, 0o600, 0, 0); return err }},
		{"create and open", func(n *node, name string) error {
			_, err := n.client.CreateOpen(ctx, root, name, 0o600, 0, 0)
			return err
		}},
		{"mkdir", func(n *node, name string) error { _, err := n.client.Mkdir(ctx, root, name, 0o700, 0, 0); return err }},
		{"symlink", func(n *node, name string) error {
			_, err := n.client.Symlink(ctx, root, name, "target", 0, 0)
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.NoError(t, c.call(q, c.name+" heard of")) // something is known to be q's
			mine, theirs := make(chan error, 1), make(chan error, 1)
			p.wire.deaf.Store(true)
			q.wire.deaf.Store(true)
			go func() { mine <- c.call(p, c.name) }()
			go func() { theirs <- c.call(q, c.name) }()
			eventually(t, "it is made", func() bool {
				_, err := r.ions[0].client.Lookup(ctx, pvfs.Handle(root), c.name)
				return err == nil
			})
			r.kill(0, 1)
			p.wire.deaf.Store(false)
			q.wire.deaf.Store(false)
			r.restart(0)
			r.restart(1)
			errs := []error{<-mine, <-theirs}
			if errs[0] != nil {
				errs[0], errs[1] = errs[1], errs[0]
			}
			require.NoError(t, errs[0])
			require.ErrorIs(t, errs[1], syscall.EEXIST)
			require.ErrorIs(t, c.call(p, c.name), syscall.EEXIST)
			require.ErrorIs(t, c.call(p, c.name+" heard of"), syscall.EEXIST)
		})
	}
}

// TestExchangeOverACrash: names that were exchanged before anybody heard of it stay so.
func TestExchangeOverACrash(t *testing.T) {
	r := newRig(t, ionserver.Options{Drain: 50 * time.Millisecond, Persist: 100 * time.Millisecond})
	p, _ := r.nodes()
	ctx, root := context.Background(), p.client.View().Root
	a, b := p.file(), p.file() // f1 and f2
	done := make(chan error, 1)
	p.wire.deaf.Store(true)
	go func() {
		_, err := p.client.Rename(ctx, ionclient.Name{Dir: root, Name: "f1", Handle: a}, ionclient.Name{Dir: root, Name: "f2", Handle: b}, unix.RENAME_EXCHANGE)
		done <- err
	}()
	eventually(t, "they are exchanged", func() bool {
		h, err := r.ions[0].client.Lookup(ctx, pvfs.Handle(root), "f1")
		return err == nil && uint64(h) == b
	})
	r.kill(0, 1)
	p.wire.deaf.Store(false)
	r.restart(0)
	r.restart(1)
	require.NoError(t, <-done)
	for name, want := range map[string]uint64{"f1": b, "f2": a} {
		found, _, err := p.client.Lookup(ctx, root, name)
		require.NoError(t, err)
		require.Equal(t, want, found.Handle)
	}
}

// TestAppendOverACrash: a record that I/O nodes had written when they were killed, and
// before anybody heard of it, is there once.
func TestAppendOverACrash(t *testing.T) {
	for _, c := range []struct {
		name   string
		before int64 // bytes in the file; negative: before a domain of the other I/O node
		killed func(home, owner int) []int
	}{
		{"its home", 10, func(home, _ int) []int { return []int{home} }},
		{"its home and the other", 10, func(int, int) []int { return []int{0, 1} }},
		{"the owner of its end", -13, func(_, owner int) []int { return []int{owner} }},
		{"home and owner", -13, func(int, int) []int { return []int{0, 1} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, ionserver.Options{Drain: 50 * time.Millisecond, Persist: 100 * time.Millisecond, Lease: 5 * time.Second})
			p, q := r.nodes()
			h, home, off := r.across(p)
			if off += c.before; c.before > 0 {
				off = c.before
			}
			direct, err := pvfs.Dial(t.Context(), r.pvfs.URL(), pvfs.Options{})
			require.NoError(t, err)
			defer direct.Close()
			size := off + int64(len("others, the record"))
			mine, theirs := p.open(h, consistency.Strong, syscall.O_RDWR), q.open(h, consistency.Strong, syscall.O_RDWR)
			mine.write(off-1, ".")
			at, n, err := theirs.Append(t.Context(), []byte("others, "), 0)
			require.NoError(t, err)
			require.EqualValues(t, []int64{off, 8}, []int64{at, int64(n)})
			lost := "ecord" // what of it is sent last
			r.servers.what.Store(&lost)
			type result struct {
				at  int64
				n   int
				err error
			}
			done := make(chan result, 1)
			go func() {
				at, n, err := mine.Append(context.Background(), []byte("the record"), 0)
				done <- result{at, n, err}
			}()
			eventually(t, "it is written", func() bool {
				a, err := direct.GetAttr(t.Context(), pvfs.Handle(h))
				return err == nil && a.Size == size
			})
			killed := c.killed(home, 1-home)
			r.kill(killed...)
			r.servers.what.Store(nil)
			for _, i := range killed {
				r.restart(i)
			}
			after := make(chan error, 1)
			go func() {
				_, _, err := theirs.Append(context.Background(), []byte(" and more"), 0)
				after <- err
			}()
			got := <-done
			require.Equal(t, result{off + 8, 10, nil}, got)
			require.NoError(t, <-after)
			require.Equal(t, ".others, the record and more", theirs.read(off-1, 100))
		})
	}
}

// across makes a file whose home has a domain before off, and the other I/O node that
// at off.
func (r *rig) across(p *node) (h uint64, home int, off int64) {
	r.t.Helper()
	place, err := collective.NewPlacement(p.client.View().Members, mib)
	require.NoError(r.t, err)
	h = p.file()
	home = place.Home(h)
	for off = mib; place.Owner(h, off) == home; off += mib {
	}
	return h, home, off
}
