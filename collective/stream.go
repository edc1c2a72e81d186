package collective

import (
	"math"

	"github.com/zoidfs/zoidfs/internal/extent"
)

const (
	minAhead   = 128 << 10 // bytes that reading ahead begins with
	maxStrides = 64        // strides that are read ahead at most
	maxSkip    = 3         // reads by which one of a sequence may be early
)

// Stream recognises one reader's pattern and says what to read ahead of it:
// sequential reads, upwards or downwards, and reads of one length at a constant
// distance. The window of what is read ahead doubles with each read that goes
// on with the pattern, up to Limit, and closes with one that does not. A
// sequence may have small holes, and a late read of what lies just behind it
// changes nothing, so that reads that come out of order do no harm.
//
// It is pure, and not safe for concurrent use. The zero value reads nothing
// ahead, for its Limit is 0.
type Stream struct {
	Limit int64 // the most bytes to read ahead of the reader, but for what Unit adds
	// Once so many are read ahead of a sequence they end at a multiple of Unit, so
	// that who reads the same a little later has nothing to add. 0: anywhere.
	Unit int64

	last   extent.Extent // the last read that was part of the pattern
	stride int64         // from the one before to it; 0 if there was none
	form   form
	window int64
	front  int64 // what is read ahead ends (down: begins) here; strided: the next to be read ahead
}

type form byte

const (
	random form = iota
	up
	down
	strided
)

// Next takes note of a read of ext and returns what to read ahead now: extents
// in the order in which they will be asked for, usually none.
//
//	form     goes on if ext                   else
//	random   begins at 0, touches last: up    random
//	         touches last from below: down
//	         is as far from last as last
//	         from the one before: strided
//	up       begins where last ends, or soon  random
//	         behind
//	down     ends where last begins, or soon  random
//	         before
//	strided  is a stride from last            random
func (s *Stream) Next(ext extent.Extent) []extent.Extent {
	if ext.Empty() || s.covers(ext) {
		return nil
	}
	form := s.judge(ext)
	stride := ext.Off - s.last.Off
	if s.last.Empty() {
		stride = 0
	}
	if form != s.form || form == random {
		s.window = 0
		s.front = ext.End()
		switch form {
		case down:
			s.front = ext.Off
		case strided:
			s.front = ext.Off + stride
		}
	}
	s.form, s.last, s.stride = form, ext, stride
	if form == random {
		return nil
	}
	s.window = min(s.Limit, max(minAhead, 4*ext.Len, 2*s.window))
	switch form {
	case up:
		return s.aheadUp()
	case down:
		return s.aheadDown()
	}
	return s.aheadStrided()
}

// covers reports whether ext was just read, or is left over from what was, so
// that it says nothing about the pattern.
func (s *Stream) covers(ext extent.Extent) bool {
	switch s.form {
	case up:
		return ext.Off >= s.last.Off-s.window && ext.End() <= s.last.End()
	case down:
		return ext.Off >= s.last.Off && ext.End() <= s.last.End()+s.window
	}
	return ext == s.last
}

// judge says what form the reads have with ext.
func (s *Stream) judge(ext extent.Extent) form {
	if s.last.Empty() {
		if ext.Off == 0 {
			return up
		}
		return random
	}
	above, below := ext.Off-s.last.End(), s.last.Off-ext.End()
	switch {
	case above == 0, s.form == up && above > 0 && above <= maxSkip*ext.Len:
		return up
	case below == 0, s.form == down && below > 0 && below <= maxSkip*ext.Len:
		return down
	case s.stride != 0 && ext.Off-s.last.Off == s.stride && ext.Len == s.last.Len:
		return strided
	}
	return random
}

// aheadUp fills the window when half of it is used up.
func (s *Stream) aheadUp() []extent.Extent {
	end := s.last.End()
	s.front = max(s.front, end)
	if s.front-end > s.window/2 || s.window <= 0 {
		return nil
	}
	front := s.front
	s.front = extent.AheadTo(end, s.window, s.Unit)
	return nonEmpty(extent.Extent{Off: front, Len: s.front - front})
}

func (s *Stream) aheadDown() []extent.Extent {
	begin := s.last.Off
	s.front = min(s.front, begin)
	if begin-s.front > s.window/2 {
		return nil
	}
	front := s.front
	s.front = max(0, begin-s.window)
	if s.Unit > 0 && s.window >= s.Unit {
		s.front -= s.front % s.Unit
	}
	return nonEmpty(extent.Extent{Off: s.front, Len: front - s.front})
}

// aheadStrided counts the window in bytes read, not in bytes passed by.
func (s *Stream) aheadStrided() []extent.Extent {
	n := s.window / s.last.Len
	n = min(n, maxStrides)
	ahead := (s.front - s.last.Off) / s.stride // the next is so many strides away
	if ahead < 1 {
		ahead, s.front = 1, s.last.Off+s.stride
	}
	if ahead-1 > n/2 {
		return nil
	}
	var out []extent.Extent
	for ; ahead <= n && s.front >= 0 && s.front <= math.MaxInt64-s.last.Len; ahead++ {
		out = append(out, extent.Extent{Off: s.front, Len: s.last.Len})
		s.front += s.stride
	}
	return out
}

func nonEmpty(e extent.Extent) []extent.Extent {
	if e.Empty() {
		return nil
	}
	return []extent.Extent{e}
}
