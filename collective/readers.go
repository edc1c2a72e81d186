package collective

import "github.com/zoidfs/zoidfs/internal/extent"

// AheadRead is what one request of a node for bytes that will be read is of, at most.
const AheadRead int64 = 2 << 20

// Readers is how all who read a file on one node read it together. The zero value is
// ready. It is not safe for concurrent use.
type Readers struct {
	Pattern
	at    extent.Extent // the chunk that was looked at last
	dense bool          // it is, or what was read last beside it
	front int64         // what is read ahead ends there: those behind may be far behind the first
}

// Add takes note of a read in a chunk, and reports whether that is read densely, so that
// all around it is fetched, and what will be next, so many bytes at most, if it should be
// fetched now. What is known already needs no second look.
func (r *Readers) Add(who uint64, e, chunk extent.Extent, known bool, limit int64) (dense bool, next []extent.Extent) {
	r.Pattern.Add(who, e)
	if known && r.at == chunk {
		return r.dense, nil
	}
	moved := r.at != chunk
	r.at, r.dense = chunk, r.Dense(e)
	if r.dense && moved {
		next = append(r.sweep(chunk, known, r.reach(chunk, limit)), r.leap(who)...)
	}
	return r.dense, next
}

// reach is how far is read ahead of chunk, at most limit: if the forms of the readers do
// not promise that they use most of the file, as far as they have come without a hole.
func (r *Readers) reach(chunk extent.Extent, limit int64) int64 {
	if r.promised() >= denseUse {
		return limit
	}
	behind := int64(0)
	for i := chunk.Off/RegionSize - 1; i >= 0 && behind < limit; i-- {
		if one := r.regions.look(i); one == nil || one.used() < denseUse {
			break
		}
		behind += RegionSize
	}
	if behind < AheadRead {
		return 0
	}
	return min(behind, limit)
}

// leap is where who will read next if that is far from here.
func (r *Readers) leap(who uint64) (next []extent.Extent) {
	s := r.sequences.look(who)
	if s == nil {
		return nil
	}
	s.each(1, func(e extent.Extent) bool {
		if e.Off < s.last.End()+AheadRead && e.End() > s.last.Off-AheadRead {
			return true
		}
		if r.thorough(e.Off / RegionSize) {
			e = extent.Extent{Off: e.Off / AheadRead * AheadRead, Len: AheadRead}
		}
		next = append(next, e)
		return true
	})
	return next
}

// With is pieces, which lie in a part of a domain in any order, and what any reader is
// about to read behind the first of them there: one request brings all. What is long
// enough needs no others.
func (r *Readers) With(part extent.Extent, pieces []extent.Extent) []extent.Extent {
	if len(pieces) == 1 && pieces[0].Len >= minAhead {
		return pieces
	}
	if r.thorough(part.Off / RegionSize) {
		return []extent.Extent{part}
	}
	pieces = extent.Normalize(pieces)
	part.Off, part.Len = pieces[0].Off, part.End()-pieces[0].Off
	return extent.Normalize(append(pieces, r.Ahead(part)...))
}

// sweep returns what to read ahead, so many bytes at most, now that chunk is read
// densely. It begins anew where a chunk is passed by, or one behind is not known:
// then it is read again.
func (r *Readers) sweep(chunk extent.Extent, known bool, limit int64) []extent.Extent {
	end := chunk.End()
	if chunk.Off > r.front || !known && end <= r.front-limit-AheadRead {
		r.front = end
	}
	from := max(r.front, end)
	if from-end > limit/2 {
		return nil
	}
	r.front = extent.AheadTo(end, limit, AheadRead)
	if r.front == from { // nothing can lie behind
		return nil
	}
	return []extent.Extent{{Off: from, Len: r.front - from}}
}
