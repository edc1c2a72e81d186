package ranks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/collective"
)

// Bounds. Processes and jobs beyond these are of no job; threads beyond are
// looked at each time that they call.
const (
	maxProcesses = 1 << 14
	maxThreads   = 1 << 10 // of one process
	maxJobs      = 1 << 10 // that live
	maxEnded     = 64      // that are kept for those who ask
)

const (
	lookers   = 4                     // goroutines that read /proc
	lookWait  = 20 * time.Millisecond // how long a call waits for them
	firstLook = 2 * time.Millisecond  // after which a process is looked at again
	linger    = 2 * time.Second       // without a process after which a job has ended
)

// Options configures a Table.
type Options struct {
	Kinds  int          // of calls that are counted for each job
	Logger *slog.Logger // nil discards
	// Changed is called when a job or ranks of it are seen for the first time,
	// Ended when no process of it has been there for two seconds, Forgotten when
	// nobody can ask for it any more. A job that has ended may change again.
	// They may be nil, are called without a lock, and must not block.
	Changed, Ended, Forgotten func(*Job)
}

// Table knows the processes that have called.
type Table struct {
	opt   Options
	log   *slog.Logger
	proc  procFS
	epoch time.Time
	asks  chan ask
	exits *exits
	busy  atomic.Int32 // lookers at work
	done  atomic.Int64 // when one was last done, ns since epoch

	mu    sync.RWMutex
	byTID map[uint32]*Process       // guarded by mu
	procs map[uint32]*Process       // by process id; guarded by mu
	jobs  map[collective.JobID]*Job // those that live and those that ended last; guarded by mu
	told  []named                   // in the order in which they were told; guarded by mu
}

// ask is a thread of which somebody wants to know the process.
type ask struct {
	tid, uid uint32
	again    *Process      // which is known, and to be looked at again; or nil
	reply    chan *Process // of capacity 1; nil: nobody waits
}

// New returns a table that knows nobody. It learns while Run runs.
func New(opt Options) (*Table, error) {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	proc, err := openProc()
	if err != nil {
		return nil, fmt.Errorf("ranks: %w", err)
	}
	exits, err := newExits()
	if err != nil {
		proc.close()
		return nil, fmt.Errorf("ranks: %w", err)
	}
	return &Table{
		opt: opt, log: opt.Logger, proc: proc, exits: exits, epoch: time.Now(), asks: make(chan ask),
		byTID: make(map[uint32]*Process), procs: make(map[uint32]*Process), jobs: make(map[collective.JobID]*Job),
	}, nil
}

// Close is for a table that is never run.
func (t *Table) Close() {
	t.exits.close()
	t.proc.close()
}

// Run keeps the table until ctx ends, and closes it. It must be called once.
func (t *Table) Run(ctx context.Context) error {
	var g errgroup.Group
	for range lookers {
		g.Go(func() error { t.answer(ctx); return nil })
	}
	g.Go(func() error { return t.forget(ctx) })
	g.Go(func() error { t.sweepJobs(ctx); return nil })
	<-ctx.Done()
	t.exits.close()
	err := g.Wait()
	t.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.procs {
		t.exitLocked(p)
	}
	return err
}

func (t *Table) now() int64 { return int64(time.Since(t.epoch)) }

// Known returns the process of a thread if it was seen before, else nil. It
// does not block. uid is the caller's.
func (t *Table) Known(tid, uid uint32) *Process {
	p := t.known(tid)
	if p == nil || p.who.Load().uid != uid {
		return nil
	}
	return p
}

// Lookup returns the process of a thread, or nil if nothing can be found out
// about it. It may block for a moment the first time. uid is the caller's.
func (t *Table) Lookup(tid, uid uint32) *Process {
	if tid == 0 { // the kernel's own, or another pid namespace's
		return nil
	}
	p := t.known(tid)
	if p == nil {
		p = t.ask(ask{tid: tid, uid: uid, reply: make(chan *Process, 1)})
	} else if due, then := p.next.Load(), t.after(p); t.now() >= due && p.next.CompareAndSwap(due, then) {
		select {
		case t.asks <- ask{tid: tid, uid: uid, again: p}:
		default: // the lookers are busy: with its next call
			p.next.CompareAndSwap(then, due)
		}
	}
	if p == nil || p.who.Load().uid != uid {
		return nil
	}
	return p
}

// after is when p is to be looked at again, if it was now.
func (t *Table) after(p *Process) int64 {
	now := t.now()
	return now + max(int64(firstLook), now-p.first)
}

func (t *Table) known(tid uint32) *Process {
	t.mu.RLock()
	p := t.byTID[tid]
	t.mu.RUnlock()
	switch {
	case p == nil:
		return nil
	case p.pid != tid && !p.hasThread(tid), p.pidfd < 0 && !t.same(p):
		return nil
	}
	return p
}

// same reports whether the process with the number of p still is p.
func (t *Table) same(p *Process) bool {
	st, err := t.proc.stat(p.pid)
	return err == nil && st.started == p.started
}

// ask has a looker look, and waits a moment for what it finds. If all lookers
// are stuck it does not.
func (t *Table) ask(a ask) *Process {
	if t.busy.Load() == lookers && t.now()-t.done.Load() > int64(lookWait) {
		return nil
	}
	timeout := time.NewTimer(lookWait)
	defer timeout.Stop()
	select {
	case t.asks <- a:
	case <-timeout.C:
		return nil
	}
	select {
	case p := <-a.reply:
		return p
	case <-timeout.C:
		return nil
	}
}

// answer looks at processes until ctx ends.
func (t *Table) answer(ctx context.Context) {
	buf := make([]byte, 0, 16<<10)
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-t.asks:
			t.busy.Add(1)
			var p *Process
			p, buf = t.look(a, buf[:0])
			t.busy.Add(-1)
			t.done.Store(t.now())
			if a.reply != nil {
				a.reply <- p
			}
		}
	}
}

// forget drops processes that exit until ctx ends.
func (t *Table) forget(ctx context.Context) error {
	for {
		gone, err := t.exits.next()
		if ctx.Err() != nil || errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("ranks: %w", err)
		}
		t.mu.Lock()
		for _, x := range gone {
			if p := t.procs[x.pid]; p != nil && uint32(p.started) == x.started {
				t.exitLocked(p)
			}
		}
		t.mu.Unlock()
	}
}

func (t *Table) exitLocked(p *Process) {
	p.gone = true
	delete(t.procs, p.pid)
	for _, tid := range p.tids {
		if t.byTID[tid] == p {
			delete(t.byTID, tid)
		}
	}
	t.leaveLocked(p)
	if p.pidfd >= 0 {
		_ = unix.Close(p.pidfd)
	}
}

// sweepJobs ends jobs whose processes are gone, and forgets processes that
// have no pidfd, until ctx ends.
func (t *Table) sweepJobs(ctx context.Context) {
	tick := time.NewTicker(linger / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		t.dropUnwatched()
		ended, forgotten := t.endJobs(time.Now())
		each(ended, t.opt.Ended)
		each(forgotten, t.opt.Forgotten)
	}
}

func (t *Table) dropUnwatched() {
	t.mu.RLock()
	var all []*Process
	for _, p := range t.procs {
		if p.pidfd < 0 {
			all = append(all, p)
		}
	}
	t.mu.RUnlock()
	all = slices.DeleteFunc(all, t.same)
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range all {
		if !p.gone {
			t.exitLocked(p)
		}
	}
}

func each(jobs []*Job, f func(*Job)) {
	if f == nil {
		return
	}
	for _, j := range jobs {
		f(j)
	}
}
