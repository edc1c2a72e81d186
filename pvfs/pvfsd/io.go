package pvfsd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// smallReadRoom is what a SMALL_IO response can hold besides its 40 bytes of head.
const smallReadRoom = wire.MaxEager - 40

// smallExtents is how many extents of a datafile a SMALL_IO may have. Real
// servers pass over the rest and say nothing. Source: OrangeFS
// src/server/small-io.sm.
const smallExtents = 64

// needs is the right that a transfer in this direction takes.
func needs(dir wire.IOType) wire.OpMask {
	if dir == wire.IOWrite {
		return wire.MayWrite
	}
	return wire.MayRead
}

// beginTransfer checks what SMALL_IO and IO have in common and returns the
// size of the datafile.
func (s *Server) beginTransfer(hdr *wire.RequestHeader, fsID wire.FSID, h wire.Handle, dir wire.IOType) (int64, error) {
	if err := s.checkFSID(fsID); err != nil {
		return 0, err
	}
	if err := s.checkHinted(hdr, needs(dir)); err != nil {
		return 0, err
	}
	if err := s.store.view(func(t *txn) error { return t.isDatafile(h) }); err != nil {
		return 0, err
	}
	return s.streams.size(h)
}

// smallIO carries out a SMALL_IO request and responds.
func (c *conn) smallIO(tag int64, hdr wire.RequestHeader, req *wire.SmallIOReq) {
	resp, data, err := c.s.transferSmall(&hdr, req)
	if err != nil {
		c.respond(tag, wire.OpSmallIO, nil, err)
		return
	}
	frame := wire.AppendResponseFrame(make([]byte, 0, 72), tag, wire.OpSmallIO, 0, resp)
	m := message{head: frame, reply: c.replies}
	if data != nil {
		m.data, m.done = *data, func() { c.s.bufs.Put(data) }
	}
	c.queue.add(m)
}

// transferSmall does the I/O of a SMALL_IO request. The data read are in a
// buffer of the pool.
func (s *Server) transferSmall(hdr *wire.RequestHeader, req *wire.SmallIOReq) (*wire.SmallIOResp, *[]byte, error) {
	size, err := s.beginTransfer(hdr, req.FSID, req.Handle, req.Dir)
	if err != nil {
		return nil, nil, err
	}
	r, err := newRuns(&req.Dist, &req.Type, req.ServerNr, req.ServerCt, req.Offset, req.Aggregate)
	if err != nil {
		return nil, nil, err
	}
	r.most = smallExtents
	resp := &wire.SmallIOResp{Dir: req.Dir, BstreamSize: size}
	if req.Dir == wire.IOWrite {
		segs, n, err := r.next(nil, int64(len(req.Data)), math.MaxInt64)
		if err == nil && n != int64(len(req.Data)) {
			err = errno.Wrap("pvfsd.io", syscall.EINVAL, fmt.Errorf("%d bytes of data for %d of the datafile", len(req.Data), n))
		}
		if err == nil && n > 0 {
			err = s.writeSegments(req.Handle, segs, req.Data)
		}
		if err == nil && s.syncData() {
			err = s.streams.flush(req.Handle)
		}
		resp.Result = n
		s.stats.bytesWritten.Add(n)
		return resp, nil, err
	}
	segs, n, err := r.next(nil, smallReadRoom, size)
	if err != nil {
		return nil, nil, err
	}
	if more, total, err := r.next(nil, 1, size); err != nil || len(more) > 0 {
		return nil, nil, errors.Join(err, errno.Wrap("pvfsd.io", syscall.EMSGSIZE, fmt.Errorf("small read of more than %d bytes", n+total-1)))
	}
	if n == 0 {
		return resp, nil, nil
	}
	b := s.bufs.Get(int(n))
	if err := s.readSegments(req.Handle, segs, *b); err != nil {
		s.bufs.Put(b)
		return nil, nil, err
	}
	resp.Result = n
	s.stats.bytesRead.Add(n)
	return resp, b, nil
}

// writeSegments writes data to the extents segs of a datafile, in order; their
// lengths add up to len(data).
func (s *Server) writeSegments(h wire.Handle, segs []extent.Extent, data []byte) error {
	return s.streams.write(h, func(f *os.File) error {
		for _, e := range segs {
			if _, err := f.WriteAt(data[:e.Len], e.Off); err != nil {
				return fmt.Errorf("write bytestream: %w", err)
			}
			data = data[e.Len:]
		}
		return nil
	})
}

// readSegments fills p from the extents segs of a datafile, in order; their
// lengths add up to len(p). What is not there reads as zeros.
func (s *Server) readSegments(h wire.Handle, segs []extent.Extent, p []byte) error {
	return s.streams.read(h, func(f *os.File) error {
		for _, e := range segs {
			n := 0
			if f != nil {
				var err error
				n, err = f.ReadAt(p[:e.Len], e.Off)
				if err != nil && !errors.Is(err, io.EOF) {
					return fmt.Errorf("read bytestream: %w", err)
				}
			}
			clear(p[n:e.Len])
			p = p[e.Len:]
		}
		return nil
	})
}

// startIO starts an IO request. The reader calls it, so that the flow of a
// write is known before its data can arrive.
func (c *conn) startIO(ctx context.Context, tag int64, hdr wire.RequestHeader, req *wire.IOReq) error {
	if req.Dir == wire.IORead {
		c.ops.do(func() { c.readFlow(ctx, tag, &hdr, req) })
		return nil
	}
	f := &writeFlow{c: c, tag: tag, h: req.Handle}
	known, full := c.flows.add(f)
	switch {
	case known:
		return errno.Wrap("pvfsd.io", syscall.EPROTO, fmt.Errorf("tag %d is in use", tag))
	case full:
		c.respond(tag, wire.OpIO, nil, errno.New("pvfsd.io", syscall.ENOBUFS))
		return nil
	}
	c.ops.do(func() { f.begin(&hdr, req) })
	return nil
}

// readFlow answers a read and sends its data, in messages of exactly the flow
// buffer's size but for the last.
func (c *conn) readFlow(ctx context.Context, tag int64, hdr *wire.RequestHeader, req *wire.IOReq) {
	size, err := c.s.beginTransfer(hdr, req.FSID, req.Handle, req.Dir)
	var r *runs
	if err == nil {
		r, err = newRuns(&req.Dist, &req.Type, req.ServerNr, req.ServerCt, req.Offset, req.Aggregate)
	}
	if err == nil && size > 0 {
		_, err = r.peek() // an absurd type is better refused than broken off
	}
	if err != nil {
		c.respond(tag, wire.OpIO, nil, err)
		return
	}
	c.respond(tag, wire.OpIO, &wire.IOResp{BstreamSize: size}, nil)
	if size == 0 {
		return
	}
	if err := c.sendRuns(ctx, tag, req.Handle, r, size); err != nil && ctx.Err() == nil {
		// The client counts on data that will not come: only the end of the
		// connection tells it.
		c.s.log.Warn("read broken off", "handle", uint64(req.Handle), "err", err)
		c.nc.Close()
	}
}

func (c *conn) sendRuns(ctx context.Context, tag int64, h wire.Handle, r *runs, eof int64) error {
	var segs []extent.Extent
	for {
		if err := c.out.acquire(ctx); err != nil {
			return err
		}
		var n int64
		var err error
		segs, n, err = r.next(segs, int64(c.s.flowBuffer), eof)
		if err != nil || n == 0 {
			c.out.release()
			return err
		}
		b := c.s.bufs.Get(int(n))
		done := func() {
			c.s.bufs.Put(b)
			c.out.release()
		}
		if err := c.s.readSegments(h, segs, *b); err != nil {
			done()
			return err
		}
		hdr := wire.Header{Mode: wire.ModeFor(int(n)), Tag: tag, Size: n}
		c.s.stats.bytesRead.Add(n)
		c.queue.add(message{head: hdr.Append(make([]byte, 0, wire.HeaderSize)), data: *b, done: done})
		if n < int64(c.s.flowBuffer) {
			return nil
		}
	}
}
