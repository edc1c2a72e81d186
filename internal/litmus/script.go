package litmus

import (
	"fmt"
	"math/rand"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/history"
)

// place is a range of a file.
type place struct {
	name string
	history.Range
}

// part is the i-th of n parts of a place, the last of which has the rest.
func (x place) part(i, n int64) place {
	each := x.Len / n
	p := place{x.name, history.Range{Off: x.Off + i*each, Len: each}}
	if i == n-1 {
		p.Len = x.Len - i*each
	}
	return p
}

// The sizes at which something changes on a parallel file system, and their
// neighbours: byte, page, strip, stripe, and the largest FUSE request.
var sizes = []int64{1, 4095, 4096, 4097, 64<<10 - 1, 64 << 10, 64<<10 + 1, 256<<10 - 1, 256 << 10, 256<<10 + 1, 1<<20 - 1, 1 << 20, 1<<20 + 1}

// domain is where the second file domain of a file begins.
const domain = 4 << 20

// script writes a program down.
type script struct {
	Program
	rng     *rand.Rand
	mounts  []int // the mounts that nodes A, B and C are in this round
	x, y    place
	visible time.Duration // how long `eventual` may hide a write, with the tester's own unpunctuality; else 0
	jitter  time.Duration
	actors  []*actor
}

// newScript chooses where the nodes and places of a program lie.
func newScript(rng *rand.Rand, mounts int, visible time.Duration) *script {
	s := &script{rng: rng, visible: visible, mounts: rng.Perm(mounts)}
	if mounts == 2 {
		s.mounts = append(s.mounts, rng.Intn(2))
	}
	s.jitter = []time.Duration{0, 20 * time.Microsecond, 200 * time.Microsecond, time.Millisecond}[rng.Intn(4)]
	n := sizes[rng.Intn(4)]
	if rng.Intn(3) == 0 {
		n = sizes[rng.Intn(len(sizes))]
	}
	offs := []int64{0, 1, 4095, 64<<10 - 3, 256<<10 - 3, 1<<20 - 1, domain - n/2 - 1, domain}
	s.x = place{"x", history.Range{Off: offs[rng.Intn(len(offs))], Len: n}}
	s.y = place{"y", s.x.Range}
	if rng.Intn(2) == 0 {
		s.y = place{"x", history.Range{Off: s.x.end() + []int64{0, 1, 4096}[rng.Intn(3)], Len: n}}
	}
	s.Note = fmt.Sprintf("x [%d,%d), y %s [%d,%d)", s.x.Off, s.x.end(), s.y.name, s.y.Off, s.y.end())
	return s
}

func (x place) end() int64 { return x.Off + x.Len }

// The nodes of litmus tests. C is one of the others if there are two mounts.
const (
	nodeA = iota
	nodeB
	nodeC
)

// actor is a process of a script. Its methods add calls and return it.
type actor struct {
	*script
	proc, node int
	last       int            // its last step, -1 if none
	known      []int          // steps that the next one comes after
	wait       time.Duration  // before the next one
	fds        map[string]int // the open file by which it uses a name
	count      int            // of the file names that it gave
}

// on starts a process on a node.
func (s *script) on(node int) *actor {
	a := &actor{script: s, proc: len(s.actors), node: s.mounts[node], last: -1, fds: map[string]int{}}
	s.actors = append(s.actors, a)
	s.Nodes = append(s.Nodes, a.node)
	return a
}

// then is an arrow: what follows is made after all calls so far returned.
func (s *script) then() {
	for _, a := range s.actors {
		a.known = nil
		for _, b := range s.actors {
			if a != b && b.last >= 0 {
				a.known = append(a.known, b.last)
			}
		}
	}
}

// settle is an arrow that takes so long that `eventual` shows what was written.
func (s *script) settle() {
	s.then()
	for _, a := range s.actors {
		a.wait = s.visible
	}
}

func (a *actor) add(e history.Event) *actor {
	e.Proc, e.Node, e.After = a.proc, a.node, a.known
	d := a.wait
	if a.jitter > 0 {
		d += time.Duration(a.rng.Int63n(int64(a.jitter)))
	}
	a.last, a.known, a.wait = len(a.Steps), nil, 0
	a.Steps = append(a.Steps, Step{Event: e, Delay: d, Flat: strings.HasPrefix(e.Name, "log") || a.logs(e.FD)})
	return a
}

// logs reports whether an open file is one of appended records.
func (a *actor) logs(fd int) bool {
	for name, n := range a.fds {
		if n == fd && strings.HasPrefix(name, "log") {
			return true
		}
	}
	return false
}

func (a *actor) open(name string, flags int) *actor {
	a.count++
	a.fds[name] = a.count
	return a.add(history.Event{Op: history.Open, Name: name, FD: a.count, Flags: flags})
}

// create opens for reading and writing and makes the file if there is none.
func (a *actor) create(x place) *actor { return a.open(x.name, unix.O_RDWR|unix.O_CREAT) }

// reader opens for reading, in some rounds for writing too.
func (a *actor) reader(x place) *actor {
	return a.open(x.name, []int{unix.O_RDONLY, unix.O_RDONLY, unix.O_RDWR}[a.rng.Intn(3)])
}

// writer opens for reading and writing.
func (a *actor) writer(x place) *actor { return a.open(x.name, unix.O_RDWR) }

func (a *actor) at(op history.Op, x place) history.Event {
	return history.Event{Op: op, FD: a.fds[x.name], Off: x.Off, Len: x.Len}
}

func (a *actor) write(x place, value uint8) *actor { return a.put(history.Write, x, value) }
func (a *actor) store(x place, value uint8) *actor { return a.put(history.Store, x, value) }

func (a *actor) put(op history.Op, x place, value uint8) *actor {
	e := a.at(op, x)
	e.Value = value
	return a.add(e)
}

func (a *actor) append(x place, n int64, value uint8) *actor {
	return a.add(history.Event{Op: history.Append, FD: a.fds[x.name], Len: n, Value: value})
}

// sieve writes own as MPI libraries write data with holes: it reads the window
// around it and writes that back.
func (a *actor) sieve(window, own place, value uint8) *actor {
	a.read(window)
	e := a.at(history.Sieve, window)
	e.Own, e.Value = own.Range, value
	return a.add(e)
}

// incr reads a counter and writes one more.
func (a *actor) incr(x place) *actor { return a.read(x).add(a.at(history.Incr, x)) }

func (a *actor) read(x place) *actor { return a.add(a.at(history.Read, x)) }

// see reads what is part of the outcome.
func (a *actor) see(x place) *actor { return a.mark(a.at(history.Read, x)) }

// load sees through a mapping.
func (a *actor) load(x place) *actor { return a.mark(a.at(history.Load, x)) }

// mark adds a call whose result is part of the outcome.
func (a *actor) mark(e history.Event) *actor {
	e.Mark = true
	return a.add(e)
}

// size sees the size; that of n bytes is called full.
func (a *actor) size(x place, op history.Op, n int64) *actor {
	e := history.Event{Op: op, FD: a.fds[x.name], Len: n}
	if op == history.Stat {
		e.Name, e.FD = x.name, 0
	}
	return a.mark(e)
}

func (a *actor) fsync(x place) *actor {
	return a.add(history.Event{Op: history.Fsync, FD: a.fds[x.name]})
}
func (a *actor) close(x place) *actor {
	return a.add(history.Event{Op: history.Close, FD: a.fds[x.name]})
}
func (a *actor) forkClose(x place) *actor {
	return a.add(history.Event{Op: history.ForkClose, FD: a.fds[x.name]})
}
func (a *actor) truncate(x place, n int64) *actor {
	return a.add(history.Event{Op: history.Truncate, FD: a.fds[x.name], Len: n})
}

func (a *actor) chmod(x place, mode int) *actor {
	return a.add(history.Event{Op: history.Chmod, FD: a.fds[x.name], Flags: mode})
}

// dupClose duplicates the descriptor and closes the duplicate.
func (a *actor) dupClose(x place) *actor {
	a.count++
	a.add(history.Event{Op: history.Dup, FD: a.count, FD2: a.fds[x.name]})
	return a.add(history.Event{Op: history.Close, FD: a.count})
}

func (a *actor) lock(x place) *actor {
	e := a.at(history.Lock, x)
	e.Flags = unix.F_WRLCK
	return a.add(e)
}

func (a *actor) unlock(x place) *actor { return a.add(a.at(history.Unlock, x)) }

func (a *actor) rename(from, to string) *actor {
	return a.add(history.Event{Op: history.Rename, Name: from, To: to})
}

// opened lets P create the file and the others open it; some look at it.
func (s *script) opened(x place, p *actor, others ...*actor) {
	p.create(x)
	s.then()
	for _, q := range others {
		q.reader(x)
		s.warm(q, x)
	}
	s.then()
}

// shared is opened, with everybody a writer.
func (s *script) shared(x place, p *actor, others ...*actor) {
	p.create(x)
	s.then()
	for _, q := range others {
		q.writer(x)
		s.warm(q, x)
	}
	s.then()
}

// warm lets the process read in some rounds, so that its node may cache.
func (s *script) warm(a *actor, x place) {
	if s.rng.Intn(2) == 0 {
		a.read(x)
	}
}

// wide is x, long enough for n parts.
func (s *script) wide(n int64) place {
	x := s.x
	x.Len = max(x.Len, n)
	return x
}

// published lets both processes fsync, one after the other in either order.
func (s *script) published(x place, p, q *actor) {
	if s.rng.Intn(2) == 0 {
		p, q = q, p
	}
	s.then()
	p.fsync(x)
	s.then()
	q.fsync(x)
	s.settle()
}

// lockRead sees the place under a lock, so that every mode shows it.
func (a *actor) lockRead(x place) *actor {
	e := a.at(history.Lock, x)
	e.Flags = unix.F_RDLCK
	return a.add(e).see(x).unlock(x)
}

// opens tries to open; how that ends is part of the outcome.
func (a *actor) opens(x place) *actor {
	a.count++
	return a.mark(history.Event{Op: history.Open, Name: x.name, FD: a.count, Flags: unix.O_RDWR})
}
