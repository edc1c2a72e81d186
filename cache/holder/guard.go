package holder

import (
	"context"
	"time"

	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// guarded is ctx for a read of h, whose races are to be told if somebody wants to
// know. What eventual leaves open for a time is none, and in strong there are
// none of which an owner could tell.
func (h *Handle) guarded(ctx context.Context) context.Context {
	f := h.file
	if f.h.opt.Race == nil || h.mode == strong || h.mode == eventual {
		return ctx
	}
	var view time.Time
	if h.right == byAcquire {
		f.mu.Lock()
		view = f.locked
		f.mu.Unlock()
		if h.opened.After(view) {
			view = h.opened
		}
	}
	return ionclient.Guarded(ctx, view)
}

// raced tells of a race that came with a grant, and returns the error that it is
// to be.
func (f *File) raced(g ionclient.Grant) error {
	if g.Race == nil || f.h.opt.Race == nil {
		return nil
	}
	return f.h.opt.Race(f.handle, *g.Race)
}
