package cache

import (
	"cmp"
	"context"
	"slices"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// Fetch brings bytes from below: exts (sorted, none touch, none empty), one
// after the other, into bufs, one after the other, which have as many bytes. It
// returns how many of the bytes lie before the end of the file. It is called
// without any lock held.
type Fetch func(ctx context.Context, exts []extent.Extent, bufs [][]byte) (n int64, err error)

// Peek returns what is known of exts, and what is not; all of them are sorted
// and none touch.
func (f *File) Peek(exts ...extent.Extent) (*View, []extent.Extent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.peekLocked(exts...)
}

// Missing returns what is not known of exts; all of them are sorted and none touch.
func (f *File) Missing(exts ...extent.Extent) (missing []extent.Extent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	look := func(b *block, part extent.Extent) {
		if b == nil {
			missing = link(missing, part)
			return
		}
		var parts [8]extent.Extent
		for _, e := range b.valid.gaps(parts[:0], part) {
			missing = link(missing, e)
		}
	}
	for _, e := range exts {
		f.walkLocked(e, look)
	}
	return missing
}

// Known reports whether all bytes of exts are known.
func (f *File) Known(exts ...extent.Extent) bool { return len(f.Missing(exts...)) == 0 }

func (f *File) peekLocked(exts ...extent.Extent) (v *View, missing []extent.Extent) {
	s := f.store
	n := 0
	for _, e := range exts {
		n += min(len(f.rows)*int(s.perRow), s.blocksOf(e))
	}
	v = s.newView(n)
	look := func(b *block, part extent.Extent) {
		switch {
		case b == nil:
			missing = link(missing, part)
			return
		case b.valid.contains(part):
			f.showLocked(v, b, part)
		default:
			var parts [8]extent.Extent
			for _, e := range b.valid.within(parts[:0], part) {
				f.showLocked(v, b, e)
			}
			for _, e := range b.valid.gaps(parts[:0], part) {
				missing = link(missing, e)
			}
		}
		b.touched = true
		if b.clean.Load() {
			f.countedLocked(b.row)
		}
	}
	for _, e := range exts {
		f.walkLocked(e, look)
	}
	return v, missing
}

// Read returns the bytes of exts (sorted, none touch, none empty), and fetches
// those that are not known, at once. What another Read is just fetching is not
// fetched again. Only what fetch returned is kept, and only as far as there are
// free blocks and nobody has written, dropped or discarded it meanwhile. If
// fetch comes to the end of the file, the view ends there, or at the last byte
// of exts that is known nonetheless, with zeros in between. A file that has grown
// below since another Read began to fetch may not end any more where that finds the
// end: then the Read looks again.
func (f *File) Read(ctx context.Context, exts []extent.Extent, fetch Fetch) (*View, error) {
	s := f.store
	for {
		f.mu.Lock()
		v, missing := f.peekLocked(exts...)
		if len(missing) == 0 {
			f.mu.Unlock()
			s.stats.hits.Add(1)
			s.stats.bytesHit.Add(int64(v.size))
			return v, nil
		}
		own, joined := f.claimLocked(missing)
		f.mu.Unlock()
		s.stats.misses.Add(1)
		s.stats.bytesHit.Add(int64(v.size))
		got, err := f.gather(ctx, own, joined, fetch)
		switch {
		case err != nil:
			v.Release()
			return nil, err
		case got == nil:
			v.Release()
			continue
		case v.size == 0 && len(joined) == 0:
			v.Release()
			return own.x.result, nil
		}
		return s.overlay(exts, v, got), nil
	}
}

// gather fetches own and waits for what others fetch. It returns the shares
// whose fetches have a result, which the caller holds: all of them or, if
// another's fetch failed, or came to an end of the file that may be none any more, so
// that the caller has to look anew, none.
func (f *File) gather(ctx context.Context, own share, joined []share, fetch Fetch) (got []share, err error) {
	ended := false
	if own.x != nil {
		if err = f.run(ctx, own.x, fetch); err == nil {
			got = append(got, own)
		}
	}
	for _, j := range joined {
		if err == nil {
			f.store.stats.joins.Add(1)
			select {
			case <-j.x.done:
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		switch {
		case err != nil:
			f.quit(j.x)
		case j.x.result != nil:
			got = append(got, j)
			ended = ended || j.older && !j.whole()
		}
	}
	if all := len(joined); !ended && (own.x != nil && len(got) == all+1 || own.x == nil && len(got) == all) {
		return got, nil
	}
	for _, g := range got {
		g.x.result.Release()
	}
	return nil, err
}

// overlay puts together what was known and what was fetched. It takes over the
// caller's holdings.
func (s *Store) overlay(exts []extent.Extent, known *View, got []share) *View {
	type piece struct {
		e   extent.Extent
		mem []byte
	}
	var pieces []piece
	var under []*View
	known.each(func(e extent.Extent, mem []byte) { pieces = append(pieces, piece{e, mem}) })
	for _, g := range got {
		under = append(under, g.x.result)
		g.x.result.each(func(e extent.Extent, mem []byte) {
			for _, m := range set(g.exts).within(nil, e) {
				pieces = append(pieces, piece{m, mem[m.Off-e.Off:][:m.Len]})
			}
		})
	}
	slices.SortFunc(pieces, func(a, b piece) int { return cmp.Compare(a.e.Off, b.e.Off) })
	v := s.newView(len(pieces) + 1)
	v.under = append(under, known)
	at := exts[0].Off
	for _, p := range pieces {
		for ; exts[0].End() <= p.e.Off; at = exts[0].Off {
			v.appendZeros(at, exts[0].End())
			exts = exts[1:]
		}
		v.appendZeros(at, p.e.Off)
		v.append(p.e, p.mem)
		at = p.e.End()
	}
	return v
}
