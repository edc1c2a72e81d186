package fs

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/fs/device"
	"github.com/zoidfs/zoidfs/fs/ranks"
)

// How long an interrupted call goes on before the sweeper looks whether its
// caller is about to die, and how long if it cannot know.
const (
	sweepInterval = 200 * time.Millisecond
	unknownGrace  = 2 * time.Second
	// unheard is after how many sweeps, and how often, a caller is looked at that has
	// not interrupted its call: over io_uring the kernel forgets an interrupt that
	// comes before the request has been passed on.
	unheard = int(time.Second / sweepInterval)
)

// call is one request of an application in progress, and the context under
// which I/O nodes are asked on its behalf.
//
// The kernel interrupts a request for any signal, also one that the caller
// handles and survives: the Go runtime sends itself SIGURG all the time. On a
// local file system such a signal never ends a create or a write halfway, and
// programs are not written to expect it; redoing a rename that was carried out
// already gives ENOENT. So an interrupt alone does not end a call. It ends
// when its caller is about to die of a signal, which keeps Ctrl-C working
// while an I/O node is away. Waiting for a lock is different, see Setlkw.
type call struct {
	calls  *calls
	parent context.Context // go-fuse's; its Done is the interrupt
	pid    uint32          // thread that waits; 0 is unknown
	sure   bool            // not ended by signals: an unlock, a close

	process *ranks.Process    // on whose behalf; nil: nothing is known of it
	caller  collective.Caller // process; zero: of no job

	index       int       // into calls.active; guarded by calls.mu
	interrupted time.Time // of the sweeper's first sight of it; guarded by calls.mu

	dead   atomic.Bool   // the call must end
	doomed chan struct{} // closed when dead; nil: nobody waits for that; guarded by calls.mu
	waits  bool          // the device knows that it waits; guarded by calls.mu
	sweeps int           // that have seen it; guarded by calls.mu
	wake   func()        // ends a wait that any signal ends; nil: it is no such; guarded by calls.mu
	over   bool          // guarded by calls.mu
}

// calls is the set of calls in progress of one mount.
type calls struct {
	dev   *device.Device // that they come from; nil: from none
	rings bool           // they come over io_uring

	mu     sync.Mutex
	active []*call // guarded by mu
	closed bool    // guarded by mu; new calls are born dead
}

// begin makes a call on behalf of the request that ctx, go-fuse's, belongs to.
// The caller calls end when it is over.
func (cs *calls) begin(ctx context.Context, sure bool) *call {
	c := &call{calls: cs, parent: ctx, sure: sure}
	if caller, ok := fuse.FromContext(ctx); ok {
		c.pid = caller.Pid
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.index = len(cs.active)
	cs.active = append(cs.active, c)
	if cs.closed {
		c.doomLocked()
	}
	return c
}

// end takes c off the list.
func (c *call) end() {
	cs := c.calls
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.over = true
	last := len(cs.active) - 1
	cs.active[c.index] = cs.active[last]
	cs.active[c.index].index = c.index
	cs.active[last] = nil
	cs.active = cs.active[:last]
}

// waitsLocked tells the device that c waits for something. calls.mu is held.
func (c *call) waitsLocked() {
	if c.calls.dev != nil && !c.waits && !c.over {
		c.waits = true
		c.calls.dev.Waits(c.parent.Done())
	}
}

// doomLocked has c end. calls.mu is held.
func (c *call) doomLocked() {
	if c.dead.CompareAndSwap(false, true) && c.doomed != nil {
		close(c.doomed)
	}
}

func (c *call) doom() {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	c.doomLocked()
}

// Deadline, Done, Err and Value make call a context.Context.
func (c *call) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done is closed when the call must end. Only who waits for something asks for it.
func (c *call) Done() <-chan struct{} {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	c.waitsLocked()
	if c.doomed == nil {
		c.doomed = make(chan struct{})
		if c.dead.Load() {
			close(c.doomed)
		}
	}
	return c.doomed
}

// Err is context.Canceled once the call must end.
func (c *call) Err() error {
	if c.dead.Load() {
		return context.Canceled
	}
	return nil
}

// Value returns on whose behalf the call is, and else what go-fuse's context
// has under key.
func (c *call) Value(key any) any {
	if key == (collective.CallerKey{}) {
		return c.caller // no caller and the zero one mean the same
	}
	return c.parent.Value(key)
}

// onBehalf says whose call c is, and counts it for the job of that process.
func (c *call) onBehalf(p *ranks.Process, o op) *call {
	c.process = p
	if j := p.Job(); j != nil {
		j.Calls[o].Add(1)
		c.caller = p.Caller()
	}
	return c
}

// wokenBy has wake called if a signal is sent to the caller of c.
func (c *call) wokenBy(wake func()) {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	c.wake = wake
}

// run looks after interrupted calls until ctx is done.
func (cs *calls) run(ctx context.Context) error {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			cs.sweep(now, signals)
		}
	}
}

// suspect is a call whose caller a sweep looks at.
type suspect struct {
	*call
	since time.Time // when it was seen to be interrupted; zero: it was not
	wake  func()
}

// sweep ends the interrupted calls whose caller will not live to see the reply, by
// the signals that look says it has.
func (cs *calls) sweep(now time.Time, look func(pid uint32) pendingSignals) {
	for _, s := range cs.suspects(now) {
		if s.pid == 0 {
			if !s.since.IsZero() && now.Sub(s.since) >= unknownGrace {
				s.doom()
			}
			continue
		}
		switch sig := look(s.pid); {
		case s.wake != nil && sig != noSignal:
			s.wake()
		case !s.sure && sig == deadlySignal:
			s.doom()
		}
	}
}

// suspects are the calls in progress that have been interrupted, or of whose
// interrupts nothing may have been heard.
func (cs *calls) suspects(now time.Time) (found []suspect) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, c := range cs.active {
		if c.sweeps++; c.sweeps > 1 {
			c.waitsLocked() // for what has no Done
		}
		select {
		case <-c.parent.Done():
			if c.interrupted.IsZero() {
				c.interrupted = now
			}
		default:
			if !cs.rings || c.sweeps%unheard != 0 {
				continue
			}
		}
		if !c.sure || c.wake != nil {
			found = append(found, suspect{c, c.interrupted, c.wake})
		}
	}
	return found
}

// closeAll ends every call, now and to come.
func (cs *calls) closeAll() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.closed = true
	for _, c := range cs.active {
		c.doomLocked()
	}
}

// pendingSignals is what signals a thread has pending that it does not ignore or block.
type pendingSignals int

const (
	noSignal     pendingSignals = iota
	someSignal                  // that it handles
	deadlySignal                // or the thread is gone
)

// signals looks at those of the thread pid. Source: proc_pid_status(5), signal(7).
func signals(pid uint32) pendingSignals {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		if os.IsNotExist(err) {
			return deadlySignal
		}
		return noSignal
	}
	return pendingIn(string(b))
}

// pendingIn reads the signal masks of a /proc/PID/status. A deadly signal
// shows as a pending SIGKILL of each thread, unless it dumps core.
func pendingIn(status string) pendingSignals {
	masks := map[string]uint64{}
	for line := range strings.Lines(status) {
		key, val, ok := strings.Cut(line, ":")
		if !ok || !strings.HasPrefix(key, "Sig") && key != "ShdPnd" {
			continue
		}
		var m uint64
		if _, err := fmt.Sscanf(strings.TrimSpace(val), "%x", &m); err == nil {
			masks[key] = m
		}
	}
	kill := signalBit(syscall.SIGKILL) // which nobody blocks
	pending := (masks["SigPnd"] | masks["ShdPnd"]) &^ ((masks["SigBlk"] | masks["SigIgn"]) &^ kill)
	handled := masks["SigCgt"] &^ kill
	for _, s := range []syscall.Signal{
		syscall.SIGCHLD, syscall.SIGCONT, syscall.SIGURG, syscall.SIGWINCH,
		syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU,
	} {
		handled |= signalBit(s)
	}
	switch {
	case pending&^handled != 0:
		return deadlySignal
	case pending != 0:
		return someSignal
	}
	return noSignal
}

func signalBit(s syscall.Signal) uint64 { return 1 << (uint(s) - 1) }
