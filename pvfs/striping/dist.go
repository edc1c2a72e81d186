// Package striping is how the data of files are dealt out to servers, as users
// ask for it and are shown it: the wishes that a directory has for new files,
// the text and JSON forms of a layout, and the map of its extents.
//
// It knows how OrangeFS writes wishes down, in extended attributes of a
// directory, and which of them servers can fulfil. It does no I/O and has no
// state; all of it is safe for concurrent use.
//
// Sources: PROTOCOL.md §4 and §7; OrangeFS src/client/sysint/sys-create.sm
// for how clients read wishes, src/server/get-attr.sm for how servers do.
package striping

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/zoidfs/zoidfs/pvfs/dist"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// Names are the distributions that there are.
func Names() []string {
	return []string{wire.SimpleStripe, wire.BasicDist, wire.TwodStripe, wire.VarstripDist}
}

// New is the arithmetic of d over n datafiles.
func New(d *wire.Dist, n int) (dist.Distribution, error) {
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

// Parse makes a distribution from its name and parameters name:value, with
// the defaults of OrangeFS for what is not given. Like OrangeFS it overlooks
// parameters that mean nothing to the distribution; Wish.Check does not.
func Parse(name string, params []string) (wire.Dist, error) {
	d := wire.Dist{Name: strings.TrimRight(name, "\x00"), StripSize: dist.DefaultStrip,
		NumGroups: dist.DefaultGroups, GroupStripFactor: dist.DefaultFactor}
	if !slices.Contains(Names(), d.Name) {
		return d, fmt.Errorf("distribution %q", d.Name)
	}
	for _, p := range params {
		key, val, ok := strings.Cut(strings.TrimSpace(p), ":")
		if !ok {
			continue
		}
		if key == paramStrips {
			d.Strips = val
			continue
		}
		n, err := strconv.ParseInt(val, 10, 64)
		if err != nil || n <= 0 {
			return d, fmt.Errorf("distribution parameter %q", p)
		}
		switch key {
		case paramStrip:
			d.StripSize = n
		case paramGroups:
			d.NumGroups = uint32(min(n, dist.MaxServers))
		case paramFactor:
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

// SplitParams takes apart parameters as they stand in one attribute.
func SplitParams(s string) []string { return strings.Split(strings.TrimRight(s, "\x00"), ",") }

// Params is the parameters of d as they stand in one attribute.
func Params(d *wire.Dist) string {
	switch d.Name {
	case wire.SimpleStripe:
		return fmt.Sprintf("%s:%d", paramStrip, d.StripSize)
	case wire.TwodStripe:
		return fmt.Sprintf("%s:%d,%s:%d,%s:%d", paramGroups, d.NumGroups, paramStrip, d.StripSize, paramFactor, d.GroupStripFactor)
	case wire.VarstripDist:
		return paramStrips + ":" + d.Strips
	}
	return ""
}

// Strip is the strip size in bytes, 0 for a distribution that has none or
// several.
func Strip(d *wire.Dist) int64 {
	if d.Name == wire.SimpleStripe || d.Name == wire.TwodStripe {
		return d.StripSize
	}
	return 0
}

// MaxSize is how large a file may become that lies by d: OrangeFS counts the
// strips of a twod_stripe and the patterns of a varstrip_dist in 32 bits, and
// puts what is behind them over what is at the start. Source: OrangeFS
// src/io/description/dist-twod-stripe.c, dist-varstrip.c.
func MaxSize(d *wire.Dist) int64 {
	unit := int64(math.MaxInt64)
	switch d.Name {
	case wire.TwodStripe:
		unit = d.StripSize
	case wire.VarstripDist:
		unit = Width(d, 1)
	}
	if unit > math.MaxInt64>>32 {
		return math.MaxInt64
	}
	return unit << 32
}

// Width is the bytes of one stripe over n datafiles: one strip on each of
// them, or the pattern of a varstrip_dist. A file on one server alone counts
// with the default strip. It is never 0.
func Width(d *wire.Dist, n int) int64 {
	switch d.Name {
	case wire.SimpleStripe, wire.TwodStripe:
		if d.StripSize > 0 && d.StripSize <= dist.MaxStrip {
			return d.StripSize * int64(min(max(n, 1), dist.MaxServers))
		}
	case wire.VarstripDist:
		if p, err := dist.VarStripPeriod(d.Strips); err == nil {
			return p
		}
	}
	return dist.DefaultStrip
}
