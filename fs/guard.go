package fs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// Guard is what a mount does about races in weak modes.
type Guard uint8

// From least to most.
const (
	GuardOff     Guard = iota // nothing, and does not look for them
	GuardWarn                 // log them
	GuardUpgrade              // log them and make the file strong
	GuardFail                 // log them and fail with RaceErrno
)

// RaceErrno is the error of a call that took part in a race, which no other call
// of zoidfs has.
const RaceErrno = syscall.EREMCHG

var guardNames = []string{"off", "warn", "upgrade", "fail"}

// String is the name of g in options.
func (g Guard) String() string { return guardNames[g] }

// ParseGuard returns the Guard of that name.
func ParseGuard(s string) (Guard, error) {
	if i := slices.Index(guardNames, s); i >= 0 {
		return Guard(i), nil
	}
	return GuardOff, fmt.Errorf("%q is none of %s", s, strings.Join(guardNames, ", "))
}

// Bounds of what a guard says and remembers.
const (
	raceLines = time.Second / 5 // between two lines of the log
	raceFiles = 1 << 16
	raceQueue = 64
)

// guard does what a mount's Guard says. The zero value is off.
type guard struct {
	what     Guard
	m        *mount
	races    atomic.Uint64
	upgrades chan uint64 // handles that are to be made strong

	mu    sync.Mutex
	files map[uint64]*node    // open ones, by handle; guarded by mu
	told  map[uint64]struct{} // handles that were in the log; guarded by mu
	last  time.Time           // of the last line; guarded by mu
}

func newGuard(what Guard) *guard {
	return &guard{what: what, upgrades: make(chan uint64, raceQueue), files: make(map[uint64]*node), told: make(map[uint64]struct{})}
}

// opened tells of an open file, for its name.
func (g *guard) opened(n *node) {
	if g.what == GuardOff || n == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.files[n.handle] = n
}

// closed tells that a handle of a file was released.
func (g *guard) closed(n *node) {
	if g.what == GuardOff || len(g.m.open.of(n.handle)) > 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.files, n.handle)
}

// race is told by the holder of a race, and returns what error it is to be.
func (g *guard) race(handle uint64, r ionclient.Race) error {
	g.races.Add(1)
	g.log(handle, r)
	switch g.what {
	case GuardUpgrade:
		select {
		case g.upgrades <- handle:
		default: // it will be raced on again
		}
	case GuardFail:
		return errno.Wrap("fs.guard", RaceErrno, fmt.Errorf("bytes [%d,%d) were %s by %s at the same time", r.Ext.Off, r.Ext.End(), raceWord(r), r.Node))
	}
	return nil
}

func raceWord(r ionclient.Race) string {
	if r.Wrote {
		return "written"
	}
	return "read"
}

// log says each file once, and not more than a few lines a second.
func (g *guard) log(handle uint64, r ionclient.Race) {
	now := time.Now()
	g.mu.Lock()
	_, again := g.told[handle]
	if again || now.Sub(g.last) < raceLines {
		g.mu.Unlock()
		return
	}
	if len(g.told) >= raceFiles {
		clear(g.told)
	}
	g.told[handle] = struct{}{}
	g.last = now
	n := g.files[handle]
	g.mu.Unlock()
	path := ""
	if n != nil {
		path = n.Path(nil)
	}
	g.m.log.Warn("race in a weak consistency mode: these bytes were used by another node with no synchronisation in between",
		"file", path, "handle", handle, "off", r.Ext.Off, "len", r.Ext.Len, "other", raceWord(r), "node", r.Node, "mountpoint", r.Mountpoint, "guard", g.what)
}

// run makes files strong until ctx is done.
func (g *guard) run(ctx context.Context) error {
	done := make(map[uint64]struct{})
	for {
		select {
		case <-ctx.Done():
			return nil
		case h := <-g.upgrades:
			if _, ok := done[h]; ok {
				continue
			}
			if len(done) >= raceFiles {
				clear(done)
			}
			if err := g.upgrade(ctx, h); err != nil {
				g.m.log.Warn("the file of a race could not be made strong", "handle", h, "err", err)
				continue
			}
			done[h] = struct{}{}
		}
	}
}

// upgrade makes a file strong for opens that follow, and has all nodes publish
// what they hold of it.
func (g *guard) upgrade(ctx context.Context, h uint64) error {
	m := g.m
	err := m.known.changeXattr(ctx, h, func(ctx context.Context) error {
		return m.client.SetXattr(ctx, h, consistency.Xattr, []byte(consistency.Strong.String()), 0)
	})
	if err != nil {
		return err
	}
	if err := m.held.PublishAll(ctx, h); err != nil {
		return err
	}
	return m.client.Recall(ctx, h, extent.ToEnd(0))
}
