package sim

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/extent"
)

// lookEvery is after how many written bytes it is worth while to look whether enough
// domains have been written whole.
const lookEvery = 1 << 20

// ion is an I/O node.
type ion struct {
	w            *world
	id           int
	cpu, in, out resource
	opens        *group
	opened       map[uint64]bool
	files        map[uint64]*owned
	costs        collective.Costs
	flows        collective.Flows

	dirty    store // of one file
	size     int64 // bytes of dirty
	fresh    int64 // bytes written since somebody looked whether to write back
	streamed int64 // bytes written back since nothing was dirty
	writing  bool
	ending   bool
	held     int64 // bytes that cannot be dropped: dirty, or on their way
	most     int64 // the most of held
}

// owned is a file that is read.
type owned struct {
	held
	look    collective.Lookahead
	flights map[*collective.Ahead][]func() // who wait for it
}

func newION(w *world, id int) *ion {
	i := &ion{w: w, id: id, opened: map[uint64]bool{}, files: map[uint64]*owned{}, dirty: store{}}
	i.opens = newGroup(&w.clock, w.cfg.Rounds, &w.res.ION, i.open)
	i.flows = collective.FlowsOf(w.cfg.Servers, collective.Hints{}, w.cfg.Domain, w.cfg.Memory)
	return i
}

func (i *ion) hold(n int64) {
	i.held += n
	i.most = max(i.most, i.held)
}

// handle carries out a request of a node and calls reply when it is done.
func (i *ion) handle(from int, k key, exts []extent.Extent, names int, reply func()) {
	if i.w.way == Plain {
		i.plain(k, exts, reply)
		return
	}
	switch {
	case k.op == opWrite:
		i.write(k, exts)
		reply()
	case k.op == opCreate:
		i.create(names, reply)
	case k.op == opRead:
		f := i.file(k.object)
		f.look.Note(uint64(from)+1, job, extent.Hull(exts), extent.Total(exts), len(exts))
		i.read(f, k.object, exts, reply)
	case i.opened[k.object]:
		reply()
	default:
		i.opens.arrive(k, collective.Member{Job: job, Rank: collective.Rank(from)}, &part{done: reply})
	}
}

// plain passes a request on as it is.
func (i *ion) plain(k key, exts []extent.Extent, reply func()) {
	if k.op == opCreate {
		i.create(1, reply)
		return
	}
	bytes := extent.Total(exts)
	i.hold(bytes)
	i.w.server(i, k.object, exts, k.op == opWrite, func() {
		i.hold(-bytes)
		reply()
	})
}

// open carries out a round of OPEN.
func (i *ion) open(r *round, done func()) {
	object := r.Key.object
	if i.opened[object] {
		i.w.clock.after(0, done)
		return
	}
	i.w.server(i, object, nil, false, func() {
		i.opened[object] = true
		done()
	})
}

func (i *ion) file(object uint64) *owned {
	f := i.files[object]
	if f == nil {
		f = &owned{flights: map[*collective.Ahead][]func(){}}
		f.look = collective.Lookahead{
			Domain: i.w.cfg.Domain, Owned: func(off int64) bool { return i.w.place.Owner(object, off) == i.id },
			Price: func(extents int, bytes int64) time.Duration { return i.costs.Estimate(1, extents, bytes) },
		}
		f.look.Ends(i.w.cfg.fileSize())
		i.files[object] = f
	}
	return f
}

// read has reply called when exts is known, together with what its readers will ask for
// next, as an I/O node does.
func (i *ion) read(f *owned, object uint64, exts []extent.Extent, reply func()) {
	hull := extent.Hull(exts)
	if f.has(exts) {
		if a := f.look.Next(hull, i.flows.Most); a != nil {
			i.fetchAhead(f, object, a, func() {})
		}
		reply()
		return
	}
	rest := func() {
		i.fetch(f, object, exts)
		f.when(exts, reply)
	}
	a, behind := f.look.Miss(hull, i.flows.Least, i.flows.Most)
	switch {
	case behind != nil:
		f.flights[behind] = append(f.flights[behind], func() { i.read(f, object, exts, reply) })
	case a != nil:
		i.fetchAhead(f, object, a, rest)
	default:
		rest()
	}
}

// fetchAhead fetches a, calls then, and has those look again who wait for it.
func (i *ion) fetchAhead(f *owned, object uint64, a *collective.Ahead, then func()) {
	var exts []extent.Extent
	for _, e := range a.Extents {
		if e = e.Intersect(extent.Extent{Len: i.w.cfg.fileSize()}); !e.Empty() {
			exts = append(exts, e)
		}
	}
	f.flights[a] = nil
	i.fetch(f, object, exts)
	f.when(exts, func() {
		f.look.Landed(a)
		waiting := f.flights[a]
		delete(f.flights, a)
		then()
		for _, do := range waiting {
			do()
		}
	})
}

// fetch fetches what of exts is neither known nor being fetched.
func (i *ion) fetch(f *owned, object uint64, exts []extent.Extent) {
	exts = f.take(exts)
	if len(exts) == 0 {
		return
	}
	bytes, began := extent.Total(exts), i.w.clock.now
	i.hold(bytes)
	i.w.server(i, object, exts, false, func() {
		i.hold(-bytes)
		i.costs.Observe(1, bytes, i.w.clock.now-began)
		for _, do := range f.landed(exts) {
			do()
		}
	})
}

// create makes so many files: each takes a request for its object and one for
// its name, which PVFS2 cannot merge.
func (i *ion) create(names int, reply func()) {
	left := names
	for range names {
		i.w.made++
		i.w.server(i, file+i.w.made, nil, true, func() {
			i.w.server(i, directory, nil, true, func() {
				if left--; left == 0 {
					reply()
				}
			})
		})
	}
}

// write takes bytes in, and has them written back when there are many.
func (i *ion) write(k key, exts []extent.Extent) {
	d, grown := i.dirty.of(place{k.object, k.domain}), int64(0)
	for _, e := range exts {
		grown += d.add(e)
	}
	i.size += grown
	i.hold(grown)
	if i.fresh += grown; i.fresh >= lookEvery {
		i.fresh = 0
		i.writeBack()
	}
}

// sync has everything written back; nothing more will be written.
func (i *ion) sync() {
	i.ending = true
	i.writeBack()
}

// writeBack begins a round of writing back if it is worth it, unless one is going on.
func (i *ion) writeBack() {
	if i.writing || i.size == 0 {
		return
	}
	places := slices.SortedFunc(maps.Keys(i.dirty), func(a, b place) int { return cmp.Compare(a.domain, b.domain) })
	var b collective.Backlog
	for _, p := range places {
		at := extent.Extent{Off: p.domain * i.w.cfg.Domain, Len: i.w.cfg.Domain}
		b = append(b, collective.Part{Extent: at, Dirty: extent.Total(*i.dirty[p])})
	}
	var chosen []extent.Extent
	switch {
	case i.ending:
		for total := int64(0); len(b) > 0 && total < i.flows.Most; b = b[1:] {
			chosen = append(chosen, b[0].Extent)
			total += b[0].Dirty
		}
	case i.size >= i.w.cfg.Memory/2/4*3:
		chosen = collective.Half([]collective.Backlog{b})[0]
	default:
		chosen = b.Full(i.flows.Enough(i.streamed), i.flows.Most)
	}
	if len(chosen) > 0 {
		i.round(chosen)
	}
}

// round writes domains back.
func (i *ion) round(domains []extent.Extent) {
	var exts []extent.Extent
	for _, e := range domains {
		p := place{file, e.Off / i.w.cfg.Domain}
		exts = append(exts, *i.dirty[p]...)
		delete(i.dirty, p)
	}
	bytes := extent.Total(exts)
	i.size -= bytes
	i.writing = true
	i.w.server(i, file, exts, true, func() {
		i.writing = false
		i.hold(-bytes)
		if i.streamed += bytes; i.size == 0 {
			i.streamed = 0
		}
		i.writeBack()
	})
}
