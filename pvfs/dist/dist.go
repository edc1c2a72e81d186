// Package dist holds the distributions of PVFS2: the maps between the logical
// offsets of a file and (server, physical offset) pairs, where server i is the
// i-th datafile of the file and a physical offset counts the bytes within it.
//
// It is pure arithmetic: no I/O, no goroutine, no lock, and it knows nothing
// of the wire format. All values are immutable and safe for concurrent use.
//
// Sources: PROTOCOL.md §4; OrangeFS src/io/description/dist-simple-stripe.c,
// dist-basic.c, dist-twod-stripe.c, dist-varstrip.c.
package dist

import (
	"errors"
	"fmt"
	"math"
	"math/bits"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// The names of the distributions on the wire and in configuration files.
const (
	NameSimpleStripe = "simple_stripe"
	NameBasic        = "basic_dist"
	NameTwoD         = "twod_stripe"
	NameVarStrip     = "varstrip_dist"
)

// Defaults of OrangeFS.
const (
	DefaultStrip  = 65536
	DefaultGroups = 2
	DefaultFactor = 256
)

// Limits that keep the arithmetic from overflowing.
const (
	MaxServers = 1024    // datafiles of one file
	MaxStrip   = 1 << 40 // bytes
	maxPeriod  = 1 << 61 // bytes until a distribution repeats itself
)

// Distribution maps the bytes of one file to its datafiles. Offsets and sizes
// are never negative. Every logical byte lies on exactly one server, and on
// one server a larger physical offset is a larger logical offset.
type Distribution interface {
	// Locate returns where the byte at logical offset off lies, and the number
	// n > 0 of bytes from off on that lie contiguously there.
	Locate(off int64) (server int, phys, n int64)

	// Logical is the inverse: the logical offset of byte phys of the server's
	// datafile, and the number n > 0 of bytes that follow it contiguously in
	// both. Offsets beyond the largest int64 saturate there.
	Logical(server int, phys int64) (off, n int64)

	// PhysSize is the number of bytes of a file of the given logical size that
	// lie on server, which is the size of its datafile when the file is dense.
	PhysSize(server int, size int64) int64

	// Size is the logical size of a file whose datafiles have the given sizes:
	// the end of the last byte that exists. len(sizes) is the number of servers.
	Size(sizes []int64) int64

	// Strip is the number of bytes at the start of the file that lie on server
	// 0 at the same physical offset, however many servers there are: what a
	// stuffed file can hold.
	Strip() int64
}

// Run is bytes that are contiguous both in the file and in one datafile.
type Run struct {
	Server int
	Off    int64 // logical
	Phys   int64
	Len    int64 // more than 0
}

// Next returns the run at the start of e, which must not be empty, and what
// is left of e behind it.
func Next(d Distribution, e extent.Extent) (Run, extent.Extent) {
	s, p, n := d.Locate(e.Off)
	n = min(n, e.Len)
	return Run{s, e.Off, p, n}, extent.Extent{Off: e.Off + n, Len: e.Len - n}
}

// sizeOf is the logical end of the last byte that exists on any server. The
// original adds up the sizes for twod_stripe and varstrip_dist, which is the
// same for a dense file and too small for a sparse one.
func sizeOf(d Distribution, sizes []int64) int64 {
	var end int64
	for i, s := range sizes {
		if s > 0 {
			off, _ := d.Logical(i, s-1)
			end = max(end, addSat(off, 1))
		}
	}
	return end
}

// Basic keeps the whole file on one server.
type Basic struct{}

// Locate finds every byte on server 0.
func (Basic) Locate(off int64) (int, int64, int64) { return 0, off, math.MaxInt64 - off }

// Logical is the identity.
func (Basic) Logical(_ int, phys int64) (int64, int64) { return phys, max(1, math.MaxInt64-phys) }

// PhysSize is size on server 0 and 0 elsewhere.
func (Basic) PhysSize(server int, size int64) int64 {
	if server != 0 {
		return 0
	}
	return size
}

// Size is the size of the only datafile.
func (Basic) Size(sizes []int64) int64 {
	if len(sizes) == 0 {
		return 0
	}
	return sizes[0]
}

// Strip has no end.
func (Basic) Strip() int64 { return math.MaxInt64 }

// SimpleStripe deals out strips of equal size to the servers in turn.
type SimpleStripe struct {
	strip int64
	n     int64
}

// NewSimpleStripe refuses a strip size or number of servers out of bounds.
func NewSimpleStripe(strip int64, servers int) (SimpleStripe, error) {
	if err := checkBounds(strip, servers); err != nil {
		return SimpleStripe{}, fmt.Errorf("%s: %w", NameSimpleStripe, err)
	}
	return SimpleStripe{strip, int64(servers)}, nil
}

// Locate finds the strip of off.
func (d SimpleStripe) Locate(off int64) (int, int64, int64) {
	stripe := off / (d.strip * d.n)
	in := off - stripe*d.strip*d.n
	server := in / d.strip
	in -= server * d.strip
	return int(server), stripe*d.strip + in, d.strip - in
}

// Logical finds the place of phys within its strip.
func (d SimpleStripe) Logical(server int, phys int64) (int64, int64) {
	stripe, in := phys/d.strip, phys%d.strip
	return addSat(mulSat(stripe, d.strip*d.n), int64(server)*d.strip+in), d.strip - in
}

// PhysSize counts whole stripes and the part of the last one.
func (d SimpleStripe) PhysSize(server int, size int64) int64 {
	stripe := size / (d.strip * d.n)
	rest := size - stripe*d.strip*d.n
	return stripe*d.strip + clamp(rest-int64(server)*d.strip, 0, d.strip)
}

// Size is the end of the last byte that exists.
func (d SimpleStripe) Size(sizes []int64) int64 { return sizeOf(d, sizes) }

// Strip is the strip size.
func (d SimpleStripe) Strip() int64 { return d.strip }

func checkBounds(strip int64, servers int) error {
	switch {
	case strip <= 0 || strip > MaxStrip:
		return fmt.Errorf("strip size %d is not between 1 and %d", strip, int64(MaxStrip))
	case servers <= 0 || servers > MaxServers:
		return fmt.Errorf("%d servers, not between 1 and %d", servers, MaxServers)
	}
	return nil
}

var errPeriod = errors.New("the pattern is too long")

// product is a*b*c, or errPeriod when that is above maxPeriod.
func product(a, b, c int64) (int64, error) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi != 0 || lo > maxPeriod {
		return 0, errPeriod
	}
	hi, lo = bits.Mul64(lo, uint64(c))
	if hi != 0 || lo > maxPeriod {
		return 0, errPeriod
	}
	return int64(lo), nil
}

func clamp(x, lo, hi int64) int64 { return min(max(x, lo), hi) }

// mulSat is a*b for a, b >= 0, saturated at math.MaxInt64.
func mulSat(a, b int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi != 0 || lo > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(lo)
}

// addSat is a+b for a, b >= 0, saturated at math.MaxInt64.
func addSat(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
