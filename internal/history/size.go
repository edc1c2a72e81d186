package history

import "slices"

// bounds are the least and the largest size that event y may return.
//
// A truncation is seen by everybody at once, so the size is at least what the
// last truncations set and what writes that y must see, and that no truncation
// may have cut, reach; and at most what the last truncations set and any other
// write reaches.
func (f *file) bounds(y int) (least, most int64) {
	least, most = maxOff, 0
	cut := func(t int) bool { // t may be the last truncation that y sees
		return !slices.ContainsFunc(f.writes, func(u int) bool {
			return f.truncates(u) && (t == origin || f.before(t, u)) && f.before(u, y)
		})
	}
	for _, t := range append([]int{origin}, f.writes...) {
		if t == origin && cut(t) {
			least = 0
		} else if t != origin && f.Events[t].Op == Truncate && !f.before(y, t) && cut(t) {
			least, most = min(least, f.Events[t].Len), max(most, f.Events[t].Len)
		}
	}
	for _, w := range f.writes {
		e := &f.Events[w]
		if e.Op == Truncate || f.before(y, w) {
			continue
		}
		r := e.written()
		if e.Op == Sieve {
			r = e.span() // it makes the file longer by its holes too
		}
		if r.Len == 0 {
			continue
		}
		gone, safe := false, true
		for _, t := range f.writes {
			if f.truncates(t) && f.Events[t].Len < r.end() {
				gone = gone || f.ordered(w, t, r) && f.before(t, y)
				safe = safe && (f.before(t, w) || f.before(y, t))
			}
		}
		if !gone {
			most = max(most, r.end())
		}
		if last := (Range{r.end() - 1, 1}); safe && f.must(w, y, last) {
			least = max(least, r.end())
		}
	}
	return least, most
}

// truncates reports whether w is a truncation that succeeded.
func (f *file) truncates(w int) bool { return f.Events[w].Op == Truncate && f.Events[w].Errno == 0 }

// checkSizes requires that every size, and the end that a short read met, lies
// in the bounds.
func (f *file) checkSizes() {
	for _, i := range f.sizes {
		least, most := f.bounds(i)
		if n := f.Events[i].N; n < least || n > most {
			f.fail(Size, i, "%v: want at least %d and at most %d", &f.Events[i], least, most)
		}
	}
	for _, i := range f.reads {
		e := &f.Events[i]
		least, most := f.bounds(i)
		end := e.Off + e.N
		if end < min(least, e.span().end()) || e.N > 0 && end > most {
			f.fail(Size, i, "%v: %d bytes, though the size is at least %d and at most %d", e, e.N, least, most)
		}
	}
}
