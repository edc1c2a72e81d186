package sim

import (
	"time"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/extent"
)

const (
	chunk = 1 << 20 // what one WRITE carries, and of which is looked whether it is read densely
	limit = 8 << 20 // how far is read ahead
)

// job is the job of all ranks.
const job collective.JobID = 1

// node is a compute node.
type node struct {
	w       *world
	id      int
	in, out resource
	groups  [opCreate + 1]*group
	opened  map[uint64]bool
	files   map[uint64]*cached
}

// cached is a file that ranks of a node read.
type cached struct {
	held
	readers collective.Readers
	streams map[int]*collective.Stream // by rank
}

func newNode(w *world, id int) *node {
	n := &node{w: w, id: id, opened: map[uint64]bool{}, files: map[uint64]*cached{}}
	for o := range n.groups {
		opts := w.cfg.Rounds
		opts.Hold.Off = opts.Hold.Off || op(o) == opWrite // nobody waits with bytes
		n.groups[o] = newGroup(&w.clock, opts, &w.res.Node, n.run)
	}
	return n
}

// call carries out a call of a rank and calls done when it is answered.
func (n *node) call(rank int, c call, done func()) {
	if c.ext.Empty() {
		n.part(rank, key{op: c.op, object: c.object}, &part{n: 1, done: done})
		return
	}
	pieces := n.w.place.Split(c.ext)
	left := len(pieces)
	for _, e := range pieces {
		k := key{c.op, c.object, e.Off / n.w.cfg.Domain}
		n.part(rank, k, &part{exts: []extent.Extent{e}, done: func() {
			if left--; left == 0 {
				done()
			}
		}})
	}
}

func (n *node) part(rank int, k key, p *part) {
	if n.w.way == Plain {
		n.send(k, p.exts, 1, p.done)
		return
	}
	if k.op == opRead && !n.w.cfg.Denied {
		n.read(rank, k.object, p.exts[0], p.done)
		return
	}
	n.groups[k.op].arrive(k, collective.Member{Job: job, Rank: collective.Rank(rank)}, p)
}

// read has done called when e is known: a part of a domain around it is fetched, and what comes
// next, where ranks read densely.
func (n *node) read(rank int, object uint64, e extent.Extent, done func()) {
	f := n.files[object]
	if f == nil {
		f = &cached{streams: map[int]*collective.Stream{}}
		n.files[object] = f
	}
	known := f.has([]extent.Extent{e})
	dense, next := f.readers.Add(uint64(rank), e, n.w.partAt(e.Off, chunk), known, limit)
	if !known && dense {
		n.fetch(f, object, n.w.partAt(e.Off, collective.AheadRead))
	}
	n.fetchAhead(f, object, next)
	n.fetch(f, object, e)
	f.when([]extent.Extent{e}, func() {
		n.w.clock.after(0, done)
		if !dense {
			n.fetchAhead(f, object, f.stream(rank).Next(e))
		}
	})
}

// stream is what one rank reads.
func (f *cached) stream(rank int) *collective.Stream {
	s := f.streams[rank]
	if s == nil {
		s = &collective.Stream{Limit: limit, Unit: collective.AheadRead}
		f.streams[rank] = s
	}
	return s
}

// fetchAhead asks for exts, with one request for each part of a domain, which brings what
// other ranks are about to read there as well.
func (n *node) fetchAhead(f *cached, object uint64, exts []extent.Extent) {
	var pieces []extent.Extent // of at
	var at extent.Extent
	start := func() {
		if len(pieces) > 0 {
			n.fetch(f, object, f.readers.With(at, pieces)...)
		}
	}
	for _, e := range exts {
		for off := e.Off; off < min(e.End(), n.w.cfg.fileSize()); {
			part := n.w.partAt(off, collective.AheadRead)
			if part != at {
				start()
				at, pieces = part, nil
			}
			pieces = append(pieces, part.Intersect(e))
			off = part.End()
		}
	}
	start()
}

// fetch asks for what of exts, which lie in a domain, is neither known nor on its way.
func (n *node) fetch(f *cached, object uint64, exts ...extent.Extent) {
	var within []extent.Extent
	for _, e := range exts {
		if e = e.Intersect(extent.Extent{Len: n.w.cfg.fileSize()}); !e.Empty() {
			within = append(within, e)
		}
	}
	exts = f.take(within)
	if len(exts) == 0 {
		return
	}
	n.send(key{op: opRead, object: object}, exts, 0, func() {
		for _, do := range f.landed(exts) {
			do()
		}
	})
}

// partAt is the aligned part of so many bytes at most that off lies in, of a domain.
func (w *world) partAt(off, size int64) extent.Extent {
	d := w.cfg.Domain
	start := off / d * d
	from := start + (off-start)/size*size
	return extent.Extent{Off: from, Len: min(size, start+d-from)}
}

// run carries out a round.
func (n *node) run(r *round, done func()) {
	k := r.Key
	var exts []extent.Extent
	names := 0
	for _, c := range r.Calls {
		exts = append(exts, c.Token.exts...)
		names += c.Token.n
	}
	if k.op == opOpen && n.opened[k.object] { // under a lease
		n.w.clock.after(0, done)
		return
	}
	n.send(k, extent.Normalize(exts), names, func() {
		if k.op == opOpen {
			n.opened[k.object] = true
		}
		done()
	})
}

// send has the I/O node that answers for k carry out a request, in as many
// messages as its bytes need, and calls done with the answer.
func (n *node) send(k key, exts []extent.Extent, names int, done func()) {
	w, m := n.w, &n.w.cfg.Model
	to := w.ions[w.place.Home(k.object)]
	if len(exts) > 0 {
		to = w.ions[w.place.Owner(k.object, exts[0].Off)]
	}
	bytes := extent.Total(exts)
	most := int64(chunk)
	if k.op == opRead {
		most = collective.AheadRead
	}
	messages := max(1, int((bytes+most-1)/most))
	w.res.IONRequests += messages
	w.res.IONBytes += bytes
	there, back := bytes, int64(0)
	if k.op == opRead {
		there, back = 0, bytes
	}
	t := n.out.use(w.clock.now, transfer(there, m.NodeBandwidth)) + m.NetLatency
	w.clock.at(t, func() {
		t := to.in.use(w.clock.now, transfer(there, m.IONBandwidth))
		t = to.cpu.use(t, time.Duration(messages)*m.IONTime)
		w.clock.at(t, func() {
			to.handle(n.id, k, exts, names, func() {
				t := to.out.use(w.clock.now, transfer(back, m.IONBandwidth)) + m.NetLatency
				w.clock.at(n.in.use(t, transfer(back, m.NodeBandwidth)), done)
			})
		})
	})
}
