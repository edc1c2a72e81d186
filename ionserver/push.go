package ionserver

import (
	"context"

	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// push has the mount answer f, a callback that may be done twice, over
// whatever control streams it has meanwhile. It returns nil, and no error, if
// the session ended first: then nothing that f could take away is left. It
// fails only when ctx ends. A request at work calls it inside call.wait.
func (s *session) push(ctx context.Context, f *rpc.Frame) (*rpc.Frame, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)() // a mount may be silent and its stream stay
	for {
		s.mu.Lock()
		st, bound, dead := s.control, s.bound, s.dead
		s.mu.Unlock()
		if dead {
			return nil, nil
		}
		if st != nil {
			if r, err := st.peer.Call(ctx, f); err == nil {
				return r, nil
			}
		}
		select {
		case <-bound:
		case <-ctx.Done():
			if !s.isDead() {
				return nil, ctx.Err()
			}
		}
	}
}
