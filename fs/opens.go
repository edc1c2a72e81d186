package fs

import "sync"

// opens is what is open on this node, and what the homes know of that. However
// often a file is open here, its home counts one; and none while the node has the
// lease on the attributes and only reads: then the answer to the REVOKE tells. So
//
//	here > 0 and no lease   ->  counted > 0 or told
//
// The zero value is ready.
type opens struct {
	mu    sync.Mutex
	files map[uint64]*opening // guarded by mu; none that is all zero
}

// opening is one file. All fields are guarded by opens.mu.
type opening struct {
	here     int    // opens of this node
	counted  uint32 // opens that the home has counted for them
	told     bool   // it has been told of one more, with the answer to a REVOKE
	removing int    // calls at work that may remove its last name
}

func (o *opens) getLocked(h uint64) *opening {
	f := o.files[h]
	if f == nil {
		if o.files == nil {
			o.files = make(map[uint64]*opening)
		}
		f = new(opening)
		o.files[h] = f
	}
	return f
}

func (o *opens) tidyLocked(h uint64, f *opening) {
	if *f == (opening{}) {
		delete(o.files, h)
	}
}

// add counts n opens here, for which the home has counted so many.
func (o *opens) add(h uint64, n int, counted uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.getLocked(h)
	f.here += n
	f.counted += counted
}

// addLeased counts n opens here if the home need not be asked: it has counted one,
// or leased, which must not block, finds that it cannot miss one that only reads.
func (o *opens) addLeased(h uint64, n int, write bool, leased func() bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.getLocked(h)
	defer o.tidyLocked(h, f)
	known := f.counted > 0 || f.told
	if !known && (write || f.removing > 0) || !leased() {
		return false
	}
	f.here += n
	return true
}

// drop ends one open here. If it was the last, it returns what the home is to
// count less.
func (o *opens) drop(h uint64) (counted uint32, told bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.getLocked(h)
	defer o.tidyLocked(h, f)
	if f.here--; f.here > 0 {
		return 0, false
	}
	counted, told = f.counted, f.told
	f.counted, f.told = 0, false
	return counted, told
}

// tell reports whether the home has to count an open of which it does not know,
// now that the lease ends.
func (o *opens) tell(h uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.files[h]
	if f == nil || f.here == 0 {
		return false
	}
	f.told = f.told || f.counted == 0
	return f.told
}

// count has everything that is open counted as an OPEN would, because a home has
// forgotten what it was told, and returns what that adds.
func (o *opens) count(want func(h uint64) bool) (added []uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for h, f := range o.files {
		if f.here > 0 && want(h) && (f.counted == 0 || f.told) {
			f.counted, f.told = f.counted+1, false
			added = append(added, h)
		}
	}
	return added
}

// any reports whether something that want picks is open and not counted.
func (o *opens) any(want func(h uint64) bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for h, f := range o.files {
		if f.here > 0 && (f.counted == 0 || f.told) && want(h) {
			return true
		}
	}
	return false
}

// remove begins a call that may remove the last name of h: until done, opens are
// counted by the home. untold is true if there is one that it does not know of.
func (o *opens) remove(h uint64) (untold bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.getLocked(h)
	f.removing++
	return f.here > 0 && f.counted == 0 && !f.told
}

func (o *opens) removed(h uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.getLocked(h)
	f.removing--
	o.tidyLocked(h, f)
}
