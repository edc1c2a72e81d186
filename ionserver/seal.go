package ionserver

import (
	"context"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const anyWrite = 0o222

// seal is whether a file's content is closed to changes: a laminated file
// without any write permission.
type seal uint8

const (
	sealUnknown seal = iota
	unsealed
	sealed
)

var errSealed = errno.New("ionserver: sealed", syscall.EPERM)

// sealOf finds out about the seal of a file with attributes a.
func (h *home) sealOf(ctx context.Context, a *pvfs.Attr) (seal, error) {
	if a.Type != wire.TypeMetafile || a.Mode&anyWrite != 0 {
		return unsealed, nil
	}
	m, err := h.consistency(ctx, uint64(a.Handle))
	if err != nil || !seals(a.Mode, m) {
		return unsealed, err
	}
	return sealed, nil
}

// sealLocked is what is known.
func (i *inode) sealLocked() seal {
	if i.shut {
		return sealed
	}
	return i.seal
}

// checkUnsealed fails if the content of an inode must not change.
func (h *home) checkUnsealed(ctx context.Context, handle uint64) error {
	return h.ifUnsealed(ctx, handle, func(*inode) {})
}

// ifUnsealed runs fn under h.mu, at a moment when the content of the inode may
// change; else it fails, as when the inode is being destroyed.
func (h *home) ifUnsealed(ctx context.Context, handle uint64, fn func(i *inode)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.inodeLocked(handle)
	i.pins++ // it must not be forgotten how often its modes changed
	defer func() { i.pins--; h.dropLocked(handle, i) }()
	for i.sealLocked() == sealUnknown {
		modes := i.modes
		h.mu.Unlock()
		s, err := h.askSeal(ctx, handle)
		h.mu.Lock()
		if err != nil {
			return err
		}
		if i.modes == modes {
			i.seal = s
		}
	}
	switch {
	case i.gone:
		return errno.New("ionserver: removed", syscall.ESTALE)
	case i.sealLocked() == sealed:
		return errSealed
	}
	fn(i)
	return nil
}

// askSeal finds out about the seal of an inode.
func (h *home) askSeal(ctx context.Context, handle uint64) (seal, error) {
	a, err := h.srv.pvfs.GetAttr(ctx, pvfs.Handle(handle))
	if err != nil {
		return sealUnknown, stale(err)
	}
	return h.sealOf(ctx, &a)
}

// seals reports whether a file with these permission bits and this mode is
// sealed.
func seals(mode uint32, m ionpb.Consistency) bool {
	return mode&anyWrite == 0 && m == ionpb.Consistency_LAMINATED
}

// sealsAs reports whether a file becomes sealed when its mode changes, as its
// permission bits are. Other mounts have published what they held then.
func (c *call) sealsAs(mode ionpb.Consistency) (bool, error) {
	if mode != ionpb.Consistency_LAMINATED {
		return false, nil
	}
	a, err := c.srv.pvfs.GetAttr(c.ctx, pvfs.Handle(c.Handle))
	if err != nil {
		return false, stale(err)
	}
	if a.Type != wire.TypeMetafile || !seals(a.Mode, mode) {
		return false, nil
	}
	return true, c.recallFrom(extent.ToEnd(0))
}

// shut closes a file's content to changes before the change of attributes that
// seals it: from now on owners that begin to write are refused, and when none
// is at work any more, all have to ask. The caller holds the inode's place in
// ops, exclusively, and has had other mounts publish. reopen follows when the
// attributes tell, or will not.
func (c *call) shut() (reopen func(), err error) {
	h := c.srv.home
	h.setShut(c.Handle, true)
	reopen = func() { h.setShut(c.Handle, false) }
	for {
		busy, err := h.collect(c.ctx, c, c.Handle, 0)
		if err == nil && len(busy) == 0 {
			return reopen, nil
		}
		if err == nil {
			var f fences
			if f, err = h.fence(c, c.Handle, extent.ToEnd(0), 0, busy); err == nil {
				f.release()
			}
		}
		if err != nil {
			reopen()
			return nil, err
		}
	}
}

func (h *home) setShut(handle uint64, shut bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.inodeLocked(handle)
	i.shut, i.seal = shut, sealUnknown
	i.modes++
	h.dropLocked(handle, i)
}
