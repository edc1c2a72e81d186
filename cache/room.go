package cache

import "context"

// waiter is a writer that waits for room.
type waiter struct {
	ready chan struct{} // has room for one; sent to when it is worth to look again
}

// Pressure has a value to receive whenever writers wait for room, or soon will.
// The owner of the store then makes blocks clean, by Take and Done, or releases
// views, until the figures of Snapshot please it.
func (s *Store) Pressure() <-chan struct{} { return s.pressure }

func (s *Store) press() {
	select {
	case s.pressure <- struct{}{}:
	default:
	}
}

// grabLocked takes up to len(dst) free blocks, each with the right to make one
// block unclean.
func (s *Store) grabLocked(dst []*block) int {
	n := s.takeLocked(dst[:max(0, min(len(dst), s.maxUnclean-s.unclean))])
	s.unclean += n
	if s.unclean > s.maxUnclean-s.maxUnclean/4 {
		s.press()
	}
	return n
}

// grab takes at least least and up to len(dst) blocks with rights, or none. It
// evicts clean blocks for them. A writer that does not wait itself (w is nil)
// gets none while others wait.
func (s *Store) grab(dst []*block, least int, w *waiter) int {
	for more := true; ; {
		s.mu.Lock()
		if len(s.waiters) > 0 && s.waiters[0] != w {
			s.mu.Unlock()
			return 0
		}
		n, rights := 0, s.maxUnclean-s.unclean
		short := min(len(dst), rights) - len(s.free)
		if rights >= least && (short <= 0 || !more && len(s.free) >= least) {
			n = s.grabLocked(dst)
		}
		s.mu.Unlock()
		if n > 0 || rights < least || !more {
			return n
		}
		more = s.reclaim(short)
	}
}

// reserve takes least to len(dst) blocks with rights. It waits until there are so
// many.
func (s *Store) reserve(ctx context.Context, dst []*block, least int) (int, error) {
	if n := s.grab(dst, least, nil); n > 0 {
		return n, nil
	}
	w := &waiter{ready: make(chan struct{}, 1)}
	s.stats.waits.Add(1)
	s.mu.Lock()
	s.waiters = append(s.waiters, w)
	s.waiting.Add(1)
	s.mu.Unlock()
	defer s.leave(w)
	for {
		if n := s.grab(dst, least, w); n > 0 {
			return n, nil
		}
		s.press()
		select {
		case <-w.ready:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// leave ends the waiting of w, and has the next one look.
func (s *Store) leave(w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, o := range s.waiters {
		if o == w {
			s.waiters = append(s.waiters[:i], s.waiters[i+1:]...)
			break
		}
	}
	s.waiting.Add(-1)
	s.wakeLocked()
}

func (s *Store) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wakeLocked()
}

// wakeLocked has the first writer that waits look again.
func (s *Store) wakeLocked() {
	if len(s.waiters) > 0 {
		select {
		case s.waiters[0].ready <- struct{}{}:
		default:
		}
	}
}

// giveBack frees blocks that were not needed, and gives back rights.
func (s *Store) giveBack(blocks []*block, rights int) {
	s.unref(blocks)
	if rights > 0 {
		s.mu.Lock()
		s.unclean -= rights
		s.wakeLocked()
		s.mu.Unlock()
	}
}
