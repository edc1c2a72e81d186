package pvfs

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/dist"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// placement is a Layout ready for use. It is immutable.
type placement struct {
	Layout
	dist  dist.Distribution // over DFiles
	wire  wire.Dist         // the same for servers
	limit int64             // stuffed: first offset that is not on DFiles[0]
	strip int64             // bytes, for StripeSize
}

// newPlacement works out l.
func newPlacement(l *Layout) (*placement, error) {
	p := &placement{Layout: *l, wire: l.Dist}
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
		p.dist, err = newDist(&l.Dist, n)
	}
	if err != nil {
		return nil, errno.Wrap("pvfs", syscall.EIO, err)
	}
	p.strip = dist.DefaultStrip
	if s, err := firstStrip(&l.Dist); err == nil && s > 0 && s <= dist.MaxStrip {
		p.strip = s
	}
	return p, nil
}

// newDist is the arithmetic of d over n datafiles.
func newDist(d *wire.Dist, n int) (dist.Distribution, error) {
	switch d.Name {
	case wire.SimpleStripe:
		return dist.NewSimpleStripe(d.StripSize, n)
	case wire.BasicDist:
		return dist.Basic{}, nil
	case wire.TwodStripe:
		return dist.NewTwoD(int(d.NumGroups), d.StripSize, int(d.GroupStripFactor), n)
	case wire.VarstripDist:
		return dist.ParseVarStrip(d.Strips, n)
	}
	return nil, fmt.Errorf("distribution %q", d.Name)
}

// firstStrip is how many bytes at the start of a file are on its first
// datafile, however many there are.
func firstStrip(d *wire.Dist) (int64, error) {
	if d.Name == wire.VarstripDist {
		return dist.VarStripStart(d.Strips)
	}
	x, err := newDist(d, 1)
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
		s.dist, err = distFrom(hint.DistName, strings.Split(strings.TrimRight(hint.DistParams, "\x00"), ","))
	case c.fs.Dist.Name != "":
		var params []string
		for _, p := range c.fs.Dist.Params {
			params = append(params, p.Name+":"+p.Value)
		}
		s.dist, err = distFrom(c.fs.Dist.Name, params)
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

// distFrom makes a distribution from its name and parameters name:value, with
// the defaults of OrangeFS for what is not given.
func distFrom(name string, params []string) (wire.Dist, error) {
	d := wire.Dist{Name: strings.TrimRight(name, "\x00"), StripSize: dist.DefaultStrip,
		NumGroups: dist.DefaultGroups, GroupStripFactor: dist.DefaultFactor}
	known := []string{wire.SimpleStripe, wire.BasicDist, wire.TwodStripe, wire.VarstripDist}
	if !slices.Contains(known, d.Name) {
		return d, fmt.Errorf("distribution %q", d.Name)
	}
	for _, p := range params {
		key, val, ok := strings.Cut(strings.TrimSpace(p), ":")
		if !ok {
			continue
		}
		if key == "strips" {
			d.Strips = val
			continue
		}
		n, err := strconv.ParseInt(val, 10, 64)
		if err != nil || n <= 0 {
			return d, fmt.Errorf("distribution parameter %q", p)
		}
		switch key {
		case "strip_size":
			d.StripSize = n
		case "num_groups":
			d.NumGroups = uint32(min(n, dist.MaxServers))
		case "group_strip_factor":
			d.GroupStripFactor = uint32(min(n, 1<<30))
		}
	}
	switch d.Name {
	case wire.SimpleStripe:
		d.NumGroups, d.GroupStripFactor, d.Strips = 0, 0, ""
	case wire.BasicDist:
		d = wire.Dist{Name: d.Name}
	case wire.TwodStripe:
		d.Strips = ""
	case wire.VarstripDist:
		d = wire.Dist{Name: d.Name, Strips: d.Strips}
	}
	return d, nil
}
