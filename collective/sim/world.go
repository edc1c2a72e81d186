package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/extent"
)

// Way is how the calls of the ranks are carried out.
type Way uint8

// The ways.
const (
	Merged   Way = iota // as zoidfs does
	Plain               // each call a request at each level
	TwoPhase            // ideal two-phase I/O by an MPI library that knows all calls beforehand
)

var wayNames = [...]string{"zoidfs", "plain", "two-phase"}

// Ways are all there are.
func Ways() []Way { return []Way{Plain, Merged, TwoPhase} }

func (w Way) String() string { return wayNames[min(int(w), len(wayNames)-1)] }

// Result is what came out.
type Result struct {
	Calls          int           `json:"calls"`           // of ranks
	IONRequests    int           `json:"ion_requests"`    // from nodes to I/O nodes; of TwoPhase, from ranks to aggregators
	ServerRequests int           `json:"server_requests"` // from I/O nodes to servers
	IONBytes       int64         `json:"ion_bytes"`       // between nodes and I/O nodes
	ServerBytes    int64         `json:"server_bytes"`    // between I/O nodes and servers
	IONMemory      int64         `json:"ion_memory"`      // the most bytes that one I/O node held at a time and could not drop
	Time           time.Duration `json:"time_ns"`         // until everything is at the servers
	Node           Tally         `json:"node_rounds"`     // of the nodes
	ION            Tally         `json:"ion_rounds"`      // of the I/O nodes
	Events         int           `json:"events"`          // that were simulated
}

// world is one run.
type world struct {
	cfg     Config
	way     Way
	clock   clock
	place   *collective.Placement
	nodes   []*node
	ions    []*ion
	servers []resource
	res     Result

	present []int // ranks that take part
	running int   // ranks that have calls to make
	arrived int   // at the barrier
	waiting []func()
	made    uint64 // files
}

// Run simulates c, of which what is zero is filled in, in one way.
func Run(c Config, way Way) (Result, error) {
	c = c.Defaults()
	if err := c.Validate(); err != nil {
		return Result{}, err
	}
	w := &world{cfg: c, way: way, servers: make([]resource, c.Servers)}
	r := rand.New(rand.NewPCG(c.Seed, 0))
	for rank := range c.Ranks {
		if r.Float64() >= c.Absent {
			w.present = append(w.present, rank)
		}
	}
	var names []string
	for i := range c.IONs {
		names = append(names, fmt.Sprintf("ion%d", i))
		w.ions = append(w.ions, newION(w, i))
	}
	place, err := collective.NewPlacement(names, c.Domain)
	if err != nil {
		return Result{}, err
	}
	w.place = place
	if way == TwoPhase {
		w.twoPhase()
		return w.res, nil
	}
	for i := range c.Nodes {
		w.nodes = append(w.nodes, newNode(w, i))
	}
	w.start()
	w.clock.run()
	if len(w.present) > 0 && w.running > 0 {
		panic(fmt.Sprintf("sim: %d ranks were never answered", w.running))
	}
	w.res.Time = w.clock.now
	w.res.Events = w.clock.ran
	for _, i := range w.ions {
		w.res.IONMemory = max(w.res.IONMemory, i.most)
	}
	return w.res, nil
}

// start has the ranks begin, each with random numbers of its own, so that what
// one does changes nothing for another.
func (w *world) start() {
	w.running = len(w.present)
	side := w.cfg.side()
	for _, rank := range w.present {
		r := &runner{w: w, rank: rank, side: side, rand: rand.New(rand.NewPCG(w.cfg.Seed, uint64(rank)+1))}
		r.node = w.nodes[rank*w.cfg.Nodes/w.cfg.Ranks]
		w.clock.after(r.pause(), r.next)
	}
}

// runner is a rank.
type runner struct {
	w    *world
	node *node
	rank int
	side int64
	made int // calls
	rand *rand.Rand
}

func (r *runner) pause() time.Duration {
	if r.w.cfg.Jitter == 0 {
		return 0
	}
	return time.Duration(r.rand.Int64N(int64(r.w.cfg.Jitter)))
}

// next makes the next call.
func (r *runner) next() {
	w := r.w
	c := w.cfg.call(r.rank, r.made, r.side)
	r.made++
	w.res.Calls++
	w.clock.after(w.cfg.Model.CallTime, func() { r.node.call(r.rank, c, r.answered) })
}

func (r *runner) answered() {
	w := r.w
	switch {
	case r.made == w.cfg.Calls:
		w.running--
		if w.running == 0 {
			for _, i := range w.ions {
				i.sync()
			}
		}
	case !w.cfg.Barrier:
		w.clock.after(r.pause(), r.next)
		return
	}
	if !w.cfg.Barrier {
		return
	}
	w.arrived++
	if r.made < w.cfg.Calls {
		w.waiting = append(w.waiting, func() { w.clock.after(r.pause(), r.next) })
	}
	if w.arrived == len(w.present) {
		all := w.waiting
		w.arrived, w.waiting = 0, nil
		for _, do := range all {
			do()
		}
	}
}

// server has the servers of an object carry out a request of exts, or of
// metadata if there are none, and calls done when all have answered.
func (w *world) server(i *ion, object uint64, exts []extent.Extent, write bool, done func()) {
	m := &w.cfg.Model
	bytes := extent.Total(exts)
	w.res.ServerBytes += bytes
	sent := w.clock.now
	if write {
		sent = i.out.use(sent, transfer(bytes, m.IONBandwidth))
	}
	last := sent
	if exts == nil {
		s := object * 0x9e3779b97f4a7c15 % uint64(len(w.servers))
		w.res.ServerRequests++
		last = w.servers[s].use(sent+m.NetLatency, m.ServerMetaTime)
	}
	for s, l := range w.loads(exts) {
		if l.bytes == 0 {
			continue
		}
		w.res.ServerRequests++
		took := m.ServerTime + time.Duration(l.extents-1)*m.ServerExtentTime + transfer(l.bytes, m.ServerBandwidth)
		last = max(last, w.servers[s].use(sent+m.NetLatency, took))
	}
	last += m.NetLatency
	if !write && bytes > 0 {
		last = i.in.use(last, transfer(bytes, m.IONBandwidth))
	}
	w.clock.at(last, done)
}

// load is what a request asks of one server.
type load struct {
	bytes   int64
	extents int
}

// loads divides exts over the servers by strips, one after the other, as
// PVFS2's simple_stripe distribution does.
func (w *world) loads(exts []extent.Extent) []load {
	if len(exts) == 0 {
		return nil
	}
	out := make([]load, len(w.servers))
	strip, n := w.cfg.Strip, int64(len(w.servers))
	for _, e := range exts {
		stripes := e.Len / (strip * n) // whole ones first
		for s := range out {
			out[s].bytes += stripes * strip
			if stripes > 0 {
				out[s].extents++
			}
		}
		for off := e.Off + stripes*strip*n; off < e.End(); {
			s := off / strip % n
			part := min(strip-off%strip, e.End()-off)
			out[s].bytes += part
			if stripes == 0 {
				out[s].extents++
			}
			off += part
		}
	}
	return out
}
