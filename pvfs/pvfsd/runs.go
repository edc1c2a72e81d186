package pvfsd

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/pvfs/dist"
	"github.com/zoidfs/zoidfs/pvfs/striping"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// maxSteps bounds the pieces of a datatype that one request walks through.
const maxSteps = 1 << 24

// runs walks through the part of an I/O request that lies on one datafile, as
// extents of that datafile in the order of the data stream.
type runs struct {
	cur    *wire.Cursor
	dist   dist.Distribution
	server int
	most   int // extents that next returns; 0: any number
	steps  int
	ahead  extent.Extent // found and not yet taken
}

func newRuns(d *wire.Dist, typ *wire.Datatype, server, servers uint32, offset, size int64) (*runs, error) {
	if server >= servers || servers > wire.MaxDFiles {
		return nil, errno.Wrap("pvfsd.io", syscall.EINVAL, fmt.Errorf("datafile %d of %d", server, servers))
	}
	m, err := striping.New(d, int(servers))
	if err != nil {
		return nil, errno.Wrap("pvfsd.io", syscall.EINVAL, err)
	}
	cur, err := typ.Cursor(offset, size)
	if err != nil {
		return nil, err
	}
	return &runs{cur: cur, dist: m, server: int(server)}, nil
}

// peek is the next extent, without taking it; empty at the end.
func (r *runs) peek() (extent.Extent, error) {
	for r.ahead.Empty() {
		e, ok := r.cur.Next()
		if !ok {
			return extent.Extent{}, nil
		}
		if r.steps++; r.steps > maxSteps {
			return extent.Extent{}, errno.Wrap("pvfsd.io", syscall.EINVAL, errors.New("request of too many pieces"))
		}
		// The bytes of a logical range that lie on one datafile follow each
		// other there.
		from := r.dist.PhysSize(r.server, e.Off)
		r.ahead = extent.Extent{Off: from, Len: r.dist.PhysSize(r.server, e.End()) - from}
	}
	return r.ahead, nil
}

// take takes the first n bytes of what peek returned.
func (r *runs) take(n int64) {
	r.ahead.Off += n
	r.ahead.Len -= n
}

// next gathers extents of at most limit bytes in all into segs, which it
// returns with adjacent ones joined, and their total. Bytes at eof and beyond
// are passed over.
func (r *runs) next(segs []extent.Extent, limit, eof int64) ([]extent.Extent, int64, error) {
	segs = segs[:0]
	var total int64
	for total < limit {
		e, err := r.peek()
		if err != nil || e.Empty() {
			return segs, total, err
		}
		if e.Off >= eof {
			r.take(e.Len)
			continue
		}
		if r.most > 0 && len(segs) == r.most {
			return segs, total, errno.Wrap("pvfsd.io", syscall.EINVAL, fmt.Errorf("request of more than %d extents", r.most))
		}
		n := min(e.Len, limit-total, eof-e.Off)
		if k := len(segs) - 1; k >= 0 && segs[k].End() == e.Off {
			segs[k].Len += n
		} else {
			segs = append(segs, extent.Extent{Off: e.Off, Len: n})
		}
		r.take(n)
		total += n
	}
	return segs, total, nil
}
