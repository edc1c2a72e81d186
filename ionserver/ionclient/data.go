package ionclient

import (
	"context"
	"fmt"
	"math"
	"sync"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// Data is what Read returned: Len bytes in pieces that stay valid until
// Release, which must be called once.
type Data struct {
	parts  []rpc.Data
	slices [][]byte
	n      int
}

// Len is the number of bytes.
func (d *Data) Len() int { return d.n }

// Slices is the pieces in order. Nobody may write to them.
func (d *Data) Slices() [][]byte { return d.slices }

// CopyTo copies as much as fits into p and returns the number of bytes.
func (d *Data) CopyTo(p []byte) int {
	n := 0
	for _, s := range d.slices {
		n += copy(p[n:], s)
	}
	return n
}

// Release gives the memory back.
func (d *Data) Release() {
	for _, p := range d.parts {
		p.Release()
	}
	d.parts, d.slices, d.n = nil, nil, 0
}

// pieces cuts e into what one request may carry: within one file domain, and
// no longer than a frame's payload.
func (c *Client) pieces(e extent.Extent) []extent.Extent {
	p := c.current.Load().place
	if e.Len <= rpc.MaxData && e.Off%p.DomainSize()+e.Len <= p.DomainSize() {
		return []extent.Extent{e}
	}
	var out []extent.Extent
	for _, e := range p.Split(e) {
		for ; e.Len > rpc.MaxData; e.Off, e.Len = e.Off+rpc.MaxData, e.Len-rpc.MaxData {
			out = append(out, extent.Extent{Off: e.Off, Len: rpc.MaxData})
		}
		out = append(out, e)
	}
	return out
}

// each runs f for every index below n, at once if there are several.
func each(n int, f func(i int)) {
	if n == 1 {
		f(0)
		return
	}
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { f(i) })
	}
	group.Wait()
}

func checkRange(op string, off int64, n int) error {
	if off < 0 || n < 0 || int64(n) > math.MaxInt64-off {
		return errno.Wrap("ionclient."+op, syscall.EINVAL, fmt.Errorf("%d bytes at offset %d", n, off))
	}
	return nil
}

// Read reads n bytes at off; fewer, perhaps none, only at the end of the file.
func (c *Client) Read(ctx context.Context, h uint64, off int64, n int) (*Data, error) {
	if err := checkRange("Read", off, n); err != nil {
		return nil, err
	}
	d := new(Data)
	if n == 0 {
		return d, nil
	}
	pieces := c.pieces(extent.Extent{Off: off, Len: int64(n)})
	parts, errs := make([]rpc.Data, len(pieces)), make([]error, len(pieces))
	each(len(pieces), func(i int) {
		e := pieces[i]
		reply, err := c.do(ctx, request{to: owner(h, e.Off), frame: rpc.Frame{Op: ionpb.Op_READ, Handle: h, Off: e.Off, Len: e.Len}})
		if err != nil {
			errs[i] = err
			return
		}
		parts[i] = reply.Data
		if got := int64(reply.Data.Len()); got > e.Len {
			errs[i] = errno.Wrap("ionclient.Read", syscall.EPROTO, fmt.Errorf("asked for %d bytes, got %d", e.Len, got))
		}
	})
	d.parts = parts
	for i, part := range parts {
		if errs[i] != nil {
			d.Release()
			return nil, errs[i]
		}
		d.slices = part.Append(d.slices)
		d.n += part.Len()
		if int64(part.Len()) < pieces[i].Len { // the end; what others read beyond came later
			break
		}
	}
	return d, nil
}

// Write writes p at off and returns when every node sees it; flags are
// KillPriv and Sync. p is not touched after the return. If n < len(p) there
// is an error, and the first n bytes, perhaps others too, are written.
func (c *Client) Write(ctx context.Context, h uint64, off int64, p []byte, flags uint32) (n int, err error) {
	if err := checkRange("Write", off, len(p)); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	pieces := c.pieces(extent.Extent{Off: off, Len: int64(len(p))})
	wrote, errs := make([]int, len(pieces)), make([]error, len(pieces))
	each(len(pieces), func(i int) {
		e := pieces[i]
		wrote[i], errs[i] = c.writePiece(ctx, h, e, p[e.Off-off:][:e.Len], flags)
	})
	for i, e := range pieces {
		n += wrote[i]
		if errs[i] != nil || int64(wrote[i]) < e.Len {
			return n, errs[i]
		}
	}
	return n, nil
}

func (c *Client) writePiece(ctx context.Context, h uint64, e extent.Extent, p []byte, flags uint32) (int, error) {
	reply, err := c.do(ctx, request{
		to: owner(h, e.Off), frame: rpc.Frame{Op: ionpb.Op_WRITE, Handle: h, Off: e.Off, Flags: flags}, payload: p,
	})
	if err != nil {
		return 0, err
	}
	if reply.Len != e.Len {
		n := int(min(max(reply.Len, 0), e.Len))
		return n, errno.Wrap("ionclient.Write", syscall.EIO, fmt.Errorf("wrote %d of %d bytes", reply.Len, e.Len))
	}
	return int(reply.Len), nil
}

// Append writes p at the end of the file, wherever that is when it is carried
// out, and returns where that was; flags are as for Write. p is not touched
// after the return. At most rpc.MaxData bytes are appended in one piece: of
// more, n bytes are, and the caller goes on.
func (c *Client) Append(ctx context.Context, h uint64, p []byte, flags uint32) (off int64, n int, err error) {
	if len(p) == 0 {
		return 0, 0, nil
	}
	p = p[:min(len(p), rpc.MaxData)]
	reply, err := c.do(ctx, request{
		to: home(h), frame: rpc.Frame{Op: ionpb.Op_APPEND, Handle: h, Flags: flags}, payload: p,
	})
	if err != nil {
		return 0, 0, err
	}
	return reply.Off, int(min(max(reply.Len, 0), int64(len(p)))), nil
}
