package ionserver

import (
	"context"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
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

// consistency returns the mode that was set on an inode, Default if none was.
func (h *home) consistency(ctx context.Context, handle uint64) (consistency.Mode, error) {
	m, n, ok := h.facts.consistency(handle)
	if ok {
		return m, nil
	}
	v, err := h.srv.pvfs.GetXattr(ctx, pvfs.Handle(handle), consistency.Xattr)
	switch {
	case errno.Of(err) == syscall.ENODATA:
		m = consistency.Default
	case err != nil:
		return m, stale(err)
	default:
		if m, err = consistency.Parse(string(v)); err != nil { // by another PVFS2 client
			m = consistency.Strong
		}
	}
	h.facts.learn(handle, m, n)
	return m, nil
}

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
	h.mu.Lock()
	var s seal
	var modes uint64
	if i := h.inodes[handle]; i != nil {
		s, modes = i.sealLocked(), i.modes
	}
	h.mu.Unlock()
	if s == sealUnknown {
		a, err := h.srv.pvfs.GetAttr(ctx, pvfs.Handle(handle))
		if err != nil {
			return stale(err)
		}
		if s, err = h.sealOf(ctx, &a); err != nil {
			return err
		}
		h.learnSeal(handle, modes, s)
	}
	if s == sealed {
		return errSealed
	}
	return nil
}

// learnSeal remembers the seal of an inode that is in use, unless something
// that decides about it has changed since.
func (h *home) learnSeal(handle, modes uint64, s seal) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := h.inodes[handle]; i != nil && i.modes == modes && i.seal == sealUnknown {
		i.seal = s
	}
}

// seals reports whether a file with these permission bits and this mode is
// sealed.
func seals(mode uint32, m consistency.Mode) bool {
	return mode&anyWrite == 0 && m == consistency.Laminated
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
		busy, err := h.collect(c.ctx, c, c.Handle, false)
		if err == nil && len(busy) == 0 {
			return reopen, nil
		}
		if err == nil {
			var release func()
			if release, err = h.fence(c, c.Handle, extent.ToEnd(0), false, busy); err == nil {
				release()
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
