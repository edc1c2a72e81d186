package ionserver

import (
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs"
)

// maxPages bounds the pages of names that are kept of one directory.
const maxPages = maxNames / 2 / readDirMax

// dirLoad is a directory whose names are being read.
type dirLoad struct {
	done  chan struct{}      // closed when it has ended
	pages int                // that it may take
	moved map[string]meaning // what was changed meanwhile; guarded by dirTable.mu
	void  bool               // what it reads is of no use; guarded by dirTable.mu
}

// known returns what an entry means, whose lock the caller holds, if that is known.
func (t *dirTable) known(k nameKey, now time.Time) (m meaning, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.dirs[k.dir]
	if d == nil || d.names == nil || now.Sub(d.listed) >= dirLife {
		return m, false
	}
	m = d.names[k.name]
	if c, ok := d.changing[k.name]; ok && !c.said { // by the caller
		m = c.was
	}
	return m, !m.unknown
}

// missed takes note that an entry was not known. If load is not nil, the names of
// the directory are being read; with mine, the caller is to do it, and loaded must
// follow.
func (t *dirTable) missed(k nameKey, now time.Time) (load *dirLoad, mine bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.dirs[k.dir]
	switch {
	case d == nil:
		return nil, false
	case d.load != nil:
		return d.load, false
	case d.names != nil && now.Sub(d.listed) < dirLife: // this one cannot be known
		return nil, false
	}
	if d.asked++; d.asked <= d.need {
		return nil, false
	}
	t.dropNamesLocked(d)
	d.load = &dirLoad{done: make(chan struct{}), pages: d.need, moved: make(map[string]meaning)}
	for name, c := range d.changing {
		if !c.said {
			d.load.moved[name] = meaning{unknown: true}
		}
	}
	d.listed = now
	return d.load, true
}

// loaded ends a load with what it has read; all is nil if that was not all.
func (t *dirTable) loaded(dir uint64, load *dirLoad, all []pvfs.Dirent) {
	defer close(load.done)
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.dirs[dir]
	d.load, d.asked = nil, 0
	switch {
	case load.void:
		return
	case all == nil:
		d.need = min(2*d.need, maxPages)
		return
	}
	d.need = len(all)/readDirMax + 1
	d.names = make(map[string]meaning, len(all))
	for _, e := range all {
		d.names[e.Name] = meaning{handle: e.Handle}
	}
	t.names += len(d.names)
	for name, m := range load.moved {
		t.setLocked(d, name, m)
	}
	for _, other := range t.dirs {
		if t.names <= maxNames {
			return
		}
		if other != d && other.names != nil {
			t.dropNamesLocked(other)
		}
	}
}

// setLocked takes over what a name means, and returns what it meant.
func (t *dirTable) setLocked(d *knownDir, name string, m meaning) (was meaning) {
	switch {
	case d.load != nil:
		was, ok := d.load.moved[name]
		d.load.moved[name] = m
		if !ok {
			was.unknown = true
		}
		return was
	case d.names == nil:
		return meaning{unknown: true}
	}
	t.names -= len(d.names)
	was = d.names[name]
	if d.names[name] = m; m == (meaning{}) {
		delete(d.names, name)
	}
	t.names += len(d.names)
	return was
}

func (t *dirTable) dropNamesLocked(d *knownDir) {
	t.names -= len(d.names)
	d.names = nil
	if d.load != nil {
		d.load.void = true
	}
}

// errUnlisted says that a name is not among those that were read up to dirLife ago.
// Somebody beside zoidfs may have made it since, so a mount is not to keep that.
var errUnlisted = errno.New("ionserver.find: not listed", syscall.ENOENT)

// find returns what an entry of the call's directory means, ENOENT if nothing.
// The caller holds its lock; if shared, it may read all names for that.
func (c *call) find(name string, shared bool) (meaning, error) {
	dirs, k := &c.srv.home.dirs, nameKey{c.Handle, name}
	m, ok := dirs.known(k, time.Now())
	if !ok && shared && c.list(k) {
		m, ok = dirs.known(k, time.Now())
	}
	if !ok {
		h, err := c.srv.pvfs.Lookup(c.ctx, c.dir(), name)
		return meaning{handle: h}, err
	}
	if m.handle == 0 {
		return m, errUnlisted
	}
	return m, nil
}

// list has the names of the call's directory read if that is due, because k is not
// known, and reports whether it was.
func (c *call) list(k nameKey) bool {
	dirs := &c.srv.home.dirs
	load, mine := dirs.missed(k, time.Now())
	switch {
	case load == nil:
		return false
	case mine:
		dirs.loaded(k.dir, load, c.readNames(load.pages))
	default:
		_ = c.wait(func() error { <-load.done; return nil })
	}
	return true
}

// readNames reads the names of the call's directory; nil if that fails, or if they
// are more than so many pages.
func (c *call) readNames(pages int) []pvfs.Dirent {
	all, token := []pvfs.Dirent{}, pvfs.DirToken(0)
	for range pages {
		ents, next, eof, err := c.srv.pvfs.ReadDir(c.ctx, c.dir(), token, readDirMax)
		if err != nil {
			return nil
		}
		if all, token = append(all, ents...), next; eof {
			return all
		}
	}
	return nil
}
