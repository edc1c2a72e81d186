package collective

import (
	"math"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// Form is how the accesses of one reader or writer, or of all of a file
// together, follow one another.
type Form uint8

// The forms. The last three are of several together.
const (
	Random      Form = iota // none of the others, or not known yet
	Sequential              // each begins where the last one ended
	Strided                 // of one length, at one distance
	Nested                  // strided, in runs of one length at a greater distance
	Blocks                  // sequential, in runs of one length at a distance: block-cyclic
	Segmented               // each sequential, in a part of the file of its own
	Interleaved             // each with holes, and together dense
	Sparse                  // each with holes, and together, too
)

var forms = [...]string{
	"random", "sequential", "strided", "nested strided", "block-cyclic", "segmented", "interleaved", "sparse",
}

func (f Form) String() string { return forms[min(int(f), len(forms)-1)] }

// sequence recognises the form of the accesses of one reader or writer. Accesses
// with a gap between one and the next make a run, and runs are outer apart. The
// zero value has seen nothing.
type sequence struct {
	last  extent.Extent
	seen  int   // accesses; 0: none
	gap   int64 // from the end of an access to the next one of the run; 0: they touch
	run   int   // accesses of the current run so far
	start int64 // where the current run began

	runs  int   // runs in a row that were alike
	of    int   // accesses in each of them
	outer int64 // from the start of a run to the start of the next
}

// minTimes is how often a distance has to be seen in a row to be believed; that
// two accesses touch says enough.
const minTimes = 2

// add takes note of an access.
func (s *sequence) add(e extent.Extent) {
	gap := e.Off - s.last.End()
	switch {
	case s.seen == 0:
		s.start, s.run = e.Off, 1
	case e.Len != s.last.Len && gap != 0, s.run == 1 && gap != s.gap && s.runs == 0:
		*s = sequence{last: s.last, seen: s.seen, gap: gap, run: 2, start: s.last.Off}
	case gap == s.gap:
		s.run++
		if s.run > s.of {
			s.runs = 0 // longer than the ones before
		}
	default:
		s.endRun(e)
	}
	s.last = e
	s.seen++
}

// endRun takes note that e begins another run.
func (s *sequence) endRun(e extent.Extent) {
	outer := e.Off - s.start
	if s.run == s.of && (outer == s.outer || s.runs == 0) {
		s.runs++
	} else {
		s.runs = 1
	}
	s.of, s.outer = s.run, outer
	s.start, s.run = e.Off, 1
}

// form is what has been recognised so far.
func (s *sequence) form() Form {
	nested := s.runs >= minTimes && s.of > 1
	switch {
	case nested && s.gap == 0:
		return Blocks
	case nested:
		return Nested
	case s.runs > 0, s.run < 2, s.run <= minTimes && s.gap != 0:
		return Random
	case s.gap == 0:
		return Sequential
	}
	return Strided
}

// step is from one access of a run to the next.
func (s *sequence) step() int64 { return s.gap + s.last.Len }

// cycle is what repeats: piece bytes of every period; 0, 0 if nothing does.
func (s *sequence) cycle() (piece, period int64) {
	switch s.form() {
	case Strided, Nested:
		return s.last.Len, abs(s.step())
	case Blocks:
		return int64(s.of) * s.last.Len, abs(s.outer)
	}
	return 0, 0
}

// each calls f with the next n accesses if they go on like this, fewer if the file
// offsets end or f returns false.
func (s *sequence) each(n int, f func(extent.Extent) bool) {
	form, at := s.form(), s.last.Off
	if form == Random {
		return
	}
	run, start := s.run, s.start
	for range n {
		switch {
		case (form == Nested || form == Blocks) && run >= s.of:
			start += s.outer
			at, run = start, 1
		default:
			at += s.step()
			run++
		}
		if at < 0 || at > math.MaxInt64-s.last.Len || !f(extent.Extent{Off: at, Len: s.last.Len}) {
			return
		}
	}
}

func abs(x int64) int64 {
	if x < 0 {
		return -x
	}
	return x
}
