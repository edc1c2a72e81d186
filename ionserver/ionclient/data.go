package ionclient

import (
	"context"
	"fmt"
	"math"
	"syscall"
	"time"

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
	Leases uint32 // LeaseData and LeaseWrite, if given for the file domain, or LeasePieces
	// Pieces is what LeasePieces was given for, besides what it was before: what
	// was written and wished for. Sorted, none touch.
	Pieces []extent.Extent
	// Stamp orders the writes that the I/O node was sent. 0: what was written
	// is at the PVFS2 servers, or nothing was.
	Stamp  int64
	Tenure Tenure
	Race   *Race // what the I/O node knows of, if a guard asked; nil: nothing
}

// Race is an access of another mount to the same bytes that nothing has
// synchronised with ours.
type Race struct {
	Wrote            bool // else it has read them
	Ext              extent.Extent
	Node, Mountpoint string // of the other mount
}

// guardKey is the key of a guard in a context.
type guardKey struct{}

// Guarded is ctx for a READ or a WRITE of which races are to be told: the reader's
// view of the file is from the time since, zero if it has none, or the bytes were
// written then at the latest.
func Guarded(ctx context.Context, since time.Time) context.Context {
	return &guarded{ctx, since}
}

// guarded is a context with a time, in one piece of memory: every read has one.
type guarded struct {
	context.Context
	since time.Time
}

// Value is itself for guardKey.
func (g *guarded) Value(key any) any {
	if key == (guardKey{}) {
		return g
	}
	return g.Context.Value(key)
}

// wishKey is the key of a wish in a context.
type wishKey struct{}

// Wishing is ctx for a WRITE with LeasePieces, of a mount that will write wish next
// in the same file domain: sorted, none touch, at most MaxPieces. It asks for a lease
// on these, too.
func Wishing(ctx context.Context, wish []extent.Extent) context.Context {
	return context.WithValue(ctx, wishKey{}, wish)
}

// wish adds to a WRITE of exts what ctx wishes for, and returns all that it asks
// for a lease on.
func wish(ctx context.Context, f *rpc.Frame, exts []extent.Extent) []extent.Extent {
	if f.Flags&LeasePieces == 0 {
		return nil
	}
	next, ok := ctx.Value(wishKey{}).([]extent.Extent)
	if !ok || len(next) == 0 {
		return exts
	}
	f.Len = extent.Hull(exts).Len
	p := ionpb.AllPiecesOf(exts)
	p.Wish = ionpb.AllPiecesOf(next)
	f.Encode(p)
	return extent.Normalize(append(next[:len(next):len(next)], exts...))
}

// guard asks for races if ctx is Guarded.
func guard(ctx context.Context, f *rpc.Frame) {
	g, ok := ctx.Value(guardKey{}).(*guarded)
	if !ok {
		return
	}
	f.Flags |= uint32(ionpb.Flag_GUARD)
	if !g.since.IsZero() {
		f.Age = uint64(max(time.Since(g.since).Microseconds(), 1))
	}
}

// grantOf is the grant in a reply.
func grantOf(reply *rpc.Frame, t Tenure) Grant {
	g := Grant{Leases: reply.Flags & DataLeases, Tenure: t}
	if reply.Flags&uint32(ionpb.Flag_STABLE_WRITE) == 0 {
		g.Stamp = reply.Off
	}
	var r ionpb.Race
	if reply.Flags&uint32(ionpb.Flag_RACE) != 0 && reply.Decode(&r) == nil {
		g.Race = &Race{Wrote: r.Wrote, Ext: extent.Extent{Off: r.Off, Len: r.Len}, Node: r.Node, Mountpoint: r.Mountpoint}
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

// MaxPieces is how many extents one request may name.
const MaxPieces = ionpb.MaxPieces

// hullOf is the extent from the first to the last of exts, which must be
// sorted, and none touch or be empty; there are at most MaxPieces.
func hullOf(op string, exts []extent.Extent) (extent.Extent, error) {
	if len(exts) == 0 || len(exts) > MaxPieces {
		return extent.Extent{}, errno.Wrap("ionclient."+op, syscall.EINVAL, fmt.Errorf("%d extents", len(exts)))
	}
	if err := checkRange(op, exts[len(exts)-1]); err != nil {
		return extent.Extent{}, err
	}
	hull := extent.Hull(exts)
	return hull, checkRange(op, hull)
}

// dataFrame is the READ, WRITE or REPLAY of exts, without its body if it needs a
// message of its own.
func (c *Client) dataFrame(op ionpb.Op, h uint64, exts []extent.Extent, hull extent.Extent, flags uint32) rpc.Frame {
	f := rpc.Frame{Op: op, Handle: h, Off: hull.Off, Flags: flags, Buffer: uint64(c.jobs.bufferOf(h))}
	if op == ionpb.Op_READ || len(exts) > 1 {
		f.Len = hull.Len
	}
	if p := ionpb.PiecesOf(exts); p != nil && op != ionpb.Op_REPLAY {
		f.Encode(p)
	}
	return f
}

// Read reads exts: sorted, none empty, none touching another, at most MaxPieces,
// all within one extent that Split returns. The bytes come one after the other;
// they are fewer than asked for, perhaps none, only at the end of the file. flags
// are LeaseData, to ask for it.
func (c *Client) Read(ctx context.Context, h uint64, exts []extent.Extent, flags uint32) (Data, Grant, error) {
	hull, err := hullOf("Read", exts)
	if err != nil {
		return Data{}, Grant{}, err
	}
	var t Tenure
	frame := c.dataFrame(ionpb.Op_READ, h, exts, hull, flags)
	guard(ctx, &frame)
	reply, err := c.do(ctx, request{to: owner(h, hull.Off), frame: frame, tenure: &t})
	if err != nil {
		return Data{}, Grant{}, err
	}
	if got, want := int64(reply.Data.Len()), extent.Total(exts); got > want {
		reply.Data.Release()
		return Data{}, Grant{}, errno.Wrap("ionclient.Read", syscall.EPROTO, fmt.Errorf("asked for %d bytes, got %d", want, got))
	}
	g := grantOf(reply, t)
	g.Stamp = 0
	return Data{reply.Data}, g, nil
}

// Write writes pieces, one after the other, to exts, which are as for Read and
// have as many bytes, as one write: it returns when every node sees them. flags
// are KillPriv, Sync, Recalled and the leases to ask for. The pieces are not
// touched after the return. If n is less than all there is an error, and the
// first n bytes are written.
func (c *Client) Write(ctx context.Context, h uint64, exts []extent.Extent, pieces [][]byte, flags uint32) (n int64, g Grant, err error) {
	return c.WriteFrom(ctx, h, exts, pieces, nil, flags)
}

// Counted is memory that does not change as long as somebody holds it. Who has
// a hold may make another by Ref; each ends with Release.
type Counted interface {
	Ref()
	Release()
}

// WriteFrom is Write of pieces that lie in under, which the caller holds. They may
// be read for as long as it takes after the return, under another hold.
func (c *Client) WriteFrom(ctx context.Context, h uint64, exts []extent.Extent, pieces [][]byte, under Counted, flags uint32) (n int64, g Grant, err error) {
	hull, err := hullOf("Write", exts)
	if err != nil {
		return 0, Grant{}, err
	}
	var t Tenure
	frame := c.dataFrame(ionpb.Op_WRITE, h, exts, hull, flags)
	guard(ctx, &frame)
	wanted := wish(ctx, &frame, exts)
	done := c.writing(h)
	reply, err := c.do(ctx, request{to: owner(h, hull.Off), frame: frame, pieces: pieces, under: under, tenure: &t})
	if err != nil {
		done(0, 0, ctx.Err() != nil)
		return 0, Grant{}, err
	}
	n, err = wrote(reply, exts, done)
	g = grantOf(reply, t)
	if g.Leases&LeasePieces != 0 {
		g.Pieces = wanted
	}
	return n, g, err
}

// wrote tells done how much of exts a reply says was written, and returns it.
func wrote(reply *rpc.Frame, exts []extent.Extent, done func(end, at int64, lost bool)) (int64, error) {
	total := extent.Total(exts)
	n := min(max(reply.Len, 0), total)
	end := exts[0].Off
	for rest := n; rest > 0; exts = exts[1:] {
		part := min(rest, exts[0].Len)
		end, rest = exts[0].Off+part, rest-part
	}
	done(end, reply.Off, false)
	if n < total {
		return n, errno.Wrap("ionclient.Write", syscall.EIO, fmt.Errorf("wrote %d of %d bytes", reply.Len, total))
	}
	return n, nil
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
