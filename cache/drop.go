package cache

import "github.com/zoidfs/zoidfs/internal/extent"

// Drop forgets the clean bytes of ext. Dirty and flying ones stay. Fetches that
// are on their way do not keep what they bring of ext.
func (f *File) Drop(ext extent.Extent) {
	f.mu.Lock()
	f.staleLocked(ext)
	f.walkLocked(ext, func(b *block, part extent.Extent) {
		if b == nil {
			return
		}
		var few, fewer [4]extent.Extent
		for _, e := range b.flying.gaps(few[:0], part) {
			for _, x := range b.dirty.gaps(fewer[:0], e) {
				b.valid.remove(x)
			}
		}
		if len(b.valid) == 0 {
			f.forgottenLocked(b)
		}
	})
	f.mu.Unlock()
	f.store.settle()
}

// forgottenLocked drops a clean block of which nothing is known any more.
func (f *File) forgottenLocked(b *block) {
	f.uncleanLocked(b)
	f.detachLocked(b)
}

// Discard forgets everything of ext, dirty bytes too, as for a truncation to
// ext.Off. Bytes in flight do not become dirty again by Done.
func (f *File) Discard(ext extent.Extent) {
	f.mu.Lock()
	f.discardLocked(ext)
	f.mu.Unlock()
	f.store.settle()
}

func (f *File) discardLocked(ext extent.Extent) {
	f.staleLocked(ext)
	for _, x := range f.flights {
		x.left.remove(ext)
	}
	f.walkLocked(ext, func(b *block, part extent.Extent) {
		if b == nil {
			return
		}
		b.valid.remove(part)
		if !b.unclean() {
			if len(b.valid) == 0 {
				f.forgottenLocked(b)
			}
			return
		}
		f.countLocked(-b.dirty.remove(part) - b.flying.remove(part))
		switch {
		case !f.washedLocked(b):
		case len(b.valid) > 0:
			f.cleanedLocked(b)
		default:
			f.detachLocked(b)
		}
	})
}

// Insert copies pieces, one after the other, to off, as clean bytes. Bytes that
// are known already, dirty or not, stay as they are. It never waits, and keeps
// nothing where there is no block that is free or clean. The caller knows that the bytes are not
// older than what happened to the file since.
func (f *File) Insert(off int64, pieces [][]byte) {
	s := f.store
	src := newSource(off, pieces)
	var fresh [batch]*block
	for src.rest.Len > 0 {
		n := s.take(fresh[:min(batch, s.blocksOf(src.rest))])
		if n == 0 {
			s.stats.uncached.Add(int64(s.blocksOf(src.rest)))
			break
		}
		start := src.rest
		for _, b := range fresh[:n] {
			part := s.part(src.rest)
			at := part.Off % s.size
			src.copyTo(b.mem[at : at+part.Len])
		}
		f.mu.Lock()
		for _, b := range fresh[:n] {
			part := [1]extent.Extent{s.part(start)}
			start.Off, start.Len = start.Off+part[0].Len, start.Len-part[0].Len
			f.insertLocked(b, part[0].Off/s.size, part[:])
		}
		f.mu.Unlock()
		s.unref(fresh[:n])
	}
	s.settle()
}

// insertLocked makes parts of block index, which lie in b, known as clean
// bytes, but for those that are known. The caller goes on holding b.
func (f *File) insertLocked(b *block, index int64, parts []extent.Extent) {
	if f.closed || len(parts) == 0 {
		return
	}
	old := f.blockLocked(index)
	if old == nil {
		f.adoptLocked(b, index)
		b.touched = true
		b.refs.Add(1)
		b.valid = append(b.valid[:0], parts...)
		f.countedLocked(b.row)
		f.cleanedLocked(b)
		return
	}
	var gaps [8]extent.Extent
	for _, p := range parts {
		for _, e := range old.valid.gaps(gaps[:0], p) {
			if !old.covered(e) {
				copy(old.bytes(e), b.mem[e.Off%f.store.size:][:e.Len])
				old.valid.add(e)
			}
		}
	}
}
