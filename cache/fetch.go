package cache

import (
	"context"
	"slices"

	"github.com/zoidfs/zoidfs/internal/buf"
	"github.com/zoidfs/zoidfs/internal/extent"
)

// fetching is a fetch on its way.
type fetching struct {
	exts    []extent.Extent // immutable; sorted, none touch
	stale   set             // guarded by File.mu; not to be kept, nor joined
	joiners int32           // guarded by File.mu; who will hold result
	grown   uint64          // immutable; File.grown when it began
	done    chan struct{}   // closed when result is there
	result  *View           // what lies before the end of the file; nil if the fetch failed
}

// share is what a read has of a fetch.
type share struct {
	x     *fetching
	exts  []extent.Extent
	older bool // the file has grown below since the fetch began
}

// whole reports whether the fetch, which has a result, has brought all of the share.
func (s share) whole() bool {
	got := s.x.result.exts
	return len(got) > 0 && got[len(got)-1].End() >= s.exts[len(s.exts)-1].End()
}

// claimLocked divides missing into what others are fetching, whom it joins, and
// what the caller has to fetch: own.x is nil if there is nothing.
func (f *File) claimLocked(missing []extent.Extent) (own share, joined []share) {
	for _, x := range f.fetches {
		var theirs, fresh []extent.Extent
		for _, e := range x.exts {
			fresh = x.stale.gaps(fresh, e)
		}
		for _, m := range missing {
			theirs = set(fresh).within(theirs, m)
		}
		if len(theirs) > 0 {
			x.joiners++
			joined = append(joined, share{x, theirs, x.grown != f.grown})
			var rest []extent.Extent
			for _, m := range missing {
				rest = set(theirs).gaps(rest, m)
			}
			missing = rest
		}
	}
	if len(missing) > 0 {
		own = share{x: &fetching{exts: missing, grown: f.grown, done: make(chan struct{})}, exts: missing}
		f.fetches = append(f.fetches, own.x)
	}
	return own, joined
}

// quit ends the joining of x by somebody who does not wait for it.
func (f *File) quit(x *fetching) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Contains(f.fetches, x) {
		x.joiners--
	} else if x.result != nil {
		x.result.Release()
	}
}

// run carries out x, keeps what it brings, and hands it to those who joined and
// to the caller.
func (f *File) run(ctx context.Context, x *fetching, fetch Fetch) error {
	s := f.store
	t := s.newTray(x.exts)
	n, err := fetch(ctx, x.exts, t.bufs)
	var v *View
	if err == nil {
		v = t.view(x.exts, n)
		s.stats.bytesFetched.Add(int64(v.size))
	}
	f.mu.Lock()
	f.fetches = slices.DeleteFunc(f.fetches, func(o *fetching) bool { return o == x })
	if v != nil {
		t.keepLocked(f, v, x.stale)
		v.refs.Add(x.joiners)
		x.result = v
	}
	close(x.done)
	f.mu.Unlock()
	s.unref(t.blocks)
	if v == nil && t.heap != nil {
		t.heap.Release()
	}
	s.settle()
	return err
}

// tray is memory for a fetch: free blocks as far as there are any, one for each
// block that is touched, then memory of the heap.
type tray struct {
	s      *Store
	blocks []*block
	parts  []part   // as the blocks cut the extents
	bufs   [][]byte // of parts
	heap   *buf.Buf // of the parts that have no block, or nil
}

// part is a part of one block.
type part struct {
	extent.Extent
	b *block // nil: on the heap
}

func (s *Store) newTray(exts []extent.Extent) *tray {
	t := &tray{s: s}
	blocks, last := 0, int64(-1)
	for _, e := range exts {
		for e.Len > 0 {
			p := s.part(e)
			e.Off, e.Len = e.Off+p.Len, e.Len-p.Len
			t.parts = append(t.parts, part{Extent: p})
			if index := p.Off / s.size; index != last {
				blocks, last = blocks+1, index
			}
		}
	}
	t.blocks = make([]*block, blocks)
	t.blocks = t.blocks[:s.take(t.blocks)]
	s.stats.uncached.Add(int64(blocks - len(t.blocks)))
	t.place()
	return t
}

// place gives each part its memory.
func (t *tray) place() {
	size := t.s.size
	at, last, rest := -1, int64(-1), int64(0)
	for i := range t.parts {
		p := &t.parts[i]
		if index := p.Off / size; index != last {
			at, last = at+1, index
		}
		if at < len(t.blocks) {
			p.b = t.blocks[at]
		} else {
			rest += p.Len
		}
	}
	var heap []byte
	if rest > 0 {
		t.heap = t.s.pool.New(int(rest))
		heap = t.heap.Bytes()
	}
	t.bufs = make([][]byte, len(t.parts))
	for i, p := range t.parts {
		if p.b != nil {
			t.bufs[i] = p.b.mem[p.Off%size:][:p.Len]
		} else {
			t.bufs[i], heap = heap[:p.Len], heap[p.Len:]
		}
	}
}

// view has the first n bytes of exts.
func (t *tray) view(exts []extent.Extent, n int64) *View {
	n = max(n, 0)
	v := t.s.newView(len(t.parts))
	v.heap = t.heap
	for i, p := range t.parts {
		e := extent.Extent{Off: p.Off, Len: min(p.Len, n)}
		if n -= e.Len; e.Len == 0 {
			break
		}
		v.append(e, t.bufs[i][:e.Len])
		if p.b != nil {
			p.b.refs.Add(1)
			v.blocks = append(v.blocks, p.b)
		}
	}
	return v
}

// keepLocked puts what v has, and is not stale, into f's table.
func (t *tray) keepLocked(f *File, v *View, stale set) {
	var parts []extent.Extent
	at := set(v.exts)
	for i := 0; i < len(t.parts); {
		b, index := t.parts[i].b, t.parts[i].Off/t.s.size
		parts = parts[:0]
		if b != nil {
			b.seen.clear()
		}
		for ; i < len(t.parts) && t.parts[i].Off/t.s.size == index; i++ {
			for _, e := range at.within(nil, t.parts[i].Extent) {
				parts = stale.gaps(parts, e)
				if b != nil {
					b.seen.add(e)
				}
			}
		}
		if b != nil {
			f.insertLocked(b, index, parts)
		}
	}
}
