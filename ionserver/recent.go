package ionserver

import (
	"sync"
	"time"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// lingers reports whether an inode that has lost its name is to live on for a
// moment. A newcomer that was not opened is about to be, by whoever made it:
// were it gone, an open(2) that creates would create twice. During the grace any
// may be open.
func (s *Server) lingers(handle uint64, how ionpb.Flag) bool {
	now := time.Now()
	return how&ionpb.Flag_LINGER != 0 || how&ionpb.Flag_NEWCOMER != 0 && !s.opened.has(handle, now) || s.inGrace(now)
}

// recent is the inodes to which something happened within lingerTime. The
// zero value is ready.
type recent struct {
	mu   sync.Mutex
	when map[uint64]time.Time // by handle; guarded by mu
}

func (r *recent) add(handle uint64, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.when == nil {
		r.when = make(map[uint64]time.Time)
	}
	r.when[handle] = now
}

func (r *recent) has(handle uint64, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.when[handle]
	return ok && now.Sub(t) < lingerTime
}

// expire forgets what is recent no more.
func (r *recent) expire(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for handle, t := range r.when {
		if now.Sub(t) >= lingerTime {
			delete(r.when, handle)
		}
	}
}
