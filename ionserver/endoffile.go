package ionserver

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// A file ends where the last byte of any owner is. PVFS2 does not show those
// that were not written back, so an owner that finds no more bytes than these
// has to find out whether there is a hole before those of others. It does so
// while it holds the range lock of what it reads: then content and end are of
// one moment.

// zeros are the bytes of holes.
var zeros [64 << 10]byte

// quiet is a look at whether other owners may have bytes that PVFS2 does not
// show. Two equal looks that find none say that there was none in between.
type quiet struct {
	known    bool // this node is the home, which would know
	none     bool
	announce uint64
}

// quiet looks whether other owners have bytes of the file, without asking anybody.
func (s *Server) quiet(handle uint64) quiet {
	if s.placement.Home(handle) != s.self {
		return quiet{}
	}
	h := s.home
	h.mu.Lock()
	defer h.mu.Unlock()
	q := quiet{known: true, none: true}
	i := h.inodes[handle]
	if i == nil {
		return q
	}
	q.announce = i.announce
	for at := range i.writers {
		q.none = q.none && at == s.self
	}
	for at := range i.ends {
		q.none = q.none && at == s.self
	}
	return q
}

// reach returns an end of the file, for bytes of ext that were not found: what
// lies before it is a hole. reach, the end of what was not written back here,
// and before are looks from before they were read. errKeptBack: a mount keeps
// writes back here.
func (c *call) reach(f *ownedFile, ext extent.Extent, reach int64, before quiet) (int64, error) {
	behind := extent.ToEnd(ext.End())
	f.mu.Lock()
	kept := len(f.leases.Conflicts(c.sess.id, []extent.Extent{behind}, false)) > 0
	f.mu.Unlock()
	if kept {
		return 0, errKeptBack
	}
	reach = max(reach, f.reach())
	if now := c.srv.quiet(f.handle); !now.known || !now.none || now != before {
		others, err := c.reachOfOthers(f.handle, behind)
		if err != nil {
			return 0, err
		}
		file, err := c.srv.owner.file(c.ctx, f)
		if err != nil {
			return 0, err
		}
		size, err := file.Size(c.ctx) // after that, for they may write back
		if err != nil {
			return 0, stale(err)
		}
		reach = max(reach, others, size)
	}
	return reach, nil
}

// reachOfOthers is the end of the bytes at other owners that PVFS2 may not
// show, with those that mounts kept back behind the end of what is read. No
// owner waits for a lock to tell.
func (c *call) reachOfOthers(handle uint64, behind extent.Extent) (end int64, err error) {
	var mu sync.Mutex
	err = c.wait(func() error {
		g, ctx := errgroup.WithContext(c.ctx)
		for at, peer := range c.srv.peers {
			if at == c.srv.self {
				continue
			}
			g.Go(func() error {
				n, err := peer.reach(ctx, handle, behind, c.mount())
				mu.Lock()
				defer mu.Unlock()
				end = max(end, n)
				return err
			})
		}
		return g.Wait()
	})
	return end, err
}

func (p *peerLink) reach(ctx context.Context, handle uint64, behind extent.Extent, mount uint64) (int64, error) {
	var r ionpb.CollectResp
	f := rpc.Frame{Op: ionpb.Op_REACH, Handle: handle, Off: behind.Off, Len: behind.Len}
	err := p.call(ctx, f, &ionpb.SessionReq{Session: mount}, &r)
	return r.End, err
}

// peerReach answers REACH.
func (c *call) peerReach() (*rpc.Frame, error) {
	var m ionpb.SessionReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	behind, err := c.dataExtent(c.Len)
	if err != nil {
		return nil, err
	}
	f := c.srv.owner.get(c.Handle)
	defer c.srv.owner.put(f)
	if err := c.awaitLeases(c.ctx, f, behind, false, c.srv.sessions.of(m.Session)); err != nil {
		return nil, err
	}
	return okay(&ionpb.CollectResp{End: f.reach()})
}

// reach is the end of the bytes of a file here that PVFS2 may not show.
func (o *owner) reach(handle uint64) int64 {
	if f := o.peek(handle); f != nil {
		return f.reach()
	}
	return 0
}

// grown tells that PVFS2 may show more of a file than when reads of it began that are
// under way.
func (o *owner) grown(handle uint64) {
	if f := o.peek(handle); f != nil {
		f.data.Grown()
	}
}

// withZeros is pieces and n zeros.
func withZeros(pieces [][]byte, n int64) [][]byte {
	for n > 0 {
		k := min(n, int64(len(zeros)))
		pieces = append(pieces, zeros[:k])
		n -= k
	}
	return pieces
}
