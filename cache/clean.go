package cache

import "github.com/dgraph-io/ristretto/v2"

// ticket names a row as long as it is left to ristretto.
type ticket struct {
	row *row
	gen uint32
}

// newPolicy starts ristretto for n blocks. Costs are counted in blocks.
func (s *Store) newPolicy(n int) (err error) {
	cost := s.cleanRoom(0)
	s.maxCost.Store(cost)
	s.policy, err = ristretto.NewCache(&ristretto.Config[uint64, ticket]{
		NumCounters:        10 * int64(n),
		MaxCost:            cost,
		BufferItems:        64,
		IgnoreInternalCost: true,
		OnExit:             s.expelled,
	})
	return err
}

// cleanRoom is how many blocks ristretto may keep beside so many unclean ones.
func (s *Store) cleanRoom(unclean int) int64 {
	return int64(max(1, len(s.blocks)-unclean-s.keep-s.recentRoom))
}

// key is what ristretto calls the row. It indexes its counters by the low bits, so
// the key must be well mixed (the finaliser of splitmix64). That two rows have the
// same key harms nothing: each ticket names its row.
func (r *row) key() uint64 {
	x := uint64(r.file.number)<<32 ^ uint64(r.index)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// countedLocked tells ristretto of a read that a block of r served, or was fetched
// for. Reads count once in a turn of recent: what is read once, but in small pieces,
// is not to look like what is read again and again.
func (f *File) countedLocked(r *row) {
	if turn := f.store.turn.Load(); r.counted != turn {
		r.counted = turn
		f.store.policy.Get(r.key())
	}
}

// cleanedLocked has b, which is clean, pass through recent, with its row.
func (f *File) cleanedLocked(b *block) {
	b.clean.Store(true)
	f.store.changed(b.row, 1)
}

// uncleanLocked ends b's being clean.
func (f *File) uncleanLocked(b *block) {
	b.clean.Store(false)
	f.store.changed(b.row, -1)
}

// changed notes that so many more blocks of r are clean. Ristretto is to forget a
// row that changes; it passes through recent again. The mu of r's file is held.
func (s *Store) changed(r *row, more int) {
	s.cleaned.Add(int64(more))
	s.mu.Lock()
	defer s.mu.Unlock()
	r.clean += more
	switch r.place {
	case recent:
		s.recentBlocks += more
	case policed:
		s.forget = append(s.forget, r.key())
		s.errands.Store(true)
		r.place = nowhere
	}
	switch {
	case r.clean == 0:
		if r.place == recent {
			s.recent.remove(r)
		}
		r.place = nowhere
	case r.place == nowhere:
		r.place = recent
		s.recent.push(r)
		s.recentBlocks += r.clean
	}
	for s.recentBlocks > s.recentRoom {
		s.leaveLocked()
	}
}

// leaveLocked takes the row that came first out of recent.
func (s *Store) leaveLocked() {
	r := s.recent.first
	s.recent.remove(r)
	r.place = between
	s.recentBlocks -= r.clean
	s.passed += r.clean
	s.turn.Store(uint32(s.passed / s.recentRoom))
	s.leaving = append(s.leaving, r)
	s.errands.Store(true)
}

// settle tells ristretto what could not be said with a File.mu held. Every
// call that changes a file ends with it.
func (s *Store) settle() {
	var leaving [32]*row
	var forget [32]uint64
	for s.errands.Load() {
		s.mu.Lock()
		n, m := copy(leaving[:], s.leaving), copy(forget[:], s.forget)
		s.leaving, s.forget = behead(s.leaving, n), behead(s.forget, m)
		s.errands.Store(len(s.leaving)+len(s.forget) > 0)
		room, scarce := s.cleanRoom(s.unclean), len(s.free) < s.keep/2
		s.mu.Unlock()
		if old := s.maxCost.Load(); max(room-old, old-room) > int64(len(s.blocks)/64) {
			s.maxCost.Store(room)
			s.policy.UpdateMaxCost(room)
		}
		for _, k := range forget[:m] {
			s.policy.Del(k)
		}
		for _, r := range leaving[:n] {
			s.entrust(r)
		}
		if n > 0 && scarce {
			s.policy.Wait() // until it has said what it does not keep
		}
	}
}

// behead removes the first n of list, in place.
func behead[T any](list []T, n int) []T { return list[:copy(list, list[n:])] }

// entrust gives r to ristretto, which may refuse.
func (s *Store) entrust(r *row) {
	s.mu.Lock()
	if r.place != between { // it has changed meanwhile
		s.mu.Unlock()
		return
	}
	r.place = policed
	r.gen++
	t, cost := ticket{r, r.gen}, int64(r.clean)
	s.mu.Unlock()
	if !s.policy.Set(r.key(), t, cost) {
		s.expelled(t)
	}
}

// expelled is ristretto's word that it does not keep t.
func (s *Store) expelled(t ticket) {
	if t.row == nil || s.stopping.Load() {
		return
	}
	f := t.row.file
	f.mu.Lock()
	defer f.mu.Unlock()
	s.mu.Lock()
	late := t.row.place != policed || t.row.gen != t.gen
	if !late {
		t.row.place = between // it knows
	}
	s.mu.Unlock()
	if late {
		return
	}
	for _, b := range t.row.blocks {
		if b != nil && b.clean.Load() {
			f.evictLocked(b)
		}
	}
}

// evictLocked drops a clean block.
func (f *File) evictLocked(b *block) {
	f.store.stats.evictions.Add(1)
	f.uncleanLocked(b)
	f.detachLocked(b)
}

// reclaim evicts up to want clean blocks that no view holds. It reports whether
// there were any. The hand passes once by a block that was read or fetched since the
// last time.
func (s *Store) reclaim(want int) bool {
	got, n := 0, uint64(len(s.blocks))
	for i := uint64(0); i < 2*n && got < want && s.cleaned.Load() > 0; i++ {
		b := &s.blocks[(s.hand.Add(1)-1)%n]
		f := b.owner.Load()
		if f == nil || !b.clean.Load() || b.refs.Load() != 1 {
			continue
		}
		f.mu.Lock()
		switch {
		case b.owner.Load() != f || !b.clean.Load() || b.refs.Load() != 1:
		case b.touched:
			b.touched = false
		default:
			f.evictLocked(b)
			got++
		}
		f.mu.Unlock()
	}
	return got > 0
}
