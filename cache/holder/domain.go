package holder

import (
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
// answer from an era that is over grants nothing, and is not cached.
type domain struct {
	f   *File
	ext extent.Extent

	mu     sync.RWMutex // held for reading while bytes are kept back under a lease
	leases uint32       // guarded by mu
	tenure ionclient.Tenure
	era    uint64    // guarded by mu
	filled time.Time // guarded by mu; when the oldest clean bytes came; zero: there are none
	giving bool      // guarded by mu; the last answer came with a right to keep it

	fetches []*fetch // guarded by mu; READs under way
}

// fetch is a READ under way.
type fetch struct {
	ext  extent.Extent
	done chan struct{}
}

// hasLocked reports whether a lease is held for sure. mu is held.
func (d *domain) hasLocked(lease uint32) bool {
	held := d.leases
	if held&ionclient.LeaseWrite != 0 {
		held |= ionclient.LeaseData
	}
	return held&lease != 0 && d.tenure.Valid()
}

// begin returns the era for what is about to be sent.
func (d *domain) begin() uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.era
}

// grantLocked takes note of what an answer to a request of that era grants, and
// reports whether LEASE_DATA is held then. mu is held for writing.
func (d *domain) grantLocked(era uint64, g ionclient.Grant) bool {
	if d.era != era || g.Leases == 0 {
		return d.era == era && d.hasLocked(ionclient.LeaseData)
	}
	if !d.hasLocked(ionclient.LeaseData) { // what was cached on other grounds may be old
		d.dropLocked()
		d.leases = 0
	}
	if d.tenure != g.Tenure {
		d.leases = 0
	}
	d.leases |= g.Leases
	d.tenure = g.Tenure
	return d.hasLocked(ionclient.LeaseData)
}

// grant is grantLocked.
func (d *domain) grant(era uint64, g ionclient.Grant) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.grantLocked(era, g)
}

// dropLocked forgets all clean bytes. mu is held for writing.
func (d *domain) dropLocked() {
	d.f.data.Drop(d.ext)
	d.filled = time.Time{}
}

// renounce gives leases up.
func (d *domain) renounce(leases uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.era++
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
func (d *domain) mayUse(r right, now time.Time) bool {
	d.mu.RLock()
	var age time.Duration
	if !d.filled.IsZero() {
		age = now.Sub(d.filled)
	}
	ok := r.usable(d.hasLocked(ionclient.LeaseData), age, d.f.h.opt.Visibility)
	d.mu.RUnlock()
	if !ok && r == byAge {
		d.acquire()
	}
	return ok
}

// insert caches what a READ of that era has brought, if there is a right to.
func (d *domain) insert(era uint64, r right, g ionclient.Grant, off int64, pieces [][]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	leased := d.grantLocked(era, g)
	d.giving = d.era == era && (leased || r != byLease)
	if !d.giving {
		return
	}
	d.f.data.Insert(off, pieces)
	d.filledLocked()
}

func (d *domain) filledLocked() {
	if d.filled.IsZero() {
		d.filled = time.Now()
	}
}

// join returns a READ under way that overlaps e, if waiting for it may save one.
func (d *domain) join(e extent.Extent) *fetch {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if !d.giving {
		return nil
	}
	for _, x := range d.fetches {
		if x.ext.Overlaps(e) {
			return x
		}
	}
	return nil
}

// fetching registers a READ; done ends it.
func (d *domain) fetching(e extent.Extent) (x *fetch, era uint64) {
	x = &fetch{ext: e, done: make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fetches = append(d.fetches, x)
	return x, d.era
}

func (d *domain) fetched(x *fetch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, y := range d.fetches {
		if x == y {
			d.fetches = append(d.fetches[:i], d.fetches[i+1:]...)
			break
		}
	}
	close(x.done)
}
