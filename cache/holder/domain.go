package holder

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// domain is what a node knows of a file domain of a file: the leases on it and
// how old what is cached of it can be.
//
// A revocation may overtake the answer that granted the lease. So who asks
// takes note of era first, which every revocation and acquire moves, and an
// answer from an era that is over grants nothing, and is not cached. One answer
// may overtake another, too: what came without a lease, and was asked for without
// one, is not cached under a lease that was given later, for others may have written
// in between.
type domain struct {
	f   *File
	ext extent.Extent

	mu      sync.RWMutex    // held for reading while bytes are kept back under a lease
	leases  uint32          // guarded by mu
	pieces  []extent.Extent // guarded by mu; under LEASE_PIECES; sorted, none touch
	tenure  ionclient.Tenure
	era     uint64    // guarded by mu
	filled  time.Time // guarded by mu; when the oldest clean bytes were asked for, or sent; zero: there are none
	bared   uint64    // guarded by mu; how often bytes were published that no lease keeps others from changing
	refused int       // guarded by mu; WRITEs that are not to ask for pieces
	denied  bool      // guarded by mu; the last answer came without a right to keep it

	fetches []*fetch // guarded by mu; READs under way
}

// moment is when a request began.
type moment struct {
	time   time.Time
	era    uint64
	tenure ionclient.Tenure // under which LEASE_DATA was held then; zero: it was not
}

// fetch is a READ under way.
type fetch struct {
	exts []extent.Extent
	done chan struct{} // closed at its end; nil: nobody waits; guarded by domain.mu
}

// hasLocked reports whether a lease is held for sure. mu is held.
func (d *domain) hasLocked(lease uint32) bool {
	held := d.leases
	if held&ionclient.LeaseWrite != 0 {
		held |= ionclient.LeaseData
	}
	return held&lease != 0 && d.tenure.Valid()
}

// isLeased reports whether LEASE_DATA is held for sure.
func (d *domain) isLeased() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.hasLocked(ionclient.LeaseData)
}

// begin returns the moment for what is about to be sent.
func (d *domain) begin() moment {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.nowLocked()
}

func (d *domain) nowLocked() moment {
	at := moment{time: time.Now(), era: d.era}
	if d.hasLocked(ionclient.LeaseData) {
		at.tenure = d.tenure
	}
	return at
}

// grounds is on what bytes that are known are the newest: while it stays the same, so
// do they, or what others have written since waits for them to be published.
type grounds struct{ era, bared uint64 }

func (d *domain) grounds() grounds {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return grounds{d.era, d.bared}
}

// grantLocked takes note of what an answer to a request that began at that moment
// grants, and reports whether what it tells may be kept under LEASE_DATA. mu is
// held for writing.
func (d *domain) grantLocked(at moment, g ionclient.Grant) bool {
	if d.era != at.era || g.Leases == 0 {
		return d.era == at.era && d.nowLocked().tenure == at.tenure && at.tenure != ionclient.Tenure{}
	}
	if g.Leases == ionclient.LeasePieces {
		d.grantPiecesLocked(g)
		return d.hasLocked(ionclient.LeaseData)
	}
	if !d.hasLocked(ionclient.LeaseData) { // what was cached on other grounds may be old
		d.dropLocked()
		d.leases = 0
	}
	if d.tenure != g.Tenure {
		d.leases, d.pieces = 0, nil
	}
	d.leases |= g.Leases
	d.tenure = g.Tenure
	return d.hasLocked(ionclient.LeaseData)
}

// grant is grantLocked.
func (d *domain) grant(at moment, g ionclient.Grant) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.grantLocked(at, g)
}

// dropLocked forgets all clean bytes. mu is held for writing.
func (d *domain) dropLocked() {
	d.f.data.Drop(d.ext)
	d.filled = time.Time{}
}

// renounce gives leases up.
func (d *domain) renounce(leases uint32) {
	if leases&ionclient.LeaseData != 0 {
		defer d.f.h.stale(d.f.handle)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.era++
	if len(d.pieces) > 0 || d.leases&ionclient.LeaseWrite != 0 {
		d.f.crowded()
	}
	d.pieces = nil
	if leases&ionclient.LeaseData != 0 {
		d.leases = 0
		d.dropLocked()
	} else if d.leases&ionclient.LeaseWrite != 0 {
		d.leases = ionclient.LeaseData
	}
}

// acquire has reads that begin later not be answered by what was fetched before.
func (d *domain) acquire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.era++
	if !d.hasLocked(ionclient.LeaseData) {
		d.dropLocked()
	}
}

// mayUse reports whether clean bytes may be used, and forgets those that never
// may be again.
func (d *domain) mayUse(r right) bool {
	d.mu.RLock()
	var age time.Duration
	if r == byAge && !d.filled.IsZero() {
		age = time.Since(d.filled)
	}
	ok := r.usable(d.hasLocked(ionclient.LeaseData), age, d.f.h.opt.Visibility)
	d.mu.RUnlock()
	if !ok && r == byAge {
		d.acquire()
	}
	return ok
}

// insert caches what a READ that began at that moment has brought, if there is a
// right to, and reports whether that is LEASE_DATA.
func (d *domain) insert(at moment, r right, g ionclient.Grant, exts []extent.Extent, pieces [][]byte) (leased bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	leased = d.grantLocked(at, g)
	d.denied = d.era != at.era || !leased && r == byLease
	if !d.denied && d.mayKeepLocked(leased) {
		byExtent(exts, pieces, d.f.data.Insert)
		d.filledLocked(at)
	}
	return leased
}

// mayKeepLocked reports whether clean bytes may be added: under the lease, if there
// is one, for who has the right to use what it covers asks no further. mu is held.
func (d *domain) mayKeepLocked(leased bool) bool {
	return leased || !d.hasLocked(ionclient.LeaseData)
}

func (d *domain) filledLocked(at moment) {
	if d.filled.IsZero() || at.time.Before(d.filled) {
		d.filled = at.time
	}
}

// isDenied reports whether what is fetched may not be kept, most likely.
func (d *domain) isDenied() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.denied
}

// await waits for READs under way that overlap exts, if that may save one, and
// reports whether there were any.
func (d *domain) await(ctx context.Context, exts []extent.Extent) bool {
	d.mu.Lock()
	var waits []chan struct{}
	for _, x := range d.fetches {
		if !d.denied && x.overlaps(exts) {
			if x.done == nil {
				x.done = make(chan struct{})
			}
			waits = append(waits, x.done)
		}
	}
	d.mu.Unlock()
	for _, done := range waits {
		select {
		case <-done:
		case <-ctx.Done():
			return false
		}
	}
	return len(waits) > 0
}

// overlaps reports whether x brings a byte of exts; both are sorted.
func (x *fetch) overlaps(exts []extent.Extent) bool {
	for mine := x.exts; len(mine) > 0 && len(exts) > 0; {
		switch {
		case mine[0].Overlaps(exts[0]):
			return true
		case mine[0].Off < exts[0].Off:
			mine = mine[1:]
		default:
			exts = exts[1:]
		}
	}
	return false
}

// fetching registers a READ of exts; fetched ends it. A READ ahead is only
// registered for what no other one is going to bring: if nothing is left, x is
// nil.
func (d *domain) fetching(exts []extent.Extent, ahead bool) (x *fetch, at moment) {
	if d.f.h.opt.NoCollective && len(exts) > 0 {
		exts = []extent.Extent{extent.Hull(exts)}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if ahead {
		for _, y := range d.fetches {
			exts = extent.Subtract(exts, y.exts)
		}
		if len(exts) == 0 {
			return nil, moment{}
		}
	}
	x = &fetch{exts: exts}
	d.fetches = append(d.fetches, x)
	return x, d.nowLocked()
}

func (d *domain) fetched(x *fetch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fetches = slices.DeleteFunc(d.fetches, func(y *fetch) bool { return x == y })
	if x.done != nil {
		close(x.done)
	}
}
