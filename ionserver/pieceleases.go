package ionserver

import (
	"time"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// ofOthers reports whether others than session have pieces of the domain.
func (d *domain) ofOthers(session uint64) bool {
	_, own := d.pieces[session]
	return len(d.pieces) > 1 || len(d.pieces) == 1 && !own
}

// mayHave reports whether the access that ends, a write, may have pieces: nobody
// may keep what he reads there, and none of them is another one's. What is at work
// there now began before anything could be kept back, and may be seen before it.
func (d *domain) mayHave(a access, wish []extent.Extent, now time.Time) bool {
	others := len(d.readers) > 1 || len(d.readers) == 1 && !d.has(a.session)
	if !a.write || len(wish) == 0 || others || d.touched != a.touched || d.waiting > 0 || now.Before(d.contested.until) {
		return false
	}
	for s, pieces := range d.pieces {
		if s != a.session && extent.Meet(pieces, wish) {
			return false
		}
	}
	return true
}
