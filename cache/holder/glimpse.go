package holder

import (
	"time"

	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// Glimpse is what unpublished bytes of this node did to the size and the
// modification time of a file, when it was taken.
type Glimpse struct {
	f       *File // nil: nothing is kept of the file
	end     int64
	written time.Time
}

// Glimpse is to be taken before the home is asked for attributes, as bytes may
// be published before the answer is there and after the home has looked.
func (h *Holder) Glimpse(handle uint64) Glimpse { return h.known(handle).glimpse() }

func (f *File) glimpse() Glimpse {
	if f == nil {
		return Glimpse{}
	}
	g := Glimpse{f: f}
	if n, end, _ := f.data.Dirty(); n > 0 {
		f.mu.Lock()
		g.end, g.written = end, f.written
		f.mu.Unlock()
	}
	return g
}

// Overlay makes attributes, which the home has told since, those that programs
// on this node must see.
func (g Glimpse) Overlay(a *ionclient.Attr) {
	for _, g := range []Glimpse{g, g.f.glimpse()} {
		a.Size = max(a.Size, g.end)
		if !g.written.IsZero() {
			a.Mtime = max(a.Mtime, g.written.Unix())
		}
	}
}
