package holder

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/ionserver"
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
