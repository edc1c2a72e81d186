package cache

import (
	"context"
	"time"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// batch is how many blocks a write fills between two looks at the file.
const batch = 16

// source is bytes in pieces, read from the front.
type source struct {
	pieces [][]byte
	at     int           // bytes of pieces[0] that are used up
	rest   extent.Extent // what is left
}

func newSource(off int64, pieces [][]byte) source {
	src := source{pieces: pieces, rest: extent.Extent{Off: off}}
	for _, p := range pieces {
		src.rest.Len += int64(len(p))
	}
	return src
}

// copyTo fills p.
func (src *source) copyTo(p []byte) {
	src.rest.Off, src.rest.Len = src.rest.Off+int64(len(p)), src.rest.Len-int64(len(p))
	for len(p) > 0 {
		n := copy(p, src.pieces[0][src.at:])
		p, src.at = p[n:], src.at+n
		if src.at == len(src.pieces[0]) {
			src.pieces, src.at = src.pieces[1:], 0
		}
	}
}

// blocksOf is how many blocks e has a part in.
func (s *Store) blocksOf(e extent.Extent) int {
	if e.Empty() {
		return 0
	}
	return int((e.End()-1)/s.size - e.Off/s.size + 1)
}

// Write copies pieces, one after the other, to off, where they are dirty. It
// waits for room, which comes from Take and Done and from views that are
// released: whoever does that must not wait for the writer. What touches no more
// than batch+1 blocks is there at once or not at all, if so many may be dirty; of
// more, Take may meet a first part, which may be all if it fails because ctx ended.
func (f *File) Write(ctx context.Context, off int64, pieces [][]byte) error {
	s := f.store
	src := newSource(off, pieces)
	var fresh [batch + 1]*block
	for src.rest.Len > 0 {
		n, least := s.blocksOf(src.rest), 1
		whole := n <= min(len(fresh), s.maxUnclean)
		if n == 1 || !whole {
			if done, err := f.writeInPlace(&src); err != nil {
				return err
			} else if done {
				continue
			}
		} else {
			least = n
		}
		n, err := s.reserve(ctx, fresh[:min(len(fresh), n)], least)
		if err != nil {
			s.settle()
			return err
		}
		if err := f.put(&src, fresh[:n]); err != nil {
			s.settle()
			return err
		}
	}
	s.settle()
	return nil
}

// TryWrite is Write if there is room at once. If it returns false, it has
// written nothing.
func (f *File) TryWrite(off int64, pieces [][]byte) bool {
	s := f.store
	src := newSource(off, pieces)
	n := s.blocksOf(src.rest)
	if n == 0 {
		return true
	}
	if n == 1 {
		if done, err := f.writeInPlace(&src); done || err != nil {
			return done
		}
	}
	var few [batch + 1]*block
	fresh := few[:]
	if n > s.maxUnclean {
		return false
	} else if n > len(few) {
		fresh = make([]*block, n)
	}
	defer s.settle()
	if s.grab(fresh[:n], n, nil) < n {
		return false
	}
	return f.put(&src, fresh[:n]) == nil
}

// writeInPlace copies the next part of src if it is less than a block, whose
// memory is at hand and need not be changed but for these bytes.
func (f *File) writeInPlace(src *source) (bool, error) {
	part := f.store.part(src.rest)
	if part.Len == f.store.size {
		return false, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false, f.errClosed()
	}
	b := f.blockLocked(part.Off / f.store.size)
	if b == nil || !b.unclean() || b.covered(part) {
		return false, nil
	}
	src.copyTo(b.bytes(part))
	f.wroteLocked(b, part)
	return true, nil
}

// put copies the next parts of src, one for each of the blocks, which come with
// as many rights. The bytes are copied without the lock, to the places of the
// blocks where they are if the block goes into the file's table.
func (f *File) put(src *source, fresh []*block) error {
	s := f.store
	start := src.rest
	for _, b := range fresh {
		part := s.part(src.rest)
		at := part.Off % s.size
		src.copyTo(b.mem[at : at+part.Len])
	}
	n, rights := 0, len(fresh) // of fresh: not needed
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		s.giveBack(fresh, rights)
		return f.errClosed()
	}
	for _, b := range fresh {
		part := s.part(start)
		start.Off, start.Len = start.Off+part.Len, start.Len-part.Len
		spare, soiled := f.mergeLocked(b, part)
		if spare != nil {
			fresh[n] = spare
			n++
		}
		if soiled {
			rights--
		}
	}
	f.mu.Unlock()
	if n > 0 || rights > 0 {
		s.giveBack(fresh[:n], rights)
	}
	return nil
}

// mergeLocked makes part, which lies in fresh, dirty. Either fresh becomes the
// file's block and takes over what the old one has besides, or the bytes are
// copied into the old one: what is less to copy, if no view sees the old ones.
// It returns a block that is not needed, and whether one became unclean.
func (f *File) mergeLocked(fresh *block, part extent.Extent) (spare *block, soiled bool) {
	index := part.Off / f.store.size
	old := f.blockLocked(index)
	if old == nil {
		f.adoptLocked(fresh, index)
		return nil, f.wroteLocked(fresh, part)
	}
	if old.clean.Load() {
		f.uncleanLocked(old)
	}
	covered := old.covered(part)
	var others [8]extent.Extent
	keep := old.valid.without(others[:0], part)
	if !covered && part.Len < extent.Total(keep) {
		copy(old.bytes(part), fresh.mem[part.Off%f.store.size:])
		return fresh, f.wroteLocked(old, part)
	}
	if covered && len(keep) > 0 {
		f.store.stats.copies.Add(1)
	}
	f.replaceLocked(old, fresh, keep)
	return nil, f.wroteLocked(fresh, part)
}

// replaceLocked puts fresh in old's place with the bytes of keep, and all that
// is known of them.
func (f *File) replaceLocked(old, fresh *block, keep []extent.Extent) {
	f.adoptLocked(fresh, old.index)
	for _, e := range keep {
		copy(fresh.bytes(e), old.bytes(e))
	}
	fresh.valid, old.valid = old.valid, fresh.valid[:0]
	fresh.dirty, old.dirty = old.dirty, fresh.dirty[:0]
	fresh.flying, old.flying = old.flying, fresh.flying[:0]
	fresh.written, fresh.flown = old.written, old.flown
	if fresh.unclean() {
		f.unclean[f.uncleanIndexLocked(old.index)] = fresh
	}
	f.detachLocked(old)
}

// wroteLocked makes part of b dirty, whose memory has the bytes. It reports
// whether b was not unclean before.
func (f *File) wroteLocked(b *block, part extent.Extent) (soiled bool) {
	soiled = !b.unclean()
	if len(b.dirty) == 0 {
		b.written = time.Now()
	}
	b.valid.add(part)
	f.countLocked(b.dirty.add(part))
	f.staleLocked(part)
	if soiled {
		f.soiledLocked(b)
	}
	return soiled
}
