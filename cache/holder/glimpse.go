package holder

import (
	"slices"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/extent"
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

// saw takes note of what attributes say about the next write: one that is to
// clear setuid or setgid does so before it returns.
func (f *File) saw(a *ionclient.Attr) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.setID = a.Mode&(syscall.S_ISUID|syscall.S_ISGID) != 0
}

func (f *File) glimpse() Glimpse {
	if f == nil {
		return Glimpse{}
	}
	g := Glimpse{f: f}
	if n, end, _ := f.data.Dirty(); n > 0 {
		f.mu.Lock()
		g.end, g.written = f.promisedLocked(end), f.written
		f.mu.Unlock()
	}
	return g
}

// direct is bytes of a write under way that is to be seen everywhere when it
// returns, and here no sooner.
type direct struct {
	ext   extent.Extent
	floor int64 // where what was dirty there before ended; 0: there was nothing
}

// beginDirect is called before such bytes are put into the cache, with their range
// lock held; endDirect of what contains them follows.
func (f *File) beginDirect(e extent.Extent) {
	d := direct{e, f.data.DirtyEnd(e)}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.direct = append(f.direct, d)
}

func (f *File) endDirect(e extent.Extent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.direct = slices.DeleteFunc(f.direct, func(d direct) bool { return e.Contains(d.ext) })
}

// promisedLocked is where those of the dirty bytes end, the last of which ends at
// end, that programs of this node may see. mu is held.
func (f *File) promisedLocked(end int64) int64 {
	floor := int64(0)
	under := func(d direct) bool { return d.ext.Off < end && end <= d.ext.End() }
	for i := slices.IndexFunc(f.direct, under); i >= 0; i = slices.IndexFunc(f.direct, under) {
		floor = max(floor, f.direct[i].floor)
		end = f.data.DirtyEnd(extent.Extent{Len: f.direct[i].ext.Off})
	}
	return max(end, floor)
}

// Overlay makes attributes, which the home has told since, those that programs
// on this node must see.
func (g Glimpse) Overlay(a *ionclient.Attr) {
	g.f.saw(a)
	for _, g := range []Glimpse{g, g.f.glimpse()} {
		a.Size = max(a.Size, g.end)
		if !g.written.IsZero() {
			a.Mtime = max(a.Mtime, g.written.Unix())
		}
	}
}

// maxLooks bounds how often Overlaid asks.
const maxLooks = 8

// Overlaid asks for attributes and makes them those that programs on this node must
// see. If bytes were unpublished before that neither they nor this node show any
// more, the home has looked before those were published, or they were cut off
// since: then it asks again.
func Overlaid(glimpse func() Glimpse, ask func() (ionclient.Attr, error)) (ionclient.Attr, error) {
	for look := 1; ; look++ {
		before := glimpse()
		a, err := ask()
		if err != nil {
			return a, err
		}
		if look == maxLooks || before.end <= max(a.Size, before.f.glimpse().end) {
			before.Overlay(&a)
			return a, nil
		}
	}
}
