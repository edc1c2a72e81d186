// Package hints knows MPI-IO's hints: those that can be set for a file or
// directory, and those that fit a file, by which the aggregators of a collective
// access divide it so that they meet neither in a strip nor in a buffer.
//
// It is pure. Sources: MPI 4.1, section 14.2.8 (reserved file hints); ROMIO
// User's Guide, "Hints" (ROMIO_HINTS and the names that begin with romio_).
package hints

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

// prefix makes the name of a hint that of the extended attribute of a file or
// directory in which it is kept.
const prefix = "user.zoidfs."

// Hints that can be set. Those of collective buffering are kept and handed on to
// what is made in a directory; those of striping are a directory's wish.
const (
	CBNodes        = "cb_nodes"        // aggregators
	CBBufferSize   = "cb_buffer_size"  // bytes that one moves at a time
	StripingUnit   = "striping_unit"   // bytes of a strip
	StripingFactor = "striping_factor" // servers of a file
)

// most is what each can be at the most.
var most = map[string]int64{CBNodes: 1 << 20, CBBufferSize: 1 << 30, StripingUnit: 1 << 30, StripingFactor: 1 << 20}

// Names are the hints that can be set.
func Names() []string { return []string{CBNodes, CBBufferSize, StripingUnit, StripingFactor} }

// Stripes reports whether a hint says how files are striped that are made later.
func Stripes(hint string) bool { return hint == StripingUnit || hint == StripingFactor }

// Xattr is the attribute in which a hint is kept.
func Xattr(hint string) string { return prefix + hint }

// OfXattr is the hint that an attribute keeps; false if it keeps none.
func OfXattr(name string) (hint string, ok bool) {
	hint, ok = strings.CutPrefix(name, prefix)
	return hint, ok && most[hint] > 0
}

// Unknown reports whether there is no such hint to set.
func Unknown(hint string) bool { return most[hint] == 0 }

// Parse reads the value of a hint, and says what it may be if it is none.
func Parse(hint, value string) (int64, error) {
	limit := most[hint]
	if Unknown(hint) {
		return 0, fmt.Errorf("there is no hint %q to set; there are %s", hint, strings.Join(Names(), ", "))
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 1 || n > limit {
		return 0, fmt.Errorf("%s %q: want a number from 1 to %d", hint, value, limit)
	}
	return n, nil
}

// File is what the hints of a file follow from.
type File struct {
	StripSize   int64 // bytes; 0: there is no one size
	StripeWidth int64 // bytes
	Servers     int
	Mode        consistency.Mode
	Set         map[string]int64 // hints of collective buffering that were chosen for it
}

// Hint is one line of a hints file.
type Hint struct{ Name, Value, Why string }

// buffer is what an aggregator holds at a time, at least: ROMIO's default.
const buffer = 16 << 20

// Of returns the hints for f.
func Of(f File) []Hint {
	width := max(f.StripeWidth, 1)
	size := (buffer + width - 1) / width * width
	if size > math.MaxInt32 { // ROMIO reads an int
		size = buffer
	}
	number := func(name string, n int64, why string) Hint {
		if s := f.Set[name]; s > 0 {
			n, why = s, "as was set"
		}
		return Hint{name, strconv.FormatInt(n, 10), why}
	}
	out := []Hint{
		number(CBNodes, int64(max(f.Servers, 1)), "an aggregator for each server"),
		number(CBBufferSize, size, "whole stripes"),
	}
	if f.StripSize > 0 {
		out = append(out, Hint{StripingUnit, strconv.FormatInt(f.StripSize, 10), "no two aggregators in one strip"})
	}
	flush := "disable"
	if f.Mode != consistency.Strong {
		flush = "enable"
	}
	return append(out,
		Hint{StripingFactor, strconv.Itoa(max(f.Servers, 1)), "servers"},
		Hint{"romio_cb_write", "automatic", "collective buffering where ranks interleave"},
		Hint{"romio_cb_read", "automatic", ""},
		Hint{"romio_ds_write", "disable", "no locked read, change and write back of what lies between"},
		Hint{"romio_ds_read", "automatic", ""},
		Hint{"romio_synchronized_flush", flush, "consistency mode " + f.Mode.String()},
	)
}

// Write writes a file as ROMIO_HINTS names it. The first line says what it is
// for.
func Write(w io.Writer, what string, hints []Hint) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# MPI-IO hints for %s; use: export ROMIO_HINTS=/path/of/this/file\n", strings.ReplaceAll(what, "\n", "?"))
	for _, h := range hints {
		if h.Why != "" {
			fmt.Fprintf(&b, "# %s\n", h.Why)
		}
		fmt.Fprintf(&b, "%s %s\n", h.Name, h.Value)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
