package ionserver

import (
	"context"
	"errors"
	"math"
	"slices"
	"syscall"
	"time"

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
	r := &record{call: c}
	if err := r.begin(); err != nil {
		return nil, err
	}
	for {
		if n, done, err := r.try(); err != nil {
			return nil, err
		} else if done {
			h.appended(c.Handle, r.at+n)
			return &rpc.Frame{Off: r.at, Len: n}, nil
		}
	}
}

// size is that of the file with everything that was written when the call
// began; writes that are at work may count or not.
func (c *call) size() (int64, error) {
	h := c.srv.home
	if _, err := h.collect(c.ctx, c, c.Handle, 0); err != nil {
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

// placeWait is how long a mount may take to hear of the place of its record. It
// answers at once, so one that does not is away, and may ask twice if this node dies too.
const placeWait = time.Second

// record is an APPEND at work. Once its place is fixed it is written there and
// nowhere else, however often: when a stream breaks it is not known what of it has
// been written, and no more so when this node has died meanwhile, and the mount has
// come back with the place that it was told.
type record struct {
	*call
	at    int64
	fixed bool
	parts []part // whose fences are held, in order
}

// part is what of a record one owner has.
type part struct {
	ext     extent.Extent
	token   *token // nil: this node is the owner
	release func()
}

// begin finds a place: that which an earlier life has told, as long as nobody else
// can have appended since; else what may be the end of the file.
func (r *record) begin() (err error) {
	if r.Flags&uint32(ionpb.Flag_PLACED) == 0 {
		if r.at = r.srv.home.tail(r.Handle); r.at == 0 {
			r.at, err = r.size()
		}
		return err
	}
	if !r.srv.inGrace(time.Now()) {
		return errno.New("ionserver.append: too late", syscall.ESTALE)
	}
	r.at, r.fixed = r.Off, true
	return nil
}

// try writes the record at its place. If that is not fixed yet, it becomes so if it
// is the end of the file now that nobody else can write there. Not done means once
// more.
func (r *record) try() (n int64, done bool, err error) {
	defer r.unfence()
	if err := r.fence(); err != nil {
		return 0, false, err
	}
	if !r.fixed {
		if done, err := r.fix(); !done {
			return 0, false, err
		}
	}
	n, err = r.write()
	switch {
	case errors.Is(err, rpc.ErrBroken):
		return 0, false, nil // the fence is gone with the stream
	case n > 0:
		r.srv.home.touched(r.Handle)
		return n, true, nil // an error behind what was written shows at the next try
	}
	return 0, err == nil, err
}

// fix looks whether the place is right, and has the mount know it. The caller holds
// the fences.
func (r *record) fix() (done bool, err error) {
	size, err := r.size()
	if err != nil {
		return false, err
	}
	if size != r.at {
		r.at = size
		return false, nil
	}
	if err := r.tellPlace(); err != nil {
		return false, err
	}
	r.fixed = true
	return true, nil
}

// tail is where the last append to a file ended; 0 if that is not known.
func (h *home) tail(handle uint64) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := h.inodes[handle]; i != nil {
		return i.tail
	}
	return 0
}

// appended takes note of where an append ended, while the file is of interest.
func (h *home) appended(handle uint64, end int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := h.inodes[handle]; i != nil {
		i.tail = end
	}
}

// fence keeps others out of where the record goes, and of what lies behind it in the
// domain: there a mount may have lengthened the file under a lease of pieces. In the
// grace it waits for owners no longer than that lasts: a mount is not to wait for them
// before it has reclaimed.
func (r *record) fence() error {
	s, total := r.srv, int64(r.Data.Len())
	if total > math.MaxInt64-r.at {
		return errno.New("ionserver.append", syscall.EFBIG)
	}
	ctx := r.ctx
	if r.Flags&uint32(ionpb.Flag_PLACED) != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, s.grace.end)
		defer cancel()
	}
	for _, ext := range s.placement.Split(extent.Extent{Off: r.at, Len: total}) {
		p := part{ext: ext}
		ext.Len = min(s.placement.DomainSize()-ext.Off%s.placement.DomainSize(), math.MaxInt64-ext.Off)
		var err error
		if at := s.placement.Owner(r.Handle, ext.Off); at == s.self {
			p.release, err = s.owner.fence(r.call, ctx, fencing{handle: r.Handle, ext: ext})
		} else {
			err = r.wait(func() (err error) {
				p.token, err = s.peers[at].take(ctx, rpc.Frame{Op: ionpb.Op_FENCE, Handle: r.Handle, Off: ext.Off, Len: ext.Len}, nil)
				return err
			})
			p.release = func() { _ = r.wait(func() error { p.token.release(); return nil }) }
		}
		if err != nil {
			return err
		}
		r.parts = append(r.parts, p)
	}
	return nil
}

func (r *record) unfence() {
	for _, p := range slices.Backward(r.parts) {
		p.release()
	}
	r.parts = nil
}

// tellPlace has the mount know where its record goes before anything of it is there,
// so that it is not written twice if this node dies before the mount has its answer.
func (r *record) tellPlace() error {
	f := &rpc.Frame{Op: ionpb.Op_PLACE, Handle: r.Handle, Off: r.at}
	f.Encode(&ionpb.PlaceReq{Id: r.ID})
	return r.wait(func() error {
		ctx, cancel := context.WithTimeout(r.ctx, placeWait)
		defer cancel()
		_, _ = r.sess.push(ctx, f)
		return r.ctx.Err()
	})
}

// write writes the record within its fences, through to the PVFS2 servers.
func (r *record) write() (n int64, err error) {
	pieces := r.Data.Append(nil)
	for _, p := range r.parts {
		head := takePieces(&pieces, p.ext.Len)
		var m int64
		if p.token == nil {
			m, err = r.srv.owner.writeFenced(r.call, r.ctx, r.Handle, p.ext.Off, head, r.Flags)
		} else {
			r.srv.owner.spreads(r.Handle)
			m, err = r.writeAt(p.token, p.ext.Off, head)
		}
		n += m
		if err != nil || m < p.ext.Len {
			break
		}
	}
	return n, err
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
