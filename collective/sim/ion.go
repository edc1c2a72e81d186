package sim

import (
	"maps"
	"slices"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/extent"
)

const (
	gathered = 16 << 20 // bytes of whole domains of a file after which they are written back
	fullAt   = 1 << 30  // bytes after which everything is
)

// ion is an I/O node.
type ion struct {
	w            *world
	cpu, in, out resource
	groups       [opCreate + 1]*group
	known        store
	opened       map[uint64]bool
	pattern      collective.Pattern
	costs        collective.Costs

	dirty   store
	whole   int64 // bytes of dirty that are whole domains
	size    int64 // bytes of dirty
	writing bool
	ending  bool
	held    int64 // bytes that cannot be dropped: dirty, or on their way
	most    int64 // the most of held
}

func newION(w *world) *ion {
	i := &ion{w: w, known: store{}, dirty: store{}, opened: map[uint64]bool{}}
	for o := range i.groups {
		i.groups[o] = newGroup(&w.clock, w.cfg.Rounds, &w.res.ION, i.run)
	}
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
	at := place{k.object, k.domain}
	switch k.op {
	case opWrite:
		i.write(at, exts)
		reply()
		return
	case opCreate:
		i.create(names, reply)
		return
	case opOpen:
		if i.opened[k.object] {
			reply()
			return
		}
	case opRead:
		for _, e := range exts {
			i.pattern.Add(uint64(from), e)
		}
		if len(i.missing(at, exts)) == 0 {
			reply()
			return
		}
	}
	i.groups[k.op].arrive(k, collective.Member{Job: job, Rank: collective.Rank(from)}, &part{exts: exts, done: reply})
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

func (i *ion) missing(at place, exts []extent.Extent) []extent.Extent {
	return i.known.of(at).missingOf(exts)
}

// run carries out a round of OPEN or of fetches.
func (i *ion) run(r *round, done func()) {
	k := r.Key
	if k.op == opOpen {
		if i.opened[k.object] {
			i.w.clock.after(0, done)
			return
		}
		i.w.server(i, k.object, nil, false, func() {
			i.opened[k.object] = true
			done()
		})
		return
	}
	var exts []extent.Extent
	for _, c := range r.Calls {
		exts = append(exts, c.Token.exts...)
	}
	at := place{k.object, k.domain}
	missing := i.missing(at, extent.Normalize(exts))
	if len(missing) == 0 {
		i.w.clock.after(0, done)
		return
	}
	plan := collective.Fetch(missing, i.pattern.Use(), &i.costs, i.w.room(k, 0))
	fetch := i.missing(at, plan.Extents)
	bytes, began := extent.Total(fetch), i.w.clock.now
	i.hold(bytes)
	i.w.server(i, k.object, fetch, false, func() {
		i.hold(-bytes)
		i.costs.Observe(1, bytes, i.w.clock.now-began)
		for _, e := range fetch {
			i.known.of(at).add(e)
		}
		done()
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
func (i *ion) write(at place, exts []extent.Extent) {
	d, grown := i.dirty.of(at), int64(0)
	for _, e := range exts {
		grown += d.add(e)
	}
	i.size += grown
	i.hold(grown)
	if grown > 0 && len(*d) == 1 && (*d)[0].Len == i.w.cfg.Domain {
		i.whole += i.w.cfg.Domain
	}
	i.writeBack()
}

// sync has everything written back; nothing more will be written.
func (i *ion) sync() {
	i.ending = true
	i.writeBack()
}

// writeBack begins to write back what is worth it, unless that is going on.
func (i *ion) writeBack() {
	all := i.ending || i.size >= fullAt
	if i.writing || i.size == 0 || !all && i.whole < gathered {
		return
	}
	places := slices.SortedFunc(maps.Keys(i.dirty), func(a, b place) int { return int(a.domain - b.domain) })
	var exts []extent.Extent
	for _, p := range places {
		d := *i.dirty[p]
		if whole := len(d) == 1 && d[0].Len == i.w.cfg.Domain; whole || all {
			exts = append(exts, d...)
			delete(i.dirty, p)
		}
	}
	bytes := extent.Total(exts)
	i.size -= bytes
	i.whole = 0
	i.writing = true
	plan := collective.Store(exts, nil, &i.costs, collective.Room{Within: extent.Extent{Len: i.w.cfg.fileSize()}, List: true, Chunk: chunk})
	began := i.w.clock.now
	i.w.server(i, file, plan.Extents, true, func() {
		i.costs.Observe(1, bytes, i.w.clock.now-began)
		i.writing = false
		i.hold(-bytes)
		i.writeBack()
	})
}
