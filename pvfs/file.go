package pvfs

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/pvfs/dist"
	"github.com/zoidfs/zoidfs/pvfs/striping"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// File does I/O on one metafile. It remembers where the data lie and notices
// when a stuffed file was given all its datafiles, by whomever.
type File struct {
	c     *Client
	h     Handle
	place atomic.Pointer[placement] // nil: the attributes were not those of a file
}

// File returns a File for the metafile that a describes. With other attributes
// every method of it fails with EINVAL. From then on c knows that the object is no
// directory.
func (c *Client) File(a Attr) *File {
	f := &File{c: c, h: a.Handle}
	if a.Layout != nil {
		c.dirs.put(a.Handle, &wire.Attr{Type: wire.TypeMetafile})
		if p, err := newPlacement(a.Layout); err == nil {
			f.place.Store(p)
		}
	}
	return f
}

// Handle is the metafile's handle.
func (f *File) Handle() Handle { return f.h }

// Layout is where the data lie as far as f knows; nil if it is no file.
func (f *File) Layout() *Layout {
	if p := f.place.Load(); p != nil {
		return &p.Layout
	}
	return nil
}

// Touches returns how many datafiles hold bytes of exts, as far as f knows,
// which is to how many servers a request for them goes; 0 if it is no file.
func (f *File) Touches(exts []extent.Extent) int {
	p := f.place.Load()
	if p == nil {
		return 0
	}
	touched := make([]bool, len(p.DFiles))
	n := 0
	for _, e := range exts {
		for n < len(touched) && !e.Empty() {
			var r dist.Run
			r, e = dist.Next(p.dist, e)
			if !touched[r.Server] {
				touched[r.Server] = true
				n++
			}
		}
	}
	return n
}

func (f *File) placement(op string) (*placement, error) {
	p := f.place.Load()
	if p == nil {
		return nil, errno.Wrap("pvfs."+op, syscall.EINVAL, fmt.Errorf("object %d is no file with a known layout", f.h))
	}
	return p, nil
}

// ReadAt fills bufs, one after the other, with the bytes from off on. n is less
// than their sum only at the end of the file; there is no io.EOF. Holes read as
// zeros. What lies behind the n bytes in bufs is undefined.
func (f *File) ReadAt(ctx context.Context, bufs [][]byte, off int64) (n int, err error) {
	w, err := contiguous("ReadAt", bufs, off)
	if err != nil || w.empty() {
		return 0, err
	}
	m, err := f.read(ctx, "ReadAt", &w)
	return int(m), err
}

// WriteAt writes bufs, one after the other, from off on. n is their sum unless
// there is an error; then any part of it may have been written. bufs are not
// copied and must not change until WriteAt returns. EFBIG if the file's
// distribution does not count that far, see striping.MaxSize.
func (f *File) WriteAt(ctx context.Context, bufs [][]byte, off int64) (n int, err error) {
	w, err := contiguous("WriteAt", bufs, off)
	if err != nil || w.empty() {
		return 0, err
	}
	m, err := f.write(ctx, "WriteAt", &w)
	return int(m), err
}

// ReadExtents reads exts, one after the other, into bufs, one after the other;
// both have the same number of bytes in all, else EINVAL. exts may come in any
// order and overlap; no byte is asked of a server twice. n is how many of the
// bytes lie below the end of the file; what belongs to the others is undefined.
//
// Each server that has some of the bytes gets one request, or, if the extents
// have no pattern, one for every wire.MaxNested of them or more, see describe.
func (f *File) ReadExtents(ctx context.Context, exts []extent.Extent, bufs [][]byte) (n int64, err error) {
	w, err := noncontiguous("ReadExtents", exts, bufs, true)
	if err != nil || w.empty() {
		return 0, err
	}
	return f.read(ctx, "ReadExtents", &w)
}

// WriteExtents writes bufs to exts, of which all that ReadExtents says is true,
// but they must not overlap, else EINVAL. The bytes between them are not touched.
func (f *File) WriteExtents(ctx context.Context, exts []extent.Extent, bufs [][]byte) (n int64, err error) {
	w, err := noncontiguous("WriteExtents", exts, bufs, false)
	if err != nil || w.empty() {
		return 0, err
	}
	return f.write(ctx, "WriteExtents", &w)
}

func (f *File) write(ctx context.Context, op string, w *wanted) (int64, error) {
	p, err := f.placement(op)
	if err != nil {
		return 0, err
	}
	if w.end() > p.most {
		return 0, tooLarge(op, p)
	}
	if p.Stuffed && w.end() > p.limit {
		if p, err = f.unstuff(ctx); err != nil {
			return 0, err
		}
	}
	t := newTransfer(ctx, f, p, wire.IOWrite)
	defer t.free()
	if err := t.plan(w); err != nil {
		return 0, err
	}
	if err := t.run(ctx); err != nil {
		return 0, err
	}
	n := t.moved()
	f.c.moved(ctx, wire.IOWrite, n)
	return n, nil
}

func (f *File) read(ctx context.Context, op string, w *wanted) (int64, error) {
	for {
		p, err := f.placement(op)
		if err != nil {
			return 0, err
		}
		n, again, err := f.readOnce(ctx, p, w)
		if err != nil || !again {
			if err == nil {
				w.repeat()
				f.c.moved(ctx, wire.IORead, n)
			}
			return n, err
		}
	}
}

// readOnce reads with the layout that we know. again means that the file turned
// out to be no longer stuffed, and the data may be elsewhere.
func (f *File) readOnce(ctx context.Context, p *placement, w *wanted) (n int64, again bool, err error) {
	t := newTransfer(ctx, f, p, wire.IORead)
	defer t.free()
	if err := t.plan(w); err != nil {
		return 0, false, err
	}
	if err := t.run(ctx); err != nil {
		return 0, false, err
	}
	// Behind the first strip the first datafile of a file that is no longer
	// stuffed has bytes from elsewhere in the file.
	end := w.end()
	if trusted := !p.Stuffed || end <= p.limit; trusted && t.moved() == sum(w.bufs) {
		return w.below(end), false, nil
	}
	if p.Stuffed {
		now, err := f.refresh(ctx)
		if err != nil || !now.Stuffed {
			return 0, err == nil, err
		}
	}
	eof, err := t.endOfFile(ctx, end)
	if err != nil {
		return 0, false, err
	}
	t.zeroHoles(eof)
	return w.below(eof), false, nil
}

// tooLarge is the error of a change behind what the distribution can count.
func tooLarge(op string, p *placement) error {
	return errno.Wrap("pvfs."+op, syscall.EFBIG, fmt.Errorf("a file of %s %s holds up to %d bytes", p.Layout.Dist.Name, striping.Params(&p.Layout.Dist), p.most))
}

// refresh asks where the data lie. One request.
func (f *File) refresh(ctx context.Context) (*placement, error) {
	w, err := f.c.getattr(ctx, f.h, layoutMask)
	if err != nil {
		return nil, err
	}
	return f.learn(&w)
}

// learn takes over the layout in w.
func (f *File) learn(w *wire.Attr) (*placement, error) {
	l := layoutOf(w)
	if l == nil {
		return nil, protocolError("file %d without a layout", f.h)
	}
	p, err := newPlacement(l)
	if err != nil {
		return nil, err
	}
	f.place.Store(p)
	return p, nil
}

// unstuff gives the file all its datafiles. One request; doing it twice does no
// harm.
func (f *File) unstuff(ctx context.Context) (*placement, error) {
	const mask = wire.AttrType | wire.AttrDist | wire.AttrDFiles | wire.AttrMirrors | wire.AttrCapability
	var resp wire.UnstuffResp
	req := &wire.UnstuffReq{Handle: f.h, FSID: f.c.fsid, Mask: mask, Cred: f.c.cred()}
	if _, err := f.c.ownerTell(ctx, req, &resp, f.h, f.h); err != nil {
		return nil, err
	}
	p, err := f.learn(&resp.Attr)
	if err == nil && p.Stuffed {
		err = protocolError("file %d is stuffed after unstuff", f.h)
	}
	return p, err
}

// Size returns the size of the file in bytes. One request.
func (f *File) Size(ctx context.Context) (int64, error) {
	p, err := f.placement("Size")
	if err != nil {
		return 0, err
	}
	if p.Stuffed {
		w, err := f.c.getattr(ctx, f.h, layoutMask)
		if err != nil {
			return 0, err
		}
		if p, err = f.learn(&w); err != nil || p.Stuffed {
			return int64(w.StuffedSize), err
		}
	}
	return f.c.sizeOf(ctx, &p.Layout)
}

// Truncate sets the size of the file: one request to each datafile, or two for
// a small file. Bytes between the old and a larger new size are a hole. It must
// not run at the same time as writes behind the smaller size.
func (f *File) Truncate(ctx context.Context, size int64) error {
	p, err := f.placement("Truncate")
	if err != nil {
		return err
	}
	switch {
	case size < 0:
		return errno.Wrap("pvfs.Truncate", syscall.EINVAL, fmt.Errorf("size %d", size))
	case size > p.most:
		return tooLarge("Truncate", p)
	}
	if p.Stuffed {
		if p, err = f.refresh(ctx); err != nil {
			return err
		}
	}
	if p.Stuffed && size > p.limit {
		if p, err = f.unstuff(ctx); err != nil {
			return err
		}
	}
	calls := make([]*call, len(p.DFiles))
	for i, d := range p.DFiles {
		k := f.c.newCall(accountOf(ctx), wire.OpTruncate, kindPlain, nil)
		req := &wire.TruncateReq{Handle: d, FSID: f.c.fsid, Size: p.dist.PhysSize(i, size)}
		if err := k.encode(req, f.h, d); err != nil {
			return err
		}
		calls[i] = k
	}
	return f.c.runAll(ctx, calls, p.DFiles)
}

// Flush makes all data and metadata of the file durable: one request to each
// datafile and one to the metafile.
func (f *File) Flush(ctx context.Context) error {
	p, err := f.placement("Flush")
	if err != nil {
		return err
	}
	return f.c.flushAll(ctx, append([]Handle{f.h}, p.DFiles...))
}

// flushAll makes targets durable, all at once.
func (c *Client) flushAll(ctx context.Context, targets []Handle) error {
	calls := make([]*call, len(targets))
	for i, h := range targets {
		k := c.newCall(accountOf(ctx), wire.OpFlush, kindPlain, nil)
		if err := k.encodeNull(&wire.FlushReq{Handle: h, FSID: c.fsid}); err != nil {
			return err
		}
		calls[i] = k
	}
	return c.runAll(ctx, calls, targets)
}

// runAll sends calls[i] to the owner of targets[i], all at once, and frees them.
func (c *Client) runAll(ctx context.Context, calls []*call, targets []Handle) error {
	servers := make([]*server, len(calls))
	for i := range calls {
		s, err := c.owner(targets[i])
		if err != nil {
			return err
		}
		servers[i] = s
	}
	for i, k := range calls {
		servers[i].start(k)
	}
	var first error
	for i, k := range calls {
		reusable, err := servers[i].finish(ctx, k)
		if err == nil {
			err = k.status.Err("pvfs." + k.op.String())
		}
		if first == nil {
			first = err
		}
		if reusable {
			k.free()
		}
	}
	return first
}
