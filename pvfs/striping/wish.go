package striping

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/zoidfs/zoidfs/pvfs/dist"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// The extended attributes of a directory that hold its wishes. Values are C
// strings with their NUL.
const (
	KeyServers = "user.pvfs2.num_dfiles"
	KeyDist    = "user.pvfs2.dist_name"
	KeyParams  = "user.pvfs2.dist_params"
)

// The parameters of distributions.
const (
	paramStrip  = "strip_size"
	paramGroups = "num_groups"
	paramFactor = "group_strip_factor"
	paramStrips = "strips"
)

const (
	// MaxStrip is the largest strip that may be wished for. A file that is
	// still stuffed is as large as a strip, and servers tell its size in 31
	// bits.
	MaxStrip  = 1 << 30
	maxParams = 1000 // bytes of parameters that servers hand back
	maxDigits = 9    // of a number of servers; OrangeFS has room for 15
)

// Wish is what a directory wishes for the files that will be made in it and in
// directories made below it. Zero fields leave the choice to the file system.
type Wish struct {
	Dist    string `json:"dist,omitempty"`    // a distribution's name
	Params  string `json:"params,omitempty"`  // its parameters, name:value separated by commas
	Servers int    `json:"servers,omitempty"` // over how many servers
}

// Limits is what a file system can fulfil.
type Limits struct {
	Servers int // that hold data, and so the most for one file
	Default int // servers of a file if nothing else is wished
}

// Check says what keeps the wish from being fulfilled.
func (w Wish) Check(l Limits) error {
	if w.Servers != 0 {
		if err := checkServers(w.Servers, l); err != nil {
			return err
		}
	}
	if w.Dist == "" {
		if w.Params != "" {
			return fmt.Errorf("parameters %q of no distribution", w.Params)
		}
		return nil
	}
	if err := checkDist(w.Dist); err != nil {
		return err
	}
	if w.Dist == wire.BasicDist && w.Servers > 1 {
		return fmt.Errorf("%s keeps a file on one server, not on %d", w.Dist, w.Servers)
	}
	return w.checkParams(l)
}

// CheckXattr is Check for the change of a single attribute of a directory
// whose wish was w. Programs that copy attributes set one after the other,
// ordered by name, so the new one must make sense beside those before it:
// parameters belong to the distribution that is named, if any is, and a number
// of servers must do for a pattern of strips. Attributes that are no wish pass.
func (w Wish) CheckXattr(key, value string, l Limits) error {
	value = strings.TrimSuffix(value, "\x00")
	switch key {
	case KeyServers:
		n, err := strconv.Atoi(value)
		if err != nil || len(value) > maxDigits || value[0] == '+' {
			return fmt.Errorf("%q is not a number of servers", value)
		}
		if err := checkServers(n, l); err != nil {
			return err
		}
		if w.Servers = n; w.Dist == wire.VarstripDist && w.Params != "" {
			return w.checkParams(l)
		}
	case KeyDist:
		return checkDist(value)
	case KeyParams:
		if w.Params = value; value == "" {
			return errors.New("no parameters")
		}
		if w.Dist == "" {
			w.Dist = DistOf(value)
		}
		w.Servers = l.Servers // theirs may follow
		return w.checkParams(l)
	}
	return nil
}

// WithStrip is the wish with another strip size, of simple_stripe where it names
// no distribution; an error if its distribution has none.
func (w Wish) WithStrip(size int64) (Wish, error) {
	if w.Dist == "" {
		w.Dist, w.Params = wire.SimpleStripe, ""
	}
	if w.Dist != wire.SimpleStripe && w.Dist != wire.TwodStripe {
		return w, fmt.Errorf("%s has no strip size", w.Dist)
	}
	params := append([]string{fmt.Sprintf("%s:%d", paramStrip, size)}, w.otherParams()...)
	w.Params = strings.Join(params, ",")
	return w, nil
}

// WithoutStrip is the wish without its strip size, and without its distribution if
// that is simple_stripe, of which there is nothing else to say.
func (w Wish) WithoutStrip() Wish {
	if w.Params = strings.Join(w.otherParams(), ","); w.Dist == wire.SimpleStripe {
		w.Dist = ""
	}
	return w
}

// otherParams are the parameters other than the strip size.
func (w Wish) otherParams() (out []string) {
	for _, p := range SplitParams(w.Params) {
		if p != "" && !strings.HasPrefix(p, paramStrip+":") {
			out = append(out, p)
		}
	}
	return out
}

// Strip is the strip size that is wished, in bytes; 0 if none is.
func (w Wish) Strip() int64 {
	for _, p := range SplitParams(w.Params) {
		if v, ok := strings.CutPrefix(p, paramStrip+":"); ok {
			n, _ := strconv.ParseInt(v, 10, 64) // 0 if it is none
			return n
		}
	}
	return 0
}

// DistOf is the distribution that parameters are for.
func DistOf(params string) string {
	switch {
	case strings.HasPrefix(params, paramStrips+":"):
		return wire.VarstripDist
	case strings.Contains(params, paramGroups+":"), strings.Contains(params, paramFactor+":"):
		return wire.TwodStripe
	}
	return wire.SimpleStripe
}

func checkServers(n int, l Limits) error {
	most := min(l.Servers, dist.MaxServers)
	switch {
	case n <= 0:
		return fmt.Errorf("%d servers: there must be at least one", n)
	case n > most:
		return fmt.Errorf("%d servers: the file system has %d", n, most)
	}
	return nil
}

func checkDist(name string) error {
	if !slices.Contains(Names(), name) {
		return fmt.Errorf("unknown distribution %q: there are %s", name, strings.Join(Names(), ", "))
	}
	return nil
}

// checkParams refuses parameters that mean nothing to the distribution, and
// values that it cannot work with.
func (w Wish) checkParams(l Limits) error {
	known := map[string][]string{
		wire.SimpleStripe: {paramStrip},
		wire.TwodStripe:   {paramGroups, paramStrip, paramFactor},
		wire.VarstripDist: {paramStrips},
	}[w.Dist]
	switch {
	case len(w.Params) > maxParams:
		return fmt.Errorf("parameters of %d bytes: at most %d are kept", len(w.Params), maxParams)
	case w.Params == "" && w.Dist == wire.VarstripDist:
		return fmt.Errorf("%s needs its strips, such as %s:0:64K;1:1M", w.Dist, paramStrips)
	}
	var params []string
	if w.Params != "" {
		params = SplitParams(w.Params)
	}
	for i, p := range params {
		key, val, ok := strings.Cut(p, ":")
		switch {
		case !ok:
			return fmt.Errorf("%q is not name:value", p)
		case !slices.Contains(known, key):
			return fmt.Errorf("%s has no parameter %q%s", w.Dist, key, among(known))
		case slices.ContainsFunc(params[:i], func(q string) bool { return strings.HasPrefix(q, key+":") }):
			return fmt.Errorf("parameter %q twice", key)
		}
		if key == paramStrips {
			continue
		}
		n, err := strconv.ParseUint(val, 10, 62)
		if err != nil || n == 0 || n > MaxStrip || key == paramGroups && n > dist.MaxServers {
			return fmt.Errorf("%s %q is out of range", key, val)
		}
	}
	d, err := Parse(w.Dist, params)
	if err != nil {
		return err
	}
	x, err := New(&d, w.servers(l))
	if err == nil && w.Dist == wire.VarstripDist && x.Strip() > MaxStrip {
		err = fmt.Errorf("the first strip of %q is above %d bytes", d.Strips, int64(MaxStrip))
	}
	return err
}

// servers is over how many servers a file will lie.
func (w Wish) servers(l Limits) int {
	if w.Servers > 0 {
		return w.Servers
	}
	return l.Default
}

func among(names []string) string {
	if len(names) == 0 {
		return ", it takes none"
	}
	return ", only " + strings.Join(names, ", ")
}
