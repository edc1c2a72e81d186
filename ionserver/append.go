package ionserver

import (
	"errors"
	"math"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// append answers APPEND: the offset is chosen here, under a fence where the
// bytes will lie.
func (c *call) append() (*rpc.Frame, error) {
	if err := c.checkHome(); err != nil {
		return nil, err
	}
	h := c.srv.home
	if c.Flags&uint32(ionpb.Flag_KILL_PRIV) != 0 {
		if err := h.announce(c, c.Handle, c.srv.self, 0, true); err != nil {
			return nil, err
		}
	}
	end, err := c.alter(c.Handle, c.mount(), attrLease)
	if err != nil {
		return nil, err
	}
	defer end()
	release, err := lockKey(c, c.ctx, &h.ops, c.Handle, true)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := h.checkUnsealed(c.ctx, c.Handle); err != nil {
		return nil, err
	}
	var off int64
	var n int64
	for done := false; !done; {
		size, err := c.size()
		if err != nil {
			return nil, err
		}
		if off, n, done, err = c.appendAt(size); err != nil {
			return nil, err
		}
	}
	return &rpc.Frame{Off: off, Len: n}, nil
}

// size is that of the file with everything that was written when the call
// began; writes that are at work may count or not.
func (c *call) size() (int64, error) {
	h := c.srv.home
	if _, err := h.collect(c.ctx, c, c.Handle, 0, false); err != nil {
		return 0, err
	}
	a, err := c.srv.pvfs.GetAttr(c.ctx, pvfs.Handle(c.Handle))
	switch {
	case err != nil:
		return 0, stale(err)
	case a.Type == wire.TypeDirectory:
		return 0, errno.New("ionserver.append", syscall.EISDIR)
	case a.Type != wire.TypeMetafile:
		return 0, errno.New("ionserver.append", syscall.EINVAL)
	}
	h.overlay(&a)
	return a.Size, nil
}

// appendAt writes the call's data at size, if that is still the size once
// nobody else can write there; else done is false.
func (c *call) appendAt(size int64) (off, n int64, done bool, err error) {
	s := c.srv
	total := int64(c.Data.Len())
	if total > math.MaxInt64-size {
		return 0, 0, false, errno.New("ionserver.append", syscall.EFBIG)
	}
	type part struct {
		ext   extent.Extent
		owner int
		token *token
	}
	var parts []part
	defer func() {
		for _, p := range parts {
			if p.token != nil {
				_ = c.wait(func() error { p.token.release(); return nil })
			}
		}
	}()
	for _, ext := range s.placement.Split(extent.Extent{Off: size, Len: total}) {
		p := part{ext: ext, owner: s.placement.Owner(c.Handle, ext.Off)}
		if p.owner == s.self {
			release, err := s.owner.fence(c, c.ctx, fencing{handle: c.Handle, ext: ext})
			if err != nil {
				return 0, 0, false, err
			}
			defer release()
		} else if err := c.wait(func() (err error) {
			p.token, err = s.peers[p.owner].take(c.ctx, rpc.Frame{Op: ionpb.Op_FENCE, Handle: c.Handle, Off: ext.Off, Len: ext.Len}, nil)
			return err
		}); err != nil {
			return 0, 0, false, err
		}
		parts = append(parts, p)
	}
	if now, err := c.size(); err != nil || now != size {
		return 0, 0, false, err
	}
	pieces := c.Data.Append(nil)
	for _, p := range parts {
		head := takePieces(&pieces, p.ext.Len)
		var m int64
		if p.token == nil {
			m, err = s.owner.writeFenced(c, c.ctx, c.Handle, p.ext.Off, head, c.Flags)
		} else {
			s.owner.spreads(c.Handle)
			m, err = c.writeAt(p.token, p.ext.Off, head)
		}
		n += m
		if err != nil || m < p.ext.Len {
			break
		}
	}
	if n > 0 {
		s.home.touched(c.Handle)
		return size, n, true, nil // an error behind what was written shows at the next try
	}
	if errors.Is(err, rpc.ErrBroken) {
		return 0, 0, false, nil // the fence is gone with the stream; try again
	}
	return size, 0, err == nil, err
}

// writeAt writes at another owner, within a fence there.
func (c *call) writeAt(t *token, off int64, pieces [][]byte) (n int64, err error) {
	err = c.wait(func() error {
		b := c.srv.pool.New(int(piecesLen(pieces)))
		at := b.Bytes()
		for _, p := range pieces {
			at = at[copy(at, p):]
		}
		r, err := t.link.callOn(c.ctx, t.conn, rpc.Frame{Op: ionpb.Op_FENCED_WRITE, Handle: c.Handle, Off: off, Flags: c.Flags, Data: rpc.Pooled(b)},
			&ionpb.TokenReq{Token: t.id}, nil)
		if err == nil {
			n = r.Len
		}
		return err
	})
	return n, err
}

func piecesLen(pieces [][]byte) (n int64) {
	for _, p := range pieces {
		n += int64(len(p))
	}
	return n
}

// takePieces cuts the first n bytes off pieces.
func takePieces(pieces *[][]byte, n int64) (head [][]byte) {
	for n > 0 && len(*pieces) > 0 {
		p := (*pieces)[0]
		if int64(len(p)) > n {
			(*pieces)[0] = p[n:]
			return append(head, p[:n])
		}
		head = append(head, p)
		n -= int64(len(p))
		*pieces = (*pieces)[1:]
	}
	return head
}
