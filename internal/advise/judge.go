package advise

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// budget bounds the pieces that are looked at for one file.
const budget = 100_000_000

// none stands for no access.
const none = -1

// piece is a range of bytes that every access names as a whole or not at all.
type piece struct {
	writer  int32    // the last write so far
	readers [2]int32 // since then: those of different agents that ended last
}

// judge finds the conflicts of one file. It goes through the accesses by time and
// remembers of each piece who wrote it last: if that one and the next are
// ordered, so are all before it, as being ordered carries on.
type judge struct {
	w    *world
	f    *file
	bars *barriers

	bounds []int64 // pieces[i] is [bounds[i], bounds[i+1])
	pieces []piece
	plain  bool    // no locks: all pieces of a pair are alike
	asked  []int32 // by access: the last one that it was paired with

	earliest map[int][]int64 // by agent: of publish, from each on, the first end
	newest   map[int][]int64 // by agent: of acquire, up to each, the last start
	breaks   map[breakKey]*Conflict
	shared   int
	locked   int
	cutEnds  []int64 // of file.cuts, from each on, the first end
}

type breakKey struct {
	kind string
	need Need
	p, q int
}

func newJudge(w *world, f *file, bars *barriers) *judge {
	j := &judge{
		w: w, f: f, bars: bars, plain: true, asked: make([]int32, len(f.accesses)),
		earliest: map[int][]int64{}, newest: map[int][]int64{}, breaks: map[breakKey]*Conflict{},
	}
	f.out.Orders = map[Order]int{}
	add := func(off, end int64) { j.bounds = append(j.bounds, off, end) }
	for i := range f.accesses {
		add(f.accesses[i].off, f.accesses[i].end)
		j.asked[i] = none
	}
	for who, s := range f.syncs {
		j.earliest[who] = firstEnds(s.publish)
		j.newest[who] = lastStarts(s.acquire)
		for _, l := range slices.Concat(s.locks, s.unlocks) {
			j.plain = false
			add(l.off, l.to)
		}
		slices.SortFunc(s.locks, func(a, b held) int { return cmp.Compare(a.end, b.end) })
	}
	j.cutEnds = firstEnds(f.cuts)
	slices.Sort(j.bounds)
	j.bounds = slices.Compact(j.bounds)
	j.pieces = make([]piece, max(len(j.bounds)-1, 0))
	for i := range j.pieces {
		j.pieces[i] = piece{none, [2]int32{none, none}}
	}
	return j
}

// firstEnds is, for each span on, the first end of it and those after it. Spans
// are sorted by start.
func firstEnds(s []span) []int64 {
	out := make([]int64, len(s)+1)
	out[len(s)] = math.MaxInt64
	for i := len(s) - 1; i >= 0; i-- {
		out[i] = min(out[i+1], s[i].end)
	}
	return out
}

// lastStarts is, for the spans sorted by end, the last start up to each; it
// sorts them.
func lastStarts(s []span) []int64 {
	slices.SortFunc(s, func(a, b span) int { return cmp.Compare(a.end, b.end) })
	out := make([]int64, len(s)+1)
	out[0] = math.MinInt64
	for i := range s {
		out[i+1] = max(out[i], s[i].start)
	}
	return out
}

func (j *judge) run() {
	left := budget
	for y := range j.f.accesses {
		a := &j.f.accesses[y]
		from, _ := slices.BinarySearch(j.bounds, a.off)
		for k := from; k < len(j.pieces) && j.bounds[k] < a.end; k++ {
			if left--; left < 0 {
				j.f.out.Partial = true
				break
			}
			j.visit(y, k)
		}
	}
	for _, c := range j.breaks {
		if c.Need == j.f.out.Model.Need || c.Need == NeedMore {
			j.f.out.Breaks = append(j.f.out.Breaks, *c)
		}
	}
	slices.SortFunc(j.f.out.Breaks, func(a, b Conflict) int {
		return cmp.Or(cmp.Compare(b.Need, a.Need), cmp.Compare(b.Pairs, a.Pairs), cmp.Compare(a.First.Start, b.First.Start))
	})
	j.f.out.Breaks = j.f.out.Breaks[:min(len(j.f.out.Breaks), maxBreaks)]
	j.f.out.judge(j.shared, j.locked)
}

// visit pairs access y with those before it in piece k.
func (j *judge) visit(y, k int) {
	p, a := &j.pieces[k], &j.f.accesses[y]
	if p.writer != none {
		j.pair(int(p.writer), y, k)
	}
	if a.write {
		for _, r := range p.readers {
			if r != none {
				j.pair(int(r), y, k)
			}
		}
		*p = piece{int32(y), [2]int32{none, none}}
		return
	}
	j.readBy(p, y)
}

// readBy notes a read of a piece.
func (j *judge) readBy(p *piece, y int) {
	acc := j.f.accesses
	for i, r := range p.readers {
		if r == none || acc[r].who == acc[y].who {
			if r == none || acc[y].End > acc[r].End {
				p.readers[i] = int32(y)
			}
			return
		}
	}
	i := 0
	if acc[p.readers[1]].End < acc[p.readers[0]].End {
		i = 1
	}
	if acc[y].End > acc[p.readers[i]].End {
		p.readers[i] = int32(y)
	}
}

// pair judges access x, which began first, and y, of which one writes, in piece k.
func (j *judge) pair(x, y, k int) {
	a, b := &j.f.accesses[x], &j.f.accesses[y]
	again := j.asked[x] == int32(y)
	if a.who == b.who || a.cut && b.cut || again && j.plain {
		if again {
			j.extend(x, y, k)
		}
		return
	}
	j.asked[x] = int32(y)
	lo, hi := j.bounds[k], j.bounds[k+1]
	model, zoidfs := NeedNothing, NeedNothing
	switch {
	case a.End > b.Start:
		model, zoidfs = NeedMore, NeedMore
	case a.write:
		model, zoidfs = j.need(a, b, lo, hi, false), j.need(a, b, lo, hi, true)
	}
	order := j.order(a, b, model)
	if order == ByTime && j.w.opt.Strict {
		model, zoidfs = NeedMore, NeedMore
	}
	if a.write && !again {
		j.shared++
		if order == ByLock {
			j.locked++
		}
		if a.End <= b.Start {
			j.f.out.Orders[order]++
		}
	}
	j.f.out.Model.Need = max(j.f.out.Model.Need, model)
	j.f.out.Zoidfs.Need = max(j.f.out.Zoidfs.Need, zoidfs)
	if model > NeedSession {
		j.note(a, b, k, model, order, again)
	}
}

// note keeps a conflict that a weaker mode than model leaves unordered.
func (j *judge) note(a, b *access, k int, model Need, order Order, again bool) {
	kind := kindOf(b) + " after " + kindOf(a)
	key := breakKey{kind, model, a.who, b.who}
	c := j.breaks[key]
	if c != nil {
		if !again {
			c.Pairs++
		}
		return
	}
	c = &Conflict{
		Kind: kind, Need: model, Mode: model.Mode().String(), First: j.side(a), Second: j.side(b),
		Off: j.bounds[k], Len: j.bounds[k+1] - j.bounds[k], Order: order, Missing: j.missing(a, b, model), Pairs: 1,
	}
	if model == NeedMore {
		c.Mode = "a lock or a message"
	}
	j.breaks[key] = c
}

// extend adds piece k to the conflict that the pair stands for.
func (j *judge) extend(x, y, k int) {
	a, b := &j.f.accesses[x], &j.f.accesses[y]
	for _, c := range j.breaks {
		if c.First.Start == a.Start && c.Second.Start == b.Start && c.Off+c.Len == j.bounds[k] {
			c.Len = j.bounds[k+1] - c.Off
		}
	}
}

func kindOf(a *access) string {
	switch {
	case a.cut:
		return "truncation"
	case a.write:
		return "write"
	}
	return "read"
}

func (j *judge) side(a *access) Access {
	return Access{Who: j.w.agents[a.who].name, Node: j.w.agents[a.who].node, Call: callText(a.Call), Start: a.Start, End: a.End}
}

// missing says what a weaker mode would have needed.
func (j *judge) missing(a, b *access, model Need) string {
	p, q := j.w.agents[a.who].name, j.w.agents[b.who].name
	switch model {
	case NeedMore:
		if a.End <= b.Start {
			return "nothing but time says which came first"
		}
		return "they overlap in time"
	case NeedStrong:
		return fmt.Sprintf("%s had not synchronised its write (fsync, close, unlock) when %s made its call", p, q)
	case NeedCommit:
		return fmt.Sprintf("%s did not open the file (or lock these bytes) after %s had synchronised", q, p)
	}
	return ""
}

// need is the weakest mode that orders write a before b in the bytes [lo, hi). b
// began after a had returned. With zoidfs, what docs/consistency.md promises
// beyond the model counts too: a write only needs the one before it to be
// published, and who may write sees everything.
func (j *judge) need(a, b *access, lo, hi int64, zoidfs bool) Need {
	if a.cut || b.cut || zoidfs && b.recalls || j.renamed(a, b) || j.passedOn(a, b, lo, hi) {
		return NeedSession
	}
	at := j.published(a, lo, hi)
	switch {
	case !j.linked(a, at, b, b.Start):
		return NeedStrong
	case zoidfs && b.write, j.acquired(a, at, b, lo, hi):
		return NeedSession
	}
	return NeedCommit
}

// linked reports whether a call by the agent of a that had returned at the time
// at came before what the agent of b began at start. Time tells, and if barriers
// were imported and time alone is not to count, only they do.
func (j *judge) linked(a *access, at int64, b *access, start int64) bool {
	return at <= start && (!j.strict() || j.bars.before(a.who, at, b.who, start))
}

func (j *judge) strict() bool { return j.w.opt.Strict && len(j.w.opt.Barriers) > 0 }

// published is when bytes [lo, hi) of write a were surely published.
func (j *judge) published(a *access, lo, hi int64) int64 {
	if a.self {
		return a.End
	}
	s := j.f.sync(a.who)
	after := func(list []span) int {
		i, _ := slices.BinarySearchFunc(list, a.End, func(x span, t int64) int { return cmp.Compare(x.start, t) })
		return i
	}
	at := min(j.earliest[a.who][after(s.publish)], j.cutEnds[after(j.f.cuts)])
	i, _ := slices.BinarySearchFunc(s.unlocks, a.End, func(x held, t int64) int { return cmp.Compare(x.start, t) })
	for ; i < len(s.unlocks) && s.unlocks[i].start < at; i++ {
		if u := s.unlocks[i]; u.covers(lo, hi) {
			at = min(at, u.end)
		}
	}
	return at
}

// acquired reports whether the agent of b had opened the file, or locked the
// bytes, between the time at, when a was published, and b.
func (j *judge) acquired(a *access, at int64, b *access, lo, hi int64) bool {
	s := j.f.sync(b.who)
	i, _ := slices.BinarySearchFunc(s.acquire, b.Start, func(x span, t int64) int {
		if x.end <= t {
			return -1
		}
		return 1
	})
	if start := j.newest[b.who][i]; j.linked(a, at, b, start) {
		j.margin(start - at)
		return true
	}
	locks := until(s.locks, b.Start)
	for k := len(locks) - 1; k >= 0 && locks[k].end >= at; k-- {
		if l := locks[k]; j.linked(a, at, b, l.start) && l.covers(lo, hi) {
			return true
		}
	}
	return false
}

// margin takes note of how long before an open the file had been published.
func (j *judge) margin(d int64) {
	if m := &j.f.out.Margin; *m == 0 || time.Duration(d) < *m {
		*m = time.Duration(max(d, 1))
	}
}

// until is those of locks, sorted by end, that had been got at t.
func until(locks []held, t int64) []held {
	n, _ := slices.BinarySearchFunc(locks, t, func(x held, t int64) int {
		if x.end <= t {
			return -1
		}
		return 1
	})
	return locks[:n]
}

// renamed reports whether b goes by a file that was opened under the name that
// the agent of a gave it after a.
func (j *judge) renamed(a, b *access) bool {
	return slices.ContainsFunc(j.f.sync(a.who).renames, func(n named) bool {
		return n.start >= a.End && n.end <= b.at && n.to == b.path
	})
}

// window is how many locks are looked back for one that was passed on.
const window = 8

// order is what says that b came after a; model is what the pair needs.
func (j *judge) order(a, b *access, model Need) Order {
	switch {
	case a.End > b.Start:
		return ByTime
	case j.passedOn(a, b, 0, 0):
		return ByLock
	case j.bars.before(a.who, a.End, b.who, b.Start):
		return ByBarrier
	case a.write && model == NeedSession:
		return ByOpen
	}
	return ByTime
}

// passedOn reports whether the agent of a held a lock of bytes [lo, hi) when it
// made it, and the agent of b got one that excludes it after that had been given
// up. If hi is 0 any bytes will do, as what a lock protects is the program's
// business.
func (j *judge) passedOn(a, b *access, lo, hi int64) bool {
	p, q := j.f.sync(a.who), j.f.sync(b.who)
	i, _ := slices.BinarySearchFunc(p.unlocks, a.End, func(x held, t int64) int { return cmp.Compare(x.start, t) })
	given := p.unlocks[i:]
	given = given[:min(len(given), window)]
	for _, l := range last(until(q.locks, b.Start)) {
		for _, k := range last(until(p.locks, a.Start)) {
			if l.off >= k.to || k.off >= l.to || l.shared && k.shared || hi > 0 && !(l.covers(lo, hi) && k.covers(lo, hi)) {
				continue
			}
			if slices.ContainsFunc(given, func(u held) bool {
				return u.start <= l.end && u.off < k.to && k.off < u.to && (hi == 0 || u.covers(lo, hi))
			}) {
				return true
			}
		}
	}
	return false
}

func (h held) covers(lo, hi int64) bool { return h.off <= lo && hi <= h.to }

// last is the last few of locks.
func last(locks []held) []held { return locks[max(0, len(locks)-window):] }
