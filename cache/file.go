package cache

import (
	"cmp"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
)

// File keeps bytes of one file. It does not order overlapping reads and
// writes: callers that care hold a RangeLock, or leases. Offsets and extents
// that are negative, or end behind math.MaxInt64, are a caller's mistake.
type File struct {
	store  *Store
	number uint32

	mu      sync.Mutex
	closed  bool           // guarded by mu
	rows    map[int64]*row // guarded by mu; of all its blocks, by index
	unclean []*block       // guarded by mu; by ascending index
	dirty   int64          // guarded by mu; bytes dirty, and bytes flying
	oldest  time.Time      // guarded by mu; of unclean; zero: not known
	flights []*View        // guarded by mu; taken and not done
	air     set            // guarded by mu; the bytes of flights, discarded ones too
	fetches []*fetching    // guarded by mu
	grown   uint64         // guarded by mu; how often the file may have become longer below
}

// File returns a new, empty file, to be closed.
func (s *Store) File() *File {
	return &File{store: s, number: s.files.Add(1), rows: make(map[int64]*row)}
}

// Close drops everything of the file, dirty bytes too. Views of it stay as they
// are. Afterwards writing fails, and reading fetches without keeping.
func (f *File) Close() {
	f.mu.Lock()
	f.closed = true
	f.discardLocked(extent.ToEnd(0))
	f.mu.Unlock()
	f.store.settle()
}

func (f *File) errClosed() error { return errno.New("cache.File", syscall.EBADF) }

// part is the first part of e, up to the end of its block.
func (s *Store) part(e extent.Extent) extent.Extent {
	e.Len = min(e.Len, s.size-e.Off%s.size)
	return e
}

// soiledLocked puts b, whose first dirty byte was just written, among the
// unclean ones.
func (f *File) soiledLocked(b *block) {
	f.unclean = slices.Insert(f.unclean, f.uncleanIndexLocked(b.index), b)
	if len(f.unclean) == 1 {
		f.oldest = b.written
	}
}

// washedLocked takes b out of the unclean ones if nothing in it is dirty or
// flying any more. The caller says what becomes of it.
func (f *File) washedLocked(b *block) bool {
	f.oldest = time.Time{}
	if b.unclean() {
		return false
	}
	i := f.uncleanIndexLocked(b.index)
	f.unclean = slices.Delete(f.unclean, i, i+1)
	f.store.giveBack(nil, 1)
	return true
}

// uncleanIndexLocked is where the first unclean block from index on is.
func (f *File) uncleanIndexLocked(index int64) int {
	i, _ := slices.BinarySearchFunc(f.unclean, index, func(b *block, i int64) int { return cmp.Compare(b.index, i) })
	return i
}

// countLocked notes that n more bytes are dirty or flying.
func (f *File) countLocked(n int64) {
	f.dirty += n
	f.store.stats.dirty.Add(n)
}

// Grown tells that the file may have become longer below, by what others than Done
// have put there. Reads that begin later do not rely on where earlier fetches find
// its end.
func (f *File) Grown() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.grown++
}

// staleLocked has fetches on their way not keep e: what they bring is older
// than what happens now.
func (f *File) staleLocked(e extent.Extent) {
	for _, x := range f.fetches {
		x.stale.add(e)
	}
}

// Dirty says how many bytes are dirty or flying (bytes written again while they
// fly count twice), where the last of them ends, and when the oldest was
// written. Without any, all is zero.
func (f *File) Dirty() (bytes, end int64, since time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.unclean) == 0 {
		return 0, 0, time.Time{}
	}
	if f.oldest.IsZero() {
		for _, b := range f.unclean {
			f.oldest = earlier(f.oldest, b.oldest())
		}
	}
	last := f.unclean[len(f.unclean)-1]
	return f.dirty, max(last.dirty.end(), last.flying.end()), f.oldest
}

// DirtyEnd is where the last byte of ext that is dirty or flying ends; 0 if there
// is none.
func (f *File) DirtyEnd(ext extent.Extent) (end int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ext.Empty() {
		return 0
	}
	for i := f.uncleanIndexLocked((ext.End()-1)/f.store.size+1) - 1; i >= 0 && end == 0; i-- {
		b := f.unclean[i]
		if (b.index+1)*f.store.size <= ext.Off {
			break
		}
		for _, e := range b.flying.within(b.dirty.within(nil, ext), ext) {
			end = max(end, e.End())
		}
	}
	return end
}

// oldest is when the oldest dirty or flying byte was written.
func (b *block) oldest() time.Time {
	switch {
	case len(b.flying) == 0:
		return b.written
	case len(b.dirty) == 0:
		return b.flown
	}
	return earlier(b.written, b.flown)
}

// earlier is the earlier one of two times; zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// DirtyExtents lists the bytes of ext that are dirty and not flying: sorted,
// none touch.
func (f *File) DirtyExtents(ext extent.Extent) (out []extent.Extent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var parts []extent.Extent
	for _, b := range f.unclean[f.uncleanIndexLocked(ext.Off/f.store.size):] {
		parts = b.dirty.within(parts[:0], ext)
		for _, p := range parts {
			out = link(out, p)
		}
	}
	return out
}

// Part is what is dirty, and not flying, of a part of a file.
type Part struct {
	extent.Extent           // the part
	Dirty         int64     // how many bytes, at least one
	Since         time.Time // when the oldest of them was written
}

// Whole reports whether all bytes of the part are dirty.
func (p Part) Whole() bool { return p.Dirty == p.Len }

// DirtyParts cuts the file into parts of size bytes, a multiple of the store's
// blocks, and lists those with dirty bytes, in order.
func (f *File) DirtyParts(size int64) (out []Part) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.unclean {
		n := extent.Total(b.dirty)
		if n == 0 {
			continue
		}
		off := b.index * f.store.size / size * size
		if len(out) == 0 || out[len(out)-1].Off != off {
			out = append(out, Part{Extent: extent.Extent{Off: off, Len: size}})
		}
		p := &out[len(out)-1]
		p.Dirty += n
		p.Since = earlier(p.Since, b.written)
	}
	return out
}
