package history

import (
	"fmt"
	"slices"
)

// origin stands for the write of the bytes that a new file consists of.
const origin = -1

// pieces cuts the bytes of the file that were read so that every event either
// names all bytes of a piece or none, and every read saw one value in it.
func (f *file) pieces() []Range {
	var cuts []int64
	add := func(r Range) { cuts = append(cuts, r.Off, r.end()) }
	for _, i := range slices.Concat(f.writes, f.reads) {
		e := &f.Events[i]
		switch {
		case e.Op == Truncate:
			cuts = append(cuts, e.Len)
			continue
		case e.isWrite():
			add(e.written())
		}
		add(e.span())
		off := e.Off
		for _, r := range e.Seen {
			off += r.Len
			cuts = append(cuts, off)
		}
	}
	for i := range f.Events {
		if e := &f.Events[i]; f.ino[i] == f.id && (e.Op == Lock || e.Op == Unlock) {
			add(e.span())
		}
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	var out []Range
	for i := range len(cuts) - 1 {
		r := Range{cuts[i], cuts[i+1] - cuts[i]}
		if slices.ContainsFunc(f.reads, func(i int) bool { return covers(f.Events[i].span(), r) }) {
			out = append(out, r)
		}
	}
	return out
}

// piece is one piece of a file: who wrote it, who read it, and what is known of
// the order of the writes.
type piece struct {
	*file
	Range
	writes []int
	over   map[[2]int]bool // {w, x}: x takes the place of w
	seen   map[int]int     // by read: the write that it is known to come from
}

// checkBytes looks for each piece of each read for a write that it may have
// come from.
func (f *file) checkBytes() {
	for _, r := range f.pieces() {
		p := &piece{file: f, Range: r, seen: map[int]int{}}
		for _, w := range f.writes {
			if covers(f.Events[w].written(), r) {
				p.writes = append(p.writes, w)
			}
		}
		p.orderWrites()
		for _, i := range f.reads {
			if covers(f.Events[i].span(), r) {
				p.checkRead(i)
			}
		}
	}
}

// orderWrites closes the order of the writes.
func (p *piece) orderWrites() {
	p.over = map[[2]int]bool{}
	for _, w := range p.writes {
		p.over[[2]int{origin, w}] = true
		for _, x := range p.writes {
			p.over[[2]int{w, x}] = w != x && p.ordered(w, x, p.Range)
		}
	}
	for _, k := range p.writes {
		for _, w := range p.writes {
			for _, x := range p.writes {
				if p.over[[2]int{w, k}] && p.over[[2]int{k, x}] {
					p.over[[2]int{w, x}] = true
				}
			}
		}
	}
}

// value is what a write put into the piece.
func (p *piece) value(w int) uint8 {
	if w == origin || p.Events[w].Op == Truncate {
		return 0
	}
	return p.Events[w].Value
}

// checkRead requires that what read r saw may come from some write.
func (p *piece) checkRead(r int) {
	got := p.Events[r].at(p.Off)
	reason, text := Invented, "nobody wrote that"
	var from []int
	for _, w := range append([]int{origin}, p.writes...) {
		why, because := p.excluded(w, r)
		if why == "" {
			from = append(from, w)
		}
		if p.value(w) == got && why != "" {
			reason, text = why, because
		}
	}
	if len(from) > 1 {
		p.Races++
	}
	match := slices.DeleteFunc(from, func(w int) bool { return p.value(w) != got })
	switch {
	case len(match) == 1:
		p.seen[r] = match[0]
	case len(match) == 0 && !p.copied(r, got):
		p.fail(reason, r, "%v: [%d,%d) is %d: %s", &p.Events[r], p.Off, p.end(), got, text)
	}
}

// excluded returns why read r cannot see write w, "" if it can.
func (p *piece) excluded(w, r int) (Reason, string) {
	if w != origin && (p.before(r, w) || p.Events[w].Call > p.Events[r].Return) {
		return Future, fmt.Sprintf("%v was not yet begun", &p.Events[w])
	}
	for _, x := range p.writes {
		if p.over[[2]int{w, x}] && p.must(x, r, p.Range) {
			return Stale, fmt.Sprintf("%v must be seen", &p.Events[x])
		}
	}
	for _, earlier := range p.reads {
		x, ok := p.seen[earlier]
		if ok && p.open[earlier] == p.open[r] && p.before(earlier, r) && p.over[[2]int{w, x}] {
			return Back, fmt.Sprintf("%v had been returned before", &p.Events[x])
		}
	}
	if x, ok := p.frozen(r); ok && x != w {
		return Sealed, fmt.Sprintf("the file is sealed, and %v was read from it", &p.Events[x])
	}
	return "", ""
}

// frozen returns what an earlier read of the piece saw in the time in which the
// file was sealed, if r falls into that time too.
func (p *piece) frozen(r int) (w int, ok bool) {
	if p.Mode != Laminated {
		return 0, false
	}
	for _, earlier := range p.reads {
		x, seen := p.seen[earlier]
		if seen && x != origin && p.oneSeal(earlier, r) {
			return x, true
		}
	}
	return 0, false
}

// oneSeal reports whether two reads were made while the file was sealed and no
// chmod came between.
func (p *piece) oneSeal(a, b int) bool {
	for s := range p.Events {
		e := &p.Events[s]
		if p.ino[s] != p.ino[a] || e.Errno != 0 || !e.seals() || !p.before(s, a) || !p.before(s, b) {
			continue
		}
		broken := slices.ContainsFunc(p.chmods(), func(u int) bool {
			return !p.before(u, s) && u != s && !(p.before(a, u) && p.before(b, u))
		})
		if !broken {
			return true
		}
	}
	return false
}

// chmods are all chmods of the file.
func (f *file) chmods() (out []int) {
	for i := range f.Events {
		if f.ino[i] == f.id && f.Events[i].Op == Chmod {
			out = append(out, i)
		}
	}
	return out
}

// copied reports whether a read that saw got may have seen what a Sieve wrote
// back around its own bytes. What was written before the Sieve read, or after
// it wrote, it must not undo in any mode; but in between nobody keeps it from
// that.
func (p *piece) copied(r int, got uint8) bool {
	for _, s := range p.sieves {
		e := &p.Events[s]
		if !covers(e.span(), p.Range) || covers(e.Own, p.Range) || p.before(r, s) || e.at(p.Off) != got {
			continue
		}
		read := p.readOf(s)
		for _, w := range p.writes {
			if read >= 0 && !p.before(w, read) && !p.before(s, w) && w != s {
				return true
			}
		}
	}
	return false
}

// readOf is the read whose bytes a Sieve or an Incr wrote back: the last one of
// its process.
func (v *view) readOf(i int) int {
	for k := i - 1; k >= 0; k-- {
		if v.Events[k].Proc == v.Events[i].Proc {
			return k
		}
	}
	return -1
}

// checkCounters requires that no value was reached by two increments.
func (f *file) checkCounters() {
	type place struct {
		off   int64
		value uint8
	}
	reached := map[place]int{}
	for _, w := range f.writes {
		e := &f.Events[w]
		if e.Op != Incr || e.Errno != 0 {
			continue
		}
		at := place{e.Off, e.Value}
		if other, ok := reached[at]; ok {
			f.fail(Lost, w, "%v, and so did %v", e, &f.Events[other])
		}
		reached[at] = w
	}
}
