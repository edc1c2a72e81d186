package collective

import (
	"slices"
	"time"

	"github.com/zoidfs/zoidfs/internal/extent"
)

const (
	maxRuns    = 128      // places of a file where readers are followed
	maxAheads  = 64       // fetches ahead that are remembered
	readSlack  = 2        // a read that is nearer to a place than so many of its length belongs to it
	leastAhead = 64 << 10 // bytes that fetching ahead begins with, and that several have read before they are trusted
	manyReads  = 8        // how many reads make a place that tells where others will read
	firstReads = 16       // reads of a file of which those in one domain go together
)

// Lookahead follows the readers of a file, all of them together, and says what
// to fetch besides what one of them misses: where they read everything between
// them, in whatever order their reads come, whole domains, as many as a flow to
// each server holds or two. Where they do not, nothing: random readers pay for no
// byte that they have not asked for.
//
// What counts is the bytes that this owner has; the domains of others between
// them are passed by. It is pure, and not safe for concurrent use.
type Lookahead struct {
	Domain int64                // bytes of a domain
	Owned  func(off int64) bool // whether the domain of off is this owner's
	// Price estimates what a request of so many extents and bytes takes; nil: the fewer
	// requests the better.
	Price func(extents int, bytes int64) time.Duration

	runs   []readRun       // the last used first
	aheads []*Ahead        // the last begun first
	first  []extent.Extent // the first reads
	probe  *Ahead          // of them, on its way; nil: none
	seen   int             // reads
	end    int64           // the file ends there, as far as is known; 0: it is not known
	chosen Choice          // at the last Miss that was to fetch nothing else
}

// Ahead is a fetch of more than one read has asked for. It is on its way until
// Lookahead.Landed.
type Ahead struct {
	Extents []extent.Extent // sorted, none touch
	Choice  Choice

	bytes    int64 // of Extents
	read     int64 // how many of them were
	at       int   // Lookahead.seen when it began
	flying   bool
	followed bool // the next one was begun
}

func (a *Ahead) from() int64 { return a.Extents[0].Off }
func (a *Ahead) to() int64   { return a.Extents[len(a.Extents)-1].End() }

// has reports whether off lies between the first and the last byte of it.
func (a *Ahead) has(off int64) bool { return a.from() <= off && off < a.to() }

// near reports whether off lies no further from it than it is long.
func (a *Ahead) near(off int64) bool { return a.from()-a.bytes <= off && off <= a.to()+a.bytes }

// readRun is a place where readers are.
type readRun struct {
	from, to int64 // of all their reads
	next     int64 // where the owner's bytes go on behind to
	span     int64 // bytes between from and to that this owner has
	asked    int64 // bytes of the reads
	reads    int
	asks     int    // READs that these came in
	window   int64  // bytes that were fetched around the last miss
	promised bool   // lies where those of a dense place are bound for
	born     int    // Lookahead.seen at its first read
	node     uint64 // who read first
	several  bool   // they are of a job, or of several nodes
	pieces   int    // the most of one read
}

// dense reports whether nearly everything there was read, by so many reads or
// more.
func (r *readRun) dense(reads int) bool { return r.reads >= reads && r.asked >= r.span/4*3 }

// combs reports whether a node has asked for many pieces at once, that is, follows
// ranks of a job there of which each reads a part. Then the others are thought to
// read the rest of the first domain; of the next ones, if they did.
func (r *readRun) combs(domain int64) bool {
	return r.several && r.pieces >= manyReads && (r.span <= domain || float64(r.asked) >= denseUse*float64(r.span))
}

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
	r.asks += o.asks
	r.pieces = max(r.pieces, o.pieces)
	r.window = max(r.window, o.window)
	r.promised = false
	r.born = min(r.born, o.born)
	r.several = r.several || o.several || r.node != o.node
}

// skip is off, or the start of the owner's next domain if off is in another
// one's; where there is none soon, some offset before it.
func (l *Lookahead) skip(off int64) int64 {
	for i := 0; i < 64 && !l.Owned(off); i++ {
		off = (off/l.Domain + 1) * l.Domain
	}
	return off
}

// Note takes in a read of n bytes in so many pieces of e, which lies in a domain of
// this owner, by processes of a node and, unless that is zero, of a job. Each piece
// counts as a read: those of several processes may come together.
func (l *Lookahead) Note(node uint64, job JobID, e extent.Extent, n int64, pieces int) {
	l.seen++
	if e.End() > l.end {
		l.end = 0 // it has grown
	}
	if l.seen <= firstReads && n == e.Len && n <= leastAhead {
		l.first = append(l.first, e)
	}
	here := readRun{
		from: e.Off, to: e.End(), next: l.skip(e.End()), span: e.Len, asked: n, reads: pieces, pieces: pieces, asks: 1,
		born: l.seen, node: node, several: job != 0,
	}
	first, promised, before, rest := here, int64(0), int64(0), l.runs[:0]
	for _, r := range l.runs {
		if r.near(&here, readSlack*e.Len) {
			before += r.asked
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
	for _, a := range l.aheads {
		if a.has(e.Off) {
			a.read += max(0, here.asked-before) // what was read twice counts once
			break
		}
	}
}

// Miss says what to fetch when the read that was noted last misses something of
// e: something that contains it, or nil: that alone. If the readers there have a
// fetch on its way, behind, it is to land before Miss is asked again, for who
// comes meanwhile tells what comes next. Where several read together a round is
// fetched as soon as they are trusted, where one does as much again as he has
// come; doubled each time, up to most. A node that asks for many pieces of several
// gets the domain first. All that only where it is estimated to cost less than what they
// ask for alone.
func (l *Lookahead) Miss(e extent.Extent, round, most int64) (fetch, behind *Ahead) {
	r := &l.runs[0]
	l.chosen = Choice{}
	first, use := l.crowd(e)
	together := use > 0
	combs := !together && r.combs(l.Domain)
	trusted := together || r.promised || r.dense(2) || combs
	for _, a := range l.aheads {
		if a.flying && a.near(e.Off) && (trusted || a.bytes >= l.Domain) {
			return nil, a
		}
	}
	if l.probe != nil && !together && l.probe.from()/l.Domain == e.Off/l.Domain {
		return nil, l.probe
	}
	l.aheads = slices.DeleteFunc(l.aheads, func(a *Ahead) bool { return !a.flying && a.has(e.Off) }) // it is not there any more
	if !trusted && l.probe == nil && slices.Contains(l.first, e) {
		l.probe = l.gather(extent.Extent{Off: e.Off / l.Domain * l.Domain, Len: l.Domain})
		return l.probe, nil
	}
	if !trusted || l.vain(r, e) {
		r.window = 0
		return nil, nil
	}
	start := e.Off / l.Domain * l.Domain
	if combs && l.Domain <= most {
		use := 1.0
		if r.span > l.Domain {
			use = r.used()
		}
		return l.ahead(r, use, start, e.End(), l.Domain), nil
	}
	r.window = max(leastAhead, r.span, 2*r.window)
	if together {
		l.first = nil
		r.window = max(r.window, round)
	}
	if r.window = min(most, r.window); r.window < leastAhead {
		return nil, nil
	}
	if r.promised {
		first = start
	}
	return l.ahead(r, max(use, r.used()), max(start, first, e.Off-r.window/2), e.End(), r.window), nil
}

// ahead is begin where readers want so much of what lies there, if that is estimated to
// pay.
func (l *Lookahead) ahead(r *readRun, use float64, first, at, n int64) *Ahead {
	c := choose(use, n, r.asked/int64(r.asks), l.Price)
	if c.Way == PassThrough {
		r.window, l.chosen = 0, c
		return nil
	}
	r.window = n
	a := l.begin(first, at, n)
	if a != nil {
		a.Choice = c
	}
	return a
}

// Chosen is why the last Miss was to fetch nothing but what the read asks for.
func (l *Lookahead) Chosen() Choice { return l.chosen }

// used is which share of what lies there was read.
func (r *readRun) used() float64 { return float64(r.asked) / float64(max(1, r.span)) }

// gather is a fetch of what the first reads have asked for of a domain.
func (l *Lookahead) gather(domain extent.Extent) *Ahead {
	a := &Ahead{flying: true, Choice: Choice{Way: Gathered}}
	for _, e := range l.first {
		if domain.Contains(e) {
			a.Extents = append(a.Extents, e)
		}
	}
	a.Extents = extent.Normalize(a.Extents)
	return a
}

// vain reports whether much of the domains that were fetched last before this
// place lies there unread, passed by by those who have come to r.
func (l *Lookahead) vain(r *readRun, e extent.Extent) bool {
	var last *Ahead
	for _, a := range l.aheads {
		if a.bytes >= l.Domain && a.to() <= e.Off && (last == nil || a.from() > last.from()) {
			last = a
		}
	}
	return last != nil && (r.born > last.at || r.from < last.to()) && last.read < last.bytes/8*5 && r.asked < l.Domain
}

// crowd looks at all who read around e. It returns where they begin, and, if several
// read there together, how much of what lies between them: most, and so much that it is
// no accident; else 0.
func (l *Lookahead) crowd(e extent.Extent) (first int64, use float64) {
	start := e.Off / l.Domain * l.Domain
	around := extent.Extent{Off: max(start, e.Off-RegionSize/2)}
	around.Len = min(start+l.Domain, e.End()+RegionSize/2) - around.Off
	first, last, reads := e.Off, e.End(), 0
	var asked float64
	several := false
	for i := range l.runs {
		r := &l.runs[i]
		both := around.Intersect(extent.Extent{Off: r.from, Len: r.to - r.from})
		if both.Empty() {
			continue
		}
		first, last = min(first, both.Off), max(last, both.End())
		reads += r.reads
		asked += float64(both.Len) * float64(r.asked) / float64(r.span)
		several = several || r.several || r.node != l.runs[0].node
	}
	enough := asked >= float64(leastAhead) && (reads >= manyReads/2 || asked >= float64(RegionSize))
	if !several || !enough || asked < denseUse*float64(last-first) {
		return first, 0
	}
	return first, min(1, asked/float64(last-first))
}

// Next says what to fetch already when the read that was noted last missed
// nothing of e: what comes behind a fetch of whole domains of which half was
// read, twice as much or, where several read, most. nil is nothing.
func (l *Lookahead) Next(e extent.Extent, most int64) *Ahead {
	i := slices.IndexFunc(l.aheads, func(a *Ahead) bool { return a.has(e.Off) })
	if i < 0 {
		return nil
	}
	a := l.aheads[i]
	if a.flying || a.followed || a.bytes < l.Domain || a.read < a.bytes/2 {
		return nil
	}
	a.followed = true
	at, n := l.skip(a.to()), min(most, 2*a.bytes)
	if l.runs[0].several {
		n = most
	}
	if n < l.Domain || slices.ContainsFunc(l.aheads, func(a *Ahead) bool { return a.has(at) }) {
		return nil
	}
	return l.ahead(&l.runs[0], min(1, float64(a.read)/float64(a.bytes)), at, at, n)
}

// begin is a fetch of what lies from first up to at, and of n bytes behind that
// or, if that is a domain or more, of whole domains. It is nil if nothing is there.
func (l *Lookahead) begin(first, at, n int64) *Ahead {
	out := []extent.Extent{{Off: first, Len: at - first}}
	whole := n >= l.Domain
	for n > 0 {
		last := &out[len(out)-1]
		off := l.skip(last.End())
		rest := l.Domain - off%l.Domain
		if !l.Owned(off) || l.end > 0 && off >= l.end || whole && rest > n {
			break
		}
		rest = min(rest, n)
		n -= rest
		if off == last.End() {
			last.Len += rest
		} else {
			out = append(out, extent.Extent{Off: off, Len: rest})
		}
	}
	out = slices.DeleteFunc(out, extent.Extent.Empty)
	if len(out) == 0 {
		return nil
	}
	a := &Ahead{Extents: out, bytes: extent.Total(out), at: l.seen, flying: true}
	l.aheads = slices.Insert(l.aheads, 0, a)
	for i := len(l.aheads) - 1; len(l.aheads) > maxAheads && i > 0; i-- {
		if !l.aheads[i].flying {
			l.aheads = slices.Delete(l.aheads, i, i+1)
		}
	}
	return a
}

// Landed says that a has come, or will not.
func (l *Lookahead) Landed(a *Ahead) {
	a.flying = false
	if a == l.probe {
		l.probe = nil
	}
}

// Ends says where the end of the file was found, behind which nothing is fetched ahead until
// somebody reads there; 0: nowhere.
func (l *Lookahead) Ends(at int64) { l.end = at }
