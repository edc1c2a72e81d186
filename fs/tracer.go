package fs

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
)

// TraceRequest is the value of the attribute by which a trace is begun; one
// without a file ends it.
type TraceRequest struct {
	File  string `json:"file,omitempty"`  // absolute, outside of the mount; must not exist
	Limit int64  `json:"limit,omitempty"` // bytes; 0 is 256 MiB
}

// TraceStatus says how the trace of a mount fares, or how the last one ended.
type TraceStatus struct {
	Running bool   `json:"running"`
	File    string `json:"file,omitempty"`
	Calls   uint64 `json:"calls"`
	Dropped uint64 `json:"dropped"` // calls that are missing in it
	Bytes   int64  `json:"bytes"`   // of the file
	Full    bool   `json:"full"`    // the limit was reached
	Error   string `json:"error,omitempty"`
}

// tracer begins and ends the traces of a mount, one at a time.
type tracer struct {
	current atomic.Pointer[recording] // nil: nobody records

	start chan *recording // to run; capacity 1

	mu     sync.Mutex
	last   *recording // guarded by mu; whose status is shown
	closed bool       // guarded by mu; the mount ends
}

func newTracer() *tracer { return &tracer{start: make(chan *recording, 1)} }

// record carries out a request on the attribute.
func (t *tracer) record(m *mount, q TraceRequest) error {
	if q.File == "" {
		return t.finish()
	}
	r, err := newRecording(m, q)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed && t.current.Load() == nil {
		select {
		case t.start <- r:
			t.last = r
			t.current.Store(r)
			return nil
		default: // the one before is being ended
		}
	}
	return errors.Join(errno.New("fs.trace", syscall.EBUSY), r.discard())
}

// finish ends the trace, and returns when its file is complete; ESRCH if there
// is none.
func (t *tracer) finish() error {
	t.mu.Lock()
	r := t.current.Swap(nil)
	t.mu.Unlock()
	if r == nil {
		return errno.New("fs.trace", syscall.ESRCH)
	}
	close(r.stop)
	<-r.done
	return nil
}

// show is how the last trace fares.
func (t *tracer) show() TraceStatus {
	t.mu.Lock()
	r := t.last
	t.mu.Unlock()
	if r == nil {
		return TraceStatus{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	s.Dropped = r.dropped.Load()
	return s
}

// run writes traces until ctx is done; then it ends the last one.
func (t *tracer) run(ctx context.Context) error {
	for {
		select {
		case r := <-t.start:
			t.carry(ctx, r)
		case <-ctx.Done():
			t.mu.Lock()
			t.closed = true
			t.mu.Unlock()
			select {
			case r := <-t.start: // made a moment ago
				t.carry(ctx, r)
			default:
			}
			return nil
		}
	}
}

// carry carries a trace to its end.
func (t *tracer) carry(ctx context.Context, r *recording) {
	err := r.run(ctx)
	t.current.CompareAndSwap(r, nil)
	r.close(err)
	close(r.done)
}
