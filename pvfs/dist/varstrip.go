package dist

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const maxStrips = 512 // strips of one pattern; its text is at most 1024 bytes

// VarStrip repeats a pattern of strips of any sizes, each on any server.
type VarStrip struct {
	strips    []varStrip
	perServer []int64 // bytes of one pattern on each server
	byServer  [][]int // indexes into strips of each server, in order
	period    int64
}

type varStrip struct {
	server int
	start  int64 // logical, within the pattern
	phys   int64 // within the server's part of the pattern
	size   int64
}

// ParseVarStrip reads a pattern such as "0:16384;1:32k;0:1m". Every server
// from 0 to the largest one named must appear, and none may be beyond servers.
func ParseVarStrip(spec string, servers int) (*VarStrip, error) {
	d, err := parseVarStrip(spec)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", NameVarStrip, spec, err)
	}
	if err := checkBounds(1, servers); err != nil {
		return nil, fmt.Errorf("%s %q: %w", NameVarStrip, spec, err)
	}
	if len(d.perServer) > servers {
		return nil, fmt.Errorf("%s %q: server %d of %d", NameVarStrip, spec, len(d.perServer)-1, servers)
	}
	return d, nil
}

// VarStripStart returns what Strip returns for the pattern, whose servers need
// not exist yet.
func VarStripStart(spec string) (int64, error) {
	d, err := parseVarStrip(spec)
	if err != nil {
		return 0, fmt.Errorf("%s %q: %w", NameVarStrip, spec, err)
	}
	return d.Strip(), nil
}

// VarStripPeriod returns the bytes of one pattern, whose servers need not exist
// yet.
func VarStripPeriod(spec string) (int64, error) {
	d, err := parseVarStrip(spec)
	if err != nil {
		return 0, fmt.Errorf("%s %q: %w", NameVarStrip, spec, err)
	}
	return d.period, nil
}

func parseVarStrip(spec string) (*VarStrip, error) {
	d := &VarStrip{}
	for part := range strings.SplitSeq(strings.TrimRight(spec, "; \x00"), ";") {
		num, size, ok := strings.Cut(strings.TrimSpace(part), ":")
		server, err := strconv.Atoi(strings.TrimSpace(num))
		if !ok || err != nil || server < 0 || server >= MaxServers {
			return nil, fmt.Errorf("%q is not server:size", part)
		}
		bytes, err := parseSize(strings.TrimSpace(size))
		if err != nil {
			return nil, err
		}
		if len(d.strips) >= maxStrips {
			return nil, fmt.Errorf("more than %d strips", maxStrips)
		}
		for len(d.perServer) <= server {
			d.perServer = append(d.perServer, 0)
			d.byServer = append(d.byServer, nil)
		}
		d.byServer[server] = append(d.byServer[server], len(d.strips))
		d.strips = append(d.strips, varStrip{server, d.period, d.perServer[server], bytes})
		d.perServer[server] += bytes
		d.period += bytes
	}
	if i := slices.Index(d.perServer, 0); i >= 0 {
		return nil, fmt.Errorf("server %d has no strip", i)
	}
	return d, nil
}

func parseSize(s string) (int64, error) {
	unit := int64(1)
	if n := len(s); n > 0 {
		switch s[n-1] {
		case 'k', 'K':
			unit, s = 1<<10, s[:n-1]
		case 'm', 'M':
			unit, s = 1<<20, s[:n-1]
		case 'g', 'G':
			unit, s = 1<<30, s[:n-1]
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 || n > MaxStrip/unit {
		return 0, fmt.Errorf("%q is not a strip size", s)
	}
	return n * unit, nil
}

// Locate finds the strip of off within the pattern.
func (d *VarStrip) Locate(off int64) (int, int64, int64) {
	round, in := off/d.period, off%d.period
	i, found := slices.BinarySearchFunc(d.strips, in, func(s varStrip, in int64) int { return cmp.Compare(s.start, in) })
	if !found {
		i--
	}
	s := d.strips[i]
	in -= s.start
	return s.server, round*d.perServer[s.server] + s.phys + in, s.size - in
}

// Logical is the inverse of Locate. A server that the pattern does not name
// holds no byte of the file; for it the answer means nothing.
func (d *VarStrip) Logical(server int, phys int64) (int64, int64) {
	if server >= len(d.perServer) {
		return phys, 1
	}
	round, in := phys/d.perServer[server], phys%d.perServer[server]
	own := d.byServer[server]
	i, found := slices.BinarySearchFunc(own, in, func(i int, in int64) int { return cmp.Compare(d.strips[i].phys, in) })
	if !found {
		i--
	}
	s := d.strips[own[i]]
	in -= s.phys
	return addSat(mulSat(round, d.period), s.start+in), s.size - in
}

// PhysSize counts whole patterns and the server's strips in the last one.
func (d *VarStrip) PhysSize(server int, size int64) int64 {
	if server >= len(d.perServer) {
		return 0
	}
	round, rest := size/d.period, size%d.period
	sum := round * d.perServer[server]
	for _, i := range d.byServer[server] {
		sum += clamp(rest-d.strips[i].start, 0, d.strips[i].size)
	}
	return sum
}

// Size is the end of the last byte that exists; servers that the pattern does
// not name are ignored.
func (d *VarStrip) Size(sizes []int64) int64 {
	return sizeOf(d, sizes[:min(len(sizes), len(d.perServer))])
}

// Strip is the size of the first strip, or 0 when that is not on server 0.
func (d *VarStrip) Strip() int64 {
	if d.strips[0].server != 0 {
		return 0
	}
	return d.strips[0].size
}
