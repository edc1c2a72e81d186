package ionserver

import (
	"context"
	"errors"
	"time"

	"github.com/zoidfs/zoidfs/cache"
	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// read answers READ: with less than was asked for only at the end of the file.
func (c *call) read() (reply *rpc.Frame, err error) {
	p, err := c.pieces()
	if err != nil {
		return nil, err
	}
	s, err := c.spread(p, c.Len)
	if err != nil {
		return nil, err
	}
	if err := c.checkOwner(s.hull); err != nil {
		return nil, err
	}
	o := c.srv.owner
	f := o.get(c.Handle)
	defer o.put(f)
	f.hinted(c.Buffer)
	if s.hull.Empty() {
		return &rpc.Frame{}, nil
	}
	a, err := c.enter(f, s, false)
	if err != nil {
		return nil, err
	}
	defer func() { c.leave(f, a, nil, reply) }()
	for {
		if reply, err = c.readLocked(f, s); err != errKeptBack {
			return reply, err
		}
		if err := c.awaitLeases(c.ctx, f, extent.ToEnd(s.hull.End()), false, c.sess.id); err != nil {
			return nil, err
		}
	}
}

// errKeptBack tells that mounts may keep back writes behind what was read, so
// that the end of the file is not known. They have to be asked for them while
// no range is locked.
var errKeptBack = errors.New("ionserver: writes are kept back")

// readLocked reads under the range lock.
func (c *call) readLocked(f *ownedFile, s spread) (*rpc.Frame, error) {
	o := c.srv.owner
	release, err := o.lockRange(c, c.ctx, f, s.hull, false)
	if err != nil {
		return nil, err
	}
	defer release()
	before := c.srv.quiet(c.Handle)
	reach := f.reach() // what is written back while we read may be missed there
	var alone collective.Choice
	if !c.srv.opt.NoCollective {
		alone = c.lookAhead(f, s)
	}
	v, err := f.data.Read(c.ctx, s.exts, o.fetch(f, c.member(), alone))
	if err != nil {
		return nil, stale(err)
	}
	n, pieces := int64(v.Len()), v.Slices()
	if n < s.bytes {
		reach, err := c.reach(f, s.hull, reach, before)
		if err != nil {
			v.Release()
			return nil, err
		}
		hole := s.before(reach) - n
		n, pieces = max(n, n+hole), withZeros(pieces[:len(pieces):len(pieces)], hole)
	}
	reply := &rpc.Frame{Data: rpc.Lent(pieces, v.Release), Len: n}
	c.guard(f, s, false, reply)
	return reply, nil
}

// fetch reads what f.data lacks from the PVFS2 servers, on behalf of m; why is for the
// journal.
func (o *owner) fetch(f *ownedFile, m collective.Member, why collective.Choice) cache.Fetch {
	return func(ctx context.Context, exts []extent.Extent, bufs [][]byte) (int64, error) {
		file, err := o.file(ctx, f)
		if err != nil {
			return 0, err
		}
		began := time.Now()
		n, err := file.ReadExtents(ctx, exts, bufs)
		if err != nil {
			f.forgetLayout()
			return n, err
		}
		f.ends(exts, n)
		o.noteFetch(f, file, m, why, exts, n, began)
		return n, nil
	}
}
