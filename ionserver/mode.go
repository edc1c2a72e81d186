package ionserver

import (
	"bytes"
	"context"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

// The consistency mode that was chosen for a file or directory is an extended
// attribute in PVFS2 and in no other place. Every change of it goes through
// the home of the inode, which therefore may remember it.

const (
	maxModes = 16384            // inodes remembered
	modeLife = 10 * time.Second // as tools of PVFS2 may change it, too
)

// modeCache is what a home knows of the modes of its inodes; that none was
// chosen is known as well. The zero value is ready.
type modeCache struct {
	mu      sync.Mutex
	known   map[uint64]knownMode // by handle; guarded by mu
	changes uint64               // guarded by mu; of modes by mounts, so far
}

type knownMode struct {
	mode  ionpb.Consistency
	until time.Time
}

// get returns the mode if it is known. Who then asks PVFS2 for it hands changes
// on to learn.
func (m *modeCache) get(handle uint64, now time.Time) (mode ionpb.Consistency, known bool, changes uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.known[handle]
	if !ok || now.After(k.until) {
		return ionpb.Consistency_DEFAULT, false, m.changes
	}
	return k.mode, true, m.changes
}

// learn remembers what PVFS2 said, unless a mode has changed since it was
// asked: then it may be an answer of the past.
func (m *modeCache) learn(handle uint64, mode ionpb.Consistency, changes uint64, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changes == changes {
		m.putLocked(handle, mode, now)
	}
}

// changed takes note that a mode was changed; known is false if it is not sure
// to what.
func (m *modeCache) changed(handle uint64, mode ionpb.Consistency, known bool, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes++
	delete(m.known, handle)
	if known {
		m.putLocked(handle, mode, now)
	}
}

func (m *modeCache) putLocked(handle uint64, mode ionpb.Consistency, now time.Time) {
	if m.known == nil || len(m.known) >= maxModes {
		m.known = make(map[uint64]knownMode)
	}
	m.known[handle] = knownMode{mode, now.Add(modeLife)}
}

// consistency returns the mode that was chosen for an inode of this home. What
// cannot be understood, because another tool or a newer version set it, is
// STRONG, which promises what any other mode does.
func (h *home) consistency(ctx context.Context, handle uint64) (ionpb.Consistency, error) {
	mode, known, changes := h.chosen.get(handle, time.Now())
	if known {
		return mode, nil
	}
	v, err := h.srv.pvfs.GetXattr(ctx, pvfs.Handle(handle), consistency.Xattr)
	switch {
	case errno.Of(err) == syscall.ENODATA:
	case err != nil:
		return 0, stale(err)
	default:
		m, err := consistency.Parse(string(modeText(v)))
		if mode = ionpb.ConsistencyOf(m); err != nil {
			mode = ionpb.Consistency_STRONG
		}
	}
	h.chosen.learn(handle, mode, changes, time.Now())
	return mode, nil
}

// modeText is the value of the attribute without the NUL with which tools of
// PVFS2 end it.
func modeText(v []byte) []byte { return bytes.TrimSuffix(v, []byte{0}) }

// attrAndMode returns the inode's attributes and its mode, which are asked for
// at the same time. The caller holds the inode's place in ops.
func (c *call) attrAndMode() (a pvfs.Attr, mode ionpb.Consistency, err error) {
	h := c.srv.home
	mode, known, _ := h.chosen.get(c.Handle, time.Now())
	if known {
		a, err = h.attr(c, c.Handle)
		return a, mode, err
	}
	var g errgroup.Group
	g.Go(func() (err error) {
		mode, err = h.consistency(c.ctx, c.Handle)
		return err
	})
	a, err = h.attr(c, c.Handle)
	if modeErr := g.Wait(); err == nil {
		err = modeErr
	}
	return a, mode, err
}

// setMode answers SETXATTR of consistency.Xattr.
func (c *call) setMode(m *ionpb.SetXattrReq) (*rpc.Frame, error) {
	mode, err := consistency.Parse(string(modeText(m.Value)))
	if err != nil {
		return nil, errno.Wrap("ionserver.consistency", syscall.EINVAL, err)
	}
	return c.changeMode(ionpb.ConsistencyOf(mode), func(ctx context.Context) error {
		return c.srv.pvfs.SetXattr(ctx, pvfs.Handle(c.Handle), consistency.Xattr, []byte(mode.String()), pvfs.XattrFlags(m.Flags))
	})
}

// removeMode answers REMOVEXATTR of consistency.Xattr.
func (c *call) removeMode() (*rpc.Frame, error) {
	return c.changeMode(ionpb.Consistency_DEFAULT, func(ctx context.Context) error {
		return c.srv.pvfs.RemoveXattr(ctx, pvfs.Handle(c.Handle), consistency.Xattr)
	})
}

// changeMode runs fn, which makes the inode's mode what is given.
func (c *call) changeMode(mode ionpb.Consistency, fn func(context.Context) error) (*rpc.Frame, error) {
	closes, err := c.sealsAs(mode)
	if err != nil {
		return nil, err
	}
	return c.changeXattr(func(ctx context.Context) error {
		if closes {
			reopen, err := c.shut()
			if err != nil {
				return err
			}
			defer reopen()
		}
		err := fn(ctx)
		c.srv.home.chosen.changed(c.Handle, mode, err == nil, time.Now())
		c.srv.home.changed(c.Handle, true, false) // it may be sealed or unsealed by that
		return err
	})
}

// inherited is the mode of a file that is made under a name in the directory of
// the call, whose home this is. A file whose name says that it is strong
// inherits nothing, as every mount knows that.
func (c *call) inherited(name string) (ionpb.Consistency, error) {
	if _, ok := consistency.Auto(name); ok {
		return ionpb.Consistency_DEFAULT, nil
	}
	return c.srv.home.consistency(c.ctx, c.Handle)
}

// modeXattrs is how a new inode is given its mode; none without a choice.
func modeXattrs(mode ionpb.Consistency) []pvfs.Xattr {
	if mode == ionpb.Consistency_DEFAULT {
		return nil
	}
	return []pvfs.Xattr{{Name: consistency.Xattr, Value: []byte(mode.Mode().String())}}
}
