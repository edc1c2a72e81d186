package history

import "slices"

// Pair is two events of a history.
type Pair struct{ First, Second int }

// Unordered returns the pairs of a write and a later access of the same bytes by
// another process, by time or by what processes told each other, of which the
// mode does not oblige the file system to keep the order: a read that need not
// see the write, nor one that takes its place, or a write that need not take its
// place. Bytes that nobody reads are not looked at.
func Unordered(h History) []Pair {
	c := checker{view: newView(h)}
	var out []Pair
	for _, ino := range c.files() {
		f := c.newFile(ino)
		for _, r := range f.pieces() {
			p := &piece{file: f, Range: r}
			for _, w := range f.writes {
				if covers(f.Events[w].written(), r) {
					p.writes = append(p.writes, w)
				}
			}
			out = append(out, p.unordered()...)
		}
	}
	slices.SortFunc(out, func(a, b Pair) int { return (a.First-b.First)*len(h.Events) + a.Second - b.Second })
	return slices.Compact(out)
}

func (p *piece) unordered() (out []Pair) {
	for _, y := range slices.Concat(p.reads, p.writes) {
		if p.Events[y].isRead() && !covers(p.Events[y].span(), p.Range) {
			continue
		}
		for _, w := range p.writes {
			if p.before(w, y) && p.Events[w].Proc != p.Events[y].Proc && !p.settled(w, y) {
				out = append(out, Pair{w, y})
			}
		}
	}
	return out
}

// settled reports whether y comes after w, or after a write that takes the place
// of w, whatever the file system does that keeps to the mode.
func (p *piece) settled(w, y int) bool {
	comes := func(w int) bool {
		if p.Events[y].isRead() {
			return p.must(w, y, p.Range)
		}
		return p.ordered(w, y, p.Range)
	}
	return comes(w) || slices.ContainsFunc(p.writes, func(x int) bool { return p.ordered(w, x, p.Range) && comes(x) })
}
