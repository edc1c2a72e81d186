package history

import (
	"fmt"
	"slices"

	"github.com/anishathalye/porcupine"
)

// unit is a range of a file in which a call takes effect at once, and the pieces
// of it that were read; with no atomic unit, a piece.
type unit struct {
	Range
	pieces []Range
}

// units are the units of the file of which something was read. A piece that lies
// in several is cut at the first border and at the last: what calls do to the
// units between is alike.
func (f *file) units() (out []unit) {
	pieces := f.pieces()
	if f.Atomic == 0 {
		for _, p := range pieces {
			out = append(out, unit{p, []Range{p}})
		}
		return out
	}
	for _, p := range pieces {
		first, last := p.Off-p.Off%f.Atomic+f.Atomic, p.end()-1-(p.end()-1)%f.Atomic
		for _, to := range []int64{first, last, p.end()} {
			if to <= p.Off || to > p.end() {
				continue
			}
			at := p.Off - p.Off%f.Atomic
			if n := len(out); n == 0 || out[n-1].Off != at {
				out = append(out, unit{Range: Range{at, f.Atomic}})
			}
			u := &out[len(out)-1]
			u.pieces = append(u.pieces, Range{p.Off, to - p.Off})
			p.Off, p.Len = to, p.end()-to
		}
	}
	return out
}

// unitState is a unit as calls have left it: the values of its pieces, and where
// the file ends, as seen from within the unit: not before its start, nor behind its
// end.
type unitState struct {
	values string
	end    int64
}

// unitCall is what a call does to a unit at once.
type unitCall struct {
	set, see []cell
	end      endCall
	text     string
}

type cell struct {
	piece int
	value uint8
}

// endCall is what a call does to the end of a file. The zero value does nothing.
type endCall struct {
	grow        int64 // it is there or behind from now on
	cut         bool  // and not behind
	looks       bool  // it is seen to be within least and most
	least, most int64
}

// apply is where the file ends after the call, if the call can be made where it ends
// at end.
func (c endCall) apply(end int64) (after int64, ok bool) {
	switch {
	case c.looks && (end < c.least || end > c.most):
		return end, false
	case c.cut:
		return c.grow, true
	}
	return max(end, c.grow), true
}

// model is the model of a unit. A file is empty at first.
func (u *unit) model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return unitState{string(make([]byte, len(u.pieces))), u.Off} },
		Step: func(state, in, _ any) (bool, any) {
			s, c := state.(unitState), in.(*unitCall)
			for _, x := range c.see {
				if s.values[x.piece] != x.value {
					return false, s
				}
			}
			end, ok := c.end.apply(s.end)
			if !ok {
				return false, s
			}
			if len(c.set) > 0 {
				next := []byte(s.values)
				for _, x := range c.set {
					next[x.piece] = x.value
				}
				s.values = string(next)
			}
			s.end = end
			return true, s
		},
		DescribeOperation: func(in, _ any) string { return in.(*unitCall).text },
	}
}

// clamp is where a file that ends at end ends as seen from within the unit.
func (u *unit) clamp(end int64) int64 { return max(u.Off, min(end, u.end())) }

// checkUnits checks the file for linearizability, unit by unit: its bytes and, with
// an atomic unit, where it ends; a mapping does not go by that.
func (f *file) checkUnits() {
	mapped := func(i int) bool { return f.Events[i].Op == Store || f.Events[i].Op == Load }
	all := slices.Concat(f.writes, f.reads, f.sizes)
	ends := f.Atomic > 0 && !slices.ContainsFunc(all, mapped)
	for _, u := range f.units() {
		var ops []porcupine.Operation
		for _, i := range all {
			e := &f.Events[i]
			calls := u.cells(e)
			if ends {
				calls = u.withEnds(calls, f, e)
			}
			for _, c := range calls {
				c.text = e.String()
				ops = append(ops, operation(e, &c))
			}
		}
		last := u.pieces[len(u.pieces)-1]
		f.requireOrder(u.model(), ops, fmt.Sprintf("bytes [%d,%d) of file %d", u.pieces[0].Off, last.end(), f.id))
	}
}

// long reports whether the kernel cuts the call into several.
func (e *Event) long() bool { return e.Op != Truncate && e.Len > maxRequest }

// cells is what an event does to the pieces of the unit: one call, or if it is
// long, one for each piece.
func (u *unit) cells(e *Event) (calls []unitCall) {
	for k, p := range u.pieces {
		var c unitCall
		switch {
		case e.isRead() && covers(e.span(), p):
			c.see = []cell{{k, e.at(p.Off)}}
		case e.Op == Truncate && p.Off >= e.Len:
			c.set = []cell{{k, 0}}
		case e.isWrite() && covers(e.written(), p):
			c.set = []cell{{k, e.Value}}
		case e.Op == Sieve && covers(e.span(), p):
			c.set = []cell{{k, e.at(p.Off)}}
		default:
			continue
		}
		if len(calls) == 0 || e.long() {
			calls = append(calls, c)
			continue
		}
		calls[0].see, calls[0].set = append(calls[0].see, c.see...), append(calls[0].set, c.set...)
	}
	return calls
}

// withEnds adds to what an event does to the pieces of the unit what it does to the
// end of the file, or sees of it.
func (u *unit) withEnds(calls []unitCall, f *file, e *Event) []unitCall {
	with, apart := u.ends(f, e)
	if len(calls) == 1 && !e.long() {
		calls[0].end = with
	} else {
		apart = append(apart, with)
	}
	for _, c := range apart {
		if c != (endCall{}) {
			calls = append(calls, unitCall{end: c})
		}
	}
	return calls
}

// ends is what an event does to the end of the file, as seen from within the unit: at
// once with what it does to the unit, and apart from that. What a write has behind the
// unit takes effect by itself, and a long one may end for a while wherever that was
// seen.
func (u *unit) ends(f *file, e *Event) (with endCall, apart []endCall) {
	switch {
	case e.Op == Truncate:
		return endCall{grow: u.clamp(e.Len), cut: true}, nil
	case !e.isWrite():
		least, most := e.sawEnd()
		least, most = u.clamp(least), u.clamp(most)
		if least > u.Off || most < u.end() {
			with = endCall{looks: true, least: least, most: most}
		}
		return with, nil
	}
	r := e.put()
	if overlap(r, u.Range) {
		with.grow = min(r.end(), u.end())
	}
	if r.end() > u.end() {
		apart = append(apart, endCall{grow: u.end()})
	}
	if e.long() {
		for _, i := range slices.Concat(f.reads, f.sizes) {
			least, most := f.Events[i].sawEnd()
			for _, n := range []int64{u.clamp(least), u.clamp(most)} {
				if c := (endCall{grow: n}); r.Off < n && n < r.end() && !slices.Contains(apart, c) {
					apart = append(apart, c)
				}
			}
		}
	}
	return with, apart
}

// put is the bytes that a write hands over. One that failed may have written all.
func (e *Event) put() Range {
	if e.Errno != 0 {
		return e.span()
	}
	return Range{e.Off, e.N}
}

// sawEnd returns bounds of where the file ended when a read, or a call that returned a
// size, was made.
func (e *Event) sawEnd() (least, most int64) {
	switch {
	case !e.isRead():
		return e.N, e.N
	case e.Len == 0:
		return 0, maxOff
	case e.N == e.Len:
		return e.Off + e.N, maxOff
	case e.N == 0:
		return 0, e.Off
	}
	return e.Off + e.N, e.Off + e.N
}
