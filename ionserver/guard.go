package ionserver

import (
	"time"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// Bounds of what a guard remembers: parts of a file, of guardPart bytes, and of
// each part accesses of each kind.
const (
	guardPart    = 1 << 20
	guardParts   = 4096
	guardEntries = 16
	guardMerge   = 100 * time.Millisecond
)

// sighting is an access of a session that passed the owner. Of several that
// touch and came within guardMerge, the time is that of the first.
type sighting struct {
	session uint64
	ext     extent.Extent
	at      time.Time
}

// sightings is the last accesses of one kind to one part of a file.
type sightings struct {
	list [guardEntries]sighting
	next int
}

// guardLog is what was read and written of one file by mounts that want to be
// told of races, lately. It forgets rather than grows: a race can be missed,
// but what it tells is one. It is pure; the caller serialises calls.
type guardLog struct {
	parts map[int64]*[2]sightings // by number; reads and writes
}

// note remembers an access.
func (s *sightings) note(x sighting) {
	if s.next > 0 {
		last := &s.list[(s.next-1)%guardEntries]
		if last.session == x.session && x.at.Sub(last.at) < guardMerge && last.ext.Off <= x.ext.End() && x.ext.Off <= last.ext.End() {
			off, end := min(last.ext.Off, x.ext.Off), max(last.ext.End(), x.ext.End())
			last.ext = extent.Extent{Off: off, Len: end - off}
			return
		}
	}
	s.list[s.next%guardEntries] = x
	s.next++
}

// since returns an access to e by another session after t.
func (s *sightings) since(session uint64, e extent.Extent, t time.Time) *sighting {
	for i := range s.list {
		if x := &s.list[i]; x.session != 0 && x.session != session && x.at.After(t) && x.ext.Overlaps(e) {
			return x
		}
	}
	return nil
}

// of calls f with the parts that e touches and what of e lies in them.
func (g *guardLog) of(e extent.Extent, f func(p *[2]sightings, e extent.Extent)) {
	if g.parts == nil || len(g.parts) >= guardParts {
		g.parts = make(map[int64]*[2]sightings)
	}
	for !e.Empty() {
		n := e.Off / guardPart
		part := extent.Extent{Off: e.Off, Len: min(e.Len, (n+1)*guardPart-e.Off)}
		p := g.parts[n]
		if p == nil {
			p = new([2]sightings)
			g.parts[n] = p
		}
		f(p, part)
		e.Off, e.Len = part.End(), e.Len-part.Len
	}
}

// wrote notes that a session publishes bytes which it wrote at the time made at
// the latest. It returns an access of another session that came between: a write
// that was published, or a read that did not see these bytes.
func (g *guardLog) wrote(session uint64, e extent.Extent, made, now time.Time) (x *sighting, wrote bool) {
	g.of(e, func(p *[2]sightings, part extent.Extent) {
		if x == nil {
			if x = copyOf(p[1].since(session, part, made)); x != nil {
				wrote = true
			} else {
				x = copyOf(p[0].since(session, part, made))
			}
		}
		p[1].note(sighting{session, part, now})
	})
	return x, wrote
}

// read notes that a session reads. Its view of the file is from the time view,
// or as of now if that is zero; it returns a write of another session that was
// published later.
func (g *guardLog) read(session uint64, e extent.Extent, view, now time.Time) (x *sighting) {
	g.of(e, func(p *[2]sightings, part extent.Extent) {
		if x == nil && !view.IsZero() {
			x = copyOf(p[1].since(session, part, view))
		}
		p[0].note(sighting{session, part, now})
	})
	return x
}

func copyOf(x *sighting) *sighting {
	if x == nil {
		return nil
	}
	c := *x
	return &c
}

// maxGuardAge is more than bytes stay unpublished or a view is of interest.
const maxGuardAge = 24 * time.Hour

// guard has a request that asks for it looked at, and its reply tell of a race.
// The caller holds the range lock, so that accesses are seen in the order in
// which they take effect. That a request was on its way for a while makes its
// bytes look younger than they are: nothing is taken for a race that is none.
func (c *call) guard(f *ownedFile, s spread, write bool, reply *rpc.Frame) {
	if c.Flags&uint32(ionpb.Flag_GUARD) == 0 || reply == nil || len(reply.Body) > 0 {
		return
	}
	now := time.Now()
	var then time.Time
	if write || c.Age > 0 {
		then = c.came.Add(-time.Duration(min(c.Age, uint64(maxGuardAge/time.Microsecond))) * time.Microsecond)
	}
	var x *sighting
	var of extent.Extent
	wrote := true
	f.mu.Lock()
	for _, e := range s.exts {
		y, w := (*sighting)(nil), true
		if write {
			y, w = f.guard.wrote(c.sess.id, e, then, now)
		} else {
			y = f.guard.read(c.sess.id, e, then, now)
		}
		if x == nil && y != nil {
			x, wrote, of = y, w, e
		}
	}
	f.mu.Unlock()
	if x == nil {
		return
	}
	both := x.ext.Intersect(of)
	r := &ionpb.Race{Wrote: wrote, Off: both.Off, Len: both.Len}
	if other := c.srv.sessions.get(x.session); other != nil {
		r.Node, r.Mountpoint = other.name, other.mountpoint
	}
	reply.Flags |= uint32(ionpb.Flag_RACE)
	reply.Encode(r)
}
