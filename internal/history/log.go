package history

// record is an appended record as a read found it.
type record struct {
	event int // that appended it
	off   int64
	len   int64
}

// checkLog checks a file to which records are appended and that nobody writes
// otherwise: its appends are whole, apart, and in the order in which one
// follows the other, and a read finds those that it must see. It knows nothing
// of a file that is truncated after the first append.
func (f *file) checkLog() {
	for _, w := range f.writes {
		for _, a := range f.appends {
			if !f.before(w, a) {
				return
			}
		}
	}
	place, base := map[int]int64{}, f.logBase()
	for _, r := range f.reads {
		found := f.records(r)
		have := map[int]bool{}
		for i, x := range found {
			e := &f.Events[x.event]
			cut := i == len(found)-1 && x.off+x.len == f.Events[r].span().end() || x.off == f.Events[r].Off && x.off > base
			switch at, seen := place[x.event]; {
			case have[x.event]:
				f.fail(Record, r, "%v: %v is there twice", &f.Events[r], e)
			case x.len != e.Len && !cut:
				f.fail(Record, r, "%v: %d bytes at %d of %v", &f.Events[r], x.len, x.off, e)
			case seen && at != x.off && !cut:
				f.fail(Record, r, "%v: %v is at %d and was at %d before", &f.Events[r], e, x.off, at)
			case i > 0 && f.before(x.event, found[i-1].event):
				f.fail(Record, r, "%v: %v comes after %v", &f.Events[r], e, &f.Events[found[i-1].event])
			case !cut:
				place[x.event] = x.off
			}
			have[x.event] = true
		}
		for _, a := range f.appends {
			whole := f.Events[r].Off <= base && f.Events[r].N < f.Events[r].Len
			if whole && !have[a] && f.must(a, r, Range{}) {
				f.fail(Record, r, "%v: %v must be there", &f.Events[r], &f.Events[a])
			}
		}
	}
	f.checkLogSizes()
}

// records are the records that a read found.
func (f *file) records(r int) (out []record) {
	base := f.logBase()
	off := f.Events[r].Off
	for _, run := range f.Events[r].Seen {
		a := f.appended(run.Value)
		switch {
		case a >= 0 && !f.before(r, a):
			out = append(out, record{a, off, run.Len})
		case run.Value == 0 && off < base:
		default:
			f.fail(Invented, r, "%v: %d bytes at %d are %d, which nobody had appended", &f.Events[r], run.Len, off, run.Value)
		}
		off += run.Len
	}
	return out
}

// appended returns the event that appended records of a value, -1 if none.
func (f *file) appended(value uint8) int {
	for _, a := range f.appends {
		if f.Events[a].Value == value {
			return a
		}
	}
	return -1
}

// logBase is where the first record begins.
func (f *file) logBase() (base int64) {
	for _, w := range f.writes {
		base = max(base, f.Events[w].Len)
	}
	return base
}

// checkLogSizes requires that a size counts the records that must be there and
// none that is not yet begun.
func (f *file) checkLogSizes() {
	for _, y := range f.sizes {
		least, most := f.logBase(), f.logBase()
		for _, a := range f.appends {
			if e := &f.Events[a]; e.Errno == 0 && f.must(a, y, Range{}) {
				least += e.Len
			}
			if !f.before(y, a) {
				most += f.Events[a].Len
			}
		}
		if n := f.Events[y].N; n < least || n > most {
			f.fail(Size, y, "%v: want at least %d and at most %d", &f.Events[y], least, most)
		}
	}
}
