package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/trace"
)

// Options say where and how.
type Options struct {
	Dir   string  // stands for the mount point of the trace
	Speed float64 // 2 is twice as fast as it was; 0 as fast as it goes
}

// Kind is what became of the calls of one kind.
type Kind struct {
	Calls  int           `json:"calls"`
	Differ int           `json:"differ"` // ended otherwise than in the trace
	Bytes  int64         `json:"bytes"`
	Took   time.Duration `json:"took_ns"`
	Then   time.Duration `json:"then_ns"` // how long they took in the trace
}

// Result is what became of a replay.
type Result struct {
	Took    time.Duration         `json:"took_ns"`
	Then    time.Duration         `json:"then_ns"`
	Kinds   map[trace.Op]*Kind    `json:"-"`
	Names   map[string]*Kind      `json:"calls"`
	Skipped int                   `json:"skipped"` // calls that are not made again
	First   map[trace.Op]Mismatch `json:"-"`       // for each kind, the first that ended otherwise
}

// Mismatch is a call that did not end as in the trace.
type Mismatch struct {
	Call trace.Call
	Err  error // nil if it succeeded and should have failed
}

// player is one replay.
type player struct {
	opt    Options
	traces []*trace.Trace
	begun  time.Time
	first  int64 // ns; when the trace begins

	mu    sync.Mutex
	cond  *sync.Cond
	order []int  // calls by End
	done  []bool // guarded by mu; by place in order
	upTo  int    // guarded by mu; so many of order are done
	files table
	res   Result // guarded by mu
}

// step is a call that is to be made.
type step struct {
	trace.At
	place int // in player.order
	after int // so many of player.order come before
	last  bool
}

// Run replays traces that Merge has put in order.
func Run(ctx context.Context, traces []*trace.Trace, calls []trace.At, opt Options) (Result, error) {
	if opt.Speed < 0 {
		return Result{}, errors.New("the speed is negative")
	}
	p := &player{opt: opt, traces: traces}
	p.cond = sync.NewCond(&p.mu)
	p.res = Result{Kinds: map[trace.Op]*Kind{}, Names: map[string]*Kind{}, First: map[trace.Op]Mismatch{}}
	steps := p.plan(calls)
	if len(steps) == 0 {
		return p.res, nil
	}
	if err := p.prepare(steps); err != nil {
		return p.res, err
	}
	byProc := map[string][]step{}
	for _, s := range steps {
		who := fmt.Sprint(s.Trace, " ", s.Proc)
		byProc[who] = append(byProc[who], s)
	}
	stop := context.AfterFunc(ctx, p.cond.Broadcast)
	defer stop()
	p.first, p.begun = steps[0].Start, time.Now()
	var group sync.WaitGroup
	for _, list := range byProc {
		group.Go(func() { p.process(ctx, list) })
	}
	group.Wait()
	p.files.closeAll()
	p.res.Took = time.Since(p.begun)
	for _, s := range steps {
		p.res.Then = max(p.res.Then, time.Duration(s.End-p.first))
	}
	for o, k := range p.res.Kinds {
		p.res.Names[o.String()] = k
	}
	return p.res, ctx.Err()
}

// plan chooses the calls that are made again, and says after which.
func (p *player) plan(calls []trace.At) []step {
	var steps []step
	flushes := map[[2]uint64]int{} // by trace and open file: the last flush so far
	for _, c := range calls {
		switch c.Op {
		case trace.Lookup, trace.Getattr, trace.Setattr, trace.Readlink, trace.Release:
			p.res.Skipped++
			continue
		case trace.Flush:
			flushes[[2]uint64{uint64(c.Trace), c.Open}] = len(steps)
		}
		steps = append(steps, step{At: c})
	}
	for _, i := range flushes {
		steps[i].last = true
	}
	p.order = make([]int, len(steps))
	for i := range p.order {
		p.order[i] = i
	}
	slices.SortStableFunc(p.order, func(a, b int) int { return cmp.Compare(steps[a].End, steps[b].End) })
	for place, i := range p.order {
		steps[i].place = place
	}
	for i := range steps {
		s := &steps[i]
		s.after, _ = slices.BinarySearchFunc(p.order, s.Start, func(k int, t int64) int { return cmp.Compare(steps[k].End, t) })
	}
	p.done = make([]bool, len(steps))
	return steps
}

// process makes the calls of one process.
func (p *player) process(ctx context.Context, list []step) {
	for i := range list {
		s := &list[i]
		if !p.wait(ctx, s) {
			return
		}
		begun := time.Now()
		n, err := p.files.do(p.opt.Dir, p.traces[s.Trace], s)
		p.ended(s, n, err, time.Since(begun))
	}
}

// wait returns when it is the turn of s; false if it never will be.
func (p *player) wait(ctx context.Context, s *step) bool {
	if p.opt.Speed > 0 {
		at := time.Duration(float64(s.Start-p.first) / p.opt.Speed)
		select {
		case <-time.After(time.Until(p.begun.Add(at))):
		case <-ctx.Done():
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.upTo < s.after && ctx.Err() == nil {
		p.cond.Wait()
	}
	return ctx.Err() == nil
}

// ended takes note of a call that has returned.
func (p *player) ended(s *step, n int64, err error, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.res.Kinds[s.Op]
	if k == nil {
		k = new(Kind)
		p.res.Kinds[s.Op] = k
	}
	k.Calls++
	k.Bytes += n
	k.Took += took
	k.Then += time.Duration(s.End - s.Start)
	var e syscall.Errno
	if err != nil && !errors.As(err, &e) {
		e = syscall.EIO
	}
	if e != s.Errno && !retried(s.Errno) {
		k.Differ++
		if _, ok := p.res.First[s.Op]; !ok {
			p.res.First[s.Op] = Mismatch{s.Call, err}
		}
	}
	p.done[s.place] = true
	for p.upTo < len(p.done) && p.done[p.upTo] {
		p.upTo++
	}
	p.cond.Broadcast()
}

// retried reports whether the kernel makes a call again that fails so, which
// then stands in the trace as well.
func retried(e syscall.Errno) bool { return e == syscall.ESTALE || e == syscall.EINTR }

// prepare makes what the trace uses and does not make: directories, and files
// of the length that was read.
func (p *player) prepare(steps []step) error {
	w := newWorld(p.opt.Dir)
	for i := range steps {
		s := &steps[i]
		t := p.traces[s.Trace]
		w.see(t.Name(&s.Call), s)
	}
	if err := w.make(); err != nil {
		return fmt.Errorf("prepare %s: %w", p.opt.Dir, err)
	}
	return nil
}
