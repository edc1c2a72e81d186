package ionclient

import (
	"context"
	"errors"
	"syscall"

	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// Keeper is who keeps bytes of files on this node: under leases, unpublished,
// or to send them again if an I/O node is restarted. Its methods may be called
// at any time, several at once; they may call the Client.
type Keeper interface {
	// Revoke gives up leases on e of h: LeaseData, LeaseWrite, LeasePieces. It returns when
	// what was kept back has been written, with Recalled, and what may not be
	// kept any more is forgotten.
	Revoke(ctx context.Context, h uint64, e extent.Extent, leases uint32)
	// Publish writes what is unpublished of e and reports whether nothing of
	// the file is unpublished any more.
	Publish(ctx context.Context, h uint64, e extent.Extent) (clean bool)
	// Stable tells about the writes to h that went to an I/O node in a session.
	Stable(session, h uint64, s Stable)
	// Lost tells that a session has ended, and with it the leases that hang on it.
	// If the I/O node has lived on, what others may do since is not known to this
	// mount, and what was written is safe. Else Reclaim tells what becomes of it.
	Lost(session uint64, livedOn bool)
	// Reclaim sends an I/O node, which has begun a session, what it lacks: of the
	// domains that it owns, what hangs on earlier sessions that it awaits. What
	// hangs on other ones is lost.
	Reclaim(ctx context.Context, r *Reclaim) error
	// Holds reports whether something of h is unpublished.
	Holds(h uint64) bool
	// Retains reports whether Reclaim might have anything that hangs on a session.
	Retains(session uint64) bool
}

// Stable says how far an owner has come with the writes to a file.
type Stable struct {
	Stamp int64 // what was written up to here is at the PVFS2 servers
	Drop  bool  // and need not be kept; else only call it prepared

	// Domains are the offsets of the domains that Stamp is about; nil: all.
	Domains []int64
	// Cut, if not nil, is from where on bytes written up to Stamp were cut off.
	// Stamp is about nothing else then.
	Cut *int64

	Err error // why newer bytes could not be written; nil if nothing failed
}

// SetKeeper tells who keeps bytes. It must be called before anything is asked
// for with a lease or held; once.
func (c *Client) SetKeeper(k Keeper) { c.keeper.Store(&k) }

// keeps is the Keeper; one that keeps nothing if none was set.
func (c *Client) keeps() Keeper {
	if k := c.keeper.Load(); k != nil {
		return *k
	}
	return keepsNothing{}
}

type keepsNothing struct{}

func (keepsNothing) Revoke(context.Context, uint64, extent.Extent, uint32)       {}
func (keepsNothing) Publish(context.Context, uint64, extent.Extent) (clean bool) { return true }
func (keepsNothing) Stable(uint64, uint64, Stable)                               {}
func (keepsNothing) Lost(uint64, bool)                                           {}
func (keepsNothing) Reclaim(context.Context, *Reclaim) error                     { return nil }
func (keepsNothing) Holds(uint64) bool                                           { return false }
func (keepsNothing) Retains(uint64) bool                                         { return false }

// called answers what an I/O node asks of this mount.
func (s *session) called(ctx context.Context, f *rpc.Frame) *rpc.Frame {
	out := new(rpc.Frame)
	if f.Op == ionpb.Op_REVOKE {
		out.Flags = s.giveUp(ctx, f)
		return out
	}
	msg, err := s.carryOut(ctx, f)
	switch {
	case err != nil:
		out.Failure(err)
	case msg != nil:
		out.Encode(msg)
	}
	return out
}

// giveUp gives up the leases that f revokes.
func (s *session) giveUp(ctx context.Context, f *rpc.Frame) (flags uint32) {
	if leases := f.Flags & DataLeases; leases != 0 {
		s.c.keeps().Revoke(ctx, f.Handle, extent.Extent{Off: f.Off, Len: f.Len}, leases)
	}
	if s.c.revoked(f.Handle, f.Flags&homeLeases) {
		flags = uint32(ionpb.Flag_TOLD_OPEN)
	}
	return flags
}

func (s *session) carryOut(ctx context.Context, f *rpc.Frame) (proto.Message, error) {
	k, e := s.c.keeps(), extent.Extent{Off: f.Off, Len: f.Len}
	switch f.Op {
	case ionpb.Op_PUBLISH:
		return &ionpb.PublishResp{Clean: k.Publish(ctx, f.Handle, e)}, nil
	case ionpb.Op_MADE:
		return s.c.made.answer(f.Handle), nil
	case ionpb.Op_PLACE:
		var m ionpb.PlaceReq
		if err := f.Decode(&m); err != nil {
			return nil, err
		}
		s.c.appends.place(s, m.Id, f.Off)
		return nil, nil
	case ionpb.Op_STABLE:
		var m ionpb.StableReq
		if err := f.Decode(&m); err != nil {
			return nil, err
		}
		st := Stable{Stamp: m.Stamp, Drop: m.Drop, Domains: m.Domains, Cut: m.Cut}
		if m.Errno != 0 {
			st.Err = errno.Wrap("ion.write_back", syscall.Errno(m.Errno), errors.New(m.Text))
		}
		k.Stable(s.lastID(), f.Handle, st)
		return nil, nil
	}
	return nil, errno.New("ionclient: operation "+f.Op.Key(), syscall.EOPNOTSUPP)
}
