package ionserver

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// Lease bits of ionpb.Flag that concern file domains.
const (
	leaseRead   = uint32(ionpb.Flag_LEASE_DATA)
	leaseWrite  = uint32(ionpb.Flag_LEASE_WRITE)
	leasePieces = uint32(ionpb.Flag_LEASE_PIECES)
	dataLeases  = leaseRead | leaseWrite | leasePieces
)

// leaseTable is which sessions may keep bytes of the domains of one file that
// this node owns, and who is at work on them. It is pure; the caller
// serialises calls.
//
// A session with leaseRead may answer reads from what it keeps; one with
// leaseWrite is alone, and may also keep writes back. Where several write, each
// may have leasePieces, to keep back what it writes of bytes that are only its. An access begins when no
// lease of another session is in its way, and may be given a lease when it
// ends if nothing of others has happened to the domain since it began, so that
// what it saw or wrote is still so.
//
// Sources: Gray and Cheriton, "Leases", SOSP '89; Burrows, "Efficient data
// sharing", 1988 (tokens); RFC 8881 §10.4 (delegations); Schmuck and Haskin,
// "GPFS", FAST '02, section 3 (byte-range tokens, and what is desired of them).
type leaseTable struct {
	domainSize int64
	domains    map[int64]*domain // by index; none that is idle
}

// domain is one file domain.
type domain struct {
	readers map[uint64]struct{}        // sessions with leaseRead
	writer  uint64                     // the session with leaseWrite, also in readers; or 0
	pieces  map[uint64][]extent.Extent // what of it is of sessions with leasePieces; sorted, no two overlap
	active  map[uint64]int             // accesses at work, by session; 0 stands for this node's own
	writing map[uint64]int             // those of them that write
	waiting int                        // accesses that wait for a revocation

	// Writes are numbered as they begin; those from run on are of runBy.
	writes, run uint64
	runBy       uint64

	reads     int64      // since the last write, as calmReads counts them
	whole     contention // for leases on it
	contested contention // for pieces of it
	touched   uint64     // how often the node itself has changed it
}

// access is one read or write at work. It lies in one domain, unless it is
// this node's own.
type access struct {
	session uint64
	ext     extent.Extent
	write   bool
	at      int64  // index of its domain
	writes  uint64 // domain.writes when it began
	touched uint64 // domain.touched when it began
	alone   bool   // no write of another session was at work then
}

// conflict is what must end before an access may begin: leases of one session.
type conflict struct {
	session uint64
	leases  uint32
	ext     extent.Extent // covers all domains concerned
}

func newLeaseTable(domainSize int64) leaseTable {
	return leaseTable{domainSize: domainSize, domains: make(map[int64]*domain)}
}

func (t *leaseTable) domain(at int64) *domain {
	d := t.domains[at]
	if d == nil {
		d = &domain{
			readers: make(map[uint64]struct{}), pieces: make(map[uint64][]extent.Extent),
			active: make(map[uint64]int), writing: make(map[uint64]int),
		}
		t.domains[at] = d
	}
	return d
}

// tidy forgets a domain that has nothing to remember.
func (t *leaseTable) tidy(at int64, now time.Time) {
	if d := t.domains[at]; d != nil && d.idle() && d.whole.forgotten(now) && d.contested.forgotten(now) {
		delete(t.domains, at)
	}
}

func (d *domain) idle() bool {
	return len(d.readers) == 0 && len(d.pieces) == 0 && len(d.active) == 0 && d.waiting == 0
}

// within is the indexes, ascending, of known domains that ext touches.
func (t *leaseTable) within(ext extent.Extent) []int64 {
	if ext.Empty() {
		return nil
	}
	first, last := ext.Off/t.domainSize, (ext.End()-1)/t.domainSize
	if first == last {
		if t.domains[first] == nil {
			return nil
		}
		return []int64{first}
	}
	var out []int64
	for at := range t.domains {
		if first <= at && at <= last {
			out = append(out, at)
		}
	}
	slices.Sort(out)
	return out
}

// Conflicts lists the leases of others that are in the way of an access to exts,
// which are sorted, by session, in the order of sessions.
func (t *leaseTable) Conflicts(session uint64, exts []extent.Extent, write bool) []conflict {
	found := make(map[uint64]conflict)
	for _, at := range t.within(extent.Hull(exts)) {
		area := extent.Extent{Off: at * t.domainSize, Len: t.domainSize}
		for s, leases := range t.domains[at].inTheWay(session, exts, write) {
			c, ok := found[s]
			if !ok {
				c = conflict{session: s, ext: area}
			}
			c.leases |= leases
			c.ext.Len = area.End() - c.ext.Off
			found[s] = c
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b conflict) int { return cmp.Compare(a.session, b.session) })
}

// inTheWay is what Conflicts finds in a domain, by session.
func (d *domain) inTheWay(session uint64, exts []extent.Extent, write bool) map[uint64]uint32 {
	var out map[uint64]uint32
	add := func(s uint64, leases uint32) {
		if s != session && leases != 0 {
			if out == nil {
				out = make(map[uint64]uint32)
			}
			out[s] |= leases
		}
	}
	for s := range d.readers {
		var leases uint32
		if s == d.writer {
			leases = leaseWrite
		}
		if write {
			leases |= leaseRead
		}
		add(s, leases)
	}
	for s, pieces := range d.pieces {
		if extent.Meet(pieces, exts) || !write && d.reads >= calmReads { // nobody seems to write any more
			add(s, leasePieces)
		}
	}
	return out
}

// Wait counts an access to ext that waits until conflicts are revoked, so that no
// new lease comes in its way. Waited, with what it returns, is its counterpart.
// However many wait for one revocation, a domain is contended for once.
func (t *leaseTable) Wait(ext extent.Extent, conflicts []conflict, now time.Time) []int64 {
	at := t.within(ext)
	for _, i := range at {
		d := t.domains[i]
		area := extent.Extent{Off: i * t.domainSize, Len: t.domainSize}
		if d.waiting == 0 {
			d.contend(area, conflicts, now)
		}
		d.waiting++
	}
	return at
}

// Waited undoes Wait.
func (t *leaseTable) Waited(at []int64, now time.Time) {
	for _, i := range at {
		t.domains[i].waiting--
		t.tidy(i, now)
	}
}

// Touch has no access that is at work in ext end with a lease: what it saw is
// about to be changed by this node.
func (t *leaseTable) Touch(ext extent.Extent) {
	for _, at := range t.within(ext) {
		d := t.domains[at]
		d.writes++
		d.run, d.runBy = d.writes, 0
		d.reads = 0
		d.touched++
	}
}

// Drop takes leases of a session away.
func (t *leaseTable) Drop(session uint64, ext extent.Extent, leases uint32, now time.Time) {
	for _, at := range t.within(ext) {
		d := t.domains[at]
		if leases&leaseWrite != 0 && d.writer == session {
			d.writer = 0
		}
		if leases&leaseRead != 0 && d.writer != session {
			delete(d.readers, session)
		}
		if leases&leasePieces != 0 {
			delete(d.pieces, session)
		}
		t.tidy(at, now)
	}
}

// Begin notes an access of the domain that ext lies in. Conflicts has said
// that it may.
func (t *leaseTable) Begin(session uint64, ext extent.Extent, write bool) access {
	at := ext.Off / t.domainSize
	d := t.domain(at)
	a := access{session: session, ext: ext, write: write, at: at, alone: len(d.writing) == 0 || len(d.writing) == 1 && d.writing[session] > 0}
	d.active[session]++
	if write {
		d.writing[session]++
		if d.writes++; d.runBy != session || d.writes == 1 {
			d.run, d.runBy = d.writes, session
		}
		d.reads = 0
	} else {
		d.reads += 1 + ext.Len/readUnit
	}
	a.writes, a.touched = d.writes, d.touched
	return a
}

// End is the counterpart of Begin. Of the leases wanted it gives those that it
// can; none if the access failed. With leasePieces comes wish, sorted, which the
// session would have: all of that, or nothing.
func (t *leaseTable) End(a access, want uint32, wish []extent.Extent, now time.Time) (given uint32) {
	d := t.domains[a.at]
	given = d.give(a, want, now)
	switch {
	case given&leaseWrite == 0 && want&leasePieces != 0 && d.mayHave(a, wish, now):
		d.pieces[a.session] = extent.Normalize(append(d.pieces[a.session], wish...))
		given = leasePieces
	case given != 0:
		d.readers[a.session] = struct{}{}
		if given&leaseWrite != 0 {
			d.writer = a.session
			delete(d.pieces, a.session) // the whole domain is
		}
	}
	count(d.active, a.session)
	if a.write {
		count(d.writing, a.session)
	}
	t.tidy(a.at, now)
	return given
}

func count(m map[uint64]int, key uint64) {
	if m[key]--; m[key] == 0 {
		delete(m, key)
	}
}

// give says which of the wanted leases the access that ends may have.
func (d *domain) give(a access, want uint32, now time.Time) uint32 {
	untouched := a.alone && (d.writes == a.writes || d.runBy == a.session && d.run <= a.writes+1)
	if d.ofOthers(a.session) {
		return 0
	}
	if now.Before(d.whole.until) {
		if d.reads < calmReads {
			return 0
		}
		want &^= leaseWrite
	}
	if want&(leaseRead|leaseWrite) == 0 || !untouched || d.waiting > 0 {
		return 0
	}
	if d.writer != 0 && d.writer != a.session {
		return 0
	}
	others := len(d.active) > 1 || len(d.readers) > 1 || len(d.readers) == 1 && !d.has(a.session)
	if want&leaseWrite != 0 && !others {
		return leaseRead | leaseWrite
	}
	if _, writes := d.writing[a.session]; len(d.writing) > 1 || len(d.writing) == 1 && !writes {
		return 0 // another one's write is at work, and will not ask again
	}
	return want & leaseRead
}

func (d *domain) has(session uint64) bool {
	_, ok := d.readers[session]
	return ok
}

// DropSession takes everything of a session away that has ended.
func (t *leaseTable) DropSession(session uint64, now time.Time) {
	t.Drop(session, extent.ToEnd(0), dataLeases, now)
}

// KeptBack reports whether a session other than this one may hold writes back.
func (t *leaseTable) KeptBack(session uint64) (byOthers, byAny bool) {
	for _, d := range t.domains {
		if d.writer != 0 {
			byAny = true
			byOthers = byOthers || d.writer != session
		}
		byAny = byAny || len(d.pieces) > 0
		byOthers = byOthers || d.ofOthers(session)
	}
	return byOthers, byAny
}

// Idle reports whether there is nothing to remember.
func (t *leaseTable) Idle(now time.Time) bool {
	for at := range t.domains {
		t.tidy(at, now)
	}
	return len(t.domains) == 0
}
