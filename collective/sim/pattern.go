package sim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// Pattern is what the ranks do.
type Pattern uint8

// The patterns. N-1 is one file of all ranks, N-N a file for each.
const (
	Segmented   Pattern = iota // N-1, each rank a part of its own
	Strided                    // N-1, call by call one rank after the other
	Nested                     // N-1, each rank a tile of a matrix, row by row
	BlockCyclic                // N-1, each rank four calls, then the next rank
	Create                     // N-N, each rank makes its files in one directory
	Open                       // all open the same files, one after the other
	WholeFile                  // all read the same file from its beginning to its end
)

var patterns = [...]string{"segmented", "strided", "nested", "block-cyclic", "create", "open", "whole-file"}

func (p Pattern) String() string { return patterns[min(int(p), len(patterns)-1)] }

// UnmarshalText takes a word that String returns.
func (p *Pattern) UnmarshalText(text []byte) error {
	i := slices.Index(patterns[:], string(text))
	if i < 0 {
		return fmt.Errorf("%q is none of %s", text, strings.Join(patterns[:], ", "))
	}
	*p = Pattern(i)
	return nil
}

// Patterns are all there are.
func Patterns() []Pattern {
	return []Pattern{Segmented, Strided, Nested, BlockCyclic, Create, Open, WholeFile}
}

// op is what a call asks for.
type op uint8

const (
	opRead op = iota
	opWrite
	opOpen
	opCreate
)

// call is one call of a rank. Of opCreate, object is the directory.
type call struct {
	op     op
	object uint64
	ext    extent.Extent
}

const (
	file      uint64 = 1000
	directory uint64 = 1
	inBlock          = 4 // calls of BlockCyclic that touch
)

// call is the i-th one of a rank.
func (c *Config) call(rank, i int, side int64) call {
	r, n, k := int64(rank), int64(i), int64(c.Ranks)
	data := opWrite
	if c.Read {
		data = opRead
	}
	at := func(place int64) call {
		return call{data, file, extent.Extent{Off: place * c.Size, Len: c.Size}}
	}
	switch c.Pattern {
	case Segmented:
		return at(r*int64(c.Calls) + n)
	case Strided:
		return at(n*k + r)
	case Nested:

		return at((r/side*int64(c.Calls)+n)*side + r%side)
	case BlockCyclic:
		return at((n/inBlock*k+r)*inBlock + n%inBlock)
	case WholeFile:
		c := at(n)
		c.op = opRead
		return c
	case Open:
		return call{op: opOpen, object: file + uint64(i)}
	}
	return call{op: opCreate, object: directory}
}

// side is how many ranks lie beside one another in the matrix of Nested: the
// largest divisor of their number that is not above its square root.
func (c *Config) side() int64 {
	side := 1
	for d := 1; d*d <= c.Ranks; d++ {
		if c.Ranks%d == 0 {
			side = d
		}
	}
	return int64(side)
}

// fileSize is where the file ends that is read.
func (c *Config) fileSize() int64 {
	if c.Pattern == WholeFile {
		return int64(c.Calls) * c.Size
	}
	end := int64(c.Calls) * int64(c.Ranks)
	if c.Pattern == BlockCyclic { // the last blocks may not be full
		end = (int64(c.Calls) + inBlock - 1) / inBlock * inBlock * int64(c.Ranks)
	}
	return end * c.Size
}
