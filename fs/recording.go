package fs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/trace"
)

// Bounds of a trace: calls that wait to be written, and bytes of the file.
const (
	traceQueue        = 1 << 15
	minTraceLimit     = 1 << 20
	traceBlock        = 128 << 10 // what the compressor may still have to write
	defaultTraceLimit = 256 << 20
	traceFlush        = time.Second // how late the file is at most
)

// recording writes one trace. Calls never wait for it: what it cannot take is
// counted.
type recording struct {
	file    *os.File
	out     *trace.Writer // used by run alone
	limit   int64
	base    time.Time // of the times in the trace
	baseNS  int64     // the same, since 1970
	queue   chan tracing
	stop    chan struct{} // closed to end it
	done    chan struct{} // closed when the file is complete
	dropped atomic.Uint64
	people  people

	files  map[uint64]bool   // handles that the trace knows; used by run alone
	procs  uint32            // processes that the trace knows; used by run alone
	opened map[uint64]uint32 // by open file: who opened it; used by run alone

	mu     sync.Mutex
	status TraceStatus // guarded by mu
}

// tracing is a call of which a recording is told. A nil one is of no interest.
type tracing struct {
	rec   *recording
	node  *node // that call.File is, if that is set
	begun time.Time
	pid   uint32 // of the thread
	uid   uint32
	call  trace.Call
}

func (r *recording) begin(ctx context.Context, n *node, o trace.Op) *tracing {
	c := &tracing{rec: r, node: n, begun: time.Now(), call: trace.Call{Op: o, File: n.handle}}
	if caller, ok := fuse.FromContext(ctx); ok {
		c.pid, c.uid = caller.Pid, caller.Uid
	}
	return c
}

// meet looks at the process that calls.
func (c *tracing) meet() { c.rec.people.meet(c.pid, c.node.m.ranks.Lookup(c.pid, c.uid)) }

// who is the id of the process that called. One that reads and writes by a file
// that another process has opened is looked at now; if it has exited, that other
// process stands for it. One that closes is not looked at: it may be about to
// execute a program, and then nobody can before it has been answered, which may
// take any time.
func (r *recording) who(c *tracing) uint32 {
	id := r.people.number(c.pid)
	switch c.call.Op {
	case trace.Open, trace.Create:
		r.opened[c.call.Open] = id
	case trace.Release:
		id = cmp.Or(id, r.opened[c.call.Open])
		delete(r.opened, c.call.Open)
	case trace.Flush:
		id = cmp.Or(id, r.opened[c.call.Open])
	default:
		if id == 0 && c.pid != 0 {
			id = r.people.find(c.pid, c.node.m.ranks.Lookup(c.pid, c.uid), r.opened[c.call.Open])
		}
	}
	return id
}

// of is c as a call on the file with a handle, 0 if it is not known.
func (c *tracing) of(handle uint64) *tracing {
	if c != nil && handle != 0 {
		c.call.File = handle
	}
	return c
}

// to is c with a second name.
func (c *tracing) to(name string) *tracing {
	if c != nil {
		c.call.To = name
	}
	return c
}

// got ends c, which moved n bytes or learned of a size.
func (c *tracing) got(n int64, e syscall.Errno) {
	if c != nil && e == 0 {
		c.call.N = n
	}
	c.end(e)
}

// end tells the recording that the call was answered.
func (c *tracing) end(e syscall.Errno) {
	if c == nil {
		return
	}
	c.call.Errno = e
	begun := c.begun.Sub(c.rec.base)
	c.call.Start = c.rec.baseNS + int64(begun)
	c.call.End = c.rec.baseNS + int64(time.Since(c.rec.base))
	select {
	case c.rec.queue <- *c:
	default:
		c.rec.dropped.Add(1)
	}
}

// placed is a context that takes note of where an append was put.
type placed struct {
	context.Context
	call *trace.Call
}

func (c *tracing) placing(ctx context.Context) context.Context { return placed{ctx, &c.call} }

// placedAt tells who waits for it, if anybody does, where an append was put.
func (c *call) placedAt(off int64) {
	if p, ok := c.parent.(placed); ok {
		p.call.Off = off
	}
}

// newRecording makes the file.
func newRecording(m *mount, q TraceRequest) (*recording, error) {
	if q.Limit == 0 {
		q.Limit = defaultTraceLimit
	}
	point := m.opts.Mountpoint
	if !filepath.IsAbs(q.File) || q.Limit < minTraceLimit || strings.HasPrefix(filepath.Clean(q.File)+"/", point+"/") {
		return nil, errno.New("fs.trace", syscall.EINVAL)
	}
	f, err := os.OpenFile(q.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	now := time.Now()
	r := &recording{
		file: f, limit: q.Limit, base: now, baseNS: now.UnixNano(),
		queue: make(chan tracing, traceQueue), stop: make(chan struct{}), done: make(chan struct{}),
		files: make(map[uint64]bool), opened: make(map[uint64]uint32),
		status: TraceStatus{Running: true, File: q.File},
	}
	v := m.client.View()
	host, _ := os.Hostname() // a trace of a host without a name has none
	r.out, err = trace.NewWriter(f, trace.Header{
		Node: host, Mountpoint: point, PID: os.Getpid(), Software: m.opts.Version,
		FSName: v.FSName, FSID: v.FSID, Consistency: m.opts.Consistency, Started: r.baseNS,
	})
	if err == nil {
		err = r.out.Flush()
	}
	if err != nil {
		return nil, errors.Join(err, r.discard())
	}
	return r, nil
}

// discard takes back a trace that was not begun.
func (r *recording) discard() error { return errors.Join(r.file.Close(), os.Remove(r.file.Name())) }

// run writes what is in the queue until the trace is ended, full or fails.
func (r *recording) run(ctx context.Context) error {
	tick := time.NewTicker(traceFlush)
	defer tick.Stop()
	for !r.full() {
		select {
		case c := <-r.queue:
			if err := r.write(&c); err != nil {
				return err
			}
		case <-tick.C:
			if err := r.flush(); err != nil {
				return err
			}
		case <-r.stop:
			return r.rest()
		case <-ctx.Done():
			return r.rest()
		}
	}
	return nil
}

// rest writes what is still in the queue.
func (r *recording) rest() error {
	for !r.full() {
		select {
		case c := <-r.queue:
			if err := r.write(&c); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}

func (r *recording) full() bool { return r.out.Written() > r.limit-traceBlock }

// write writes a call, and before that what it names for the first time.
func (r *recording) write(t *tracing) error {
	t.call.Proc = r.who(t)
	for _, p := range r.people.after(r.procs) {
		if err := r.out.Process(p); err != nil {
			return err
		}
		r.procs = p.ID
	}
	if t.call.File == t.node.handle && !r.files[t.call.File] {
		r.files[t.call.File] = true
		if err := r.out.File(t.call.File, t.node.Path(nil)); err != nil {
			return err
		}
	}
	r.mu.Lock()
	r.status.Calls++
	r.mu.Unlock()
	return r.out.Call(&t.call)
}

// flush makes the file readable up to here.
func (r *recording) flush() error {
	err := r.out.Flush()
	r.mu.Lock()
	r.status.Bytes = r.out.Written()
	r.mu.Unlock()
	return err
}

// close completes the file; err is what ended it.
func (r *recording) close(err error) {
	full := r.full()
	dropped := r.dropped.Load() + uint64(len(r.queue))
	if err == nil {
		err = r.out.Close(trace.Footer{Ended: r.baseNS + int64(time.Since(r.base)), Dropped: dropped, Full: full})
	}
	err = errors.Join(err, r.file.Close())
	r.mu.Lock()
	r.status.Running, r.status.Full, r.status.Bytes = false, full, r.out.Written()
	if err != nil {
		r.status.Error = err.Error()
	}
	r.mu.Unlock()
}
