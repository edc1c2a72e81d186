package fs

import (
	"context"
	"syscall"

	"github.com/zoidfs/zoidfs/cache/holder"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// getAttr is mount.getAttr of the node.
func (n *node) getAttr(c *call) (ionclient.Attr, error) { return n.m.getAttr(c, n.handle) }

// setAttr is mount.setAttr of the node.
func (n *node) setAttr(c *call, set ionclient.SetAttr) (ionclient.Attr, error) {
	return n.m.setAttr(c, n.handle, set)
}

// getAttr asks for the attributes of an inode, as they are with what this node has
// written and not published.
func (m *mount) getAttr(ctx context.Context, h uint64) (ionclient.Attr, error) {
	return holder.Overlaid(func() holder.Glimpse { return m.held.Glimpse(h) },
		func() (ionclient.Attr, error) { return m.known.GetAttr(ctx, h) })
}

// setAttr changes attributes. What was written before is published before: its
// time must not overtake one that is set, nor its bytes a truncation.
func (m *mount) setAttr(ctx context.Context, h uint64, set ionclient.SetAttr) (a ionclient.Attr, err error) {
	change := func() (err error) {
		a, err = m.known.SetAttr(ctx, h, set)
		return err
	}
	if set.Size != nil {
		err = m.held.Truncate(ctx, h, *set.Size, change)
	} else if err = m.held.PublishAll(ctx, h); err == nil {
		err = change()
	}
	if err == nil {
		m.held.Glimpse(h).Overlay(&a)
	}
	return a, err
}

// known returns the node that a name meant when it was last seen, or nil.
func (n *node) known(name string) *node {
	if child := n.GetChild(name); child != nil {
		return nodeOf(child.Operations())
	}
	return nil
}

// nameOf is a name in n, with what it meant when it was last seen.
func (n *node) nameOf(name string) ionclient.Name {
	out := ionclient.Name{Dir: n.handle, Name: name}
	if k := n.known(name); k != nil {
		out.Handle = k.handle
	}
	return out
}

// fileOf is what a name meant when it was last seen, or 0 for a directory.
func (n *node) fileOf(name string) uint64 {
	if k := n.known(name); k != nil && !k.IsDir() {
		return k.handle
	}
	return 0
}

// glimpseChild is the Glimpse of what a name means.
func (n *node) glimpseChild(name string) holder.Glimpse {
	if k := n.known(name); k != nil {
		return n.m.held.Glimpse(k.handle)
	}
	return holder.Glimpse{}
}

// publishChild publishes what this node has written to what a name means, as
// far as this node knows: it may be gone.
func (n *node) publishChild(c *call, name string) syscall.Errno {
	if k := n.known(name); k != nil {
		if err := n.m.held.PublishAll(c, k.handle); err != nil && errno.Of(err) != syscall.ESTALE {
			return k.fail(opRename, err)
		}
	}
	return 0
}
