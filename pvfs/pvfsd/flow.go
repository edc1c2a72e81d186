package pvfsd

import (
	"fmt"
	"math"
	"sync"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// flowTable is the writes of one connection that wait for data, by tag.
type flowTable struct {
	mu    sync.Mutex
	byTag map[int64]*writeFlow // guarded by mu
}

func (t *flowTable) add(f *writeFlow) (known, full bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.byTag[f.tag]; known {
		return true, false
	}
	if len(t.byTag) >= maxFlows {
		return false, true
	}
	t.byTag[f.tag] = f
	return false, false
}

func (t *flowTable) get(tag int64) *writeFlow {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byTag[tag]
}

func (t *flowTable) remove(f *writeFlow) {
	t.mu.Lock()
	delete(t.byTag, f.tag)
	t.mu.Unlock()
}

// drop ends every flow when the connection has ended.
func (t *flowTable) drop() {
	t.mu.Lock()
	flows := t.byTag
	t.byTag = make(map[int64]*writeFlow)
	t.mu.Unlock()
	for _, f := range flows {
		f.end()
	}
}

// writeFlow is one write by IO. It is
//
//	new      registered; data that come are kept           begin -> waiting, working or ended
//	waiting  nothing to do until data come                  push  -> working
//	working  one goroutine writes what came                 work  -> waiting or ended
//	ended    data that come are dropped
type writeFlow struct {
	c   *conn
	tag int64
	h   wire.Handle

	mu    sync.Mutex
	state flowState // guarded by mu
	came  []*[]byte // data not yet written; guarded by mu

	// Owned by the goroutine that is in begin or work.
	r     *runs
	segs  []extent.Extent
	total int64
	err   error // the first failure; data are passed over from then on
}

type flowState int

const (
	flowNew flowState = iota
	flowWaiting
	flowWorking
	flowEnded
)

// push hands over the data in b. If it reports true the caller must see to it
// that work runs.
func (f *writeFlow) push(b *[]byte) bool {
	f.mu.Lock()
	state := f.state
	if state != flowEnded {
		f.came = append(f.came, b)
	}
	if state == flowWaiting {
		f.state = flowWorking
	}
	f.mu.Unlock()
	if state == flowEnded {
		f.free(b)
	}
	return state == flowWaiting
}

func (f *writeFlow) free(b *[]byte) {
	f.c.s.bufs.Put(b)
	f.c.in.release()
}

// begin checks the request, responds and works off what came meanwhile.
func (f *writeFlow) begin(hdr *wire.RequestHeader, req *wire.IOReq) {
	size, err := f.c.s.beginTransfer(hdr, req.FSID, req.Handle, req.Dir)
	if err == nil {
		f.r, err = newRuns(&req.Dist, &req.Type, req.ServerNr, req.ServerCt, req.Offset, req.Aggregate)
	}
	if err == nil {
		_, err = f.r.peek()
	}
	if err != nil {
		f.end()
		f.c.respond(f.tag, wire.OpIO, nil, err)
		return
	}
	f.c.respond(f.tag, wire.OpIO, &wire.IOResp{BstreamSize: size}, nil)
	f.mu.Lock()
	f.state = flowWorking
	f.mu.Unlock()
	if !f.finished() {
		f.work()
	}
}

// work writes what came until nothing is left.
func (f *writeFlow) work() {
	for {
		f.mu.Lock()
		if len(f.came) == 0 {
			if f.state == flowWorking {
				f.state = flowWaiting
			}
			f.mu.Unlock()
			return
		}
		b := f.came[0]
		f.came = f.came[1:]
		f.mu.Unlock()
		f.write(*b)
		f.free(b)
		if f.finished() {
			return
		}
	}
}

// write writes one message of data.
func (f *writeFlow) write(data []byte) {
	segs, n, err := f.r.next(f.segs, int64(len(data)), math.MaxInt64)
	f.segs = segs
	if err == nil && n < int64(len(data)) {
		err = errno.Wrap("pvfsd.io", syscall.EPROTO, fmt.Errorf("%d bytes more than announced", int64(len(data))-n))
	}
	if f.err == nil && err == nil && n > 0 {
		err = f.c.s.writeSegments(f.h, segs, data[:n])
	}
	if f.err == nil {
		f.err = err
	}
	if f.err == nil {
		f.total += n
		f.c.s.stats.bytesWritten.Add(n)
	}
}

// finished sends the completion once all data were there.
func (f *writeFlow) finished() bool {
	left, err := f.r.peek()
	if err == nil && !left.Empty() {
		return false
	}
	if f.err == nil {
		f.err = err
	}
	if f.err == nil && f.c.s.syncData() {
		f.err = f.c.s.streams.flush(f.h)
	}
	f.end()
	status := statusFor(f.err)
	frame := wire.AppendResponseFrame(make([]byte, 0, 64), f.tag, wire.OpWriteCompletion, status, &wire.WriteCompletionResp{Total: f.total})
	f.c.queue.add(message{head: frame})
	return true
}

// end forgets the flow and drops what came for it.
func (f *writeFlow) end() {
	f.c.flows.remove(f)
	f.mu.Lock()
	f.state = flowEnded
	came := f.came
	f.came = nil
	f.mu.Unlock()
	for _, b := range came {
		f.free(b)
	}
}
