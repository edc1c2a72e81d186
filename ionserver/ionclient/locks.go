package ionclient

import "github.com/zoidfs/zoidfs/ionserver/ionpb"

// lockTable is the locks that this mount holds on one file, so that they can
// be taken again at an I/O node that has forgotten them. The zero value is
// empty; its user serialises.
type lockTable []Lock

// apply records that l was granted: its owner's locks of the same kind give
// way to it where they overlap, as fcntl(2) has it.
func (t *lockTable) apply(l Lock) {
	out := make(lockTable, 0, len(*t)+2)
	for _, h := range *t {
		if h.Owner != l.Owner || h.Flock != l.Flock || h.End < l.Start || l.End < h.Start {
			out = append(out, h)
			continue
		}
		if h.Start < l.Start {
			left := h
			left.End = l.Start - 1
			out = append(out, left)
		}
		if l.End < h.End {
			right := h
			right.Start = l.End + 1
			out = append(out, right)
		}
	}
	if l.Type != ionpb.LockType_UNLOCK {
		out = append(out, l)
	}
	*t = out
}

// within is the parts of owner's locks that lie in l's range.
func (t lockTable) within(l Lock) []Lock {
	var out []Lock
	for _, h := range t {
		if h.Owner == l.Owner && h.Flock == l.Flock && h.Start <= l.End && l.Start <= h.End {
			h.Start, h.End = max(h.Start, l.Start), min(h.End, l.End)
			out = append(out, h)
		}
	}
	return out
}
