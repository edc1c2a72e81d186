package sim

import (
	"time"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/extent"
)

// twoPhase works out what an MPI library would need at the least that knows
// beforehand what all ranks will ask for, exchanges it in one step with as many
// aggregators as there are I/O nodes, and never waits for a rank. Metadata is
// asked for once for all.
func (w *world) twoPhase() {
	c, m := &w.cfg, &w.cfg.Model
	w.res.Calls = len(w.present) * c.Calls
	switch c.Pattern {
	case Open:
		w.res.IONRequests, w.res.ServerRequests = c.Calls, c.Calls
		w.res.Time = time.Duration(c.Calls) * (m.ServerMetaTime + m.IONTime + 4*m.NetLatency)
		return
	case Create:
		w.res.IONRequests = w.res.Calls
		w.res.ServerRequests = 2 * w.res.Calls
		w.res.Time = time.Duration(w.res.Calls)*m.ServerMetaTime + 4*m.NetLatency // the directory's server
		return
	}
	all, hull := w.union()
	if len(all) == 0 {
		return
	}
	hints := collective.Hints{CBBufferSize: c.CBBuffer, StripingUnit: c.Strip, StripingFactor: c.Servers}
	domains := hints.FileDomains(hull, c.IONs)
	w.exchange(domains)
	served := make([]time.Duration, c.Servers)
	for _, d := range domains {
		w.aggregate(d, all, served)
	}
	for _, s := range served {
		w.res.Time = max(w.res.Time, s)
	}
	exchanged := transfer(w.res.IONBytes/int64(len(domains)), m.IONBandwidth)
	w.res.Time = max(w.res.Time, exchanged) + 4*m.NetLatency // the one goes on during the other
}

// union is all bytes that ranks ask for, and their hull.
func (w *world) union() (spans, extent.Extent) {
	var exts []extent.Extent
	side := w.cfg.side()
	for _, rank := range w.present {
		for n := range w.cfg.Calls {
			exts = append(exts, w.cfg.call(rank, n, side).ext)
		}
	}
	all := spans(extent.Normalize(exts))
	if len(all) == 0 {
		return nil, extent.Extent{}
	}
	return all, extent.Hull(all)
}

// exchange counts a message for each rank and aggregator that have something to
// say to each other.
func (w *world) exchange(domains []extent.Extent) {
	side := w.cfg.side()
	touched := make([]bool, len(domains))
	for _, rank := range w.present {
		clear(touched)
		for n := range w.cfg.Calls {
			e := w.cfg.call(rank, n, side).ext
			w.res.IONBytes += e.Len
			for d := range domains {
				if !touched[d] && domains[d].Overlaps(e) {
					touched[d] = true
					w.res.IONRequests++
				}
			}
		}
	}
}

// aggregate moves what lies in domain between its aggregator and the servers, a
// buffer at a time.
func (w *world) aggregate(domain extent.Extent, all spans, served []time.Duration) {
	m := &w.cfg.Model
	for off := domain.Off; off < domain.End(); off += w.cfg.CBBuffer {
		turn := extent.Extent{Off: off, Len: min(w.cfg.CBBuffer, domain.End()-off)}
		var exts []extent.Extent
		for i := all.find(turn.Off); i < len(all) && all[i].Off < turn.End(); i++ {
			if e := all[i].Intersect(turn); !e.Empty() {
				exts = append(exts, e)
			}
		}
		bytes := extent.Total(exts)
		w.res.ServerBytes += bytes
		w.res.IONMemory = max(w.res.IONMemory, bytes)
		for s, l := range w.loads(exts) {
			if l.bytes > 0 {
				w.res.ServerRequests++
				served[s] += m.ServerTime + time.Duration(l.extents-1)*m.ServerExtentTime + transfer(l.bytes, m.ServerBandwidth)
			}
		}
	}
}
