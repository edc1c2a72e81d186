package ionclient

import (
	"context"
	"fmt"
	"math"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// Data is what Read returned: Len bytes in pieces that stay valid until
// Release, which must be called once. The zero value is empty.
type Data struct{ rpc.Data }

// Slices is the pieces in order. Nobody may write to them.
func (d Data) Slices() [][]byte { return d.Append(nil) }

// Grant is what else comes with the answer to a READ or a WRITE.
type Grant struct {
	Leases uint32 // LeaseData and LeaseWrite, if given for the file domain
	// Stamp orders the writes that the I/O node was sent. 0: what was written
	// is at the PVFS2 servers, or nothing was.
	Stamp  int64
	Tenure Tenure
}

// grantOf is the grant in a reply.
func grantOf(reply *rpc.Frame, t Tenure) Grant {
	g := Grant{Leases: reply.Flags & (LeaseData | LeaseWrite), Tenure: t}
	if reply.Flags&uint32(ionpb.Flag_STABLE_WRITE) == 0 {
		g.Stamp = reply.Off
	}
	return g
}

// Split cuts e into what one request may carry: pieces within one file domain
// each, and no longer than a frame's payload.
func (c *Client) Split(e extent.Extent) []extent.Extent {
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

func checkRange(op string, e extent.Extent) error {
	if e.Off < 0 || e.Len <= 0 || e.Len > math.MaxInt64-e.Off {
		return errno.Wrap("ionclient."+op, syscall.EINVAL, fmt.Errorf("%d bytes at offset %d", e.Len, e.Off))
	}
	return nil
}

// Read reads e, which must be one that Split returns, or part of one. It
// returns fewer bytes than asked for, perhaps none, only at the end of the file.
// flags are LeaseData, to ask for it.
func (c *Client) Read(ctx context.Context, h uint64, e extent.Extent, flags uint32) (Data, Grant, error) {
	if err := checkRange("Read", e); err != nil {
		return Data{}, Grant{}, err
	}
	var t Tenure
	reply, err := c.do(ctx, request{
		to: owner(h, e.Off), frame: rpc.Frame{Op: ionpb.Op_READ, Handle: h, Off: e.Off, Len: e.Len, Flags: flags}, tenure: &t,
	})
	if err != nil {
		return Data{}, Grant{}, err
	}
	if got := int64(reply.Data.Len()); got > e.Len {
		reply.Data.Release()
		return Data{}, Grant{}, errno.Wrap("ionclient.Read", syscall.EPROTO, fmt.Errorf("asked for %d bytes, got %d", e.Len, got))
	}
	g := grantOf(reply, t)
	g.Stamp = 0
	return Data{reply.Data}, g, nil
}

// Write writes the pieces at off, which together must be one that Split
// returns, or part of one, and returns when every node sees them; flags are
// KillPriv, Sync, Recalled and the leases to ask for. The pieces are not
// touched after the return. If n is less than all there is an error, and the
// first n bytes are written.
func (c *Client) Write(ctx context.Context, h uint64, off int64, pieces [][]byte, flags uint32) (n int64, g Grant, err error) {
	e := extent.Extent{Off: off, Len: lenOf(pieces)}
	if err := checkRange("Write", e); err != nil {
		return 0, Grant{}, err
	}
	var t Tenure
	done := c.writing(h)
	reply, err := c.do(ctx, request{
		to: owner(h, off), frame: rpc.Frame{Op: ionpb.Op_WRITE, Handle: h, Off: off, Flags: flags}, pieces: pieces, tenure: &t,
	})
	if err != nil {
		done(0, 0, ctx.Err() != nil)
		return 0, Grant{}, err
	}
	done(off+wrote(reply, e), reply.Off, false)
	return wrote(reply, e), grantOf(reply, t), shortWrite(reply, e)
}

// wrote is how much of e a reply says was written.
func wrote(reply *rpc.Frame, e extent.Extent) int64 { return min(max(reply.Len, 0), e.Len) }

func shortWrite(reply *rpc.Frame, e extent.Extent) error {
	if reply.Len == e.Len {
		return nil
	}
	return errno.Wrap("ionclient.Write", syscall.EIO, fmt.Errorf("wrote %d of %d bytes", reply.Len, e.Len))
}

func lenOf(pieces [][]byte) (n int64) {
	for _, p := range pieces {
		n += int64(len(p))
	}
	return n
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
	done := c.writing(h)
	reply, err := c.do(ctx, request{
		to: home(h), frame: rpc.Frame{Op: ionpb.Op_APPEND, Handle: h, Flags: flags}, pieces: [][]byte{p},
	})
	done(0, 0, err != nil && ctx.Err() != nil)
	if err != nil {
		return 0, 0, err
	}
	return reply.Off, int(min(max(reply.Len, 0), int64(len(p)))), nil
}

// Commit returns when everything that was written before to the domains of h
// that the owner of off has is at the PVFS2 servers.
func (c *Client) Commit(ctx context.Context, h uint64, off int64) error {
	_, err := c.do(ctx, request{to: owner(h, off), frame: rpc.Frame{Op: ionpb.Op_COMMIT, Handle: h, Off: off}})
	return err
}

// Hold tells the home of h that this mount begins to hold unpublished bytes of
// it, and returns when no other mount relies on the contrary.
func (c *Client) Hold(ctx context.Context, h uint64) error {
	return c.ask(ctx, ionpb.Op_HOLD, h, nil, nil)
}

// Recall has the other mounts publish what they hold unpublished of e.
func (c *Client) Recall(ctx context.Context, h uint64, e extent.Extent) error {
	_, err := c.do(ctx, request{to: home(h), frame: rpc.Frame{Op: ionpb.Op_RECALL, Handle: h, Off: e.Off, Len: e.Len}})
	return err
}
