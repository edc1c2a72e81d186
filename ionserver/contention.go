package ionserver

import (
	"time"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// How long a domain that several mounts contend for gives no leases, after the
// first and after each further revocation in a row. Without this, two mounts
// that take turns would pay for every access with a revocation.
const (
	minContention = 20 * time.Millisecond
	maxContention = 2 * time.Second
)

// calmReads is after how many reads with no write between them readers may keep
// what they read again, however much a domain was contended for: those that are
// saved from then on pay for the next revocation. One that is long counts as one
// more for each readUnit bytes.
const (
	calmReads = 16
	readUnit  = 64 << 10
)

// contention is what is being fought over.
type contention struct {
	until time.Time     // no leases before
	pause time.Duration // that the last revocation caused
}

// fight takes note of a revocation.
func (c *contention) fight(now time.Time) {
	if c.pause *= 2; now.After(c.until.Add(4 * c.pause)) {
		c.pause = 0 // that was long ago
	}
	c.pause = min(max(c.pause, minContention), maxContention)
	c.until = now.Add(c.pause)
}

// forgotten reports whether there is nothing to remember of it.
func (c *contention) forgotten(now time.Time) bool { return !now.Before(c.until.Add(c.pause)) }

// contend takes note of what of the domain, which is area, is to be revoked.
func (d *domain) contend(area extent.Extent, conflicts []conflict, now time.Time) {
	var leases uint32
	for _, c := range conflicts {
		if c.ext.Overlaps(area) {
			leases |= c.leases
		}
	}
	if leases&leasePieces != 0 {
		d.contested.fight(now)
	}
	if leases&(leaseRead|leaseWrite) != 0 {
		d.whole.fight(now)
	}
}
