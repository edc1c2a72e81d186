package ionserver

import (
	"slices"

	"github.com/zoidfs/zoidfs/internal/extent"
)

const (
	maxRuns    = 128      // places of a file where readers are followed
	readSlack  = 2        // a read that is nearer to a place than so many of its length belongs to it
	leastAhead = 64 << 10 // bytes that fetching ahead begins with
)

// lookahead follows the readers of a file, all of them together, and says what
// to fetch besides what one of them misses: where they read everything between
// them, in whatever order their reads come, whole domains, as many as a flow to
// each server holds. Where they do not, nothing: random readers pay for no byte
// that they have not asked for.
//
// What counts is the bytes that this owner has; the domains of others between
// them are passed by. It is pure.
type lookahead struct {
	size  int64                // bytes of a domain
	owned func(off int64) bool // whether the domain of off is this owner's
	runs  []readRun            // the last used first
}

// readRun is a place where readers are.
type readRun struct {
	from, to int64 // of all their reads
	next     int64 // where the owner's bytes go on behind to
	span     int64 // bytes between from and to that this owner has
	asked    int64 // bytes of the reads
	reads    int
	window   int64 // bytes that were fetched around the last miss
	promised bool  // lies where those of a dense place are bound for
}

// manyReads is how many reads make a place that tells where others will read.
const manyReads = 8

// dense reports whether nearly everything there was read, by so many reads or
// more.
func (r *readRun) dense(reads int) bool { return r.reads >= reads && r.asked >= r.span/4*3 }

// promises reports whether a read at o, which is new, is of those who were at r:
// it lies no further ahead than they have come.
func (r *readRun) promises(o *readRun) bool {
	return r.dense(manyReads) && o.from >= r.to && o.from <= r.next+r.span
}

// near reports whether o lies at r, or no more than slack away.
func (r *readRun) near(o *readRun, slack int64) bool {
	return o.from <= r.next+slack && r.from <= o.next+slack
}

// join takes o, which is near, into r.
func (r *readRun) join(o readRun) {
	first, last := *r, o
	if o.from < r.from {
		first, last = o, *r
	}
	switch {
	case last.from >= first.to: // the domains of others between them do not count
		r.span = first.span + last.span + max(0, last.from-first.next)
	case last.to > first.to:
		r.span = max(first.span, first.span+last.span-(first.to-last.from))
	default:
		r.span = first.span
	}
	r.from = first.from
	if o.to > r.to {
		r.to, r.next = o.to, o.next
	}
	r.asked = min(r.span, r.asked+o.asked)
	r.reads += o.reads
	r.window = max(r.window, o.window)
	r.promised = false
}

// skip is off, or the start of the owner's next domain if off is in another
// one's; where there is none soon, some offset before it.
func (l *lookahead) skip(off int64) int64 {
	for i := 0; i < 64 && !l.owned(off); i++ {
		off = (off/l.size + 1) * l.size
	}
	return off
}

// note takes in a read of n bytes of e, which lies in a domain of this owner.
func (l *lookahead) note(e extent.Extent, n int64) {
	here := readRun{from: e.Off, to: e.End(), next: l.skip(e.End()), span: e.Len, asked: n, reads: 1}
	first, promised, rest := here, int64(0), l.runs[:0]
	for _, r := range l.runs {
		if r.near(&here, readSlack*e.Len) {
			here.join(r)
			continue
		}
		rest = append(rest, r)
		if r.promises(&first) {
			promised = max(promised, r.window)
		}
	}
	if here == first && promised > 0 {
		here.promised, here.window = true, promised
	}
	l.runs = slices.Insert(rest, 0, here)
	l.runs = l.runs[:min(len(l.runs), maxRuns)]
}

// around says what to fetch, of what is not known, when the read that was noted
// last misses something: extents of at most most bytes in all beyond it; sorted,
// none touch. nil is nothing more.
func (l *lookahead) around(e extent.Extent, most int64) []extent.Extent {
	r := &l.runs[0]
	if !r.promised && !r.dense(2) {
		r.window = 0
		return nil
	}
	r.window = min(most, max(leastAhead, r.span, 2*r.window))
	if r.window < leastAhead {
		return nil
	}
	out := []extent.Extent{{Off: max(r.from, e.Off-r.window/2), Len: 0}} // who lags behind
	out[0].Off = max(out[0].Off, e.Off/l.size*l.size)
	out[0].Len = e.End() - out[0].Off
	for left := r.window; left > 0; {
		last := &out[len(out)-1]
		off := l.skip(last.End())
		if !l.owned(off) {
			break
		}
		n := min(left, (off/l.size+1)*l.size-off)
		left -= n
		if off == last.End() {
			last.Len += n
		} else {
			out = append(out, extent.Extent{Off: off, Len: n})
		}
	}
	return out
}
