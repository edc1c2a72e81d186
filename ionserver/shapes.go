package ionserver

import (
	"time"

	"github.com/zoidfs/zoidfs/pvfs"
)

// A home that destroys a file need not ask how its data lie if it knows. It does
// from its own writes, being the owner of the first domain, or from a look at the
// attributes just before. A file that is stuffed can be given its other datafiles
// meanwhile by an owner that writes behind the first strip, which it announces, or
// with a new size; then what is known is of no use, for datafiles would be left
// behind.

// maxShapes bounds the layouts that are remembered from looks.
const maxShapes = 1 << 12

// shape is how the data of a file lie.
type shape struct {
	attr    pvfs.Attr
	learned uint64 // pvfs.Client.Generation before it was asked for
	until   time.Time
}

// laidOut returns the file if it is surely known how its data lie; else nil.
func (h *home) laidOut(handle uint64) *pvfs.File {
	if f := h.srv.owner.laidOut(handle); f != nil {
		return f
	}
	if s, ok := h.dirs.shape(handle, time.Now()); ok && s.learned == h.srv.pvfs.Generation() {
		return h.srv.pvfs.File(s.attr)
	}
	return nil
}

// learnShape remembers how the data of a file lie, unless somebody writes to it: a
// was asked for at since, and the servers were of generation learned before.
func (h *home) learnShape(a pvfs.Attr, since asking, learned uint64) {
	if a.Layout == nil {
		return
	}
	h.mu.Lock()
	i := h.inodes[uint64(a.Handle)]
	written := i != nil && len(i.writers)+len(i.ends) > 0
	h.mu.Unlock()
	if !written { // who announces a write after this, forgets it again
		h.dirs.learnShape(shape{a, learned, time.Now().Add(dirLife)}, since)
	}
}

func (t *dirTable) shape(handle uint64, now time.Time) (s shape, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok = t.shapes[handle]
	return s, ok && now.Before(s.until)
}

func (t *dirTable) learnShape(s shape, since asking) {
	t.mu.Lock()
	defer t.mu.Unlock()
	handle := uint64(s.attr.Handle)
	if i := &t.inodes[handle%uint64(len(t.inodes))]; i.active > 0 || since.changes != i.changes {
		return
	}
	if t.shapes == nil {
		t.shapes = make(map[uint64]shape)
	}
	for h := range t.shapes {
		if len(t.shapes) < maxShapes {
			break
		}
		delete(t.shapes, h)
	}
	t.shapes[handle] = s
}

// elsewhere reports whether other owners have written to the file, as far as this
// home still knows.
func (h *home) elsewhere(handle uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.inodes[handle]
	if i == nil {
		return false
	}
	for at := range h.srv.peers {
		_, writes := i.writers[at]
		if at != h.srv.self && (writes || i.ends[at] != 0 || i.stamps[at] != 0) {
			return true
		}
	}
	return false
}

// laidOut is the file if its layout is surely what it was when it was learned, or
// what this owner has made of it; else nil.
func (o *owner) laidOut(handle uint64) *pvfs.File {
	f := o.peek(handle)
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.layout
	if l == nil || l.Layout() == nil || f.learned != o.srv.pvfs.Generation() || f.spread && l.Layout().Stuffed {
		return nil
	}
	return l
}

// spreads takes note that others than this owner may give a file of this home its
// other datafiles.
func (o *owner) spreads(handle uint64) {
	f := o.get(handle)
	defer o.put(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.spread = true
}
