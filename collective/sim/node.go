package sim

import (
	"time"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/extent"
)

// chunk is the unit in which nodes fetch where ranks read densely, and the most
// that one request between node and I/O node carries.
const chunk = 1 << 20

// job is the job of all ranks.
const job collective.JobID = 1

// node is a compute node.
type node struct {
	w       *world
	id      int
	in, out resource
	groups  [opCreate + 1]*group
	known   store
	pattern collective.Pattern
	costs   collective.Costs
}

func newNode(w *world, id int) *node {
	n := &node{w: w, id: id, known: store{}}
	for o := range n.groups {
		n.groups[o] = newGroup(&w.clock, w.cfg.Rounds, &w.res.Node, n.run)
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
	if k.op == opRead {
		n.pattern.Add(uint64(rank), p.exts[0])
		if len(n.known.of(place{k.object, k.domain}).missing(p.exts[0])) == 0 {
			n.w.clock.after(0, p.done)
			return
		}
	}
	n.groups[k.op].arrive(k, collective.Member{Job: job, Rank: collective.Rank(rank)}, p)
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
	exts = extent.Normalize(exts)
	if k.op != opRead {
		n.send(k, exts, names, done)
		return
	}
	known := n.known.of(place{k.object, k.domain})
	missing := known.missingOf(exts)
	if len(missing) == 0 {
		n.w.clock.after(0, done)
		return
	}
	plan := collective.Fetch(missing, n.pattern.Use(), &n.costs, n.w.room(k, chunk))
	fetch, began := known.missingOf(plan.Extents), n.w.clock.now
	n.send(k, fetch, 0, func() {
		n.costs.Observe(1, extent.Total(fetch), n.w.clock.now-began)
		for _, e := range fetch {
			known.add(e)
		}
		done()
	})
}

// room is where a fetch in the domain of k may reach.
func (w *world) room(k key, most int64) collective.Room {
	d := extent.Extent{Off: k.domain * w.cfg.Domain, Len: w.cfg.Domain}
	return collective.Room{
		Within: d.Intersect(extent.Extent{Len: w.cfg.fileSize()}),
		Chunk:  chunk, Most: most, List: true,
	}
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
	messages := max(1, int((bytes+chunk-1)/chunk))
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
