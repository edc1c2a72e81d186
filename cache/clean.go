package cache

import "github.com/dgraph-io/ristretto/v2"

// ring holds up to len(slots) tickets, first in first out.
type ring struct {
	slots []ticket
	head  int // the oldest
	n     int
}

func (r *ring) init(n int) { r.slots = make([]ticket, n) }

// push adds t. If the ring was full, the oldest leaves.
func (r *ring) push(t ticket) (old ticket, left bool) {
	if left = r.n == len(r.slots); left {
		old = r.slots[r.head]
		r.head = (r.head + 1) % len(r.slots)
		r.n--
	}
	r.slots[(r.head+r.n)%len(r.slots)] = t
	r.n++
	return old, left
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
	return int64(max(1, len(s.blocks)-unclean-s.keep-len(s.recent.slots)))
}

// key is what ristretto calls block index of f. It indexes its counters by the
// low bits, so the key must be well mixed (the finaliser of splitmix64). That
// two blocks have the same key harms nothing: each ticket names its block.
func (f *File) key(index int64) uint64 {
	x := uint64(f.number)<<32 ^ uint64(index)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// countedLocked tells ristretto of a read that b served, or was fetched for. Reads
// count once in a turn of recent: what is read once, but in small pieces, is not
// to look like what is read again and again.
func (f *File) countedLocked(b *block) {
	if turn := f.store.turn.Load(); b.counted != turn {
		b.counted = turn
		f.store.policy.Get(f.key(b.index))
	}
}

// cleanedLocked has b, which is clean, pass through recent.
func (f *File) cleanedLocked(b *block) {
	s := f.store
	b.clean.Store(true)
	s.cleaned.Add(1)
	s.mu.Lock()
	old, left := s.recent.push(ticket{b, b.gen})
	if left {
		if s.recent.head == 0 {
			s.turn.Add(1)
		}
		s.leaving = append(s.leaving, old)
		s.errands.Store(true)
	}
	s.mu.Unlock()
}

// uncleanLocked ends b's being clean; ristretto is to forget it.
func (f *File) uncleanLocked(b *block) {
	s := f.store
	b.gen++
	b.clean.Store(false)
	s.cleaned.Add(-1)
	if b.policed {
		b.policed = false
		s.mu.Lock()
		s.forget = append(s.forget, f.key(b.index))
		s.errands.Store(true)
		s.mu.Unlock()
	}
}

// settle tells ristretto what could not be said with a File.mu held. Every
// call that changes a file ends with it.
func (s *Store) settle() {
	var leaving [32]ticket
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
		for _, t := range leaving[:n] {
			s.entrust(t)
		}
		if n > 0 && scarce {
			s.policy.Wait() // until it has said what it does not keep
		}
	}
}

// behead removes the first n of list, in place.
func behead[T any](list []T, n int) []T { return list[:copy(list, list[n:])] }

// entrust gives t to ristretto, which may refuse.
func (s *Store) entrust(t ticket) {
	f := t.b.owner.Load()
	if f == nil {
		return
	}
	f.mu.Lock()
	ok := f.holdsLocked(t)
	var k uint64
	if ok {
		t.b.policed = true
		k = f.key(t.b.index)
	}
	f.mu.Unlock()
	if ok && !s.policy.Set(k, t, 1) {
		s.expelled(t)
	}
}

// holdsLocked reports whether t still says the truth and its block is f's.
func (f *File) holdsLocked(t ticket) bool {
	return t.b.owner.Load() == f && t.b.gen == t.gen
}

// expelled is ristretto's word that it does not keep t.
func (s *Store) expelled(t ticket) {
	if t.b == nil || s.stopping.Load() {
		return
	}
	f := t.b.owner.Load()
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.holdsLocked(t) {
		t.b.policed = false // it knows
		f.evictLocked(t.b)
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
