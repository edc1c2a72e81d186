package pvfs

import (
	"cmp"
	"fmt"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/dist"
	"github.com/zoidfs/zoidfs/pvfs/striping"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// placement is a Layout ready for use. It is immutable.
type placement struct {
	Layout
	dist  dist.Distribution // over DFiles
	wire  wire.Dist         // the same for servers
	limit int64             // stuffed: first offset that is not on DFiles[0]
	most  int64             // how large the file may become
}

// newPlacement works out l.
func newPlacement(l *Layout) (*placement, error) {
	p := &placement{Layout: *l, wire: l.Dist, most: striping.MaxSize(&l.Dist)}
	var err error
	switch n := len(l.DFiles); {
	case n == 0:
		err = fmt.Errorf("file without datafiles")
	case l.Stuffed:
		p.dist = dist.Basic{}
		if l.Dist.Name != wire.SimpleStripe {
			p.wire = wire.Dist{Name: wire.BasicDist} // theirs may want more datafiles
		}
		p.limit, err = firstStrip(&l.Dist)
	default:
		p.dist, err = striping.New(&l.Dist, n)
		if l.Dist.Name == wire.TwodStripe { // OrangeFS miscounts if there are more groups
			p.wire.NumGroups = min(p.wire.NumGroups, uint32(n))
		}
	}
	if err != nil {
		return nil, errno.Wrap("pvfs", syscall.EIO, err)
	}
	return p, nil
}

// firstStrip is how many bytes at the start of a file are on its first
// datafile, however many there are.
func firstStrip(d *wire.Dist) (int64, error) {
	if d.Name == wire.VarstripDist {
		return dist.VarStripStart(d.Strips)
	}
	x, err := striping.New(d, 1)
	if err != nil {
		return 0, err
	}
	return x.Strip(), nil
}

// layoutOf is the layout in the attributes of a metafile, nil if they do not
// have it.
func layoutOf(a *wire.Attr) *Layout {
	const need = wire.AttrDist | wire.AttrDFiles
	if a.Type != wire.TypeMetafile || a.Mask&need != need {
		return nil
	}
	return &Layout{Dist: a.Dist, DFiles: a.DFiles, Stuffed: a.Stuffed()}
}

// shape is what a new file looks like.
type shape struct {
	dist   wire.Dist
	dfiles int
	layout wire.LayoutType
}

// shapeFor takes what o says, else what the directory wishes, else the file
// system's defaults.
func (c *Client) shapeFor(o CreateOptions, hint *wire.DirHint) (shape, error) {
	s := shape{dist: wire.NewSimpleStripe(dist.DefaultStrip), layout: wire.LayoutRoundRobin}
	var err error
	switch {
	case o.Dist != nil:
		s.dist = *o.Dist
	case o.StripSize != 0:
		s.dist.StripSize = o.StripSize
	case hint.DistName != "":
		s.dist, err = striping.Parse(hint.DistName, striping.SplitParams(hint.DistParams))
	case c.fs.Dist.Name != "":
		var params []string
		for _, p := range c.fs.Dist.Params {
			params = append(params, p.Name+":"+p.Value)
		}
		s.dist, err = striping.Parse(c.fs.Dist.Name, params)
	}
	if err == nil {
		_, err = firstStrip(&s.dist)
	}
	if err != nil || o.NumDFiles < 0 {
		return s, errno.Wrap("pvfs.Create", syscall.EINVAL, err)
	}
	s.dfiles = cmp.Or(o.NumDFiles, int(hint.DFiles), c.fs.DefaultNumDFiles, len(c.data))
	s.dfiles = min(s.dfiles, len(c.data), dist.MaxServers)
	if s.dist.Name == wire.BasicDist {
		s.dfiles = 1
	}
	if s.dist.Name == wire.VarstripDist {
		if _, err := dist.ParseVarStrip(s.dist.Strips, s.dfiles); err != nil {
			return s, errno.Wrap("pvfs.Create", syscall.EINVAL, err)
		}
	}
	return s, nil
}
