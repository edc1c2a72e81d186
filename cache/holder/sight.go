package holder

import (
	"slices"
	"time"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// sight is where a node says that a file ends. As long as it stays the same, so does
// the end: others change it only when since does not count any more, and the node
// itself not without a write.
type sight struct {
	known   bool // size is surely that of what is published
	size    int64
	since   uint64 // as of Attrs.Size
	end     int64  // of what is unpublished, 0: nothing is
	written time.Time
}

func (f *File) sight() sight {
	g := f.glimpse() // first: what is published meanwhile counts for the size
	s := sight{end: g.end}
	s.size, s.since, s.known = f.h.attrs.Size(f.handle)
	f.mu.Lock()
	defer f.mu.Unlock()
	s.written = f.written
	if s.known = s.known && !f.hidesLocked(max(s.size, s.end)); !s.known {
		s.size, s.since = 0, 0
	}
	return s
}

// hidesLocked reports whether writes under way may have made the file longer than end,
// which other nodes may have seen, and programs of this one are to see only when
// these return. mu is held.
func (f *File) hidesLocked(end int64) bool {
	return f.appends > 0 || slices.ContainsFunc(f.direct, func(d direct) bool { return d.ext.End() > end })
}

// Hides reports whether others may have seen that a file, of which a size is known
// here, is longer, by what this node is just writing.
func (h *Holder) Hides(handle uint64, size int64) bool {
	f := h.known(handle)
	if f == nil {
		return false
	}
	end := max(size, f.glimpse().end)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hidesLocked(end)
}

// same reports whether the end is still where o has it, if told: the node says where
// the file ends, else where what is unpublished does.
func (s sight) same(o sight, told bool) bool {
	if told {
		return s.known && o.known && s.since == o.since && s.written.Equal(o.written) && max(s.size, s.end) == max(o.size, o.end)
	}
	return s.end == o.end && s.written.Equal(o.written)
}

// cut is e up to where the file ends, if that is known and lies in e, and by which
// sight; else all of e.
func (f *File) cut(e extent.Extent) (by sight, short extent.Extent) {
	if size, _, ok := f.h.attrs.Size(f.handle); !ok || e.End() <= size {
		return sight{}, e
	}
	by = f.sight()
	if by.known {
		e.Len = max(0, min(e.Len, max(by.size, by.end)-e.Off))
	}
	return by, e
}
